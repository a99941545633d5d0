"""Functions that stand in a notebook and nowhere else, for their tests."""

import ast
from collections.abc import Callable

from acelib.core import ROOT
from acelib.course.notebooks import code


def notebook_function(number: str, name: str) -> Callable:
    """The function `name` of the notebook with that number; of the rest of the notebook only imports are run."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    nodes = ast.parse("\n".join(code(path))).body
    wanted = [one for one in nodes if isinstance(one, (ast.Import, ast.ImportFrom)) or getattr(one, "name", "") == name]
    found = {}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), found)
    return found[name]
