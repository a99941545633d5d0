"""Tables of others: a data set on the hub, or local files with the same columns, read row by row and never whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acelib.core import DataError, Row, hub_problem, in_short, path_digest
from acelib.data import hub_version

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
            said = f"{self.name} cannot be read after row {number:,} ({in_short(error)})"
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
    return Source(name, hub_version(name))
