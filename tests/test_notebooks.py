"""The notebooks keep their promises: what they define is what acelib has, and all of them run."""

import ast
import importlib
import inspect
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
from itertools import islice

import pytest

from acelib.core.profiles import ROOT
from acelib.core.tables import read_rows, write_rows
from acelib.pocket.problems import compositions, phrase_question, true_tests
from acelib.sampling import pass_rates
from acelib.schema import Problem
from runner.course import NOTEBOOKS, Course
from runner.notebooks import code, read_notebook, tags
from runner.report import broken_promises, scorecard, write_report
from tools.notebooks import RECIPE, SCORECARD, scorecard_table, where_am_i

SAME_AS = "same-as:"


def taught():
    """(notebook, cell number, module path, source of the cell) of every cell that shows a function of acelib."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for number, cell in enumerate(read_notebook(path).cells, start=1):
            for tag in tags(cell):
                if tag.startswith(SAME_AS):
                    yield pytest.param(tag.removeprefix(SAME_AS), cell.source, id=f"{path.stem[:2]}-cell{number}")


def bare(definition):
    """A definition's syntax without its docstring."""
    body = definition.body
    if body and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0], "value", None), ast.Constant):
        definition.body = body[1:]
    return ast.dump(definition)


@pytest.mark.parametrize(("target", "source"), taught())
def test_a_taught_function_is_the_one_in_acelib(target, source):
    module, _, name = target.rpartition(".")
    original = getattr(importlib.import_module(module), name)
    here = [node for node in ast.parse(source).body if getattr(node, "name", None) == name]
    assert len(here) == 1, f"the cell must define {name} once"
    there = ast.parse(textwrap.dedent(inspect.getsource(original))).body[0]
    assert bare(here[0]) == bare(there), f"the cell's {name} and {target} differ; make them the same"


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ("09", "A6", {"effect", "world", "mean", "verdict", "bullet", "solves", "gained", "over_both", "told"}),
        ("09", "A4", {"effect", "mean", "bullet", "table"}),
        ("A6", "A4", {"effect", "trusted_tests", "agreement", "cross_fitted", "difference", "points", "against"}),
    ],
)
def test_what_a_notebook_takes_from_another_is_the_same_there(first, second, wanted):
    there, here = (
        {one.name: bare(one) for one in ast.parse("\n".join(code(path))).body if isinstance(one, ast.FunctionDef)}
        for number in (first, second)
        for path in NOTEBOOKS.glob(f"{number}_*.ipynb")
    )
    taken = (there.keys() & here.keys()) - {"costs", "question"}  # of its own
    assert taken >= wanted
    assert {name: here[name] for name in taken} == {name: there[name] for name in taken}


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path):
    tree = ast.parse("\n".join(code(path)))
    wanted = [
        (one.module, name.name)
        for one in ast.walk(tree)
        if isinstance(one, ast.ImportFrom) and one.module.startswith("acelib")
        for name in one.names
    ]
    assert wanted
    for module, name in wanted:
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(f"{module}.{name}")


def anchors(text):
    """What can be linked to in a Markdown text: its headings, as GitHub and MyST name them."""
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^#+ (.+?) *$", text, re.M)}


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_links_to_the_glossary_and_to_anchors_that_exist(path):
    texts = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown"]
    assert "](../docs/glossary.md)" in texts[0]
    for target, anchor in re.findall(r"\]\(([^)\s#]+\.md)#([^)\s]+)\)", "\n".join(texts)):
        assert anchor in anchors((path.parent / target).read_text()), f"{target} has no heading for #{anchor}"


@pytest.mark.parametrize("stem", RECIPE)
def test_a_notebook_of_the_recipe_says_under_its_title_which_step_it_is(stem):
    title, empty, line, *_ = read_notebook(NOTEBOOKS / f"{stem}.ipynb").cells[0].source.splitlines()
    assert (title[:2], empty, line) == ("# ", "", where_am_i(stem))
    assert re.findall(r"\*\*(.+?)\*\*", line) == [f"{RECIPE[stem]} (here)"]
    assert set(re.findall(r"\]\((\w+)\.ipynb\)", line)) == RECIPE.keys() - {stem}


def test_the_glossary_is_sorted_and_its_own_links_exist():
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = re.findall(r"^### (.+)$", text, re.M)
    assert len(terms) == len(set(terms)) and terms == sorted(terms, key=lambda one: re.sub(r"\W", "", one.lower()))
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors(text)


def test_the_scorecard_of_the_results_is_that_of_the_notebook():
    table = SCORECARD.search((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))[0]
    assert table == f"{scorecard_table()}\n" and len(re.findall(r"[+-]\d+\.\d \[[^]]+\]", table)) > 20


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_only_draws_is_folded_here_and_hidden_on_the_site(path):
    for cell in read_notebook(path).cells:
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert folded == ("hide-input" in tags(cell)), cell.id


def test_the_ideas_are_taught_where_they_are_used():
    told = {param.values[0].rpartition(".")[2] for param in taught()}
    ideas = {
        "filter_tests",
        "pass_at_k",
        "preference_pairs",
        "hard_quarter",
        "bradley_terry_loss",
        "expected_best",
        "reinforce_plus_plus_advantages",
        "paired_bootstrap",
    }
    assert ideas <= told


