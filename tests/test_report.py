"""The report and the scorecard's check, on a run made up of a few records."""

import json
import re

import matplotlib.pyplot as plt
import pytest
import yaml

from acelib.__main__ import main
from acelib.core import ArtifactError
from acelib.core.files import write_json
from acelib.core.profiles import load_profile
from acelib.course.opening import NotebookRun
from runner.report import broken_promises, figure_text, write_report


def row(claim, verdict, must_hold, here=None):
    return {
        "claim": claim,
        "measure": "after - before",
        "paper": "+7.9 points",
        "caveat": "one seed",
        "recorded": None,
        "recorded_as": "",
        "here": here,
        "verdict": verdict,
        "must_hold": must_hold,
    }


INTERVAL = {"value": 0.25, "low": -0.1, "high": 0.5}
HOLDS = row("Filters <filter>", "holds", True, INTERVAL) | {"recorded": INTERVAL, "recorded_as": "by tests alone"}
OPEN = row("Nobody knows", "not testable here", False)


@pytest.fixture
def make_run(tmp_path):
    def make(*rows):
        profile = load_profile("pocket")
        run = NotebookRun(tmp_path, profile)
        (tmp_path / "profile.yaml").write_text(yaml.safe_dump(profile.to_dict()))
        run.table("scorecard", lambda scratch: list(rows), params={"rows": rows})
        run.figure(plt.figure(), "one", "Is <it> drawn?", notebook="00_start_here")
        run.metrics({"share": {"value": 0.5, "low": 0.4, "high": 0.6}, "questions": 800}, notebook="00_start_here")
        record = {"key": "", "artefacts": [], "seconds": 90.0, "peak_mb": 512, "memory": "PSS", "finished": "today"}
        write_json(tmp_path / "state.json", {"00_start_here": record})
        return tmp_path

    return make


def test_report_and_metrics(make_run):
    path, values = write_report(make_run(HOLDS, OPEN))
    page = path.read_text()
    assert "by tests alone" in page and "not measured" in page and "one seed" in page
    assert json.loads((path.parent / "metrics.json").read_text()) == json.loads(json.dumps(values))
    assert values["notebooks"]["00_start_here"]["metrics"]["questions"] == 800 and values["total_seconds"] == 90.0
    expected = ["1 of 1 hold", "Filters &lt;filter&gt;", "+25.0 <span class=quiet>[−10.0, +50.0]", "not testable here"]
    expected += ["Is &lt;it&gt; drawn?", "1:30", "512 MiB", "0.500 [0.400, 0.600]", "reinforce.steps", "torch"]
    for part in expected:
        assert part in page, part
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and "{{" not in page


def test_check_fails_on_a_broken_promise_only(make_run, capsys):
    run_dir = make_run(HOLDS, OPEN, row("May fail", "does not hold", False, INTERVAL))
    assert broken_promises(run_dir) == [] and main(["scorecard", "--check", str(run_dir)]) == 0
    make_run(HOLDS, row("Learns", "does not hold", True, INTERVAL), row("Unmeasured", "not testable here", True))
    assert main(["scorecard", "--check", str(run_dir)]) == 1
    said = capsys.readouterr()
    assert "Must hold and does not: Learns: does not hold" in said.err and "Unmeasured" in said.err
    assert main(["scorecard", str(run_dir)]) == 0


def test_adopted_data_excuse_the_claims_about_the_filter_and_no_other(make_run, capsys):
    untested = [row(f"About {key}", "not testable here", True) | {"key": key} for key in ("filter", "rm_average")]
    keyed = [HOLDS | {"key": "oracle"}, *untested]
    run_dir = make_run(*keyed)
    assert len(broken_promises(run_dir)) == 2
    NotebookRun(run_dir, load_profile("pocket")).adopt(
        {"filter_audit": [{"id": "a"}]}, {"source": "s", "command": "adopt"}
    )
    assert broken_promises(run_dir) == ["About rm_average: not testable here"]
    make_run(*keyed[:2])
    capsys.readouterr()
    assert main(["scorecard", "--check", str(run_dir)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^\* not testable: data were adopted - +About filter$", said, re.M)
    assert "1 of 1 hold" in write_report(run_dir)[0].read_text()


def test_a_run_without_promises_is_refused(make_run):
    with pytest.raises(ArtifactError, match="no scorecard with claims that must hold; run `make course FROM=07` first"):
        broken_promises(make_run(OPEN))


NOTHING = {"value": None, "low": None, "high": None}
FIGURES = [(None, "-"), (NOTHING, "-"), (3, "3"), (0.12345, "0.123"), (INTERVAL, "0.250 [-0.100, 0.500]")]


@pytest.mark.parametrize(("here", "text"), FIGURES)
def test_figures_as_text(here, text):
    assert figure_text(here) == text
