"""Cost cards: what a notebook will take and how one knows, and afterwards what it took."""

import json
import os
import time

import pytest

from acelib.core.logs import open_log
from acelib.core.profiles import ROOT, load_profile
from acelib.core.run import Run
from acelib.course.opening import open_run
from acelib.preflight.cost_model import CostModel
from acelib.preflight.costs import Meter, differences, estimate, measured
from runner.notebooks import code, read_notebook, tags

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def meter(tmp_path, profile="pocket", notebook="06_reinforcement_learning", **overrides):
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return Meter(load_profile(profile, dotted), notebook, tmp_path / "paid.jsonl")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_opens_with_its_own_card_and_closes_with_what_it_took(path):
    cells = code(path)
    assert sum(f'open_run(profile, run_dir, "{path.stem}")' in cell for cell in cells) == 1
    own = [cell for cell in read_notebook(path).cells if cell.cell_type == "code" and "exercise" not in tags(cell)]
    assert own[-1].source.splitlines()[-1] == "run.spent()"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_measured_profile_shows_what_was_measured(path):
    cost = measured("pocket")["notebooks"][path.stem]
    one = estimate(load_profile("pocket"), path.stem)
    assert one.figures == {"minutes": cost["seconds"] / 60, "GiB": cost["peak_mb"] / 1024}
    assert measured("pocket")["measured"] in one.how and measured("pocket")["machine"] in one.how


def test_other_values_than_the_measured_ones_are_named(tmp_path):
    card = meter(tmp_path, reinforce__steps=3, seed=4).card()
    assert "Other values here: seed, reinforce.steps." in card and len(card.splitlines()) <= 5
    assert differences(load_profile("pocket")) == []


def test_a_gpu_profile_shows_the_sum_of_its_stages(tmp_path):
    paper = load_profile("paper")
    mine = [one for one in CostModel(paper).stages() if one.notebook == "06"]
    found = estimate(paper, "06_reinforcement_learning").figures
    hours = sum(stage.hours for stage in mine)
    assert found["minutes"] == pytest.approx(60 * hours) and len(mine) == 2
    assert found["GPU-hours"] == pytest.approx(8 * hours) and found["dollars"] == pytest.approx(2.5 * 8 * hours)
    assert found["GiB, GPU"] == max(stage.gib for stage in mine)
    card = meter(tmp_path, "paper").card()
    assert "8 x H100" in card and "$2.5 per GPU-hour" in card and "Computed, never measured" in card
    assert len(card.splitlines()) <= 5


def test_what_cannot_be_estimated_says_why(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: pocket\nname: mine\n")
    assert "no estimate. Nobody has measured profile mine" in meter(tmp_path, str(tmp_path / "mine.yaml")).card()
    assert "The shape of 'a/b' is not known" in meter(tmp_path, "paper", models__policy="a/b").card()
    adopted = estimate(load_profile("single-gpu"), "01_test_synthesis")
    assert adopted.figures == {"minutes": 0} and "adopted from TIGER-Lab/AceCode-87K" in adopted.how
    assert "needs no GPU" in estimate(load_profile("single-gpu"), "08_what_works").how


@pytest.mark.slow
def test_a_run_tells_what_it_took_and_what_it_kept(tmp_path, capsys):
    for kept in (False, True):
        run = open_run("pocket", str(tmp_path), "01_test_synthesis")
        run.table("a", lambda scratch: [{"x": 1}])
        run.spent()
        said = capsys.readouterr().out
        assert said.startswith("Notebook 01 on profile pocket, estimated: ") and "Notebook 01 took 0.0 minutes" in said
        assert ("Kept, so their making is not in this time: a." in said) == kept
    recorded = json.loads((tmp_path / "metrics" / "01_test_synthesis.json").read_text())
    minutes = measured("pocket")["notebooks"]["01_test_synthesis"]["seconds"] / 60
    assert recorded["cost: minutes, estimated"] == pytest.approx(minutes) and 0 < recorded["cost: minutes"] < 1
    assert recorded["cost: GiB, largest process"] > 0.05


def test_adopted_tables_are_named_as_kept(tmp_path):
    run = Run(tmp_path, load_profile("pocket"))
    run.adopt({"a": [{"x": 1}]}, {"source": "somewhere", "command": "adopt"})
    run.table("a", lambda scratch: [{"x": 2}])
    assert run.kept == ["a"]


def test_gpus_are_paid_while_they_are_held_and_servers_by_the_reply(tmp_path):
    log = tmp_path / "paid.jsonl"
    log.write_text('{"dollars": 5.0}\n{"dollars": 3')
    one = meter(tmp_path, "paper")
    with open_log(log) as torn:
        assert len(list(torn.records())) == 1
    with open(log, "a") as file:
        file.write('{"dollars": 0.25}\n{"dollars": 0.5}\n{"doll')  # the last line is being written
    one.start -= 1800
    actual = one.actual()
    assert actual["GPU-hours"] == pytest.approx(4, rel=0.01)
    assert actual["dollars"] == pytest.approx(4 * 2.5 + 0.75, rel=0.01)
    text, values = one.compare([])
    assert f"4.00 GPU-hours ({one.estimate.figures['GPU-hours']:.2f} estimated)" in text
    assert values["cost: dollars, estimated"] == one.estimate.figures["dollars"]


def test_memory_of_gpus_is_what_the_driver_says_of_all_processes(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\n[ "$1" = --query-gpu=memory.used ] && echo 1024 && echo 20480\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    one = meter(tmp_path, "paper")
    deadline = time.monotonic() + 30
    while one.gpu_memory.gib is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert f"20.0 GiB on the fullest GPU ({one.estimate.figures['GiB, GPU']:.1f} estimated)" in one.compare([])[0]
    smi.write_text("#!/bin/sh\necho no devices were found\nexit 6\n")
    assert "GiB, GPU" not in meter(tmp_path, "paper").actual()
