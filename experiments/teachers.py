"""Does a filter pay more when the teacher is worse? RL on the tests of weaker teachers (appendix A6).

    python -m experiments.teachers [--only 550 ...] [--to FOLDER]

The teacher is trained as the shipped one, in fewer steps. Notebooks 01 to 03 run with it, and then RL with the rule on
its tests by several filters, from three seeds each. A bad teacher leaves few questions the five good tests that the
paper asks for; so there the proxy's filter is tried a second time and asks for one. A teacher's runs are made in
`runs/teachers/STEPS`; what is there is kept, so an interrupted command goes on. The same trainings with the shipped
teacher stand in `filters.jsonl`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from acelib.core import ROOT, Run, load_profile, read_json, stoppable
from acelib.schema import Row
from acelib.stats import Interval
from experiments.filters import every_sample
from experiments.grid import PUBLISHED, SEEDS, artefact, train_all
from experiments.published import publish
from experiments.trainings import OWN, Policy
from experiments.worlds import trained
from runner.course import NOTEBOOKS, Course, select
from tools.commands import explained

TEACHERS = (550, 1100)  # steps, of the shipped one's 2,200
LAST = "03"
CHOICES = [(tests, "hard quarter") for tests in ("proxy", "all", "agreement")]  # questions that the proxy lets through
CHOICES += [(tests, OWN + "hard quarter") for tests in ("all", "agreement")]
SPECS = [Policy("rule", questions=questions, tests=tests, seed=seed) for seed in SEEDS for tests, questions in CHOICES]
MEASURES = ("precision", "recall", "auc", "auc_gain")
LENIENT = {550: 1}  # a second run of a teacher: tests that a question must keep, where the paper asks for five


def facts(run: Run) -> Row:
    """Of the imagined tests the share `valid` is right, of those that the proxy's filter keeps `valid_kept`;
    `imagined` and `filtered` questions; by name of a filter, what notebook 02 measured (value and 95% interval)."""
    found = read_json(run.dir / "metrics" / "02_test_filtering.json")
    quality: dict[str, Row] = {}
    for name, key in (words.split(": ") for words in found if ": " in words and not words.startswith("real")):
        if key in MEASURES:
            quality.setdefault(name, {})[key] = [round(found[f"{name}: {key}"][end], 4) for end in Interval._fields]
    tests = [row for row in run.read("filter_audit") if row["valid"] is not None]
    return {
        "valid": round(fmean(row["valid"] for row in tests), 4),
        "valid_kept": round(fmean(row["valid"] for row in tests if row["kept"]), 4),
        "imagined": len(run.read("imagined")),
        "filtered": len(run.read("samples")),
        "filters": quality,
    }


def lines(steps: int, folder: Path, processes: int) -> list[Row]:
    """Trains the teacher, runs the notebooks that are not up to date, trains; one line per training.

    Raises NotebookError as the course does, and DataError when trainings failed.
    """
    teacher, found = {"models.teacher": str(trained("teacher", folder, steps=steps))}, []
    for fewest in (None, LENIENT[steps]) if steps in LENIENT else (None,):
        asked = {"filtering.min_tests": fewest} if fewest else {}
        course = Course("pocket", teacher | asked, folder / f"run{fewest or ''}")
        for path in select(NOTEBOOKS):
            if "01" <= path.name[:2] <= LAST and not course.up_to_date(path):
                course.run(only=path.name[:2])
        run, specs = course.store, [spec for spec in SPECS if spec.tests == "proxy" or not fewest]
        every_sample(run)
        train_all("pocket", str(run.dir), specs, processes, run.profile.engine.generation)
        known = {"teacher_steps": steps, "min_tests": run.profile.filtering.min_tests} | facts(run)
        found += [known | asdict(spec) | run.read(artefact(spec))[0] for spec in specs]
    return found


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.teachers", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--only", nargs="+", type=int, choices=TEACHERS, default=TEACHERS, help="without the table")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "teachers", help="where runs are made")
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--to", type=Path, default=PUBLISHED, help="folder for teachers.jsonl")
    asked = parser.parse_args(words)
    made = [line for steps in asked.only for line in lines(steps, asked.runs / str(steps), asked.processes)]
    if set(asked.only) == set(TEACHERS):  # a table of some would take the place of the whole one
        publish(asked.to, "teachers", load_profile("pocket"), made)


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
