"""Tables of others: a data set on the hub, or local files with the same columns, read row by row and never whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acelib.core import DataError, first_line, hub_problem, path_digest
from acelib.schema import Row

KINDS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Source:
    """A data set at one fixed state: `version` is the hub's commit, or the SHA-256 of the local files."""

    name: str
    version: str
    files: tuple[str, ...] = ()

    def rows(self, skip: int = 0) -> Iterator[Row]:
        """The rows from number `skip` on. Raises DataError, also in the middle."""
        from datasets import load_dataset

        number = skip
        try:
            if self.files:
                kind = KINDS[Path(self.files[0]).suffix]
                table = load_dataset(kind, data_files=list(self.files), split="train", streaming=True)
            else:
                table = load_dataset(self.name, revision=self.version, split="train", streaming=True)
            for row in table.skip(skip):
                yield row
                number += 1
        except Exception as error:  # Arrow's, the hub's and the network's errors have no common ancestor
            said = f"{self.name} cannot be read after row {number:,} ({first_line(error)})"
            remedy = "mend the file, or check the network, and repeat the command"
            raise DataError(hub_problem(error, self.name, "data set") or f"{said}; {remedy}.") from error


def open_source(name: str) -> Source:
    """A data set by its hub name, or a .jsonl, .json or .parquet file, or a folder of such files of one kind.

    Raises DataError when there is none, or when the hub cannot be reached or asks for a login.
    """
    path = Path(name)
    if path.exists():
        found = sorted(one for one in path.rglob("*") if one.suffix in KINDS) if path.is_dir() else [path]
        if len({one.suffix for one in found} & KINDS.keys()) != 1:
            raise DataError(
                f"{name} holds no table, or several kinds; give a .jsonl or .parquet file, or files of one kind."
            )
        return Source(name, path_digest(path), tuple(map(str, found)))
    if path.suffix in KINDS or path.is_absolute() or name.count("/") != 1:
        raise DataError(f"There is no file {name}; check the path, or give a hub name such as owner/name.")
    from huggingface_hub import HfApi

    try:
        return Source(name, HfApi().dataset_info(name).sha)
    except Exception as error:
        said = f"The hub cannot be asked for {name} ({first_line(error)}); give a local .jsonl or .parquet file."
        raise DataError(hub_problem(error, name, "data set") or said) from error


def read_split(name: str, split: str) -> list[Row]:
    """All rows of one split of a hub data set, or of a folder laid out like one.

    A data set without that split gives its only one. The hub's cache keeps it, so that what was read once can be read
    without a network. Raises DataError.
    """
    from datasets import load_dataset

    try:
        tables = load_dataset(name)
    except Exception as error:  # as above
        if not Path(name).exists():
            open_source(name)  # says what is wrong where the hub does
        raise DataError(f"{name} cannot be read ({first_line(error)}); check the network, or give a file.") from error
    if split not in tables and len(tables) > 1:
        raise DataError(f"{name} has no split {split}, only {', '.join(tables)}; give a file of the rows you mean.")
    return tables.get(split, next(iter(tables.values()))).to_list()
