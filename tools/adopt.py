"""Start from published data: rows of AceCode-87K, or one's own in its columns, become what notebooks 03 to 07 read."""

import argparse
import ast
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import compress, islice
from pathlib import Path
from typing import Any

from acelib.core import (
    ArtifactError,
    DataError,
    ModelError,
    Profile,
    Run,
    atomic,
    load_profile,
    path_digest,
    write_rows,
)
from acelib.extraction import extract_program
from acelib.interface import state_interface
from acelib.judge import Judge, Report, Verdict, why_invalid
from acelib.schema import Pair, Problem, Row, as_list, as_number, as_text, parse
from tools.commands import PROFILE, explained
from tools.overlap import REASONS, Benchmarks
from tools.publish import dataset_card
from tools.sources import Source, open_source

NOTE = (
    "The source holds only tests that passed its authors' filter: `imagined` equals `filtered`, and comparisons of "
    "filtered with unfiltered tests say nothing in this run."
)


def import_dataset(
    run: Run,
    source: str,
    *,
    questions_only: bool = False,
    model: str | None = None,
    pairs: str | None = None,
    limit: int | None = None,
    decontaminate: Sequence[str] = (),
    command: str = "",
    settings: dict[str, Any] | None = None,
) -> Counter:
    """Writes the artefacts `imagined`, `filtered` and `filter_audit`, and from the rows' programs `samples_unfiltered`
    and `samples`; with `pairs` (AceCodePair-300K) also `pairs` and `pairs_unfiltered`. A data card and what was dropped
    for a benchmark's sake go to the folder `adopted` of the run.

    Left out are questions that are like one of the run's own benchmark, of `data.decontaminate` or of `decontaminate`
    (files or hub names): by the question's words, and by the best program that the row holds. `questions_only` leaves
    the programs to notebook 03, `model` picks one of several models' programs, `limit` is the number of rows to read.
    Questions that keep their function or its arguments to themselves get a sentence that tells them.
    Of each question the first `sampling.n` programs are taken; pass rates are shares of its tests, whatever the source
    says. Where it does not say which tests a program passes, the judge does. The artefacts' manifests name the source
    and its version; notebooks keep them. `settings` is what `import_as_profile_says` compares next time.

    Returns counts of what was taken and left out. Raises CourseError, before anything is written, for a source or
    benchmark that cannot be read or lacks a column, and when the run has made such artefacts itself.
    """
    opened, n, counts = open_source(source), run.profile.sampling.n, Counter(rows=0)
    entries = _read(opened, limit, questions_only, counts)
    if not questions_only:
        _pick(entries, model, n)
    decontaminator = Decontaminator(run, decontaminate)
    kept, dropped = _choose(entries, decontaminator, run.profile.filtering.min_tests, n, counts)
    problems = [entry.problem for entry in entries]
    told = {one.question: state_interface(one.question, one.entry_point, one.tests) for one in problems}
    kept = _readable(run.profile, kept, told, counts)
    chosen = [replace(entry.problem, question=told[entry.problem.question]) for entry in kept]
    counts["questions: function and arguments named by us"] = sum(
        one.question != entry.problem.question for one, entry in zip(chosen, kept, strict=True)
    )
    # As notebook 02 would write it: every test passed the authors' proxy, and nobody knows which ones are right.
    audit = [
        {"id": one.id, "test": test, "passed": True, "kept": True, "valid": None}
        for one in chosen
        for test in one.tests
    ]
    tables = {"imagined": chosen, "filtered": chosen, "filter_audit": audit}
    counts["questions"] = len(chosen)
    if not questions_only:
        samples = [one.to_row() | {"inferences": entry.programs} for one, entry in zip(chosen, kept, strict=True)]
        tables["samples"] = tables["samples_unfiltered"] = _with_results(run, source, samples, chosen, counts)
    origin = {"source": source, "version": opened.version, "note": NOTE, "command": command}
    if pairs:
        found, origin["pairs_version"] = _pairs(pairs, decontaminator, {row["id"] for row in dropped}, told, counts)
        tables["pairs"] = tables["pairs_unfiltered"] = found
        origin["pairs"] = pairs
    origin |= {"settings": settings, "tables": list(tables), "counts": dict(counts), "apart_from": decontaminator.sizes}
    run.adopt(tables, origin)
    with atomic(run.dir / "adopted") as folder:
        folder.mkdir()
        write_rows(folder / "dropped.jsonl", dropped)
        (folder / "README.md").write_text(data_card(origin, dropped), encoding="utf-8")
    return counts


