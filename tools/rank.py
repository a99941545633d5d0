"""Ranks recorded samples of any model by every selector that needs no model: `python -m tools.rank SOURCE TARGET`.

SOURCE has a question with its samples per line (`read_recorded`), TARGET gets every selector's scores and pick.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from acelib.best_of_n import dual_agreement, expected_best, rate_then_score, share_passed, shown_outputs
from acelib.core import DataError, read_rows, stoppable, write_rows
from acelib.extraction import extract_program
from acelib.judge import LLM_PRELUDE, Judge, Submission
from acelib.schema import Row, entry_point_of
from tools.commands import explained

OWN = ("pass rate", "filtered pass rate", "dual agreement", "majority vote", "average", "oracle")


@dataclass(frozen=True)
class Recorded:
    """The samples of one question as a file records them. `programs` (samples,), None where a reply held no code;
    `kept`: places in `tests` of those that survived filtering; `correct` (samples,) of 0/1; `scores`: name ->
    (samples,)."""

    question: str
    programs: tuple[str | None, ...]
    tests: tuple[str, ...]
    kept: tuple[int, ...] | None
    correct: tuple[float, ...] | None
    scores: dict[str, tuple[float, ...]]

    @property
    def optional(self) -> set[str]:
        """Names of the optional columns that are there."""
        present = {"filtered_tests": self.kept, "correct": self.correct}
        return {name for name, value in present.items() if value is not None} | {f"scores.{one}" for one in self.scores}


def read_recorded(path: str | Path) -> list[Recorded]:
    """Questions with their samples from a .jsonl (or .parquet) file, one question per row.

    Columns: `question`; `programs` (source code, null where there is none) or `replies` (the code is looked for);
    `tests` (asserts). Optional: `filtered_tests` (some of `tests`), `correct` (0/1 per sample), `scores` (an object:
    name -> one number per sample). Raises DataError, naming the question by its place from 1, when a column is
    missing or does not fit, or when an optional one is there for some questions only.
    """
    found = [_recorded(row, f"{path}, question {number}") for number, row in enumerate(read_rows(path), start=1)]
    if not found:
        raise DataError(f"{path} has no questions; record one per line.")
    for number, one in enumerate(found, start=1):
        if odd := sorted(one.optional ^ found[0].optional):
            differs = f"question {number} differs from question 1 in {', '.join(odd)}"
            raise DataError(f"{path}, {differs}; record it for all questions or for none.")
    return found


def majority_vote(outputs: Sequence[Hashable | None]) -> list[float]:
    """Number of samples with the same output as this one, itself included.

    outputs: (samples,), whatever counts as one sample's output: its text, or what it returned for all inputs together
    (the largest cluster of AlphaCode, Li et al. 2022; exact-match MBR-Exec, Shi et al. 2022). None stands for a sample
    without output; it neither votes nor wins (0).
    """
    votes = Counter(output for output in outputs if output is not None)
    return [float(votes[output]) for output in outputs]


def rank(questions: Sequence[Recorded], judge: Judge) -> list[Row]:
    """Scores of every selector that needs no model; programs are run by `judge` and nowhere else.

    Rows: question, scores ({selector: (samples,)}), pick ({selector: place of the first sample with the highest
    score}), correct (as recorded, or None). Selectors: "pass rate", "dual agreement", "majority vote"; with filtered
    tests "filtered pass rate"; for every recorded score its own name and "<pass rate>, then <name>", by the filtered
    tests where there are any.
    """
    submissions = [
        Submission(program, one.tests, LLM_PRELUDE, entry_point=entry_point_of(one.tests, one.question) or "")
        for one in questions
        for program in one.programs
    ]
    reports, rows = iter(judge.run(submissions)), []
    for one in questions:
        mine = [next(reports) for _ in one.programs]
        passed = [[verdict.passed for verdict in report.verdicts] for report in mine]
        scores = {
            "pass rate": share_passed(passed),
            "dual agreement": dual_agreement(passed),
            "majority vote": majority_vote(shown_outputs(mine)),
        }
        tests = "pass rate"
        if one.kept is not None:
            tests = "filtered pass rate"
            scores[tests] = share_passed(passed, one.kept)
        for name, values in one.scores.items():
            scores |= {name: list(values), f"{tests}, then {name}": rate_then_score(scores[tests], values)}
        pick = {name: values.index(max(values)) for name, values in scores.items()}
        correct = None if one.correct is None else list(one.correct)
        rows.append({"question": one.question, "scores": scores, "pick": pick, "correct": correct})
    return rows


def picked_correct(rows: Sequence[Row]) -> dict[str, float]:
    """Share of questions whose pick is correct, per selector, between the "average" sample and the "oracle".

    `rows` as `rank` gives them. Samples with equal scores share the pick evenly. Raises DataError when the file
    did not record what is correct.
    """
    if any(row["correct"] is None for row in rows):
        raise DataError("The file does not record which samples are correct; add the column `correct`.")
    columns = {"average": [fmean(row["correct"]) for row in rows]}
    for name in rows[0]["scores"]:
        columns[name] = [expected_best(row["correct"], row["scores"][name], len(row["correct"])) for row in rows]
    columns["oracle"] = [max(row["correct"]) for row in rows]
    return {name: fmean(values) for name, values in columns.items()}


def _recorded(row: Any, where: str) -> Recorded:
    def check(fits: bool, what: str) -> None:
        if not fits:
            raise DataError(f"{where}: {what}; mend or drop the line.")

    check(isinstance(row, dict), "it is no JSON object")
    question, tests = row.get("question"), row.get("tests")
    check(isinstance(question, str), "`question` must be a string")
    check(_list_of(tests, str) and tests, "`tests` must be a list of asserts, at least one")
    programs, replies = row.get("programs"), row.get("replies")
    if programs is None:
        check(_list_of(replies, str) and replies, "`programs` or `replies` must be a list of strings, at least one")
        entry_point = entry_point_of(tests, question)
        programs = [extract_program(reply, entry_point) for reply in replies]
    check(_list_of(programs, str | None) and programs, "`programs` must be a list of strings or nulls, at least one")
    filtered, correct, scores = row.get("filtered_tests"), row.get("correct"), row.get("scores") or {}
    if filtered is not None:
        check(_list_of(filtered, str) and set(filtered) <= set(tests), "`filtered_tests` must be some of `tests`")
    if correct is not None:
        fits = _list_of(correct, int | float) and len(correct) == len(programs) and set(correct) <= {0, 1}
        check(fits, f"`correct` must be a list of 0 or 1 for each of its {len(programs)} samples")
    check(isinstance(scores, dict), "`scores` must be an object of lists, name -> one number per sample")
    for name, values in scores.items():
        check(name not in OWN, f"`scores` must not use the name {name!r}, which is a selector of its own")
        fits = _list_of(values, int | float) and len(values) == len(programs) and not any(map(math.isnan, values))
        check(fits, f"`scores.{name}` must be a list of {len(programs)} numbers, one per sample")
    return Recorded(
        question,
        tuple(programs),
        tuple(tests),
        None if filtered is None else tuple(place for place, test in enumerate(tests) if test in set(filtered)),
        None if correct is None else tuple(map(float, correct)),
        {name: tuple(map(float, values)) for name, values in scores.items()},
    )


def _list_of(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.rank", description=__doc__.partition("\n\n")[0])
    parser.add_argument("source", type=Path, help=".jsonl: question, programs, tests (see `read_recorded`)")
    parser.add_argument("target", type=Path, help=".jsonl to write")
    parser.add_argument("--workers", type=int, default=1, help="sandboxes at a time")
    asked = parser.parse_args(words)
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


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
