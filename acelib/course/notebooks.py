"""Reading notebooks as data: which there are, their parameters, their code, and what went wrong in one."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from acelib.core import NotebookError

MADE_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}


def tags(cell: Any) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def read_notebook(path: Path) -> Any:
    """The notebook, as nbformat 4. Raises NotebookError."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:
        raise NotebookError(f"{path} is not a readable notebook ({error}); restore it, e.g. from git.") from None
    return notebook


def parameters(path: Path) -> dict[str, Any]:
    """Names and literal defaults of the one cell tagged `parameters`. Raises NotebookError."""
    cells = [cell for cell in read_notebook(path).cells if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise NotebookError(f"{path.name} has {len(cells)} cells tagged `parameters`; it needs exactly one.")
    values = {}
    for statement in ast.parse(cells[0].source).body:
        try:
            (target,) = statement.targets
            values[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            raise NotebookError(
                f"The parameters cell of {path.name} may hold only `name = literal`, not {ast.unparse(statement)!r}."
            ) from None
    return values


def check_parameters(path: Path, given: dict[str, Any]) -> None:
    """Papermill only warns about a parameter that a notebook lacks, and runs the defaults: refuse it here."""
    known = parameters(path)
    for name in given:
        if name not in known:
            raise NotebookError(f"{path.name} has no parameter {name!r}; its parameters are {', '.join(known)}.")


def code(path: Path) -> list[str]:
    return [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]


def title(path: Path) -> str:
    """The first heading of the notebook, or its file name."""
    for cell in read_notebook(path).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("# "):
                return line[2:].strip()
    return path.stem


@dataclass(frozen=True)
class Failure:
    cell: int  # as the reader counts: first cell of the source notebook is 1
    line: str  # the first line of that cell
    cause: str


def _last_words(cell: Any) -> str:
    """The error that a cell printed last, as a kernel does that has no memory left to report it."""
    lines = "".join(one.text for one in cell.outputs if one.output_type == "stream").strip().splitlines()
    return lines[-1] if lines and re.match(r"[\w.]*(Error|Exception)\b", lines[-1]) else ""


def failure(path: Path) -> Failure | None:
    """What stopped an executed notebook: its first error, or else the cell it was in when it was cut off."""
    if not path.exists():
        return None
    cells = [cell for cell in read_notebook(path).cells if not MADE_BY_PAPERMILL & set(tags(cell))]
    last = None
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type != "code":
            continue
        line = next((one for one in cell.source.splitlines() if one.strip()), "")
        for output in cell.outputs:
            if output.output_type == "error":
                return Failure(number, line, f"{output.ename}: {output.evalue}".strip())
        if cell.get("metadata", {}).get("papermill", {}).get("start_time"):
            last = Failure(number, line, _last_words(cell))
    return last
