"""Problems, programs and preference pairs, and the public table layouts they are stored in.

Column names are those of `TIGER-Lab/AceCode-87K` and `TIGER-Lab/AceCodePair-300K`, so a run can start from those
sets and its output can be pushed next to them. Our own additions are `entry_point` (the hub set leaves it implicit in
the asserts), `program` inside an inference (the code found in `completion`) and the pass rates of a pair.

`run.table(name, build, of=Problem)`, `read_rows(path, Pair)` and `write_rows` turn objects into rows and back.
"""

import ast
import builtins
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    def from_row(cls, row: Row) -> "Problem":
        """From an AceCode-87K row. Raises DataError when a column is missing or when neither the row nor its tests name
        the function."""
        _require(row, ("id", "question", "test_cases"))
        entry_point = row.get("entry_point") or entry_point_of(row["test_cases"], row["question"])
        if not entry_point:
            raise DataError(
                f"Row {row['id']!r} has no entry_point and no test that calls a function; "
                "drop the row or add the column `entry_point`."
            )
        return cls(str(row["id"]), row["question"], entry_point, tuple(row["test_cases"]), row.get("source") or "")


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
    def from_row(cls, row: Row) -> "Pair":
        """From an AceCodePair-300K row; rates that it does not carry become nan. Raises DataError."""
        _require(row, ("id", "instruction", "chosen", "rejected"))
        instruction = "\n".join(part for part in (row["instruction"], row.get("input") or "") if part)
        rates = (float(row.get(name, "nan")) for name in ("chosen_rate", "rejected_rate"))
        return cls(str(row["id"]), instruction, row["chosen"], row["rejected"], *rates)


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


def _require(row: Row, columns: Sequence[str]) -> None:
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        name = "A row" if "id" in missing else f"Row {row['id']!r}"
        raise DataError(
            f"{name} has no {', '.join(missing)}; expected the columns of "
            f"AceCode-87K or AceCodePair-300K, found {', '.join(row) or 'none'}."
        )
