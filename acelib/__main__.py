"""Command line: `python -m acelib course | scorecard | rank | grid | plan | doctor | seeds | adopt | export |
harness | lint | refresh`."""

import argparse
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import yaml

from acelib.core import CourseError, ProfileError
from acelib.course import Course, contain


def _overrides(texts: list[str]) -> dict[str, Any]:
    """Values of `--set`, by their dotted keys. Raises ProfileError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ProfileError(
                f"{text!r} is not key=value, as in reinforce.steps=2; leave no blanks beside the `=`, "
                "and none in a value of make's SET=."
            )
        try:
            found[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise ProfileError(
                f"The value of {text!r} is not YAML; put text with special signs into quotes, as in "
                f"--set '{key}=\"...\"', and leave no blanks in a value of make's SET=."
            ) from None
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m acelib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    course = commands.add_parser("course", help="run the notebooks and write the report")
    course.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    course.add_argument("--from", dest="first", metavar="NN", help="begin with this notebook")
    course.add_argument("--only", metavar="NN", help="run only this notebook, also when it is up to date")
    course.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="replace a value of the profile, as in reinforce.steps=2",
    )
    course.add_argument("--run-dir", type=Path, help="where to write (default: runs/<profile>)")
    course.add_argument("--force", action="store_true", help="run notebooks that are up to date, too")
    card = commands.add_parser("scorecard", help="print the scorecard of a run")
    card.add_argument("--check", action="store_true", help="exit 1 when a claim that must hold does not")
    card.add_argument("run_dir", type=Path)
    rank = commands.add_parser("rank", help="choose among recorded samples by their tests, without a model")
    rank.add_argument(
        "source",
        type=Path,
        help=".jsonl, one question per line: question, programs, tests (see acelib.data.ranking.read_recorded)",
    )
    rank.add_argument("target", type=Path, help=".jsonl to write, with every selector's scores and pick")
    rank.add_argument("--workers", type=int, default=1, help="sandboxes at a time")
    grid = commands.add_parser("grid", help="train rewards, algorithms and reward models side by side (notebook 08)")
    grid.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    grid.add_argument("--run-dir", type=Path, help="a finished run to start from (default: runs/<profile>)")
    grid.add_argument("--only", choices=("rl", "rm"), help="only the policies, or only the reward models")
    grid.add_argument("--processes", type=int, help="trainings at a time, one thread each (default: 2, on a GPU 1)")
    grid.add_argument("--to", type=Path, help="folder for the tables (default: data/grid)")
    plan = commands.add_parser("plan", help="stages, hours, memory and dollars of a profile, computed")
    plan.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    plan.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="replace a value of the profile, as in plan.gpus=4",
    )
    plan.add_argument("--questions", metavar="N", type=int, help="for N filtered questions, and RL in proportion")
    doctor = commands.add_parser("doctor", help="versions, machine, isolation and checks, to paste into an issue")
    doctor.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    doctor.add_argument("--run-dir", type=Path, help="where a run would write (default: runs/<profile>)")
    seeds = commands.add_parser("seeds", help="make seed programs from public sets or your own files")
    seeds.add_argument("out", type=Path, help="folder to write: seeds.jsonl, its data card, what was dropped and why")
    seeds.add_argument(
        "--source",
        dest="sources",
        metavar="NAME_OR_PATH",
        nargs="+",
        help="hub names, or .jsonl or .parquet files with the same columns (default: the three sets of the paper)",
    )
    seeds.add_argument(
        "--decontaminate",
        metavar="FILE",
        type=Path,
        nargs="+",
        default=[],
        help="benchmarks to keep out, .jsonl, .jsonl.gz or .parquet",
    )
    seeds.add_argument("--limit", metavar="N", type=int, help="seeds to keep of each source, its first ones")
    seeds.add_argument("--push-to-hub", dest="repository", metavar="REPO", help="upload the result, as a private set")
    adopt = commands.add_parser("adopt", help="start from published questions and programs, at notebook 03")
    adopt.add_argument("source", help="TIGER-Lab/AceCode-87K, or a .jsonl or .parquet file with its columns")
    adopt.add_argument("--run-dir", type=Path, required=True, help="where to write, such as runs/mine")
    adopt.add_argument("--profile", default="pocket", help="the profile you will run")
    adopt.add_argument("--pairs", metavar="SOURCE", help="TIGER-Lab/AceCodePair-300K, or a file with its columns")
    adopt.add_argument("--questions-only", action="store_true", help="let notebook 03 sample programs from your policy")
    adopt.add_argument("--model", help="whose programs to take, where the set holds those of several models")
    adopt.add_argument("--limit", metavar="N", type=int, help="rows to read")
    adopt.add_argument(
        "--decontaminate",
        metavar="FILE",
        nargs="+",
        default=[],
        help="benchmarks to keep out, besides the profile's data.benchmark and data.decontaminate: files, or hub names",
    )
    export = commands.add_parser(
        "export",
        help="write a run's questions, programs and pairs as a data set",
        description="Writes Parquet in the columns of AceCode-87K and AceCodePair-300K, with "
        "a dataset card. Nothing is uploaded unless you say so; put a licence into the card "
        "first (an edited card is kept).",
    )
    export.add_argument("run_dir", type=Path, help="a run that has finished notebook 03, such as runs/pocket")
    export.add_argument("out", type=Path, help="folder to write, for load_dataset and for data.adopt")
    export.add_argument("--push-to-hub", dest="repository", metavar="OWNER/NAME", help="upload it, too")
    export.add_argument("--private", action="store_true", help="where the data set is new on the hub, keep it private")
    harness = commands.add_parser(
        "harness",
        help="evaluate a model by a benchmark's own harness (opt-in)",
        description="Writes a model's programs in the format of EvalPlus, BigCodeBench or "
        "LiveCodeBench and, with --execute, runs that harness on them. It executes "
        "model-written code outside the judge, with your rights.",
    )
    harness.add_argument("name", choices=("evalplus", "bigcodebench", "livecodebench"))
    harness.add_argument(
        "--dataset",
        required=True,
        help="humaneval, mbpp | complete[-hard], instruct[-hard] | release_v4, release_v5, release_v6",
    )
    harness.add_argument("--model", help="model folder or hub name (default: the profile's policy)")
    harness.add_argument("--questions", help="file or hub name of the benchmark's questions (default: data.benchmark)")
    harness.add_argument("--out", type=Path, required=True, help="folder for samples, results and the harness's log")
    harness.add_argument("--profile", default="pocket", help="device, prompt and lengths (default: pocket)")
    harness.add_argument("--samples", metavar="N", type=int, default=0, help="N sampled programs (default: one greedy)")
    harness.add_argument(
        "--extraction",
        default="extract_program",
        choices=("extract_program", "first_block", "whole_reply"),
        help="from reply to program",
    )
    harness.add_argument("--prompt", default="harness", choices=("harness", "profile"), help="whose words to ask in")
    harness.add_argument("--release", type=Path, help="the harness's own data file, where it cannot be fetched")
    harness.add_argument("--workers", type=int, default=1, help="programs executed at a time")
    harness.add_argument("--execute", action="store_true", help="run the harness, too")
    commands.add_parser("lint", help="check the rules for notebooks")
    refresh = commands.add_parser("refresh", help="copy the outputs of a run into the committed notebooks")
    refresh.add_argument("run_dir", type=Path, nargs="?", help="default: runs/pocket")
    return parser


def _course(asked: argparse.Namespace) -> int:
    from acelib.course import scorecard_text, write_report

    course = Course(asked.profile, _overrides(asked.overrides), asked.run_dir)
    course.run(asked.first, asked.only, asked.force)
    report, values = write_report(course.dir)
    print(f"\n{scorecard_text(values['scorecard'])}\n" if values["scorecard"] else "")
    print(f"{values['total_seconds'] / 60:.1f} minutes, peak {values['peak_mb'] / 1024:.1f} GiB. Report: {report}")
    return 0


def _scorecard(asked: argparse.Namespace) -> int:
    from acelib.course import broken_promises, scorecard, scorecard_text

    broken = broken_promises(asked.run_dir)
    print(scorecard_text(scorecard(asked.run_dir)))
    for claim in broken:
        print(f"Must hold and does not: {claim}", file=sys.stderr)
    return 1 if broken and asked.check else 0


def _rank(asked: argparse.Namespace) -> int:
    from acelib.core import DataError, write_rows
    from acelib.data import picked_correct, rank, read_recorded
    from acelib.judge import Judge

    if asked.target.suffix != ".jsonl" or asked.target.exists():
        raise DataError(f"Cannot write {asked.target}; name a .jsonl file that does not exist yet.")
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
    from acelib.core import ROOT, load_profile
    from acelib.course import PUBLISHED, run_grid

    run_dir = asked.run_dir or ROOT / "runs" / load_profile(asked.profile).name
    for path in run_grid(asked.profile, run_dir, asked.only, asked.processes, asked.to or PUBLISHED):
        print(path)
    return 0


def _plan(asked: argparse.Namespace) -> int:
    from acelib.core import load_profile
    from acelib.preflight import plan

    print(plan(load_profile(asked.profile, _overrides(asked.overrides)), asked.questions))
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    from acelib.core import ROOT, load_profile
    from acelib.preflight import doctor

    profile = load_profile(asked.profile)
    print(doctor(profile, asked.run_dir or ROOT / "runs" / profile.name))
    return 0


def _seeds(asked: argparse.Namespace) -> int:
    from acelib.data import PUBLIC, build_seeds, counts_table, push_seeds

    counts = build_seeds(asked.out, asked.sources or PUBLIC, asked.decontaminate, asked.limit, print)
    print(f"\n{counts_table(counts)}\n\nSeeds: {asked.out / 'seeds.jsonl'} (data.seeds in a profile)")
    if not asked.decontaminate:
        print("Not checked against any benchmark: give --decontaminate FILE ... before you train on these.")
    if asked.repository:
        print(f"Pushed to {push_seeds(asked.out, asked.repository)}")
    return 0


def _adopt(asked: argparse.Namespace) -> int:
    from acelib.core import Run, load_profile
    from acelib.data import adopt, counts_text

    given = {"--pairs": asked.pairs, "--model": asked.model, "--limit": asked.limit, "--profile": asked.profile}
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    words += ["--questions-only"] * asked.questions_only
    words += ["--decontaminate", *asked.decontaminate] if asked.decontaminate else []
    command = shlex.join(["python", "-m", "acelib", "adopt", asked.source, "--run-dir", str(asked.run_dir), *words])
    counts = adopt(
        Run(asked.run_dir, load_profile(asked.profile)),
        asked.source,
        pairs=asked.pairs,
        model=asked.model,
        questions_only=asked.questions_only,
        limit=asked.limit,
        decontaminate=asked.decontaminate,
        command=command,
    )
    print(counts_text(counts))
    print(f"Data card, and what was dropped for a benchmark's sake: {asked.run_dir / 'adopted'}")
    print(f"Go on with: make course PROFILE={asked.profile} RUN_DIR={asked.run_dir} FROM=03")
    return 0


def _export(asked: argparse.Namespace) -> int:
    from acelib.data import export, push_export

    counts = export(asked.run_dir, asked.out, print)
    print("\n".join(f"{count:9,} {what}" for what, count in counts.items()))
    print(
        f"Data set: {asked.out} (data.adopt: {asked.out / 'questions'} in a profile); its card: "
        f"{asked.out / 'README.md'}; state a licence there before you publish it."
    )
    if asked.repository:
        print(f"Pushed to {push_export(asked.out, asked.repository, asked.private)}")
    return 0


def _harness(asked: argparse.Namespace) -> int:
    from acelib.core import EngineError, load_profile
    from acelib.data import HARNESSES, WARNING, collect, command, execute, summary

    harness, profile = HARNESSES[asked.name], load_profile(asked.profile)
    if asked.dataset not in harness.datasets:
        raise EngineError(f"{asked.name} has no dataset {asked.dataset!r}; it has {', '.join(harness.datasets)}.")
    model = asked.model or profile.models.policy
    questions = asked.questions or profile.resolve(profile.data.benchmark)
    samples = collect(
        harness,
        asked.dataset,
        questions,
        asked.out,
        profile,
        model,
        n=asked.samples or 1,
        temperature=profile.evaluation.temperature if asked.samples else 0.0,
        extraction=asked.extraction,
        own=asked.prompt == "harness",
    )
    print(f"Programs: {samples}\n{WARNING}")
    if not asked.execute:
        print(f"Repeat with --execute, or run yourself: {shlex.join(command(harness, asked.dataset, samples))}")
        return 0
    rows = execute(harness, asked.dataset, samples, asked.release, asked.workers)
    said = summary(harness, asked.dataset, rows, model, not asked.samples and asked.prompt == "harness")
    (asked.out / "summary.txt").write_text(said + "\n", encoding="utf-8")  # notebook 07 shows those of its run
    print(said)
    return 0


def _lint(asked: argparse.Namespace) -> int:
    from acelib.course import lint

    problems = lint()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _refresh(asked: argparse.Namespace) -> int:
    from acelib.course import refresh

    for line in refresh(asked.run_dir):
        print(line)
    return 0


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    contain()
    try:
        run = {
            "course": _course,
            "scorecard": _scorecard,
            "rank": _rank,
            "grid": _grid,
            "plan": _plan,
            "doctor": _doctor,
            "seeds": _seeds,
            "adopt": _adopt,
            "export": _export,
            "harness": _harness,
            "lint": _lint,
            "refresh": _refresh,
        }
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
