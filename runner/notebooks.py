"""Reading notebooks as data: their parameters, their code, and what went wrong in one."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat

from acelib.core import ROOT, NotebookError

NOTEBOOKS = ROOT / "notebooks"
MADE_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}


def tags(cell: Any) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def read_notebook(path: Path) -> Any:
    """The notebook, as nbformat 4. Raises NotebookError."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise NotebookError(f"{path} is not a readable notebook ({error}); restore it, e.g. from git.") from None


def parameters(path: Path) -> dict[str, Any]:
    """Names and literal defaults of the one cell tagged `parameters`. Raises NotebookError.

    Papermill's `inspect_notebook` reads the first such cell only, and text where it holds an expression.
    """
    cells = [cell.source for cell in read_notebook(path).cells if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise NotebookError(f"{path.name} has {len(cells)} cells tagged `parameters`; it needs exactly one.")
    try:
        return {one.targets[0].id: ast.literal_eval(one.value) for one in ast.parse(cells[0]).body}
    except (AttributeError, ValueError):
        raise NotebookError(f"Write only `name = literal` into the parameters cell of {path.name}.") from None


def code(path: Path) -> list[str]:
    return [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]


def title(path: Path) -> str:
    """The first heading of the notebook, or its file name."""
    texts = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown"]
    found = re.search(r"^# (.*)", "\n".join(texts), re.MULTILINE)
    return found[1].strip() if found else path.stem


def failure(path: Path) -> tuple[str, str]:
    """Where an executed notebook stopped, and the error there ("" where none is noted).

    Cells count as the reader sees them: the first one of the source notebook is 1. A cell that was cut off shows no
    error, but a kernel without memory may have printed one.
    """
    where, cause = "before its first cell", ""
    if not path.exists():
        return where, cause
    try:
        cells = [cell for cell in read_notebook(path).cells if not MADE_BY_PAPERMILL & set(tags(cell))]
    except NotebookError:  # it was cut off, too
        return "in a cell that could not be noted", cause
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time"):
            where = f"in cell {number} (`{next(filter(str.strip, cell.source.splitlines()), '').strip()}`)"
            if errors := [one for one in cell.outputs if one.output_type == "error"]:
                return where, f"{errors[0].ename}: {errors[0].evalue}"
            printed = "".join(one.text for one in cell.outputs if one.output_type == "stream").rstrip()
            cause = printed.rpartition("\n")[2]
    return where, cause if re.match(r"[\w.]*(Error|Exception)\b", cause) else ""
