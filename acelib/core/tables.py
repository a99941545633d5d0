"""Tables on disk: rows of Parquet and JSON-lines files, as dicts or as objects that know their columns."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from acelib.core.errors import DataError
from acelib.core.hub import load_explained

Row = dict[str, Any]


def read_rows(path: str | Path, of: type | None = None) -> list[Any]:
    """Rows of a .parquet, .jsonl or .jsonl.gz file: dicts, or what `of.from_row` makes of them.

    Raises DataError when it is missing, unreadable or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no table at {path}; check the path.")
    if path.suffix == ".parquet":
        rows = _read_parquet(path)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        rows = _read_json_lines(path)
    else:
        raise DataError(f"{path.name} ends in none of .parquet, .jsonl, .jsonl.gz; convert it to one of them.")
    return rows if of is None else [of.from_row(row, number) for number, row in enumerate(rows)]


def write_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Writes dicts, or objects with `to_row`, as .parquet or .jsonl, by suffix.

    Raises DataError when the rows differ in their columns.
    """
    path, rows = Path(path), [row if isinstance(row, dict) else row.to_row() for row in rows]
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            odd = ", ".join(sorted(row.keys() ^ rows[0].keys()))
            raise DataError(f"Row {number} differs from row 0 in the columns {odd}; give every row the same columns.")
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        raise DataError(f"{path.name} ends in neither .parquet nor .jsonl; pick one of the two.")


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow.parquet

    with load_explained(path, "is not a readable Parquet file", "delete it and make it again", "data set"):
        return pyarrow.parquet.read_table(path).to_pylist()


def _read_json_lines(path: Path) -> list[Row]:
    with load_explained(path, "is not a readable gzip file", "fetch it again", "data set"):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = []
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").split("\n"), start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number} is not JSON ({error.msg}); mend or drop the line.") from error
    return rows
