"""`metrics.json` and one self-contained `report.html` of a run: scorecard, figures, time and memory, profile."""

import argparse
import base64
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from acelib.core import ROOT, ArtifactError, Run, atomic, load_profile, read_json, versions, write_json
from acelib.stats import Interval
from runner.notebooks import NOTEBOOKS, title
from runner.progress import clock
from tools.commands import explained

ADOPTED = "not testable: data were adopted"
ABOUT_FILTERING = ("filter", "filtered_rm")  # claims that need the tests which the data's authors have dropped
TEST_RECORD = ROOT / "runs" / "tests.json"  # what the last complete `make test` took; written by tests/conftest.py


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def scorecard(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of the artefact `scorecard`; none when notebook 07 has not run yet. Where the run's data were adopted,
    what could not be tested for that reason says so."""
    run = Run(run_dir, load_profile(str(run_dir / "profile.yaml")))
    rows = run.read("scorecard") if run.manifest("scorecard") else []
    adopted = "adopted" in (run.manifest("filter_audit") or {})
    excused = [adopted and row["key"] in ABOUT_FILTERING and row["here"] is None for row in rows]
    return [row | {"verdict": ADOPTED} if one else row for row, one in zip(rows, excused)]


def broken_promises(run_dir: Path) -> list[str]:
    """Claims that must hold and do not; adopted data excuse those about the filter. Raises ArtifactError when there is
    no scorecard or it promises nothing."""
    if not (run_dir / "profile.yaml").exists():
        raise ArtifactError(f"{run_dir} is not a run directory; run `make course` first or correct the path.")
    rows = scorecard(run_dir)
    if not any(row["must_hold"] for row in rows):
        raise ArtifactError(f"{run_dir} has no scorecard with claims that must hold; run `make course FROM=07` first.")
    broken = [row for row in rows if row["must_hold"] and row["verdict"] not in ("holds", ADOPTED)]
    return [f"{row['claim']}: {row['verdict']}" for row in broken]


def figure_text(here: Any) -> str:
    """`0.31 [0.28, 0.34]` of a number or of {value, low, high}."""
    if here is None or isinstance(here, dict) and here["value"] is None:
        return "-"
    if not isinstance(here, dict):
        return f"{here:.3g}" if isinstance(here, float) else str(here)
    interval = "" if here.get("low") is None else f" [{here['low']:.3f}, {here['high']:.3f}]"
    return f"{here['value']:.3f}{interval}"


def points_text(here: dict[str, float] | None) -> str:
    """`+31.0 [+28.0, +34.0]`: a row of the scorecard in points as in notebook 07, a relative gain in percent."""
    if here is None or here["value"] is None:
        return "-"
    return Interval(**here).in_points()


def scorecard_text(rows: list[dict[str, Any]]) -> str:
    """One line per claim: * for those that must hold, verdict, this run's figure, claim; "" without any."""
    width = max((len(row["verdict"]) for row in rows), default=0)
    lines = [
        f"{'*' if row['must_hold'] else ' '} {row['verdict']:<{width}} {points_text(row['here']):<26} {row['claim']}"
        for row in rows
    ]
    note = "* must hold on pocket, where it can be tested; points (of a relative gain: percent), 95% intervals"
    return "\n".join([*lines, note]) if lines else ""


def write_report(run_dir: Path) -> tuple[Path, dict[str, Any]]:
    """Collect all that the run measured into `metrics.json` and show it in `report.html`; returns the latter's path and
    the former's content. Raises FullDiskError."""
    profile = yaml.safe_load((run_dir / "profile.yaml").read_text(encoding="utf-8"))
    notebooks = {
        name: {key: record.get(key) for key in ("seconds", "stages", "peak_mb", "memory", "finished")}
        | {"metrics": read_json(run_dir / "metrics" / f"{name}.json")}
        for name, record in sorted(read_json(run_dir / "state.json").items())
    }
    values = {
        "profile": profile["name"],
        "seed": profile["seed"],
        "machine": machine(),
        "versions": versions(),
        "total_seconds": round(sum(one["seconds"] for one in notebooks.values()), 1),
        "peak_mb": max((one["peak_mb"] for one in notebooks.values()), default=0),
        "notebooks": notebooks,
        "scorecard": scorecard(run_dir),
        "tests": read_json(TEST_RECORD) or None,
    }
    write_json(run_dir / "metrics.json", values)
    verdicts = [row["verdict"] for row in values["scorecard"] if row["must_hold"] and row["verdict"] != ADOPTED]
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"clock": clock, "points": points_text}
    page = environment.get_template("report.template.html").render(
        run=values,
        promised=len(verdicts),
        kept=verdicts.count("holds"),
        marks={"holds": "yes", "does not hold": "no"},
        chapters=[(_title(folder.name), _figures(folder)) for folder in sorted((run_dir / "figures").glob("*"))],
        metrics=[
            (name, key, figure_text(here)) for name, one in notebooks.items() for key, here in one["metrics"].items()
        ],
        profile=profile,
    )
    with atomic(run_dir / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return run_dir / "report.html", values


def _title(name: str) -> str:
    notebook = NOTEBOOKS / f"{name}.ipynb"
    return title(notebook) if notebook.exists() else name


def _figures(folder: Path) -> list[tuple[str, str]]:
    """Caption and PNG (base64) of each figure of a notebook, in the order in which they were drawn."""
    drawn = sorted((read_json(file)["order"], read_json(file)["caption"], file) for file in folder.glob("*.json"))
    return [(text, base64.b64encode(file.with_suffix(".png").read_bytes()).decode()) for _, text, file in drawn]


@explained
def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m acelib scorecard", description="Print the scorecard of a run.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a claim that must hold does not")
    parser.add_argument("run_dir", type=Path)
    asked = parser.parse_args(words)
    broken = broken_promises(asked.run_dir)
    print(scorecard_text(scorecard(asked.run_dir)))
    for claim in broken:
        print(f"Must hold and does not: {claim}", file=sys.stderr)
    return 1 if broken and asked.check else 0