def test_a_notebook_without_acelib_says_what_to_do(tmp_path):
    """All open with the same four lines, which need nothing."""
    opened = {code(path)[1].partition("\n\n")[0] for path in NOTEBOOKS.glob("*.ipynb")}
    assert len(opened) == 1 and len(opened.copy().pop().splitlines()) == 4
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", opened.pop()], cwd=tmp_path, capture_output=True, text=True
    )
    (said,) = done.stderr.splitlines()
    assert done.returncode == 1 and said.startswith("Clone the repository, run `make install` there")


def test_a_notebook_alone_with_acelib_alone_says_what_to_do(tmp_path):
    """As with a wheel, which has neither profiles nor data, in a folder where nothing else lies."""
    shutil.copytree(ROOT / "acelib", tmp_path / "site" / "acelib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "empty").mkdir()
    (path,) = NOTEBOOKS.glob("01_*.ipynb")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code(path)[:2])],
        cwd=tmp_path / "empty",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    *trace, said = done.stderr.splitlines()
    assert said.endswith("`make install`, work there.") and "clone the repository" in said, done.stderr
    assert sum(line.startswith("  File ") for line in trace) <= 3 and not any((tmp_path / "empty").iterdir())


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("smoke")
    course = Course(str(ROOT / "tests" / "smoke.yaml"), run_dir=run_dir)
    course.run()
    for number in ("A1", "A2", "A3", "A4", "A5", "A6"):
        course.run(only=number)
    write_report(run_dir)
    return run_dir


@pytest.mark.timeout(1800)  # a hang, not slowness, is what it is for
def test_all_notebooks_run_on_tiny_values(smoke_run):
    names = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert {path.stem for path in (smoke_run / "notebooks").glob("*.ipynb")} == names
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    assert set(metrics["notebooks"]) == names
    assert all(one["seconds"] > 0 and one["peak_mb"] > 0 for one in metrics["notebooks"].values())
    assert metrics["scorecard"]


def test_the_report_stands_alone_and_shows_every_figure(smoke_run):
    page = (smoke_run / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and "@import" not in page
    figures = list((smoke_run / "figures").glob("*/*.png"))
    assert figures and page.count("data:image/png;base64,") == len(figures)
    assert "{{" not in re.sub(r"<figcaption>.*?</figcaption>|<td.*?</td>", "", page)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_later_notebooks_run_on_adopted_questions(tmp_path):
    """Those that notice: no seeds, no teacher, no laboratory, no unfiltered tests. Notebook 06 reads what 03 and 04
    wrote and nothing else; the policies it would train for 07 are put in its place."""
    problems = [
        Problem(
            f"adopted/{i}",
            phrase_question(random.Random(i), one, "solve", "x"),
            "solve",
            tuple(true_tests(one, "solve", 6, i)),
        )
        for i, one in enumerate(islice(compositions(0, "train"), 17))
    ]
    write_rows(tmp_path / "set.jsonl", problems)
    held_out = read_rows(ROOT / "data" / "benchmark.jsonl")[:4]
    write_rows(tmp_path / "bench.jsonl", [*held_out, held_out[0] | {"task_id": "x", "question": problems[-1].question}])
    overrides = {
        "data.adopt": str(tmp_path / "set.jsonl"),
        "data.benchmark": str(tmp_path / "bench.jsonl"),
        "data.laboratory": False,
        "data.seeds": "data/none.jsonl",
        "models.teacher": "data/none",
        "best_of_n.ns": [1, 2],
        "reinforce.questions": "mixed",
        "best_of_n.questions": 4,
        "evaluation.questions": 4,
        "judge.workers": 1,
    }
    course = Course(str(ROOT / "tests" / "smoke.yaml"), overrides, tmp_path / "run", out=io.StringIO())
    for number in ("03", "04", "05"):
        course.run(only=number)
    assert course.out.getvalue().count("adopted before, kept") == 2
    run = course.store
    counts = run.manifest("filtered")["adopted"]["counts"]
    assert counts[f"questions like one of {tmp_path / 'bench.jsonl'} (5), left out"] == 1
    assert [row["id"] for row in run.read("samples")] == [problem.id for problem in problems[:-1]]
    mixed = [row["id"] for row in run.read("samples") if len({rate == 1.0 for rate in pass_rates(row)}) == 2]
    assert mixed and [row["id"] for row in run.read("hard_questions")] == mixed
    assert run.manifest("reward_model_unfiltered")["inputs"].keys() >= {"pairs"}
    assert all(row["score"] == row["score_unfiltered"] for row in run.read("best_of_n"))
    assert not (run.dir / "figures" / "05_best_of_n" / "filter_ablation.png").exists()
    for name in ("policy_rule", "policy_rm"):
        run.folder(name, lambda path, _: shutil.copytree(ROOT / "data/models/policy", path, dirs_exist_ok=True))
    looks = [{"run": "rule", "step": step, "pass_at_1": 0.5, "solved": [0.5]} for step in range(3)]
    run.table("rl_log", lambda scratch: looks)
    course.run(only="07")
    verdicts = {row["key"]: row["verdict"] for row in run.read("scorecard")}
    assert verdicts["filter"] == verdicts["filtered_rm"] == "not testable here"
    assert verdicts["rm_average"] in ("holds", "not clear", "does not hold")
    write_report(run.dir)
    filtering, *_ = scorecard(run.dir)
    assert filtering["must_hold"] and filtering["verdict"] == "not testable: data were adopted"
    assert not any(filtering["claim"] in broken for broken in broken_promises(run.dir))
