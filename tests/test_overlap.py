"""Near-duplicates and benchmark overlap, against values that can be computed by hand."""

import ast
import json
import random
from pathlib import Path

import pytest

from acelib.core import CourseError
from tools.near_duplicates import NearDuplicates
from tools.overlap import Benchmarks, code_ngrams, ngrams, parse, signatures, words

FIXTURES = Path(__file__).parent / "fixtures"
FILES = ("humaneval", "humanevalplus", "mbpp", "bigcodebench", "livecodebench")
BENCHMARKS = [FIXTURES / f"{name}.jsonl" for name in FILES]


def found(text, code="def other(x):\n    return x\n"):
    return Benchmarks(BENCHMARKS).overlap(text, code, ast.parse(code))


def test_words_leave_out_numbers_and_imports():
    text = "import numpy as np\nfrom math import pi\nFind `top_k([1, 2])` from the LIST"
    assert words(text) == ["find", "top", "from", "the", "list"]


def test_ngrams_of_short_texts_are_the_text():
    assert ngrams(["a", "b", "c"], 2) == {"a b", "b c"}
    assert ngrams(["a"], 2) == {"a"} and ngrams([], 2) == set()


def test_what_is_no_python_parses_to_none():
    assert parse("def f(:") is None and parse("(" * 5000) is None and parse("x = '\0'") is None


def test_signatures_are_names_with_arguments():
    code = "def f(a, b=1): pass\ndef g(): pass\nasync def h(x): pass\nclass C:\n    def __init__(self, data): pass"
    assert signatures(ast.parse(code)) == {("f", "a", "b"), ("h", "x")}


def test_estimated_similarity_decides_like_the_exact_one():
    """Programs of 60 statements with some replaced: far above the threshold goes, far below stays."""
    draw = random.Random(0)
    base = [f"x{i} = y{draw.randrange(1000)} + {draw.randrange(1000)}" for i in range(60)]
    for replaced, duplicate in ((2, True), (4, True), (25, False), (40, False)):
        other = [f"z{i} = {i} * w" if i < replaced else line for i, line in enumerate(base)]
        a, b = code_ngrams("\n".join(base)), code_ngrams("\n".join(other))
        jaccard = len(a & b) / len(a | b)
        assert (jaccard > 0.8) == duplicate and (jaccard < 0.55) != duplicate
        index = NearDuplicates()
        assert index.add("first", "\n".join(base)) is None
        assert index.add("second", "\n".join(other)) == ("first" if duplicate else None)


def test_the_nearest_of_several_is_named_and_a_duplicate_is_not_kept():
    base = "\n".join(f"line{i} = {i}" for i in range(40))
    index = NearDuplicates()
    assert index.add("a", base + "\nend = 1") is None
    assert index.add("b", base + "\nend = 2") == "a"
    assert index.add("c", base + "\nend = 2") == "a"  # not "b", which is not in the index
    assert index.add("empty", "") is None and index.add("other empty", "") == "empty"


@pytest.mark.parametrize(
    "text, question",
    [
        ("# Return the largest DIFFERENCE between two neighbours in heights, 0 for fewer than two!", "HumanEval/9000"),
        ("Please write a function to count the vowels of every odd word in a sentence, thanks", "9001"),
        ("you are asked to plot a histogram of the daily rainfall with ten equal bins", "BigCodeBench/9000"),
        ("given the heights of n ladders find the shortest way across all the roofs", "9000-lcb"),
    ],
)
def test_ten_words_of_a_question_are_found(text, question):
    reason, like = found(text)
    assert reason == "benchmark question" and like.startswith(f"{question}: ")


def test_of_several_runs_of_words_the_first_in_the_alphabet_is_named():
    """Sets of strings differ in their order from process to process, and so would what is written of a seed."""
    text = "return the largest difference between two neighbours in heights for fewer than two"
    like = "difference between two neighbours in heights for fewer than two"
    assert found(text) == ("benchmark question", f"HumanEval/9000: {like}")


def test_nine_words_numbers_and_everyday_code_are_not_enough():
    assert found("the largest difference between two neighbours in heights, zero") is None
    assert found("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]  a a b b c c d d e e f f") is None
    assert found("import os\nimport re\nfrom typing import List") is None


def test_phrasing_that_most_questions_of_a_benchmark_share_is_no_evidence(tmp_path):
    phrase = "you must write self contained code and return exactly one value each time"
    rows = [{"question_id": i, "question_content": f"{phrase} colour{chr(97 + i)}"} for i in range(12)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmarks, code = Benchmarks([tmp_path / "b.jsonl"]), "x = 1"
    assert benchmarks.overlap(phrase, code, ast.parse(code)) is None
    assert benchmarks.overlap(f"{phrase} colourc", code, ast.parse(code))[1].startswith("2: ")


def test_a_function_with_the_benchmarks_name_and_arguments_is_found():
    code = "def widest_gap(heights):\n    return 1\n"
    assert found("", code) == ("benchmark signature", "HumanEval/9000: widest_gap(heights)")
    assert found("", "def widest_gap(values):\n    return 1\n") is None


def test_a_renamed_solution_is_found():
    code = "def gap_of(heights):\n    return max((abs(a - b) for a, b in zip(heights, heights[1:])), default=0)\n"
    reason, like = found("", code)
    assert reason == "benchmark solution" and like.startswith("HumanEval/9000: ")


def test_a_benchmark_without_questions_is_an_error(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"task_id": 1, "body": "text"}')
    with pytest.raises(CourseError, match=r"no question in 1 \(columns: task_id, body\)"):
        Benchmarks([tmp_path / "b.jsonl"])
