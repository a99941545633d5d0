"""The notebook lint catches each thing it promises to catch."""

import json
import shutil

import nbformat
import pytest

from acelib.core import NotebookError
from tools import notebooks as rules
from tools.notebooks import lint

PARAMETERS = 'profile = "pocket"\nrun_dir = "../runs/pocket"'


def good(folder, name="01_a"):
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": dict(rules.KERNEL)})
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# A"),
        nbformat.v4.new_code_cell(PARAMETERS),
        nbformat.v4.new_code_cell("from acelib.core.errors import CourseError\nx = 1"),
    ]
    notebook.cells[1].metadata.tags = ["parameters"]
    return notebook, folder / f"{name}.ipynb"


def check(notebook, path):
    nbformat.write(notebook, path)
    (path.parent / "outputs.lock").write_text(json.dumps({path.stem: rules.source_digest(path)}))
    return lint(path.parent)


def test_a_good_notebook_passes(tmp_path):
    assert check(*good(tmp_path)) == []


WIDGET = "application/vnd.jupyter.widget-view+json"


def _output(**data):
    return nbformat.v4.new_output("display_data", data=data)


def _warning():
    return nbformat.v4.new_output("stream", name="stderr", text="TqdmWarning")


def _error():
    return nbformat.v4.new_output("error", ename="E", evalue="x")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda nb: nb.metadata.kernelspec.update(name="mine"), "kernelspec"),
        (lambda nb: nb.metadata.kernelspec.pop("language"), "kernelspec"),
        (lambda nb: nb.metadata.update(papermill={"x": 1}), "papermill or widget metadata"),
        (lambda nb: nb.metadata.update(where="/home/ada/course"), "metadata holds a path"),
        (lambda nb: nb.cells[1].metadata.update(tags=[]), "0 cells tagged `parameters`"),
        (lambda nb: nb.cells[2].metadata.update(tags=["parameters"]), "2 cells tagged `parameters`"),
        (lambda nb: nb.cells[1].update(source="profile = 'pocket'\nrun_dir = str(1)"), "only `name = literal`"),
        (lambda nb: nb.cells[1].update(source="profile = 'paper'\nrun_dir = 'x'"), "must hold exactly"),
        (lambda nb: nb.cells[2].update(source="x = 1\n" * 61), "cell 3 has 61 lines"),
        (lambda nb: nb.cells[2].metadata.update(tags=["injected-parameters"]), "what papermill added"),
        (lambda nb: nb.cells[2].metadata.update(papermill={}), "what papermill added"),
        (lambda nb: nb.cells[2].update(source="from tqdm.auto import tqdm"), "uses widgets"),
        (lambda nb: nb.cells[2].outputs.append(_output(**{WIDGET: {}})), "a widget"),
        (lambda nb: nb.cells[2].outputs.append(_output(**{"text/plain": "in /root/course/x"})), "path of somebody"),
        (lambda nb: nb.cells[2].outputs.append(_output(**{"image/png": "A" * 10**6})), "more than 1000000"),
        (lambda nb: nb.cells[2].outputs.append(_error()), "shows an error"),
        (lambda nb: nb.cells[2].outputs.append(_warning()), "shows a warning"),
        (lambda nb: nb.cells[0].update(source="[next](02_b.ipynb)"), "links to 02_b.ipynb"),
        (lambda nb: nb.update(nbformat_minor=4), "older than nbformat 4.5"),
    ],
)
def test_each_breach_is_named(tmp_path, spoil, said):
    notebook, path = good(tmp_path)
    spoil(notebook)
    found = check(notebook, path)
    assert any(said in one for one in found), found
    assert all(one.startswith("01_a.ipynb: ") for one in found)


def test_outputs_of_other_code_are_refused(tmp_path, monkeypatch):
    notebook, path = good(tmp_path)
    check(notebook, path)
    notebook.cells[2].source += " + 1"
    nbformat.write(notebook, path)
    assert lint(tmp_path) == ["01_a.ipynb: its outputs were not made by its present code; run `make notebooks`"]


def test_outputs_of_another_acelib_are_refused(tmp_path, monkeypatch):
    notebook, path = good(tmp_path)
    notebook.cells[2].source = "from acelib.pairs import pass_at_k"
    assert check(notebook, path) == []
    monkeypatch.setattr(rules, "modules_digest", lambda names: "of other sources")
    assert "its outputs were not made by its present code" in lint(tmp_path)[0]


def test_an_unreadable_notebook_is_named(tmp_path):
    (tmp_path / "01_a.ipynb").write_text("{")
    assert "not a readable notebook" in lint(tmp_path)[0]


def test_refresh_takes_outputs_and_leaves_papermill_behind(tmp_path, monkeypatch):
    committed, run = tmp_path / "notebooks", tmp_path / "run"
    for folder in (committed, run / "notebooks", tmp_path / "profiles"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(rules, "NOTEBOOKS", committed)
    monkeypatch.setattr(rules, "LOCK", committed / "outputs.lock")
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    notebook, path = good(committed)
    nbformat.write(notebook, path)
    notebook.cells[2].outputs = [
        nbformat.v4.new_output("stream", text=f"wrote {tmp_path}/runs/"),
        nbformat.v4.new_output("stream", text="pocket\n"),
    ]
    notebook.cells[2].metadata.papermill = {"start_time": "x"}
    notebook.metadata.papermill = {"input_path": "/root/x"}
    notebook.cells.insert(2, nbformat.v4.new_code_cell("profile = 'x'", metadata={"tags": ["injected-parameters"]}))
    nbformat.write(notebook, run / "notebooks" / path.name)
    one = {"seconds": 60.0, "stages": {"sampling": [1.0, 50.0]}, "peak_mb": 500}
    metrics = {"profile": "pocket", "machine": "m", "total_seconds": 60.0, "peak_mb": 500, "notebooks": {"01_a": one}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "profile.yaml").write_text("extends: pocket\n")
    with pytest.raises(NotebookError, match="or what it uses, has changed since it ran"):
        rules.refresh(run)  # no record of what it was made from
    (run / "state.json").write_text(json.dumps({"01_a": {"key": "k", "artefacts": []}}))
    monkeypatch.setattr(rules.Course, "key", lambda self, path, used: "k")

    assert rules.refresh(run) == ["notebooks/01_a.ipynb: outputs refreshed"]
    assert lint(committed) == []
    assert nbformat.read(path, 4).cells[2].outputs[0].text == "wrote runs/pocket\n"
    assert json.loads((tmp_path / "profiles" / "costs.json").read_text())["pocket"]["notebooks"]["01_a"] == one

    notebook.cells[-1].source = "x = 2"
    nbformat.write(notebook, run / "notebooks" / path.name)
    with pytest.raises(NotebookError, match="01_a.ipynb, or what it uses, has changed since it ran"):
        rules.refresh(run)
    (run / "profile.yaml").write_text("extends: pocket\nseed: 1\n")
    with pytest.raises(NotebookError, match="a run of other values than profiles/pocket.yaml"):
        rules.refresh(run)
    shutil.rmtree(run / "notebooks")
    with pytest.raises(NotebookError, match="holds no executed notebooks; run `make course` first"):
        rules.refresh(run)
