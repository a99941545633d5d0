"""Command line: `python -m acelib COMMAND --help`."""

import argparse
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from acelib import core, course, data  # doors: a room is loaded when something is taken from it

BESIDE = {
    "doctor": "tools.doctor",
    "export": "tools.export",
    "grid": "experiments.grid",
    "harness": "tools.harness",
    "plan": "tools.plan",
    "rank": "tools.rank",
    "seeds": "tools.seeds",
}
PARSER = argparse.ArgumentParser(
    prog="python -m acelib",
    description="The course, and what belongs to it.",
    epilog=f"Commands of the repository, each with a --help of its own: {', '.join(BESIDE)}.",
)
COMMANDS = PARSER.add_subparsers(dest="command", required=True)


def command(*arguments: tuple[tuple, dict], help: str, description: str = "") -> Callable[[Callable], Callable]:
    """Make a function `_name(asked)` the command `name`; it returns an exit status, or None for 0."""

    def register(function: Callable[[argparse.Namespace], int | None]) -> Callable:
        parser = COMMANDS.add_parser(function.__name__[1:], help=help, description=description or help)
        for names, options in arguments:
            parser.add_argument(*names, **options)
        parser.set_defaults(function=function)
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


@command(
    PROFILE,
    arg("--from", dest="first", metavar="NN", help="begin with this notebook"),
    arg("--only", metavar="NN", help="run only this notebook, also when it is up to date"),
    arg("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help=SET_HELP),
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


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if words and words[0] in BESIDE:
        sys.path.append(str(core.ROOT))
        return import_module(BESIDE[words[0]]).main(words[1:]) or 0
    asked = PARSER.parse_args(words, argparse.Namespace(words=words))
    course.contain()
    return core.explained(asked.function)(asked)


if __name__ == "__main__":
    with core.stoppable():
        sys.exit(main())
