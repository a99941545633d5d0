"""Inputs that tell samples apart, the votes on them, and what programs return (appendix A4)."""

import random

import numpy as np
import pytest
from in_notebooks import notebook_function

from acelib.core import ROOT, read_rows
from acelib.judge import Judge, JudgeError, Submission, outputs
from experiments.distinguishing import (
    _among,
    _claim,
    _first_literal,
    arguments,
    distinguishing_inputs,
    examine,
    inputs,
    mutated,
    numbered,
)
from experiments.filters import made_by_proxy, made_tests, reliabilities, weighted_majority


@pytest.fixture(scope="module")
def judge():
    with Judge() as judge:
        yield judge


@pytest.mark.parametrize(
    "body, given, expected",
    [
        ("return x + 1", "1", "2"),
        ("return [x, 'a\\n', None, True]", "1", "[1, 'a\\n', None, True]"),
        ("return {x: {2}}", "1", "{1: {2}}"),
        ("return 'é' * x", "2", r"'\xe9\xe9'"),
        ("return 1 / x", "0", None),
        ("return float('nan')", "0", None),
        ("return object()", "0", None),
        ("return 'a' * x", "1000", None),
        ("while True: pass", "0", None),
        ("raise AssertionError('got 5')", "0", None),
        ("return type('L', (list,), {'__repr__': lambda self: '7'})([x])", "1", "[1]"),
        ("import sys; sys.exit(0)", "0", None),
        ("print('got 5')", "0", "None"),
    ],
)
def test_what_programs_return(judge, body, given, expected):
    (found,) = outputs(judge, [Submission(f"def f(x):\n    {body}\n", [f"f({given})"])])
    assert found == [expected]


def test_outputs_want_calls_and_stand_no_broken_program(judge):
    assert outputs(judge, [Submission(None, ["f(1)"]), Submission("def f(:", ["f(1)", "f(2)"])]) == [[None], [None] * 2]
    assert outputs(judge, []) == [] and outputs(judge, [Submission("def f(x): return x", [])]) == [[]]
    for test in ("assert f(1) == 2", "f(1", "3", "f(1); f(2)"):
        with pytest.raises(JudgeError, match="takes calls"):
            outputs(judge, [Submission("def f(x): return x", [test])])


@pytest.mark.parametrize("value", [3, -1.5, True, "aXb", [1, [2, 3]], ("a", 1), {"k": 1, 2: [3]}, "", [], {}, None])
def test_a_mutation_keeps_the_type(value):
    before, rng = repr(value), random.Random(0)
    found = [mutated(value, rng) for _ in range(200)]
    assert all(type(one) is type(value) for one in found) and repr(value) == before
    assert any(one != value for one in found) == (value not in ("", [], {}, None))


def test_appendix_a4_mutates_and_votes_as_the_experiment():
    mutate, majority = (notebook_function("A4", name) for name in ("mutated", "weighted_majority"))
    rng = random.Random(1)
    for value in (3, -1.5, True, "aXb", [1, [2, 3]], ("a", 1), {"k": 1, 2: [3]}, ""):
        assert [mutate(value, random.Random(s)) for s in range(50)] == [
            mutated(value, random.Random(s)) for s in range(50)
        ]
    for _ in range(300):
        returned, votes = ([rng.randrange(-1, 3) for _ in range(rng.choice([0, 1, 5]))] for _ in range(2))
        weights, share = [rng.choice([0, 0.5, 2]) for _ in range(2)], rng.choice([0.3, 0.5, 0.75])
        assert majority(returned, votes, weights, share) == weighted_majority(returned, votes, weights, share)


def test_the_weighted_majority():
    assert weighted_majority([0, 0, 1], [1] * 8, (1, 0), 0.5) == 0
    assert weighted_majority([0, 0, 1], [1] * 8, (0, 1), 0.5) == 1
    assert weighted_majority([0, 0, 1], [1] * 8, (1, 1), 0.75) == -1
    assert weighted_majority([-1, -1, 0], [-1] * 8, (1, 1), 0.5) == -1  # most fail or say something else
    assert weighted_majority([], [], (1, 1), 0.5) == weighted_majority([0], [0], (0, 0), 0.5) == -1


def test_reliabilities_look_at_no_truth():
    agree = {"results": [[True, True, False]] * 9 + [[False, False, True]]}
    samples, teacher = reliabilities([agree])
    assert samples == pytest.approx(np.log(9)) and teacher == pytest.approx(np.log(2))
    scattered = {"results": np.eye(10, dtype=bool).tolist()}
    assert reliabilities([scattered])[0] == 0


