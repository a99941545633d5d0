"""Command line: `python -m acelib course | scorecard | rank | grid | plan | lint | refresh`."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

import yaml

from acelib.course import Course, contain
from acelib.errors import CourseError


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value, as in reinforce.steps=2")
    return key, yaml.safe_load(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m acelib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    course = commands.add_parser("course", help="run the notebooks and write the report")
    course.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    course.add_argument("--from", dest="first", metavar="NN", help="begin with this notebook")
    course.add_argument("--only", metavar="NN", help="run only this notebook, also when it is up to date")
    course.add_argument("--set", dest="overrides", metavar="KEY=VALUE", type=_override, action="append", default=[],
                        help="replace a value of the profile, as in reinforce.steps=2")  # fmt: skip
    course.add_argument("--run-dir", type=Path, help="where to write (default: runs/<profile>)")
    course.add_argument("--force", action="store_true", help="run notebooks that are up to date, too")
    card = commands.add_parser("scorecard", help="print the scorecard of a run")
    card.add_argument("--check", action="store_true", help="exit 1 when a claim that must hold does not")
    card.add_argument("run_dir", type=Path)
    rank = commands.add_parser("rank", help="choose among recorded samples by their tests, without a model")
    rank.add_argument("source", type=Path, help=".jsonl, one question per line: question, programs, tests (see "
                      "acelib.selectors.read_recorded)")
    rank.add_argument("target", type=Path, help=".jsonl to write, with every selector's scores and pick")
    rank.add_argument("--workers", type=int, default=1, help="sandboxes at a time")
    grid = commands.add_parser("grid", help="train rewards, algorithms and reward models side by side (notebook 08)")
    grid.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    grid.add_argument("--run-dir", type=Path, help="a finished run to start from (default: runs/<profile>)")
    grid.add_argument("--only", choices=("rl", "rm"), help="only the policies, or only the reward models")
    grid.add_argument("--processes", type=int, default=2, help="trainings at a time, with one thread each")
    grid.add_argument("--to", type=Path, help="folder for the tables (default: data/grid)")
    plan = commands.add_parser("plan", help="stages, hours, memory and dollars of a profile, computed")
    plan.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    commands.add_parser("lint", help="check the rules for notebooks")
    refresh = commands.add_parser("refresh", help="copy the outputs of a run into the committed notebooks")
    refresh.add_argument("run_dir", type=Path, nargs="?", help="default: runs/pocket")
    return parser


def _course(asked: argparse.Namespace) -> int:
    from acelib.report import scorecard_text, write_report

    course = Course(asked.profile, dict(asked.overrides), asked.run_dir)
    course.run(asked.first, asked.only, asked.force)
    report, values = write_report(course.dir)
    print(f"\n{scorecard_text(values['scorecard'])}\n" if values["scorecard"] else "")
    print(f"{values['total_seconds'] / 60:.1f} minutes, peak {values['peak_mb'] / 1024:.1f} GiB. Report: {report}")
    return 0


def _scorecard(asked: argparse.Namespace) -> int:
    from acelib.report import broken_promises, scorecard, scorecard_text

    broken = broken_promises(asked.run_dir)
    print(scorecard_text(scorecard(asked.run_dir)))
    for claim in broken:
        print(f"Must hold and does not: {claim}", file=sys.stderr)
    return 1 if broken and asked.check else 0


def _rank(asked: argparse.Namespace) -> int:
    from acelib.judge import Judge
    from acelib.schema import write_rows
    from acelib.selectors import SelectorError, picked_correct, rank, read_recorded

    if asked.target.suffix != ".jsonl" or asked.target.exists():
        raise SelectorError(f"Cannot write {asked.target}; name a .jsonl file that does not exist yet.")
    questions = read_recorded(asked.source)
    with Judge(workers=asked.workers) as judge:
        rows = rank(questions, judge)
    write_rows(asked.target, rows)
    print(f"{len(rows)} questions ranked in {asked.target}")
    if questions[0].correct is not None:
        for name, share in picked_correct(rows).items():
            print(f"  {share:6.1%} correct  {name}")
    return 0


def _grid(asked: argparse.Namespace) -> int:
    from acelib.grid import PUBLISHED, run_grid
    from acelib.profiles import ROOT, load_profile

    run_dir = asked.run_dir or ROOT / "runs" / load_profile(asked.profile).name
    for path in run_grid(asked.profile, run_dir, asked.only, asked.processes, asked.to or PUBLISHED):
        print(path)
    return 0


def _plan(asked: argparse.Namespace) -> int:
    from acelib.plan import plan
    from acelib.profiles import load_profile

    print(plan(load_profile(asked.profile)))
    return 0


def _lint(asked: argparse.Namespace) -> int:
    from acelib.lint import lint

    problems = lint()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _refresh(asked: argparse.Namespace) -> int:
    from acelib.lint import refresh

    for line in refresh(asked.run_dir):
        print(line)
    return 0


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    contain()
    try:
        run = {"course": _course, "scorecard": _scorecard, "rank": _rank, "grid": _grid, "plan": _plan, "lint": _lint,
               "refresh": _refresh}
        return run[asked.command](asked)
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; what was finished is kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    # Being asked to end is treated like Ctrl-C, so that kernels and sandboxes go too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
