"""The rules for committed notebooks, and how a run's outputs get into them.

`notebooks/outputs.lock` holds, for each notebook, a digest of its code and of the acelib modules it uses at the time
its outputs were made; when the two part, the outputs no longer show what the code does.
"""

import ast
import json
import re
import time
from pathlib import Path
from typing import Any

import nbformat

from acelib.core import ROOT, CourseError, NotebookError, digest, load_profile, modules_digest, write_json
from acelib.course.notebooks import MADE_BY_PAPERMILL, code, parameters, read_notebook, tags
from acelib.course.runner import NOTEBOOKS, Course

MAX_LINES = 60
MAX_BYTES = 1_000_000
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = {"profile": "pocket", "run_dir": "../runs/pocket"}
PRIVATE_PATH = re.compile(r"(?<![\w.~])/(?:home|Users|root|tmp|var/folders)/[\w.-]+")
LOCK = NOTEBOOKS / "outputs.lock"


def lint(folder: Path = NOTEBOOKS) -> list[str]:
    """Every breach of a rule as `notebook: what is wrong and how to mend it`."""
    lock_path = folder / LOCK.name
    lock = json.loads(lock_path.read_text(encoding="utf-8")) if lock_path.exists() else {}
    found = []
    for path in sorted(folder.glob("*.ipynb")):
        try:
            problems = [*_form(path), *_cells(path), *_links(path)]
            if lock.get(path.stem) != source_digest(path):
                problems.append("its outputs were not made by its present code; run `make notebooks`")
        except CourseError as error:
            problems = [str(error)]
        found += [f"{path.name}: {problem}" for problem in problems]
    return found


def source_digest(path: Path) -> str:
    """Digest of a notebook's code and of the acelib modules it imports, directly or not."""
    cells = code(path)
    modules = []
    for cell in cells:
        for node in ast.walk(ast.parse(_without_magic(cell))):
            if isinstance(node, ast.ImportFrom) and node.module:
                modules += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            elif isinstance(node, ast.Import):
                modules += [name.name for name in node.names]
    return digest([cells, modules_digest(sorted({name for name in modules if name.startswith("acelib.")}))])


def _without_magic(cell: str) -> str:
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in cell.splitlines())


def _form(path: Path) -> list[str]:
    notebook, problems = read_notebook(path), []
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        problems.append(f"not valid nbformat ({error.message}); save it from JupyterLab")
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        problems.append("older than nbformat 4.5; save it from JupyterLab")
    kernel = notebook.metadata.get("kernelspec", {})
    if any(kernel.get(key) != value for key, value in KERNEL.items()):
        problems.append(f"its kernelspec must be {json.dumps(KERNEL)}")
    if "papermill" in notebook.metadata or "widgets" in notebook.metadata:
        problems.append("papermill or widget metadata left over; run `make notebooks`")
    if PRIVATE_PATH.search(json.dumps(notebook.metadata)) or str(ROOT) in json.dumps(notebook.metadata):
        problems.append("its metadata holds a path of somebody's machine; remove it")
    if path.name[:2].isdigit() and parameters(path) != PARAMETERS:
        problems.append(f"its parameters cell must hold exactly {PARAMETERS}")
    if path.stat().st_size > MAX_BYTES:
        problems.append(f"{path.stat().st_size} bytes, more than {MAX_BYTES}; draw fewer or smaller figures")
    return problems


def _cells(path: Path) -> list[str]:
    problems = []
    for number, cell in enumerate(read_notebook(path).cells, start=1):
        lines = len(cell.source.splitlines())
        if lines > MAX_LINES:
            problems.append(f"cell {number} has {lines} lines, more than {MAX_LINES}; split it")
        if MADE_BY_PAPERMILL & set(tags(cell)) or "papermill" in cell.metadata:
            problems.append(f"cell {number} has left-overs of papermill; run `make notebooks`")
        if cell.cell_type == "code":
            if re.search(r"\btqdm\.(auto|notebook)\b|\bipywidgets\b", cell.source):
                problems.append(f"cell {number} uses widgets; use plain prints")
            problems += [f"cell {number} {problem}" for problem in _outputs(cell.outputs)]
    return problems


