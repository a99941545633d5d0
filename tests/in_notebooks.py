"""Functions that stand in a notebook and nowhere else, for their tests."""

import ast
import tempfile
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from acelib.core import ROOT
from runner.notebooks import code


def notebook_function(number: str, name: str, *helpers: str) -> Callable:
    """The function `name` of that notebook, with those it calls there; of the rest of it only imports are run."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    nodes = ast.parse("\n".join(code(path))).body
    wanted = [
        one
        for one in nodes
        if isinstance(one, (ast.Import, ast.ImportFrom)) or getattr(one, "name", "") in (name, *helpers)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cells.py"
        file.write_text(ast.unparse(ast.Module(wanted, [])), encoding="utf-8")
        spec = spec_from_file_location(path.stem, file)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)
