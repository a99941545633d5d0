"""Start from published data: rows of AceCode-87K, or one's own in its columns, become what notebooks 03 to 07 read."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

from acelib.artifacts import ArtifactError, Run
from acelib.errors import CourseError
from acelib.extraction import extract_program
from acelib.fingerprint import path_digest
from acelib.schema import Problem, Row, pairs_to_rows, problems_to_rows, rows_to_pairs, rows_to_problems
from acelib.sources import Source, SourceError, open_source

NOTE = ("The source holds only tests that passed its authors' filter: `imagined` equals `filtered`, and comparisons of "
        "filtered with unfiltered tests say nothing in this run.")  # fmt: skip


class AdoptError(CourseError):
    """Published rows that lack a column, or do not fit the profile."""


def adopt(
    run: Run,
    source: str,
    *,
    questions_only: bool = False,
    model: str | None = None,
    pairs: str | None = None,
    limit: int | None = None,
    command: str = "",
    settings: dict[str, Any] | None = None,
) -> Counter:
    """Writes the artefacts `imagined`, `filtered` and `filter_audit`, and from the rows' programs `samples_unfiltered`
    and `samples`; with `pairs` (AceCodePair-300K) also `pairs` and `pairs_unfiltered`.

    Their manifests name the source and its version, and notebooks keep them. `questions_only` leaves the programs to
    notebook 03, `model` picks one of several models' programs, `limit` is the number of rows to read. Of each question
    the first `sampling.n` programs are taken; pass rates are shares of its tests, whatever the source says.
    `settings` is what `adopt_as_profile_says` compares next time. Returns counts of what was taken and left out.
    Raises CourseError, before anything is written, for a source that cannot be read or lacks a column, and when the run
    has made such artefacts itself.
    """
    opened = open_source(source)
    unread = ("inferences", "context_messages") if questions_only else ()  # most of a row; 87,000 of them fill memory
    rows = [{name: value for name, value in row.items() if name not in unread} for row in islice(opened.rows(), limit)]
    problems = rows_to_problems(rows)
    twice = [one for one, count in Counter(problem.id for problem in problems).items() if count > 1]
    if not rows or twice:
        what = f"has several rows with the id {twice[0]!r}" if twice else "holds no rows"
        raise AdoptError(f"{source} {what}; mend the file.")
    counts = Counter({"rows": len(rows)})
    inferences = None if questions_only else _inferences(rows, model, run.profile.sampling.n)
    kept = []
    for place, problem in enumerate(problems):
        if len(problem.tests) < run.profile.filtering.min_tests:
            counts[f"questions with fewer than {run.profile.filtering.min_tests} tests, left out"] += 1
        elif inferences is not None and len(inferences[place]) < run.profile.sampling.n:
            counts[f"questions with fewer than {run.profile.sampling.n} programs, left out"] += 1
        else:
            kept.append(place)
    if not kept:
        why = ", ".join(what for what in counts if what.endswith("out"))
        raise AdoptError(f"No question of {source} can be used ({why}); lower sampling.n or filtering.min_tests in the "
                         "profile, or pass --questions-only.")
    chosen = [problems[place] for place in kept]
    asked = problems_to_rows(chosen)
    tables = {"imagined": asked, "filtered": asked, "filter_audit": _audit(chosen)}
    counts["questions"] = len(chosen)
    if inferences is not None:
        samples = [row | {"inferences": _programs(inferences[place], problems[place])}
                   for place, row in zip(kept, asked, strict=True)]  # fmt: skip
        tables |= {"samples_unfiltered": samples, "samples": samples}
        counts["programs"] = len(samples) * run.profile.sampling.n
    origin = {"source": source, "version": opened.version, "note": NOTE, "command": command}
    if pairs:
        pair_source = open_source(pairs)
        found = _pairs(pair_source)
        tables |= {"pairs": found, "pairs_unfiltered": found}
        counts["pairs"] = len(found)
        origin |= {"pairs": pairs, "pairs_version": pair_source.version}
    run.adopt(tables, origin | {"settings": settings, "tables": list(tables), "counts": dict(counts)})
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
    settings = {"source": data.adopt, "rows": data.adopt_rows, "min_tests": run.profile.filtering.min_tests,
                "n": run.profile.sampling.n, "policy": policy}  # fmt: skip
    kept = before and before["settings"] == settings and _whole(run, before["tables"])
    try:
        opened = open_source(source)
    except SourceError as error:
        if not kept:
            raise
        return say(f"{data.adopt}: adopted before, kept unchecked ({error})")
    if kept and before["version"] == opened.version:
        return say(f"{data.adopt}: adopted before, kept.")
    first = next(opened.rows(), {})
    own = policy in {item.get("model_name") for item in first.get("inferences") or ()}
    counts = adopt(run, source, questions_only=not own, model=policy if own else None, limit=data.adopt_rows or None,
                   command=command, settings=settings)  # fmt: skip
    say(f"{data.adopt}: adopted, {'with the programs' if own else 'notebook 03 samples programs'} of {policy}")
    say(counts_text(counts))


def counts_text(counts: Counter) -> str:
    return "\n".join(f"{count:9,} {what}" for what, count in counts.items())


def _whole(run: Run, names: list[str]) -> bool:
    """Whether the tables are there, unchanged and of these versions."""
    try:
        return all(path_digest(run.path(name)) == run.manifest(name)["content"] for name in names)
    except ArtifactError:
        return False


def _inferences(rows: list[Row], model: str | None, n: int) -> list[list[Row]]:
    """Of each row, the first `n` programs of the model. Raises AdoptError for what is missing or ambiguous."""
    remedy = "add it, or pass --questions-only to sample programs in notebook 03"
    names: Counter = Counter()
    for number, row in enumerate(rows):
        if row.get("inferences") is None:
            raise AdoptError(f"Row {number} has no inferences; {remedy}.")
        for place, item in enumerate(row["inferences"]):
            missing = [name for name in ("model_name", "completion", "test_results") if item.get(name) is None]
            if missing:
                raise AdoptError(f"Row {number}, inference {place} has no {', '.join(missing)}; {remedy}.")
            if len(item["test_results"]) != len(row["test_cases"]):
                raise AdoptError(
                    f"Row {number}, inference {place} has {len(item['test_results'])} test_results for "
                    f"{len(row['test_cases'])} test_cases; mend the row, or pass --questions-only."
                )
            names[item["model_name"]] += 1
    if model is None and len(names) > 1 or model is not None and model not in names:
        known = ", ".join(f"{name} ({count:,})" for name, count in names.most_common()) or "none"
        raise AdoptError(f"There are programs of these models: {known}; pick one with --model.")
    return [[item for item in row["inferences"] if model in (None, item["model_name"])][:n] for row in rows]


def _programs(inferences: list[Row], problem: Problem) -> list[Row]:
    """Inferences as `samples_to_rows` writes them."""
    found = []
    for place, item in enumerate(inferences):
        results = [bool(result) for result in item["test_results"]]
        found.append({
            "completion_id": place,
            "model_name": item["model_name"],
            "completion": item["completion"],
            "program": extract_program(item["completion"], problem.entry_point),
            "pass_rate": sum(results) / len(results),
            "test_results": results,
        })
    return found


def _audit(problems: list[Problem]) -> list[dict[str, Any]]:
    """What notebook 02 would say: every test passed the authors' proxy, and nobody knows which ones are right."""
    return [{"id": problem.id, "test": test, "passed": True, "kept": True, "valid": None}
            for problem in problems for test in problem.tests]  # fmt: skip


def _pairs(source: Source) -> list[Row]:
    found = pairs_to_rows(rows_to_pairs(source.rows()))
    if not found:
        raise AdoptError(f"{source.name} holds no pairs; mend the file.")
    return found
