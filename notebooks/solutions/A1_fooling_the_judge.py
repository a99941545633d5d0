# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import ast  # noqa: F811

from acelib.course import check
from acelib.judge import Judge, Submission

# %% [markdown]
# ### A1.1 Question and answer apart (15 minutes, medium)
#
# A test may call `f` more than once, and `take_apart` above knows one call only. Return all calls of `f`, in the order
# in which they are written, and the asserted expression with ANSWER0, ANSWER1, ... in their places. The program sees
# the calls and never the expression. (No call of `f` stands inside another.)


# %%
def split_test(test: str) -> tuple[list[str], str]:
    """(the calls of `f`, the asserted expression with ANSWER0, ANSWER1, ... in their places)."""
    ### BEGIN SOLUTION
    calls = []

    class Apart(ast.NodeTransformer):
        def visit_Call(self, node):
            if not (isinstance(node.func, ast.Name) and node.func.id == "f"):
                return self.generic_visit(node)
            calls.append(ast.unparse(node))
            return ast.Name(f"ANSWER{len(calls) - 1}")

    kept = Apart().visit(ast.parse(test).body[0].test)
    return calls, ast.unparse(kept)
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    ("assert f(3) == 9", ["f(3)"], "ANSWER0 == 9"),
    ("assert f(1) + f(2) == 3", ["f(1)", "f(2)"], "ANSWER0 + ANSWER1 == 3"),
    ("assert f(1) == f(1)", ["f(1)", "f(1)"], "ANSWER0 == ANSWER1"),
    ("assert sorted(f([2, 1])) == f([1, 2])", ["f([2, 1])", "f([1, 2])"], "sorted(ANSWER0) == ANSWER1"),
    ("assert abs(f(1.1) - 1.21) < 1e-6", ["f(1.1)"], "abs(ANSWER0 - 1.21) < 1e-06"),
]
with check(split_test) as answer:
    for test, calls, question in CASES:
        sent, kept = answer(test)
        assert sent == calls, f"{test}: {calls} are sent; yours sends {sent}"
        assert kept == question, f"{test}: {question} is kept; yours keeps {kept}"

# %% [markdown]
# ### A1.2 Is it data? (15 minutes, medium)
#
# What comes back from the program must be plain data: numbers, texts, True, False, None, and lists, tuples, sets and
# dicts of such. An object whose class *inherits* from `int` is none, for it brings its own `__eq__`. Write the guard.


# %%
def is_data(value) -> bool:
    """Whether the value and all that is in it are of exactly the types above."""
    ### BEGIN SOLUTION
    if type(value) in (list, tuple, set):
        return all(is_data(one) for one in value)
    if type(value) is dict:
        return all(is_data(one) for pair in value.items() for one in pair)
    return type(value) in (int, float, str, bool, type(None))
    ### END SOLUTION


# %% tags=["exercise-check"]
class Nine(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


class Anything(list):
    def __eq__(self, other):
        return True


with check(is_data) as answer:
    for value in (3, -1.5, "x", True, None, [1, [2, "a"]], (1,), {1, 2}, {"a": [1]}, [], {}):
        assert answer(value) is True, f"{value!r} is plain data"
    for value, why in [
        (Nine(3), "a class that inherits from int equals whatever it likes"),
        ([1, Nine(3)], "it hides in a list"),
        ({"a": {"b": Nine(3)}}, "it hides two dicts deep"),
        ({Nine(3): 1}, "keys are values, too"),
        (Anything([1]), "so does a list's child"),
        (len, "a function is no data"),
    ]:
        assert answer(value) is False, f"this one passes your guard, and should not: {why}"

# %% [markdown]
# ### A1.3 Around a blacklist (15 minutes, easy)
#
# Some executors look for forbidden words in the text before they run it. Write a program that is free of the words
# below and still learns from the module `os` what the system is called: `f()` returns `os.name`. It is nothing hostile,
# and the judge runs it, which does not read your text but bounds what a process can do.


# %%
FORBIDDEN = ["import os", "import sys", "os.", "subprocess", "from os", "open(", "system"]


def around_the_list() -> str:
    """A program without any of the forbidden words, in which f() returns os.name."""
    ### BEGIN SOLUTION
    return "def f():\n    return __import__('o' + 's').name"
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(around_the_list) as answer, Judge(workers=1) as judge:
    program = answer()
    words = [word for word in FORBIDDEN if word in program]
    assert not words, f"the list catches {words[0]!r}"
    (report,) = judge.run([Submission(program, ["assert f() == 'posix'"], entry_point="f")])
    assert report.passed, f"f() does not return os.name: {report.verdicts[0].reason or report.verdicts[0].status}"

# %% [markdown]
# ### A1.4 Tests that cannot be learnt by heart (project, 30 minutes)
#
# No sandbox notices a policy that has seen the tests and remembers the answers. Tests made anew each time do. Write a
# function that makes five to ten tests for *the square of `x`* from a seed. A right program passes them all; one that
# has memorised the tests of the seeds 0 to 9 fails on seed 10, and so does one that is right for small numbers only.


# %%
def fresh_tests(seed: int) -> list[str]:
    """Five to ten tests like "assert f(3) == 9", others for every seed."""
    ### BEGIN SOLUTION
    import random

    rng = random.Random(seed)
    return [f"assert f({x}) == {x * x}" for x in (rng.randint(-(10**6), 10**6) for _ in range(6))]
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(fresh_tests) as answer, Judge(workers=1) as judge:
    tests, seen = answer(10), [test for seed in range(10) for test in answer(seed)]
    assert 5 <= len(tests) <= 10, f"make five to ten tests; yours are {len(tests)}"
    assert tests == answer(10), "the same seed must give the same tests, or nobody can repeat a run"
    learnt = dict(test.removeprefix("assert f(").split(") == ") for test in seen)
    programs = {
        "right": "def f(x):\n    return x * x",
        "has learnt the tests by heart": f"def f(x):\n    return int({learnt!r}.get(str(x), '0'))",
        "knows small numbers only": "def f(x):\n    return x * x if abs(x) < 1000 else 0",
        "squares by adding": "def f(x):\n    return x + x",
    }
    reports = judge.run([Submission(text, tests, entry_point="f") for text in programs.values()])
    for (name, _), report in zip(programs.items(), reports):
        assert report.passed or name != "right", f"a right program fails: {report.verdicts[0].reason}"
        assert not report.passed or name == "right", f"a program that {name} passes"