def import_as_profile_says(run: Run, command: str, say: Callable[[str], Any] = print) -> None:
    """Imports the first `data.adopt_rows` rows of `data.adopt`, unless the run has them already.

    The source's programs are taken when the profile's policy wrote them (its first row says whose they are): pairs,
    hard questions and the RL that starts from them are about one policy. Else notebook 03 samples that policy. What was
    imported by hand is kept; so is what was imported from a hub that cannot be reached now. Raises CourseError as
    `import_dataset` does; `command` is what to repeat should an artefact be lost.
    """
    data, policy = run.profile.data, run.profile.models.policy
    source = run.profile.resolve(data.adopt)
    before = (run.manifest("filtered") or {}).get("adopted")
    if before and not before.get("settings"):
        return say(f"The run has adopted {before['source']} by hand; kept, and data.adopt is not looked at.")
    paths = {name: Path(run.profile.resolve(name)) for name in (data.benchmark, *data.decontaminate)}
    settings = {
        "source": data.adopt,
        "rows": data.adopt_rows,
        "min_tests": run.profile.filtering.min_tests,
        "n": run.profile.sampling.n,
        "policy": policy,  # and what a hub has of a benchmark is taken not to change:
        "apart_from": {name: path_digest(path) if path.exists() else "" for name, path in paths.items()},
    }
    kept = before and before["settings"] == settings and _is_whole(run, before["tables"])
    try:
        opened = open_source(source)
    except DataError as error:
        if not kept:
            raise
        return say(f"{data.adopt}: adopted before, kept unchecked ({error})")
    if kept and before["version"] == opened.version:
        return say(f"{data.adopt}: adopted before, kept.")
    first = next(opened.rows(), {})
    # Where the source does not say which tests were passed, notebook 03 samples and judges in shards that can resume.
    own = policy in {item.get("model_name") for item in first.get("inferences") or () if item.get("test_results")}
    options = {"model": policy} if own else {"questions_only": True}
    limit = data.adopt_rows or None
    counts = import_dataset(run, source, **options, limit=limit, command=command, settings=settings)
    say(f"{data.adopt}: adopted, {'with the programs' if own else 'notebook 03 samples programs'} of {policy}")
    say(counts_text(counts))


def counts_text(counts: Counter) -> str:
    """What was counted, one line each."""
    return "\n".join(f"{count:9,} {what}" for what, count in counts.items())


def data_card(origin: dict[str, Any], dropped: Sequence[Row]) -> str:
    """README.md for the tables that `import_dataset` wrote, from `adopt_card.md`."""
    sources = [(origin["source"], origin["version"])]
    sources += [(origin["pairs"], origin["pairs_version"])] if "pairs" in origin else []
    found = Counter((row["benchmark"], row["reason"]) for row in dropped)
    counts = counts_text(origin["counts"])
    return dataset_card(
        Path(__file__).with_name("adopt_card.md"), sources, origin=origin, counts=counts, found=found, reasons=REASONS
    )


class Decontaminator:
    """Finds questions that are like one of a benchmark: the run's own, or one of `more`.

    `sizes` has the benchmarks' numbers of questions, `words` what to count the questions under.
    """

    def __init__(self, run: Run, more: Sequence[str] = ()):
        data = run.profile.data
        named = {name: run.profile.resolve(name) for name in (data.benchmark, *data.decontaminate)}
        self._benchmarks = {
            name: Benchmarks([path]) for name, path in (named | {str(one): one for one in more}).items()
        }
        self.sizes = {name: sum(one.rows.values()) for name, one in self._benchmarks.items()}
        self.words = {name: f"questions like one of {name} ({size:,}), left out" for name, size in self.sizes.items()}

    def find(self, question: str, reply: str, entry_point: str | None = None) -> Row | None:
        """benchmark, reason and what of it is `like` the question, or the program in the reply; None for nothing."""
        tree = parse(extract_program(reply, entry_point) or "") or parse("")
        try:
            code = ast.unparse(tree)
        except RecursionError:  # a model that wrote `1 + 1 + 1 + ...` until it was stopped
            code = ""
        for name, benchmark in self._benchmarks.items():
            if found := benchmark.overlap(question, code, tree):
                return {"benchmark": name, "reason": found[0], "like": found[1]}
        return None


def _is_whole(run: Run, names: list[str]) -> bool:
    with suppress(ArtifactError):
        return all(run.unchanged(name) for name in names)
    return False


@dataclass
class _Entry:
    """A row: its question, its programs (None: not read), and the reply of highest pass rate, the nearest to a
    reference solution."""

    problem: Problem
    programs: list[Row] | None
    best: str


