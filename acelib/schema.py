"""Problems, programs and preference pairs, and the public table layouts they are stored in.

Column names are those of `TIGER-Lab/AceCode-87K` and `TIGER-Lab/AceCodePair-300K`, so a run can start from those
sets and its output can be pushed next to them. Our own additions are `entry_point` (the hub set leaves it implicit in
the asserts), `program` inside an inference (the code found in `completion`) and the pass rates of a pair.
"""

import ast
import builtins
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from acelib.core import DataError, Row


@dataclass(frozen=True)
class Problem:
    """A question, the name of the function it asks for, and the assert statements that check it.

    `prelude` is code that the question gives and a program may leave out; `setup` makes objects the tests use. Public
    benchmarks need them (the judge runs one before the program, the other after it); tables do not store them.
    """

    id: str
    question: str
    entry_point: str
    tests: tuple[str, ...]
    source: str = ""
    prelude: str = ""
    setup: str = ""


@dataclass(frozen=True)
class Program:
    """One sampled answer. `text` is the code found in `reply`, or None when no code could be found."""

    problem_id: str
    text: str | None
    model: str
    reply: str = ""


@dataclass(frozen=True)
class Pair:
    """Two answers to one instruction; the rates are shares of passed tests in [0, 1]."""

    problem_id: str
    instruction: str
    chosen: str
    rejected: str
    chosen_rate: float
    rejected_rate: float


def called_functions(test: str) -> set[str]:
    """Plain names that `test` calls, without Python's builtins. A test that does not parse calls nothing."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {func.id for func in calls if isinstance(func, ast.Name) and not hasattr(builtins, func.id)}


def entry_point_of(tests: Iterable[str], question: str = "") -> str | None:
    """The function most tests call; a tie goes to a name the question mentions. None when no test calls any."""
    votes = Counter(name for test in tests for name in called_functions(test))
    if not votes:
        return None
    return max(votes, key=lambda name: (votes[name], name in question, name))


def problems_to_rows(problems: Iterable[Problem]) -> list[Row]:
    """AceCode-87K rows with empty `inferences` and `context_messages`."""
    return [
        {
            "id": problem.id,
            "source": problem.source,
            "question": problem.question,
            "entry_point": problem.entry_point,
            "test_cases": list(problem.tests),
            "inferences": [],
            "context_messages": [],
        }
        for problem in problems
    ]


def rows_to_problems(rows: Iterable[Row]) -> list[Problem]:
    """Problems from AceCode-87K rows.

    Raises DataError when a column is missing or of another type, and when neither the row nor its tests name the
    function.
    """
    problems = []
    for number, row in enumerate(rows):
        _require(row, ("id", "question", "test_cases"), number)
        question = as_text(row["question"], number, "question")
        tests = as_tests(row["test_cases"], number, "test_cases")
        entry_point = row.get("entry_point") or entry_point_of(tests, question)
        if not entry_point:
            raise DataError(
                f"Row {number} ({row['id']!r}) has no entry_point and no test that calls a function; "
                "drop the row or add the column `entry_point`."
            )
        as_text(entry_point, number, "entry_point")
        problems.append(Problem(str(row["id"]), question, entry_point, tests, row.get("source") or ""))
    return problems


def as_text(value: Any, row: int | str, column: str) -> str:
    """A column that must be text. Raises DataError that names row and column."""
    if not isinstance(value, str):
        raise _of_another_type(row, column, "text", value)
    return value


def as_list(value: Any, row: int | str, column: str) -> list[Any]:
    """A column that must be a list; a list written as JSON is read. Raises DataError that names row and column."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, list):
            raise _of_another_type(row, column, "a list", "text that is not a JSON list")
    if isinstance(value, dict) or not hasattr(value, "__iter__"):
        raise _of_another_type(row, column, "a list", value)
    return list(value)


def as_tests(value: Any, row: int | str, column: str) -> tuple[str, ...]:
    """A column of tests: a list of texts, that list as JSON, or Python text, whose asserts then are the tests.

    Raises DataError that names row and column.
    """
    if isinstance(value, str) and not value.lstrip().startswith("["):
        try:
            body = ast.parse(value).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise _of_another_type(row, column, "a list of tests", "text that is neither JSON nor Python") from None
        single = all(isinstance(node, ast.Assert) for node in body)
        value = [ast.unparse(node) for node in body] if single else [value]
    tests = as_list(value, row, column)
    for test in tests:
        if not isinstance(test, str):
            raise _of_another_type(row, column, "a list of texts", f"one that holds {_kind(test)}")
    return tuple(tests)


def as_objects(value: Any, row: int | str, column: str) -> list[Row]:
    """A column that must be a list of objects, or such a list as JSON. Raises DataError that names row and column."""
    found = as_list(value, row, column)
    for one in found:
        if not isinstance(one, dict):
            raise _of_another_type(row, column, "a list of objects", f"one that holds {_kind(one)}")
    return found


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _of_another_type(row: int | str, column: str, wanted: str, found: Any) -> DataError:
    place = f"Row {row}" if isinstance(row, int) else row
    found = found if isinstance(found, str) and " " in found else _kind(found)
    return DataError(f"{place}, column {column} must be {wanted}, but is {found}; mend or drop the row.")


def pairs_to_rows(pairs: Iterable[Pair]) -> list[Row]:
    """AceCodePair-300K rows plus the two pass rates."""
    return [
        {
            "id": pair.problem_id,
            "instruction": pair.instruction,
            "input": "",
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "chosen_rate": pair.chosen_rate,
            "rejected_rate": pair.rejected_rate,
        }
        for pair in pairs
    ]


def rows_to_pairs(rows: Iterable[Row]) -> list[Pair]:
    """Pairs from AceCodePair-300K rows; rates that the file does not carry become nan. Raises DataError."""
    pairs = []
    for number, row in enumerate(rows):
        _require(row, ("id", "instruction", "chosen", "rejected"), number)
        parts = [as_text(row.get(name) or "", number, name) for name in ("instruction", "input")]
        instruction = "\n".join(part for part in parts if part)
        chosen, rejected = (as_text(row[name], number, name) for name in ("chosen", "rejected"))
        rates = (_rate(row.get(name), number, name) for name in ("chosen_rate", "rejected_rate"))
        pairs.append(Pair(str(row["id"]), instruction, chosen, rejected, *rates))
    return pairs


def _rate(value: Any, row: int, column: str) -> float:
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError):
        raise _of_another_type(row, column, "a number", value) from None


def _require(row: Row, columns: Iterable[str], number: int) -> None:
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        raise DataError(
            f"Row {number} has no {', '.join(missing)}; expected the columns of AceCode-87K or AceCodePair-300K, "
            f"found {', '.join(row) or 'none'}."
        )
