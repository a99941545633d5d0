"""Writes the exercises of every notebook from their solutions: `python notebooks/solutions/build.py`.

A file of this folder belongs to the notebook of the same name. It is a notebook in jupytext's percent format, and runs
as it is. Between nbgrader's marks `### BEGIN SOLUTION` and `### END SOLUTION` stands what a reader has to write. In the
notebook the marked lines become `# Your code here`, and stand, folded, below the check that follows them.
"""

import re
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat

FOLDER = Path(__file__).parent
NOTEBOOKS = FOLDER.parent
TAG = "exercise"  # of every generated cell
CHECK = "exercise-check"
FOLD = "hide-input"  # of checks, which give answers away
MARKED = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION(?:\n|\Z)", re.M | re.S)
FOLDED = "<details>\n<summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"


def sources() -> list[Path]:
    """The files with solutions, in the order of the notebooks."""
    return sorted(path for path in FOLDER.glob("*.py") if path != Path(__file__))


def unsolved(text: str) -> str:
    """A source as the reader gets it."""
    return MARKED.sub(r"\1# Your code here\n\1...\n", text).rstrip("\n")


def solved(text: str) -> str:
    """A source without the marks."""
    return MARKED.sub(r"\2", text).rstrip("\n")


def exercise_cells(path: Path) -> list[Any]:
    """The cells that a file with solutions puts into its notebook."""
    cells, solution = [], ""
    for one in jupytext.read(path, fmt="py:percent").cells:
        kind = "markdown" if one.cell_type == "markdown" else "code"
        made = [(kind, unsolved(one.source), [TAG, *one.metadata.get("tags", [])])]
        if MARKED.search(one.source):
            solution = solved(one.source)
        elif CHECK in made[0][2]:
            made.append(("markdown", FOLDED.format(solution), [TAG]))
        for kind, source, tags in made:
            new = getattr(nbformat.v4, f"new_{kind}_cell")
            about = {"jupyter": {"source_hidden": True}, "tags": [*tags, FOLD]} if CHECK in tags else {"tags": tags}
            cells.append(new(source, id=f"exercise-{len(cells):02}", metadata=about))
    return cells


def with_exercises(notebook: Any, cells: list[Any]) -> Any:
    """The notebook with `cells` in the place of its exercises, before its last cell; outputs of the same code stay."""
    made = {cell.source: cell for cell in notebook.cells if cell.cell_type == "code"}
    for cell in cells:
        if cell.cell_type == "code" and cell.source in made:
            cell.outputs, cell.execution_count = made[cell.source].outputs, made[cell.source].execution_count
    rest = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", [])]
    notebook.cells = [*rest[:-1], *cells, rest[-1]]
    return notebook


def main(names: list[str]) -> None:
    for path in sources():
        if not names or path.stem in names:
            target = NOTEBOOKS / f"{path.stem}.ipynb"
            nbformat.write(with_exercises(nbformat.read(target, as_version=4), exercise_cells(path)), target)
            print(f"{target.relative_to(NOTEBOOKS.parent)}: exercises written")


if __name__ == "__main__":
    main(sys.argv[1:])
