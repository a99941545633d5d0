"""The page on larger runs is what the command prints, and its figures grow as they must."""

import pytest

from acelib.core.errors import DataError
from acelib.core.profiles import ROOT, load_profile
from acelib.preflight.cost_model import CostModel
from bench import scaling
from bench.scaling import load_units, page, predict


def test_the_committed_page_is_what_the_command_prints():
    assert (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8") == page()


def test_figures_grow_with_the_questions():
    paper, units = load_profile("paper"), load_units()
    one, ten = (predict(paper, size, units) for size in (10**6, 10**7))
    for key in ("03", "04", "core-hours", "samples GB", "tables GiB", "teacher bought"):
        assert ten[key] == pytest.approx(10 * one[key], rel=0.01), key
    assert ten["models GB"] == one["models GB"]


def test_at_the_paper_s_size_it_is_the_plan():
    paper = load_profile("paper")
    planned = sum(one.hours for one in CostModel(paper).stages()) * paper.plan.gpus
    assert predict(paper, 86_804, load_units())["GPU-hours"] == pytest.approx(planned, rel=1e-3)


def test_without_measurements_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "UNITS", tmp_path / "units.json")
    with pytest.raises(DataError, match="python bench/units.py"):
        page()