def test_arguments_and_inputs():
    assert arguments("assert f([1, 2], 'a') == g(3)", "f") == [[1, 2], "a"]
    assert arguments("assert sorted(f(2)) == [1]", "f") == [2]
    for test in ("assert f(x) == 1", "assert f(a=1) == 1", "assert g(1) == 1", "assert f(", "assert True"):
        assert arguments(test, "f") is None
    found = inputs(["assert f([1, 2]) == 3", "assert f([1, 2]) == 4", "assert f([]) == 0"], "f", random.Random(0))
    assert found[:2] == [[[1, 2]], [[]]] and 2 < len(found) <= 42
    assert len(set(map(repr, found))) == len(found) and all(isinstance(one[0], list) for one in found)
    assert inputs(["assert True"], "f", random.Random(0)) == []


def test_equal_values_have_one_number():
    assert numbered(["1", None, "1.0", "True", "'1'", "[1]"]) == (["1", "'1'", "[1]"], [0, -1, 0, 0, 1, 2])
    assert [_among(["1", "[2]"], text) for text in ("1.0", "[2]", "3", "oops(", None)] == [0, 1, -1, -1, -1]


def test_inputs_split_what_is_still_alike():
    numbers = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, -1], [5, 5, 5, 5]])
    alive = np.array([True] * 4 + [False])
    assert distinguishing_inputs(numbers, alive) == [1, 2, 3]
    assert distinguishing_inputs(numbers, alive, most=1) == [1]
    assert distinguishing_inputs(numbers[:, :1], alive) == distinguishing_inputs(numbers, alive & False) == []
    assert distinguishing_inputs(numbers[:, :0], alive) == []


def test_what_the_teachers_say_is_read():
    assert _claim(r' rotate> [2]\nassert f(\"a\") == \"b\\n\"", "# [1]') == r'"b\n"'
    assert _claim(r'assert f(1) == \d"') == ""  # no escape of JSON's
    assert _claim("nothing") == _claim("assert f(1) == 3") == ""
    assert _first_literal(" [1, 2]  # a list\nassert") == "[1, 2]"
    assert _first_literal(" oops(") == ""


def test_questions_are_examined(judge):
    programs = ["def f(x):\n    return x\n"] * 3 + ["def f(x):\n    return abs(x)\n"]
    tests = ["assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 4"]
    row = {
        "id": "q",
        "entry_point": "f",
        "tests": tests,
        "programs": programs,
        "results": [[True, True, False]] * 4,
        "proxy": [True, True, False],
        "proxy_program": programs[-1],
        "reference": programs[-1],
    }
    asked = []

    def ask(wanted):
        asked.extend(given for _, given in wanted)
        return [[repr(abs(given[0]))] * 7 + ["7 +"] for _, given in wanted]

    (found,) = examine([row], judge, ask)
    assert len(found["calls"]) == 1 and asked[0][0] < 0  # one input splits the two kinds of programs
    (values,) = found["values"]
    assert sorted(map(int, values)) == [asked[0][0], -asked[0][0]]
    right = values.index(str(-asked[0][0]))
    assert found["expected"] == found["proxy_outputs"] == [right]
    assert found["outputs"][0] == [1 - right] * 3 + [right] and found["votes"][0] == [right] * 7 + [-1]
    call = found["calls"][0]
    assert made_by_proxy(found) == made_tests(found, (0, 1)) == [f"assert {call} == {values[right]}"]
    assert made_tests(found, (1, 0)) == [f"assert {call} == {values[1 - right]}"]
    assert made_tests(found, (1, 1)) == []


@pytest.mark.parametrize("path", ["grid", "real"])
def test_recorded_tables_are_whole(path):
    rows = read_rows(ROOT / "data" / path / "distinguishing.parquet")
    assert len({row["id"] for row in rows}) == len(rows) > 80
    for row in rows:
        assert len(row["results"]) == len(row["truth"]) == 16
        assert {len(one) for one in row["results"]} == {len(row["valid"])} == {len(row["proxy"])}
        columns = [row[name] for name in ("calls", "values", "outputs", "proxy_outputs", "votes", "expected")]
        for _, values, returned, proxy, votes, expected in zip(*columns, strict=True):
            assert len(returned) == 16 and len(votes) == 8 and len(set(returned)) > 1
            assert {*returned, *votes, proxy, expected} <= set(range(-1, len(values)))
