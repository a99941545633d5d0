"""Command line: `python -m acelib course | scorecard | grid | plan | doctor | seeds | adopt | lint |
refresh`."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from acelib import core, course, data, preflight  # doors: a room is loaded when something is taken from it

COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int | None], dict[str, str], tuple]] = {}


def command(*arguments: tuple, help: str, description: str = ""):
    """Make a function `_name(asked)` the command `name`; it returns an exit status, or None for 0."""

    def register(function: Callable) -> Callable:
        COMMANDS[function.__name__[1:]] = function, {"help": help, "description": description or help}, arguments
        return function

    return register


def arg(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return names, options


def set_values(texts: list[str]) -> dict[str, Any]:
    """Values of `--set`, by their dotted keys. Raises ProfileError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise core.ProfileError(
                f"{text!r} is not key=value, as in reinforce.steps=2; leave no blanks beside the `=`, "
                "and none in a value of make's SET=."
            )
        try:
            found[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise core.ProfileError(
                f"The value of {text!r} is not YAML; put text with special signs into quotes, as in "
                f"--set '{key}=\"...\"', and leave no blanks in a value of make's SET=."
            ) from None
    return found


SET_HELP = "replace a value of the profile, as in reinforce.steps=2"
PROFILE = arg("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
SET = arg("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help=SET_HELP)
SOURCE_HELP = "hub names, or .jsonl or .parquet files with the same columns (default: the three sets of the paper)"


@command(
    PROFILE,
    arg("--from", dest="first", metavar="NN", help="begin with this notebook"),
    arg("--only", metavar="NN", help="run only this notebook, also when it is up to date"),
    SET,
    arg("--run-dir", type=Path, help="where to write (default: runs/<profile>)"),
    arg("--force", action="store_true", help="run notebooks that are up to date, too"),
    help="run the notebooks and write the report",
)
def _course(asked: argparse.Namespace) -> None:
    run = course.Course(asked.profile, set_values(asked.overrides), asked.run_dir)
    run.run(asked.first, asked.only, asked.force)
    report, values = course.write_report(run.dir)
    print(f"\n{course.scorecard_text(values['scorecard'])}\n" if values["scorecard"] else "")
    print(f"{values['total_seconds'] / 60:.1f} minutes, peak {values['peak_mb'] / 1024:.1f} GiB. Report: {report}")


@command(
    arg("--check", action="store_true", help="exit 1 when a claim that must hold does not"),
    arg("run_dir", type=Path),
    help="print the scorecard of a run",
)
def _scorecard(asked: argparse.Namespace) -> int:
    broken = course.broken_promises(asked.run_dir)
    print(course.scorecard_text(course.scorecard(asked.run_dir)))
    for claim in broken:
        print(f"Must hold and does not: {claim}", file=sys.stderr)
    return 1 if broken and asked.check else 0


@command(
    PROFILE,
    arg("--run-dir", type=Path, help="a finished run to start from (default: runs/<profile>)"),
    arg("--only", choices=("rl", "rm"), help="only the policies, or only the reward models"),
    arg("--processes", type=int, help="trainings at a time, one thread each (default: 2, on a GPU 1)"),
    arg("--to", type=Path, help="folder for the tables (default: data/grid)"),
    help="train rewards, algorithms and reward models side by side (notebook 08)",
)
def _grid(asked: argparse.Namespace) -> None:
    run_dir = asked.run_dir or core.ROOT / "runs" / core.load_profile(asked.profile).name
    for path in course.run_grid(asked.profile, run_dir, asked.only, asked.processes, asked.to or course.PUBLISHED):
        print(path)


@command(
    PROFILE,
    SET,
    arg("--questions", metavar="N", type=int, help="for N filtered questions, and RL in proportion"),
    help="stages, hours, memory and dollars of a profile, computed",
)
def _plan(asked: argparse.Namespace) -> None:
    print(preflight.plan(core.load_profile(asked.profile, set_values(asked.overrides)), asked.questions))


@command(
    PROFILE,
    arg("--run-dir", type=Path, help="where a run would write (default: runs/<profile>)"),
    help="versions, machine, isolation and checks, to paste into an issue",
)
def _doctor(asked: argparse.Namespace) -> None:
    profile = core.load_profile(asked.profile)
    print(preflight.doctor(profile, asked.run_dir or core.ROOT / "runs" / profile.name))


@command(
    arg("out", type=Path, help="folder to write: seeds.jsonl, its data card, what was dropped and why"),
    arg("--source", dest="sources", metavar="NAME_OR_PATH", nargs="+", help=SOURCE_HELP),
    arg("--decontaminate", metavar="FILE", type=Path, nargs="+", default=[], help="benchmarks to keep out"),
    arg("--limit", metavar="N", type=int, help="seeds to keep of each source, its first ones"),
    arg("--push-to-hub", dest="repository", metavar="REPO", help="upload the result, as a private set"),
    help="make seed programs from public sets or your own files",
)
def _seeds(asked: argparse.Namespace) -> None:
    counts = data.build_seeds(asked.out, asked.sources or data.PUBLIC, asked.decontaminate, asked.limit, print)
    print(f"\n{data.counts_table(counts)}\n\nSeeds: {asked.out / 'seeds.jsonl'} (data.seeds in a profile)")
    if not asked.decontaminate:
        print("Not checked against any benchmark: give --decontaminate FILE ... before you train on these.")
    if asked.repository:
        print(f"Pushed to {data.push_seeds(asked.out, asked.repository)}")


@command(
    arg("source", help="TIGER-Lab/AceCode-87K, or a .jsonl or .parquet file with its columns"),
    arg("--run-dir", type=Path, required=True, help="where to write, such as runs/mine"),
    PROFILE,
    arg("--pairs", metavar="SOURCE", help="TIGER-Lab/AceCodePair-300K, or a file with its columns"),
    arg("--questions-only", action="store_true", help="let notebook 03 sample programs from your policy"),
    arg("--model", help="whose programs to take, where the set holds those of several models"),
    arg("--limit", metavar="N", type=int, help="rows to read"),
    arg("--decontaminate", metavar="FILE", nargs="+", default=[], help="benchmarks to keep out besides the profile's"),
    help="start from published questions and programs, at notebook 03",
)
def _adopt(asked: argparse.Namespace) -> None:
    run, command = core.Run(asked.run_dir, core.load_profile(asked.profile)), ["python", "-m", "acelib", *asked.words]
    wanted = {name: getattr(asked, name) for name in ("pairs", "model", "questions_only", "limit", "decontaminate")}
    counts = data.import_dataset(run, asked.source, **wanted, command=shlex.join(command))
    print(data.counts_text(counts))
    print(f"Data card, and what was dropped for a benchmark's sake: {asked.run_dir / 'adopted'}")
    print(f"Go on with: make course PROFILE={asked.profile} RUN_DIR={asked.run_dir} FROM=03")


@command(help="check the rules for notebooks")
def _lint(asked: argparse.Namespace) -> int:
    problems = course.lint()
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


@command(
    arg("run_dir", type=Path, nargs="?", help="default: runs/pocket"),
    help="copy the outputs of a run into the committed notebooks",
)
def _refresh(asked: argparse.Namespace) -> None:
    print(*course.refresh(asked.run_dir), sep="\n")


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m acelib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, told, arguments) in COMMANDS.items():
        own = commands.add_parser(name, **told)
        for names, options in arguments:
            own.add_argument(*names, **options)
    asked = parser.parse_args(words, argparse.Namespace(words=words))
    course.contain()
    try:
        return COMMANDS[asked.command][0](asked) or 0
    except core.CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    with core.stoppable():
        sys.exit(main())
