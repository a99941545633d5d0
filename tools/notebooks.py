"""The rules for committed notebooks, and how a run's outputs get into them.

    python -m tools.notebooks lint               (a part of `make lint`)
    python -m tools.notebooks refresh [RUN_DIR]  (the end of `make notebooks`)

`notebooks/outputs.lock` holds, for each notebook, a digest of its code and of the acelib modules it uses at the time
its outputs were made; when the two part, the outputs no longer show what the code does.
"""

import ast
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from acelib.core import ROOT, CourseError, NotebookError, digest, load_profile, modules_digest, read_json, write_json
from runner.course import NOTEBOOKS, Course
from runner.notebooks import MADE_BY_PAPERMILL, code, parameters, read_notebook, tags

MAX_LINES = 30
MAX_BYTES = 1_000_000
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = {"profile": "pocket", "run_dir": "../runs/pocket"}
PRIVATE_PATH = re.compile(r"(?<![\w.~])/(?:home|Users|root|tmp|var/folders)/[\w.-]+")
WIDGETS = re.compile(r"\btqdm\.(auto|notebook)\b|\bipywidgets\b")
LOCK = NOTEBOOKS / "outputs.lock"
RECIPE = {  # the steps of the recipe and where they are taken, in the line under the titles of these notebooks
    "01_test_synthesis": "questions and tests",
    "02_test_filtering": "filtered tests",
    "03_preference_pairs": "samples and pairs",
    "04_reward_model": "reward model",
    "05_best_of_n": "best of N",
    "06_reinforcement_learning": "RL",
    "07_evaluation": "evaluation",
}
SCORECARD = re.compile(r"(?<=<!-- scorecard, by `make notebooks` -->\n).*?(?=<!-- scorecard ends -->)", re.DOTALL)


def where_am_i(stem: str) -> str:
    """The recipe in one line, with the step of the notebook `stem` in bold and links to the others."""
    steps = [f"**{said} (here)**" if name == stem else f"[{said}]({name}.ipynb)" for name, said in RECIPE.items()]
    return f"Seed programs → {' → '.join(steps[:5])}. Tests or reward model → {' → '.join(steps[5:])}."


def lint(folder: Path = NOTEBOOKS) -> list[str]:
    """Every breach of a rule as `notebook: what is wrong and how to mend it`."""
    lock, found = read_json(folder / LOCK.name), []
    for path in sorted(folder.glob("*.ipynb")):
        try:
            notebook = read_notebook(path)
            problems = [*_form(path, notebook)]
            for number, cell in enumerate(notebook.cells, start=1):
                problems += [f"cell {number} {problem}" for problem in _cell(cell, path.parent)]
            if lock.get(path.stem) != source_digest(path):
                problems.append("its outputs were not made by its present code; run `make notebooks`")
        except CourseError as error:
            problems = [str(error)]
        found += [f"{path.name}: {problem}" for problem in problems]
    return found


def source_digest(path: Path) -> str:
    """Digest of a notebook's code and of the acelib modules it imports, directly or not."""
    cells = code(path)
    lines = [line for cell in cells for line in cell.splitlines() if not line.lstrip().startswith(("%", "!"))]
    modules = set()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
    return digest([cells, modules_digest(sorted(name for name in modules if name.startswith("acelib.")))])


def _form(path: Path, notebook: Any) -> Iterator[str]:
    """Breaches by the notebook as a whole."""
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"not valid nbformat ({error.message}); save it from JupyterLab"
    metadata, size = notebook.metadata, path.stat().st_size
    kernel = metadata.get("kernelspec", {})
    rules = {
        "older than nbformat 4.5; save it from JupyterLab": (notebook.nbformat, notebook.nbformat_minor) < (4, 5),
        f"its kernelspec must be {json.dumps(KERNEL)}": KERNEL.items() - kernel.items(),
        "papermill or widget metadata left over; run `make notebooks`": {"papermill", "widgets"} & metadata.keys(),
        "its metadata holds a path of somebody's machine; remove it": _private(json.dumps(metadata)),
        f"{size} bytes, more than {MAX_BYTES}; draw fewer or smaller figures": size > MAX_BYTES,
        f"its parameters cell must hold exactly {PARAMETERS}": path.name[:2].isdigit()
        and parameters(path) != PARAMETERS,
    }
    yield from (problem for problem, broken in rules.items() if broken)


