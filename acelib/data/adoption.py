"""Start from published data: rows of AceCode-87K, or one's own in its columns, become what notebooks 03 to 07 read."""

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress, islice
from pathlib import Path
from typing import Any

from acelib.core import ArtifactError, DataError, Run, full_disk_explained, path_digest, write_rows
from acelib.data.overlap import Benchmarks, parse
from acelib.data.publish import dataset_card, sources_list
from acelib.data.sources import Source, open_source
from acelib.extraction import extract_program
from acelib.judge import Judge, why_invalid
from acelib.schema import (
    Problem,
    Row,
    as_list,
    as_objects,
    as_text,
    pairs_to_rows,
    problems_to_rows,
    rows_to_pairs,
    rows_to_problems,
)

NOTE = (
    "The source holds only tests that passed its authors' filter: `imagined` equals `filtered`, and comparisons of "
    "filtered with unfiltered tests say nothing in this run."
)


def adopt(
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

    Left out are questions that `acelib.data.overlap.Benchmarks` finds in the run's own benchmark, in
    `data.decontaminate` or in `decontaminate` (files or hub names): by the question's words, and by the best program
    that the row holds.
    The artefacts' manifests name the source and its version; notebooks keep them. `questions_only` leaves the programs
    to notebook 03, `model` picks one of several models' programs, `limit` is the number of rows to read. Of each
    question the first `sampling.n` programs are taken; pass rates are shares of its tests, whatever the source says.
    Where it does not say which tests a program passes, the judge does.
    `settings` is what `adopt_as_profile_says` compares next time. Returns counts of what was taken and left out.
    Raises CourseError, before anything is written, for a source or benchmark that cannot be read or lacks a column, and
    when the run has made such artefacts itself.
    """
    opened = open_source(source)
    unread = ("inferences", "context_messages") if questions_only else ()  # most of a row; 87,000 of them fill memory
    rows, best = [], []
    for row in islice(opened.rows(), limit):
        row = _with_objects(row, len(rows))
        rows.append({name: value for name, value in row.items() if name not in unread})
        best.append(_best_reply(row))
    problems = rows_to_problems(rows)
    twice = [one for one, count in Counter(problem.id for problem in problems).items() if count > 1]
    if not rows or twice:
        what = f"has several rows with the id {twice[0]!r}" if twice else "holds no rows"
        raise DataError(f"{source} {what}; mend the file.")
    rows = [row | {"test_cases": list(problem.tests)} for row, problem in zip(rows, problems, strict=True)]
    inferences = None if questions_only else _inferences(rows, model, run.profile.sampling.n)
    empty = _drop_invalid(problems, inferences)
    apart = _Apart(run, decontaminate)
    counts = Counter({"rows": len(rows)} | {apart.words[name]: 0 for name in apart.words})
    if empty:
        counts["tests that check nothing, left out"] = empty
    kept, dropped = [], []
    for place, problem in enumerate(problems):
        if like := apart.find(problem.question, best[place], problem.entry_point):
            counts[apart.words[like["benchmark"]]] += 1
            dropped.append({"id": problem.id, "source": problem.source} | like)
        elif len(problem.tests) < run.profile.filtering.min_tests:
            counts[f"questions with fewer than {run.profile.filtering.min_tests} tests, left out"] += 1
        elif inferences is not None and len(inferences[place]) < run.profile.sampling.n:
            counts[f"questions with fewer than {run.profile.sampling.n} programs, left out"] += 1
        else:
            kept.append(place)
    if not kept:
        why = ", ".join(what for what, count in counts.items() if count and what.endswith("out"))
        raise DataError(
            f"No question of {source} can be used ({why}); lower sampling.n or filtering.min_tests in the "
            "profile, or pass --questions-only."
        )
    chosen = [problems[place] for place in kept]
    asked = problems_to_rows(chosen)
    tables = {"imagined": asked, "filtered": asked, "filter_audit": _audit(chosen)}
    counts["questions"] = len(chosen)
    if inferences is not None:
        samples = [row | {"inferences": inferences[place]} for place, row in zip(kept, asked, strict=True)]
        counts["programs"] = len(samples) * run.profile.sampling.n
        if all(item.get("test_results") is not None for row in samples for item in row["inferences"]):
            samples = [row | {"inferences": _programs(row)} for row in samples]
        else:  # the set on the hub has pass rates alone
            print(f"{source} does not say which tests are passed: judging {counts['programs']:,} programs.", flush=True)
            samples = _judged(run, samples, chosen)
            counts["programs judged here"] = counts["programs"]
        tables |= {"samples_unfiltered": samples, "samples": samples}
    origin = {"source": source, "version": opened.version, "note": NOTE, "command": command}
    if pairs:
        pair_source = open_source(pairs)
        found, left_out = _pairs(pair_source, apart, {row["id"] for row in dropped})
        tables |= {"pairs": found, "pairs_unfiltered": found}
        counts.update({"pairs of questions like a benchmark's, left out": left_out, "pairs": len(found)})
        origin |= {"pairs": pairs, "pairs_version": pair_source.version}
    origin |= {"settings": settings, "tables": list(tables), "counts": dict(counts), "apart_from": apart.sizes}
    run.adopt(tables, origin)
    folder = run.dir / "adopted"
    with full_disk_explained(folder):
        folder.mkdir(exist_ok=True)
        write_rows(folder / "dropped.jsonl", dropped)
        (folder / "README.md").write_text(data_card(origin, dropped), encoding="utf-8")
    return counts


def adopt_as_profile_says(run: Run, command: str, say: Callable[[str], Any] = print) -> None:
    """Adopts the first `data.adopt_rows` rows of `data.adopt`, unless the run has them already.

    The source's programs are taken when the profile's policy wrote them (its first row says whose they are): pairs,
    hard questions and the RL that starts from them are about one policy. Else notebook 03 samples that policy. What was
    adopted by hand is kept; so is what was adopted from a hub that cannot be reached now. Raises CourseError as `adopt`
    does; `command` is what to repeat should an artefact be lost.
    """
    data, policy = run.profile.data, run.profile.models.policy
    source = run.profile.resolve(data.adopt)
    before = (run.manifest("filtered") or {}).get("adopted")
    if before and not before.get("settings"):
        return say(f"The run has adopted {before['source']} by hand; kept, and data.adopt is not looked at.")
    settings = {
        "source": data.adopt,
        "rows": data.adopt_rows,
        "min_tests": run.profile.filtering.min_tests,
        "n": run.profile.sampling.n,
        "policy": policy,
        "apart_from": _versions(run),
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
    counts = adopt(
        run,
        source,
        questions_only=not own,
        model=policy if own else None,
        limit=data.adopt_rows or None,
        command=command,
        settings=settings,
    )
    say(f"{data.adopt}: adopted, {'with the programs' if own else 'notebook 03 samples programs'} of {policy}")
    say(counts_text(counts))


def counts_text(counts: Counter) -> str:
    return "\n".join(f"{count:9,} {what}" for what, count in counts.items())


def data_card(origin: dict[str, Any], dropped: Sequence[Row]) -> str:
    """README.md for the tables that `adopt` wrote, with the YAML the hub reads."""
    sources = [
        (origin[name], origin[at]) for name, at in (("source", "version"), ("pairs", "pairs_version")) if name in origin
    ]
    reasons = ("benchmark question", "benchmark signature", "benchmark solution")
    found = Counter((row["benchmark"], row["reason"]) for row in dropped)
    table = "\n".join(
        f"| {name} | {size:,} | " + " | ".join(f"{found[name, reason]:,}" for reason in reasons) + " |"
        for name, size in origin["apart_from"].items()
    )
    return dataset_card(
        f"""
# Adopted questions

Tables {", ".join(f"`{name}`" for name in origin["tables"])} in the columns of AceCode-87K and AceCodePair-300K, taken
from published data by `{origin["command"]}`:

{sources_list(sources)}

{origin["note"]}

```
{counts_text(origin["counts"])}
```

Questions that share ten words in a row with a benchmark's question are left out, and those whose best program has a
function's name and arguments, or 80% of the token 5-grams, of a benchmark's solution. One that is like several
benchmarks counts for the first. `dropped.jsonl` lists each with what it was like.

| benchmark | questions | {" | ".join(reasons)} |
|---|---|---|---|---|
{table}
""",
        [name for name, _ in sources],
    )


class _Apart:
    """Tells which questions are like one of a benchmark; `sizes` has the benchmarks' numbers of questions."""

    def __init__(self, run: Run, more: Sequence[str] = ()):
        named = {name: run.profile.resolve(name) for name in _benchmarks(run)} | {str(name): str(name) for name in more}
        self._benchmarks = {name: Benchmarks([path]) for name, path in named.items()}
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
            if (found := benchmark.overlap(question, code, tree)) is not None:
                return {"benchmark": name, "reason": found[0], "like": found[1]}
        return None


def _benchmarks(run: Run) -> tuple[str, ...]:
    return run.profile.data.benchmark, *run.profile.data.decontaminate


def _versions(run: Run) -> dict[str, str]:
    """Digests of the profile's benchmarks that are files; what the hub has is taken not to change."""
    paths = {name: Path(run.profile.resolve(name)) for name in _benchmarks(run)}
    return {name: path_digest(path) if path.exists() else "" for name, path in paths.items()}


def _with_objects(row: Row, number: int) -> Row:
    """The row with its `inferences`, and their `test_results`, as lists, even where the file has JSON text."""
    if row.get("inferences") is None:
        return row
    items = as_objects(row["inferences"], number, "inferences")
    found = []
    for item in items:
        if item.get("completion") is not None:
            as_text(item["completion"], number, "inferences.completion")
        if (results := item.get("test_results")) is not None:
            item = item | {"test_results": as_list(results, number, "inferences.test_results")}
        if not isinstance(item.get("pass_rate") or 0.0, (int, float)):
            raise DataError(f"Row {number}, column inferences.pass_rate must be a number; mend or drop the row.")
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


def _best_reply(row: Row) -> str:
    """The reply with the highest pass rate: the nearest that a row has to a reference solution."""
    replies = [item for item in row.get("inferences") or () if item.get("completion")]
    return max(replies, key=lambda item: item.get("pass_rate") or 0.0)["completion"] if replies else ""


def _whole(run: Run, names: list[str]) -> bool:
    """Whether the tables are there, unchanged and of these versions."""
    try:
        return all(path_digest(run.path(name)) == run.manifest(name)["content"] for name in names)
    except ArtifactError:
        return False


def _inferences(rows: list[Row], model: str | None, n: int) -> list[list[Row]]:
    """Of each row, the first `n` programs of the model. Raises DataError for what is missing or ambiguous."""
    remedy = "add it, or pass --questions-only to sample programs in notebook 03"
    names: Counter = Counter()
    for number, row in enumerate(rows):
        if row.get("inferences") is None:
            raise DataError(f"Row {number} has no inferences; {remedy}.")
        for place, item in enumerate(row["inferences"]):
            missing = [name for name in ("model_name", "completion") if item.get(name) is None]
            if missing:
                raise DataError(f"Row {number}, inference {place} has no {', '.join(missing)}; {remedy}.")
            if item.get("test_results") is not None and len(item["test_results"]) != len(row["test_cases"]):
                raise DataError(
                    f"Row {number}, inference {place} has {len(item['test_results'])} test_results for "
                    f"{len(row['test_cases'])} test_cases; mend the row, or pass --questions-only."
                )
            names[item["model_name"]] += 1
    if model is None and len(names) > 1 or model is not None and model not in names:
        known = ", ".join(f"{name} ({count:,})" for name, count in names.most_common()) or "none"
        raise DataError(f"There are programs of these models: {known}; pick one with --model.")
    return [[item for item in row["inferences"] if model in (None, item["model_name"])][:n] for row in rows]


def _judged(run: Run, rows: list[Row], problems: list[Problem]) -> list[Row]:
    from acelib.sampling import judge_programs, rows_to_programs, samples_to_rows  # loads torch, which `plan` need not

    programs = rows_to_programs(rows)
    with Judge.from_settings(run.profile.judge) as judge:
        return samples_to_rows(problems, programs, judge_programs(judge, problems, programs))


def _programs(row: Row) -> list[Row]:
    """A row's inferences as `samples_to_rows` writes them."""
    found = []
    for place, item in enumerate(row["inferences"]):
        results = [bool(result) for result in item["test_results"]]
        found.append(
            {
                "completion_id": place,
                "model_name": item["model_name"],
                "completion": item["completion"],
                "program": extract_program(item["completion"], row["entry_point"]),
                "pass_rate": sum(results) / len(results),
                "test_results": results,
            }
        )
    return found


def _audit(problems: list[Problem]) -> list[dict[str, Any]]:
    """What notebook 02 would say: every test passed the authors' proxy, and nobody knows which ones are right."""
    return [
        {"id": problem.id, "test": test, "passed": True, "kept": True, "valid": None}
        for problem in problems
        for test in problem.tests
    ]


def _pairs(source: Source, apart: _Apart, dropped: set[str]) -> tuple[list[Row], int]:
    """The pairs whose questions are like no benchmark's, and the number of the others."""
    every = rows_to_pairs(source.rows())
    firsts = {pair.instruction: pair for pair in reversed(every)}
    like = {text for text, pair in firsts.items() if pair.problem_id in dropped or apart.find(text, pair.chosen)}
    found = pairs_to_rows(pair for pair in every if pair.instruction not in like)
    if not found:
        raise DataError(f"{source.name} holds no pairs{' but such like a benchmark' * bool(every)}; mend the file.")
    return found, len(every) - len(found)