def _outputs(outputs: list[Any]) -> list[str]:
    problems = set()
    for output in outputs:
        if output.output_type == "error":
            problems.add("shows an error; mend it and run `make notebooks`")
        if output.get("name") == "stderr":
            problems.add("shows a warning; mend its cause or filter it by name")
        data = output.get("data", {})
        if any("jupyter.widget" in kind for kind in data):
            problems.add("shows a widget; use plain prints")
        text = output.get("text", "") + "".join(str(one) for kind, one in data.items() if not kind.startswith("image/"))
        if PRIVATE_PATH.search(text) or str(ROOT) in text:
            problems.add("shows a path of somebody's machine; print relative paths")
    return sorted(problems)


def _links(path: Path) -> list[str]:
    problems = []
    for cell in read_notebook(path).cells:
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", cell.source) if cell.cell_type == "markdown" else ():
            if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                problems.append(f"links to {target}, which does not exist")
    return problems


def refresh(run_dir: Path | None = None) -> list[str]:
    """Put the outputs of a run into the committed notebooks, with the lock and the cost table.

    Raises NotebookError when the run was not plain `pocket`, or a notebook or what it uses has changed since.
    """
    run_dir = run_dir or ROOT / "runs" / "pocket"
    executed = sorted((run_dir / "notebooks").glob("*.ipynb"))
    if not executed:
        raise NotebookError(f"{run_dir} holds no executed notebooks; run `make course` first.")
    course = Course(str(run_dir / "profile.yaml"), run_dir=run_dir, folder=NOTEBOOKS)
    if course.profile != load_profile("pocket"):
        raise NotebookError(f"{run_dir} is a run of other values than profiles/pocket.yaml; run `make notebooks`.")
    lock = json.loads(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else {}
    told = []
    for path in executed:
        target = NOTEBOOKS / path.name
        notebook = _clean(read_notebook(path))
        same = [cell.source for cell in notebook.cells] == [cell.source for cell in read_notebook(target).cells]
        if not same or not course.up_to_date(target):
            raise NotebookError(f"{path.name}, or what it uses, has changed since it ran; run `make notebooks` again.")
        nbformat.write(notebook, target)
        lock[path.stem] = source_digest(target)
        told.append(f"{target.relative_to(ROOT)}: outputs refreshed")
    write_json(LOCK, dict(sorted(lock.items())))
    _write_costs(run_dir)
    return told


def _clean(notebook: Any) -> Any:
    notebook.cells = [cell for cell in notebook.cells if not MADE_BY_PAPERMILL & set(tags(cell))]
    version = notebook.metadata.get("language_info", {}).get("version", "")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    if version:
        notebook.metadata.language_info.version = version
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": tags(cell)} if tags(cell) else {})
        if cell.cell_type == "code":
            cell.outputs = [_relative(output) for output in cell.outputs]
    return notebook


def _relative(value: Any) -> Any:
    """Text of outputs with the checkout's own place cut out."""
    if isinstance(value, dict):
        return nbformat.from_dict({key: _relative(one) for key, one in value.items()})
    if isinstance(value, list):
        return [_relative(one) for one in value]
    return value.replace(f"{ROOT}/", "") if isinstance(value, str) else value


def _write_costs(run_dir: Path) -> None:
    from acelib.course.report import machine

    path = ROOT / "profiles" / "costs.json"
    costs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    notebooks = {
        name: {"seconds": one["seconds"], "peak_mb": one["peak_mb"]} for name, one in metrics["notebooks"].items()
    }
    costs[metrics["profile"]] = {
        "minutes": round(metrics["total_seconds"] / 60, 1),
        "peak_mb": metrics["peak_mb"],
        "machine": machine(),
        "measured": time.strftime("%Y-%m-%d"),
        "notebooks": notebooks,
    }
    write_json(path, costs)