def _read(source: Source, limit: int | None, questions_only: bool, counts: Counter) -> list[_Entry]:
    """The rows of a source, without tests that check nothing whatever the program does. Raises DataError."""
    entries = []
    for number, row in enumerate(islice(source.rows(), limit)):
        place, problem = f"Row {number}", Problem.from_row(row, number)
        programs = _programs(row, place)
        rates = {one["completion"]: one.get("pass_rate") or 0.0 for one in programs or () if one.get("completion")}
        if questions_only:
            programs = None  # most of a row; 87,000 of them fill memory
        else:
            _check_programs(programs, len(problem.tests), place)
        keep = [not why_invalid(test, problem.entry_point) for test in problem.tests]
        for one in programs or ():
            if one.get("test_results") is not None:
                one["test_results"] = list(compress(one["test_results"], keep))
        problem = replace(problem, tests=tuple(compress(problem.tests, keep)))
        counts.update({"rows": 1} | ({"tests that check nothing, left out": n} if (n := keep.count(False)) else {}))
        entries.append(_Entry(problem, programs, max(rates, key=rates.get, default="")))
    ids = Counter(entry.problem.id for entry in entries)
    if len(ids) < len(entries) or not entries:
        what = f"has several rows with the id {max(ids, key=ids.get)!r}" if entries else "holds no rows"
        raise DataError(f"{source.name} {what}; mend the file.")
    return entries


def _programs(row: Row, place: str) -> list[Row] | None:
    """The `inferences` of a row and their `test_results` as lists, even where the file has JSON text."""
    if row.get("inferences") is None:
        return None
    programs = as_list(row["inferences"], place, "inferences", of=dict)
    for one in programs:
        for name, read in (("completion", as_text), ("test_results", as_list), ("pass_rate", as_number)):
            if one.get(name) is not None:
                one[name] = read(one[name], place, f"inferences.{name}")
    return programs


def _check_programs(programs: list[Row] | None, tests: int, place: str) -> None:
    remedy = "add it, or pass --questions-only to sample programs in notebook 03"
    if programs is None:
        raise DataError(f"{place} has no inferences; {remedy}.")
    for number, one in enumerate(programs):
        if missing := [name for name in ("model_name", "completion") if one.get(name) is None]:
            raise DataError(f"{place}, inference {number} has no {', '.join(missing)}; {remedy}.")
        if one.get("test_results") is not None and len(one["test_results"]) != tests:
            raise DataError(
                f"{place}, inference {number} has {len(one['test_results'])} test_results for {tests} test_cases; "
                "mend the row, or pass --questions-only."
            )


def _pick(entries: list[_Entry], model: str | None, n: int) -> None:
    """Leaves of each entry the first `n` programs of the model. Raises DataError where it is ambiguous or unknown."""
    names = Counter(one["model_name"] for entry in entries for one in entry.programs)
    if len(names) > 1 if model is None else model not in names:
        known = ", ".join(f"{name} ({count:,})" for name, count in names.most_common()) or "none"
        raise DataError(f"There are programs of these models: {known}; pick one with --model.")
    for entry in entries:
        entry.programs = [one for one in entry.programs if model in (None, one["model_name"])][:n]


def _choose(
    entries: list[_Entry], decontaminator: Decontaminator, min_tests: int, n: int, counts: Counter
) -> tuple[list[_Entry], list[Row]]:
    """The entries to take, and those that are like a benchmark's question with what they are like; counts all."""
    counts.update(dict.fromkeys(decontaminator.words.values(), 0))
    kept, dropped = [], []
    for entry in entries:
        problem = entry.problem
        if found := decontaminator.find(problem.question, entry.best, problem.entry_point):
            counts[decontaminator.words[found["benchmark"]]] += 1
            dropped.append({"id": problem.id, "source": problem.source} | found)
        elif len(problem.tests) < min_tests:
            counts[f"questions with fewer than {min_tests} tests, left out"] += 1
        elif entry.programs is not None and len(entry.programs) < n:
            counts[f"questions with fewer than {n} programs, left out"] += 1
        else:
            kept.append(entry)
    if not kept:
        why = ", ".join(what for what, count in counts.items() if count and what.endswith("out"))
        raise DataError(
            f"No question of the source can be used ({why}); lower sampling.n or filtering.min_tests in the "
            "profile, or pass --questions-only."
        )
    return kept, dropped