def _cell(cell: Any, folder: Path) -> Iterator[str]:
    """Breaches by one cell of a notebook in `folder`."""
    lines = len(cell.source.splitlines())
    rules = {
        f"has {lines} lines, more than {MAX_LINES}; split it": lines > MAX_LINES,
        "holds what papermill added; run `make notebooks`": MADE_BY_PAPERMILL & set(tags(cell))
        or "papermill" in cell.metadata,
    }
    if cell.cell_type == "markdown":
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", cell.source):
            near = "://" not in target and not target.startswith("mailto:")
            rules[f"links to {target}, which does not exist"] = near and not (folder / target).exists()
    elif cell.cell_type == "code":
        shown = [output.get("data", {}) for output in cell.outputs]
        texts = [output.get("text", "") for output in cell.outputs]
        texts += [str(one) for data in shown for kind, one in data.items() if not kind.startswith("image/")]
        rules |= {
            "uses widgets; use plain prints": WIDGETS.search(cell.source),
            "shows an error; mend it and run `make notebooks`": any(one.output_type == "error" for one in cell.outputs),
            "shows a warning; mend its cause or filter it by name": any(
                one.get("name") == "stderr" for one in cell.outputs
            ),
            "shows a widget; use plain prints": any("jupyter.widget" in kind for data in shown for kind in data),
            "shows a path of somebody's machine; print relative paths": any(map(_private, texts)),
        }
    yield from (problem for problem, broken in rules.items() if broken)


def _private(text: str) -> bool:
    """Whether a text shows where somebody keeps things."""
    return bool(PRIVATE_PATH.search(text)) or str(ROOT) in text


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
    lock, told = read_json(LOCK), []
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
    if any(path.name.startswith("07_") for path in executed):
        results = ROOT / "docs" / "results.md"
        text = SCORECARD.sub(lambda _: f"{scorecard_table()}\n", results.read_text(encoding="utf-8"))
        results.write_text(text, encoding="utf-8")
    metrics, costs = read_json(run_dir / "metrics.json"), ROOT / "profiles" / "costs.json"
    kept = ("seconds", "stages", "peak_mb")
    measured = {
        "minutes": round(metrics["total_seconds"] / 60, 1),
        "peak_mb": metrics["peak_mb"],
        "machine": metrics["machine"],
        "measured": time.strftime("%Y-%m-%d"),
        "notebooks": {name: {key: one[key] for key in kept} for name, one in metrics["notebooks"].items()},
    }
    write_json(costs, read_json(costs) | {metrics["profile"]: measured})
    return told


def scorecard_table() -> str:
    """The scorecard in Markdown, as the committed notebook 07 shows it."""
    (path,) = NOTEBOOKS.glob("07_*.ipynb")
    outputs = [one for cell in read_notebook(path).cells for one in cell.get("outputs", [])]
    texts = (one.get("data", {}).get("text/markdown", "") for one in outputs)
    return next(text for text in texts if text.startswith("| claim | the paper"))


def _clean(notebook: Any) -> Any:
    """Without what papermill added; what is printed in one piece; this checkout's own place cut out of the outputs."""
    notebook.cells = [cell for cell in notebook.cells if not MADE_BY_PAPERMILL & set(tags(cell))]
    language = {key: one for key, one in notebook.metadata.get("language_info", {}).items() if key == "version"}
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"} | language}
    for cell in notebook.cells:
        folded = {"jupyter": {"source_hidden": True}} if "hide-input" in tags(cell) else {}
        cell.metadata = folded | ({"tags": tags(cell)} if tags(cell) else {})
        if cell.cell_type == "code":
            CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)  # one table, one block
            cell.outputs = json.loads(json.dumps(cell.outputs).replace(json.dumps(f"{ROOT}/")[1:-1], ""))
    return nbformat.from_dict(notebook)


def main(words: list[str]) -> int:
    try:
        match words:
            case ["lint"]:
                problems = lint()
                print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
                return 1 if problems else 0
            case ["refresh", *run_dir] if len(run_dir) < 2:
                print(*refresh(*map(Path, run_dir)), sep="\n")
            case _:
                sys.exit(__doc__)
    except CourseError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
