"""Traces of a benchmark in training data."""

import ast
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from acelib.core import CourseError
from acelib.data import benchmark_rows
from acelib.schema import Row, parse

QUESTIONS = ("question", "prompt", "text", "complete_prompt", "instruct_prompt", "question_content")
WORDS = 10  # words in a row that two questions do not share by chance
FEWEST_WORDS = 6  # a shorter question is no evidence
BOILERPLATE = 10  # an n-gram in more questions of a benchmark is its phrasing, not its content (GPT-3's rule)
REASONS = ("benchmark question", "benchmark signature", "benchmark solution")
SOLUTION_SHARE, SOLUTION_SIZE = 0.8, 20  # of a solution's token 5-grams; shorter solutions prove nothing


def words(text: str) -> list[str]:
    """Lower-case words of two letters or more, without import lines (which half of all programs share)."""
    text = re.sub(r"^[ \t]*(?:import|from)\b.*$", " ", text, flags=re.M)
    return re.findall(r"[a-z]{2,}", text.lower())


def ngrams(items: list[str], n: int) -> set[str]:
    """All runs of `n` items, or the whole when it is shorter (and not empty)."""
    return {" ".join(items[i : i + n]) for i in range(max(1, len(items) - n + 1))} if items else set()


def code_ngrams(code: str) -> set[str]:
    """5-grams of a program's tokens."""
    return ngrams(re.findall(r"\w+|[^\w\s]", code), 5)


def signatures(tree: ast.Module) -> set[tuple[str, ...]]:
    """Name and argument names of every function that takes arguments; methods (every `__init__(self)`) do not count."""
    functions = (node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return {(one.name, *(arg.arg for arg in one.args.args)) for one in functions if one.args.args}


def _bodies(tree: ast.Module, name: str | None) -> str:
    """What the function `name`, or without a name every function, does: no signature, no docstring."""
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and name in (None, n.name)]
    said = [node for one in functions for node in one.body if not isinstance(getattr(node, "value", 0), ast.Constant)]
    return "\n".join(map(ast.unparse, said))


class Benchmarks:
    """Questions, function signatures and solutions of benchmarks, to be kept out of training data.

    Reads the layouts of HumanEval(+), MBPP(+), BigCodeBench and LiveCodeBench, and the course's own, from .jsonl,
    .jsonl.gz or .parquet files, or from the test split of a hub data set. Raises CourseError for one that cannot be
    read or has no question.
    """

    def __init__(self, paths: Iterable[str | Path] = ()):
        self._questions: dict[str, str] = {}
        self._signatures: dict[tuple[str, ...], str] = {}
        self._solutions: dict[str, list[str]] = {}
        self._sizes: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        for path in paths:
            rows = benchmark_rows(path)
            self.rows[str(path)] = len(rows)
            grams = [self._learn(row, f"{Path(path).name}/{number}", path) for number, row in enumerate(rows)]
            common = Counter(gram for _, mine in grams for gram in mine)
            for name, mine in grams:
                self._questions |= {gram: name for gram in mine if common[gram] <= BOILERPLATE}
        self._lengths = {gram.count(" ") + 1 for gram in self._questions}

    def _learn(self, row: Row, name: str, path: str | Path) -> tuple[str, set[str]]:
        name = str(row.get("task_id") or row.get("question_id") or name)
        asked = [row[column] for column in QUESTIONS if isinstance(row.get(column), str)]
        if not asked:
            raise CourseError(
                f"{path} has no question in {name} (columns: {', '.join(row)}); --decontaminate needs "
                f"one of the columns {', '.join(QUESTIONS)}."
            )
        solution = row.get("code") or row.get("canonical_solution")
        start = row.get("complete_prompt") or row.get("prompt") or ""
        for code in (solution, start + solution) if solution else ():
            if (tree := parse(code)) is not None:
                target = row.get("entry_point")
                self._signatures |= {one: name for one in signatures(tree) if target in (None, one[0])}
                grams = code_ngrams(_bodies(tree, target))
                if len(grams) >= SOLUTION_SIZE and name not in self._sizes:  # HumanEval+ repeats HumanEval
                    self._sizes[name] = len(grams)
                    for gram in grams:
                        self._solutions.setdefault(gram, []).append(name)
                break
        grams = {gram for text in asked for gram in ngrams(words(text), WORDS)}
        return name, {gram for gram in grams if gram.count(" ") + 1 >= FEWEST_WORDS}

    def overlap(self, text: str, code: str, tree: ast.Module) -> tuple[str, str] | None:
        """What of a benchmark an entry holds, as (reason, the benchmark's question), or None.

        text: all words of the entry; code, tree: its program. Reasons, in this order: ten words in a row of a question,
        a function with the name and the argument names of a solution, most of a solution. Of several, the first in the
        alphabet is named, whatever the process.
        """
        said = words(text)
        for length in sorted(self._lengths):
            if same := self._questions.keys() & ngrams(said, length):
                return "benchmark question", f"{self._questions[min(same)]}: {min(same)}"
        if same := self._signatures.keys() & signatures(tree):
            return "benchmark signature", f"{self._signatures[min(same)]}: {min(same)[0]}({', '.join(min(same)[1:])})"
        shared = Counter(name for gram in sorted(code_ngrams(code)) for name in self._solutions.get(gram, ()))
        for name, count in shared.most_common(1):
            if count >= SOLUTION_SHARE * self._sizes[name]:
                return "benchmark solution", f"{name}: {count} of {self._sizes[name]} 5-grams"
        return None
