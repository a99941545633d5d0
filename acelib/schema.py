"""Problems, programs and preference pairs, and the public table layouts they are stored in.

Column names are those of `TIGER-Lab/AceCode-87K` and `TIGER-Lab/AceCodePair-300K`, so a run can start from those
sets and its output can be pushed next to them. Our own additions are `entry_point` (the hub set leaves it implicit in
the asserts), `program` inside an inference (the code found in `completion`) and the pass rates of a pair.

`run.table(name, build, of=Problem)`, `read_rows(path, Pair)` and `write_rows` turn objects into rows and back.
"""

import ast
import builtins
import json
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
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

    def to_row(self) -> Row:
        """An AceCode-87K row with empty `inferences` and `context_messages`."""
        return {
            "id": self.id,
            "source": self.source,
            "question": self.question,
            "entry_point": self.entry_point,
            "test_cases": list(self.tests),
            "inferences": [],
            "context_messages": [],
        }

    @classmethod
    def from_row(cls, row: Row, number: int | None = None) -> "Problem":
        """From an AceCode-87K row, the one of that `number` in its file. Raises DataError when a column is missing or
        of another type, and when neither the row nor its tests name the function."""
        place = _place(row, number, ("id", "question", "test_cases"))
        question, tests = as_text(row["question"], place, "question"), as_tests(row["test_cases"], place, "test_cases")
        entry_point = row.get("entry_point") or entry_point_of(tests, question)
        if not entry_point:
            raise DataError(
                f"{place} has no entry_point and no test that calls a function; drop the row or add the column "
                "`entry_point`."
            )
        as_text(entry_point, place, "entry_point")
        return cls(str(row["id"]), question, entry_point, tests, row.get("source") or "")


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

    def to_row(self) -> Row:
        """An AceCodePair-300K row plus the two pass rates."""
        return {
            "id": self.problem_id,
            "instruction": self.instruction,
            "input": "",
            "chosen": self.chosen,
            "rejected": self.rejected,
            "chosen_rate": self.chosen_rate,
            "rejected_rate": self.rejected_rate,
        }

    @classmethod
    def from_row(cls, row: Row, number: int | None = None) -> "Pair":
        """From an AceCodePair-300K row; rates that it does not carry become nan. Raises DataError."""
        place = _place(row, number, ("id", "instruction", "chosen", "rejected"))
        parts = [as_text(row.get(name) or "", place, name) for name in ("instruction", "input")]
        chosen, rejected = (as_text(row[name], place, name) for name in ("chosen", "rejected"))
        rates = (as_number(row.get(name), place, name) for name in ("chosen_rate", "rejected_rate"))
        return cls(str(row["id"]), "\n".join(part for part in parts if part), chosen, rejected, *rates)


def parse(code: str) -> ast.Module | None:
    """The syntax tree, or None when the code is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's escape sequences
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def called_functions(test: str) -> set[str]:
    """Plain names that `test` calls, without Python's builtins. A test that does not parse calls nothing."""
    calls = (node.func for node in ast.walk(parse(test) or ast.Module([], [])) if isinstance(node, ast.Call))
    return {func.id for func in calls if isinstance(func, ast.Name) and not hasattr(builtins, func.id)}


def entry_point_of(tests: Iterable[str], question: str = "") -> str | None:
    """The function most tests call; a tie goes to a name the question mentions. None when no test calls any."""
    votes = Counter(name for test in tests for name in called_functions(test))
    if not votes:
        return None
    return max(votes, key=lambda name: (votes[name], name in question, name))


def as_text(value: Any, place: str, column: str) -> str:
    """A column that must be text. Raises DataError that names row and column."""
    if not isinstance(value, str):
        raise _of_another_type(place, column, "text", value)
    return value


def as_number(value: Any, place: str, column: str) -> float:
    """A column that must be a number; nan for null. Raises DataError that names row and column."""
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError):
        raise _of_another_type(place, column, "a number", value) from None


def as_list(value: Any, place: str, column: str, of: type = object) -> list[Any]:
    """A column that must be a list `of` something; a list written as JSON, or as Python prints it, is read. Raises
    DataError that names row and column."""
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                value = read(value) if isinstance(value, str) else value
        if not isinstance(value, list):
            raise _of_another_type(place, column, "a list", "text that is not a JSON list")
    if isinstance(value, dict) or not hasattr(value, "__iter__"):
        raise _of_another_type(place, column, "a list", value)
    if odd := [one for one in value if not isinstance(one, of)]:
        things = {str: "texts", dict: "objects"}[of]
        raise _of_another_type(place, column, f"a list of {things}", f"one that holds {_kind(odd[0])}")
    return list(value)


def as_tests(value: Any, place: str, column: str) -> tuple[str, ...]:
    """A column of tests: a list of texts, that list as JSON, or Python text, whose asserts then are the tests.

    Raises DataError that names row and column.
    """
    if isinstance(value, str) and not value.lstrip().startswith("["):
        if (tree := parse(value)) is None:
            raise _of_another_type(place, column, "a list of tests", "text that is neither JSON nor Python")
        single = all(isinstance(node, ast.Assert) for node in tree.body)
        value = [ast.unparse(node) for node in tree.body] if single else [value]
    return tuple(as_list(value, place, column, of=str))


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _of_another_type(place: str, column: str, wanted: str, found: Any) -> DataError:
    found = found if isinstance(found, str) and " " in found else _kind(found)
    return DataError(f"{place}, column {column} must be {wanted}, but is {found}; mend or drop the row.")


def _place(row: Row, number: int | None, columns: Iterable[str]) -> str:
    """Words for a row, which must have these columns. Raises DataError."""
    place = f"Row {number if number is not None else repr(row.get('id', ''))}"
    if missing := [column for column in columns if row.get(column) is None]:
        raise DataError(
            f"{place} has no {', '.join(missing)}; expected the columns of "
            f"AceCode-87K or AceCodePair-300K, found {', '.join(row) or 'none'}."
        )
    return place
