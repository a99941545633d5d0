"""Start from published data: rows of AceCode-87K, or one's own in its columns, become what notebooks 03 to 07 read."""

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress, islice
from pathlib import Path
from typing import Any

from acelib.core import ArtifactError, DataError, Run, full_disk_explained, path_digest, write_rows
from acelib.data.overlap import REASONS, Benchmarks
from acelib.data.publish import dataset_card
from acelib.data.sources import Source, open_source
from acelib.extraction import extract_program
from acelib.interface import state_interface
from acelib.judge import Judge, Report, Verdict, why_invalid
from acelib.schema import Pair, Problem, Row, as_list, as_objects, as_text, parse

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
    opened = open_source(source)
    rows, problems, best = _read(opened, limit, questions_only)
    inferences = None if questions_only else _inferences(rows, model, run.profile.sampling.n)
    decontaminator = Decontaminator(run, decontaminate)
    empty = _drop_invalid(problems, inferences)
    kept, dropped, counts = _choose(run, problems, best, inferences, decontaminator)
    if empty:
        counts["tests that check nothing, left out"] = empty
    told = {one.question: state_interface(one.question, one.entry_point, one.tests) for one in problems}
    chosen = [replace(problems[place], question=told[problems[place].question]) for place in kept]
    counts["questions: function and arguments named by us"] = sum(
        one.question != problems[place].question for one, place in zip(chosen, kept, strict=True)
    )
    asked = [problem.to_row() for problem in chosen]
    # As notebook 02 would write it: every test passed the authors' proxy, and nobody knows which ones are right.
    audit = [
        {"id": one.id, "test": test, "passed": True, "kept": True, "valid": None}
        for one in chosen
        for test in one.tests
    ]
    tables = {"imagined": asked, "filtered": asked, "filter_audit": audit}
    counts["questions"] = len(chosen)
    if inferences is not None:
        samples = [row | {"inferences": inferences[place]} for place, row in zip(kept, asked, strict=True)]
        tables["samples"] = tables["samples_unfiltered"] = _with_results(run, source, samples, chosen, counts)
    origin = {"source": source, "version": opened.version, "note": NOTE, "command": command}
    if pairs:
        found, origin["pairs_version"] = _pairs(pairs, decontaminator, {row["id"] for row in dropped}, told, counts)
        tables["pairs"] = tables["pairs_unfiltered"] = found
        origin["pairs"] = pairs
    origin |= {"settings": settings, "tables": list(tables), "counts": dict(counts), "apart_from": decontaminator.sizes}
    run.adopt(tables, origin)
    with full_disk_explained(folder := run.dir / "adopted"):
        folder.mkdir(exist_ok=True)
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
    kept = before and before["settings"] == settings and _whole(run, before["tables"])
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
    """README.md for the tables that `import_dataset` wrote, from `import_card.md`."""
    sources = [(origin["source"], origin["version"])]
    sources += [(origin["pairs"], origin["pairs_version"])] if "pairs" in origin else []
    found = Counter((row["benchmark"], row["reason"]) for row in dropped)
    counts = counts_text(origin["counts"])
    return dataset_card("import_card.md", sources, origin=origin, counts=counts, found=found, reasons=REASONS)


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


def _read(source: Source, limit: int | None, questions_only: bool) -> tuple[list[Row], list[Problem], list[str]]:
    """Rows, their questions, and of each the reply with the highest pass rate: the nearest to a reference solution."""
    unread = ("inferences", "context_messages") if questions_only else ()  # most of a row; 87,000 of them fill memory
    rows, best = [], []
    for number, row in enumerate(islice(source.rows(), limit)):
        row = _with_objects(row, f"Row {number}")
        replies = [item for item in row.get("inferences") or () if item.get("completion")]
        best.append(max(replies, key=lambda item: item.get("pass_rate") or 0.0)["completion"] if replies else "")
        rows.append({name: value for name, value in row.items() if name not in unread})
    problems = [Problem.from_row(row, number) for number, row in enumerate(rows)]
    twice = [one for one, count in Counter(problem.id for problem in problems).items() if count > 1]
    if twice or not rows:
        what = f"has several rows with the id {twice[0]!r}" if twice else "holds no rows"
        raise DataError(f"{source.name} {what}; mend the file.")
    rows = [row | {"test_cases": list(problem.tests)} for row, problem in zip(rows, problems, strict=True)]
    return rows, problems, best