def _readable(profile: Profile, kept: list[_Entry], told: dict[str, str], counts: Counter) -> list[_Entry]:
    """Without those whose question leaves no room for a reply of `sampling.max_new_tokens` in what the reward model
    reads: one of them would stop notebook 04 after hours. All, where the policy's tokenizer cannot be had yet."""
    from acelib.models import load_tokenizer, prompt_tokens, solve_messages  # torch, which `plan` need not load

    room = profile.reward_model.max_length - profile.sampling.max_new_tokens
    asked = [solve_messages(profile.prompts.solve, told[entry.problem.question]) for entry in kept]
    try:
        lengths = map(len, prompt_tokens(load_tokenizer(profile.resolve(profile.models.policy)), asked))
    except ModelError:
        return kept
    short = [entry for entry, length in zip(kept, lengths, strict=True) if length <= room]
    if not short:
        raise DataError(f"No question of the source has at most {room} tokens; raise reward_model.max_length.")
    counts[f"questions of more than {room} tokens, left out"] = len(kept) - len(short)
    return short


def _with_results(run: Run, source: str, rows: list[Row], problems: list[Problem], counts: Counter) -> list[Row]:
    """The rows with their programs as `samples_to_rows` writes them, judged here where the source has no results."""
    from acelib.sampling import judge_programs, rows_to_programs, samples_to_rows  # torch, which `plan` need not load

    programs, items = rows_to_programs(rows), [item for row in rows for item in row["inferences"]]
    counts["programs"] = len(items)
    if all(item.get("test_results") is not None for item in items):
        words = {True: Verdict("passed"), False: Verdict("failed")}
        reports = [Report(tuple(words[bool(passed)] for passed in item["test_results"])) for item in items]
    else:  # the set on the hub has pass rates alone
        print(f"{source} does not say which tests are passed: judging {len(items):,} programs.", flush=True)
        counts["programs judged here"] = len(items)
        with Judge.from_settings(run.profile.judge) as judge:
            reports = judge_programs(judge, problems, programs)
    return samples_to_rows(problems, programs, reports)


def _pairs(
    name: str, decontaminator: Decontaminator, dropped: set[str], told: dict[str, str], counts: Counter
) -> tuple[list[Row], str]:
    """The pairs whose questions are like no benchmark's, in the words `told` of what was imported, and the version of
    their source; counts them."""
    source = open_source(name)
    every = [Pair.from_row(row, number) for number, row in enumerate(source.rows())]
    firsts = {pair.instruction: pair for pair in reversed(every)}
    like = {text for text, one in firsts.items() if one.problem_id in dropped or decontaminator.find(text, one.chosen)}
    kept = [pair for pair in every if pair.instruction not in like]
    found = [replace(one, instruction=told.get(one.instruction, one.instruction)).to_row() for one in kept]
    if not found:
        raise DataError(f"{name} holds no pairs{' but such like a benchmark' * bool(every)}; mend the file.")
    counts.update({"pairs of questions like a benchmark's, left out": len(every) - len(found), "pairs": len(found)})
    return found, source.version


@explained
def main(words: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(
        prog="python -m acelib adopt",
        description="Start from published questions and programs, at notebook 03.",
        parents=[PROFILE],
    )
    parser.add_argument("source", help="TIGER-Lab/AceCode-87K, or a .jsonl or .parquet file with its columns")
    parser.add_argument("--run-dir", type=Path, required=True, help="where to write, such as runs/mine")
    parser.add_argument("--pairs", metavar="SOURCE", help="TIGER-Lab/AceCodePair-300K, or a file with its columns")
    parser.add_argument(
        "--questions-only", action="store_true", help="let notebook 03 sample programs from your policy"
    )
    parser.add_argument("--model", help="whose programs to take, where the set holds those of several models")
    parser.add_argument("--limit", metavar="N", type=int, help="rows to read")
    parser.add_argument(
        "--decontaminate", metavar="FILE", nargs="+", default=[], help="benchmarks to keep out besides the profile's"
    )
    asked = parser.parse_args(words)
    run, command = (
        Run(asked.run_dir, load_profile(asked.profile)),
        shlex.join(["python", "-m", "acelib", "adopt", *words]),
    )
    wanted = {name: getattr(asked, name) for name in ("pairs", "model", "questions_only", "limit", "decontaminate")}
    print(counts_text(import_dataset(run, asked.source, **wanted, command=command)))
    print(f"Data card, and what was dropped for a benchmark's sake: {asked.run_dir / 'adopted'}")
    print(f"Go on with: make course PROFILE={asked.profile} RUN_DIR={asked.run_dir} FROM=03")