def _with_objects(row: Row, place: str) -> Row:
    """The row with its `inferences`, and their `test_results`, as lists, even where the file has JSON text."""
    if row.get("inferences") is None:
        return row
    found = []
    for item in as_objects(row["inferences"], place, "inferences"):
        if item.get("completion") is not None:
            as_text(item["completion"], place, "inferences.completion")
        if (results := item.get("test_results")) is not None:
            item = item | {"test_results": as_list(results, place, "inferences.test_results")}
        if not isinstance(item.get("pass_rate") or 0.0, (int, float)):
            raise DataError(f"{place}, column inferences.pass_rate must be a number; mend or drop the row.")
        found.append(item)
    return row | {"inferences": found}


def _drop_invalid(problems: list[Problem], inferences: list[list[Row]] | None) -> int:
    """Leaves out, in place, the tests that check nothing whatever the program does, with their results. Returns how
    many these are."""
    dropped = 0
    for place, problem in enumerate(problems):
        keep = [not why_invalid(test, problem.entry_point) for test in problem.tests]
        if all(keep):
            continue
        dropped += keep.count(False)
        problems[place] = replace(problem, tests=tuple(compress(problem.tests, keep)))
        for number, item in enumerate(inferences[place] if inferences else ()):
            if item.get("test_results") is not None:
                inferences[place][number] = item | {"test_results": list(compress(item["test_results"], keep))}
    return dropped


def _choose(
    run: Run, problems: list[Problem], best: list[str], inferences: list | None, decontaminator: Decontaminator
) -> tuple[list[int], list[Row], Counter]:
    """Places of the questions to take, those that are like a benchmark's with what they are like, and all counts."""
    least, n = run.profile.filtering.min_tests, run.profile.sampling.n
    counts = Counter({"rows": len(problems)} | dict.fromkeys(decontaminator.words.values(), 0))
    kept, dropped = [], []
    for place, (problem, reply) in enumerate(zip(problems, best)):
        if found := decontaminator.find(problem.question, reply, problem.entry_point):
            counts[decontaminator.words[found["benchmark"]]] += 1
            dropped.append({"id": problem.id, "source": problem.source} | found)
        elif len(problem.tests) < least:
            counts[f"questions with fewer than {least} tests, left out"] += 1
        elif inferences and len(inferences[place]) < n:
            counts[f"questions with fewer than {n} programs, left out"] += 1
        else:
            kept.append(place)
    if not kept:
        why = ", ".join(what for what, count in counts.items() if count and what.endswith("out"))
        raise DataError(
            f"No question of the source can be used ({why}); lower sampling.n or filtering.min_tests in the "
            "profile, or pass --questions-only."
        )
    return kept, dropped, counts


def _whole(run: Run, names: list[str]) -> bool:
    """Whether the tables are there, unchanged and of these versions."""
    try:
        return all(run.unchanged(name) for name in names)
    except ArtifactError:
        return False


def _inferences(rows: list[Row], model: str | None, n: int) -> list[list[Row]]:
    """Of each row, the first `n` programs of the model. Raises DataError for what is missing or ambiguous."""
    remedy, names = "add it, or pass --questions-only to sample programs in notebook 03", Counter()
    for number, row in enumerate(rows):
        if row.get("inferences") is None:
            raise DataError(f"Row {number} has no inferences; {remedy}.")
        for place, item in enumerate(row["inferences"]):
            if missing := [name for name in ("model_name", "completion") if item.get(name) is None]:
                raise DataError(f"Row {number}, inference {place} has no {', '.join(missing)}; {remedy}.")
            results = item.get("test_results")
            if results is not None and len(results) != len(row["test_cases"]):
                raise DataError(
                    f"Row {number}, inference {place} has {len(results)} test_results for "
                    f"{len(row['test_cases'])} test_cases; mend the row, or pass --questions-only."
                )
            names[item["model_name"]] += 1
    if model is None and len(names) > 1 or model is not None and model not in names:
        known = ", ".join(f"{name} ({count:,})" for name, count in names.most_common()) or "none"
        raise DataError(f"There are programs of these models: {known}; pick one with --model.")
    return [[item for item in row["inferences"] if model in (None, item["model_name"])][:n] for row in rows]


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
