# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import ast  # noqa: F811
import json

from acelib.course import check

# %% [markdown]
# ### 1.1 What does the test expect? (5 minutes, easy)
#
# Read a test of the form `assert f(...) == value` as a syntax tree, without running anything, and return the value.
# Negative numbers and lists are values, too: `ast.literal_eval` reads a node as well as a text.


# %%
def expected_value(test: str):
    """The literal on the right of `==`."""
    ### BEGIN SOLUTION
    comparison = ast.parse(test).body[0].test
    return ast.literal_eval(comparison.comparators[0])
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    ("assert f([2, 1]) == [1, 2]", [1, 2]),
    ("assert f(3) == -9", -9),
    ("assert f('a == b') == ''", ""),
    ("assert f(0) == {'a': (1, True)}", {"a": (1, True)}),
]
with check(expected_value) as answer:
    for test, right in CASES:
        found = answer(test)
        assert found == right and type(found) is type(right), f"{test} expects {right!r}; yours is {found!r}"

# %% [markdown]
# ### 1.2 Which functions are called? (15 minutes, medium)
#
# A test may call the function that the question is about, and Python's own; a test that calls a helper which nobody
# defined cannot pass. Return the names of all functions that a test calls, methods left out, again from the syntax
# tree. `ast.walk` visits every node; a call's `func` is an `ast.Name`, or for a method an `ast.Attribute`.


# %%
def called(test: str) -> set[str]:
    """Names of the functions that the test calls."""
    ### BEGIN SOLUTION
    calls = [node.func for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    return {func.id for func in calls if isinstance(func, ast.Name)}
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    ("assert double(2) == 4", {"double"}, "one plain call"),
    ("assert sorted(double([2])) == [4]", {"sorted", "double"}, "a call inside a call is a call"),
    ("assert double('A').lower() == 'aa'", {"double"}, "`lower` is a method"),
    ("assert 2 + 2 == 4", set(), "nothing is called"),
    ("assert f == 'g(1)'", set(), "a string calls nothing"),
]
with check(called) as answer:
    for test, right, why in CASES:
        found = answer(test)
        assert found == right, f"{test} calls {sorted(right) or 'nothing'}: {why}. Yours finds {sorted(found)}"

# %% [markdown]
# ### 1.3 Salvage (20 minutes, medium)
#
# A reply was cut off in the middle of its list of tests. Return the tests that are complete, those whose closing
# quotation mark is there. All replies here begin like `{"tests": ["assert ...`, and no string holds a quotation mark.


# %%
def salvage(reply: str) -> list[str]:
    """The complete tests of a reply that may be cut off anywhere behind its opening bracket."""
    ### BEGIN SOLUTION
    pieces = reply.split('"')  # between two quotation marks: a string; behind the last one: what was cut
    complete = pieces[1::2][: (len(pieces) - 1) // 2]
    return [text for text in complete if text != "tests"]
    ### END SOLUTION


# %% tags=["exercise-check"]
WHOLE = json.dumps({"tests": ["assert f(1) == 1", "assert f([2]) == {3: 4}"]})
with check(salvage) as answer:
    for end in range(len('{"tests": ['), len(WHOLE) + 1):
        reply = WHOLE[:end]
        right = [test for test in json.loads(WHOLE)["tests"] if json.dumps(test) in reply]
        found = answer(reply)
        assert found == right, f"{reply}   holds the complete tests {right}; yours finds {found}"

# %% [markdown]
# ### 1.4 Suspicious tests (project, 40 minutes)
#
# Nobody tells you which tests are wrong, and nothing is run. Some give themselves away all the same: two tests that
# call the same thing and expect different values cannot both be right, and if of three tests or more all but one expect
# the same type, that one is suspicious. Return the places of the tests of these two kinds, and of no others; a set with
# nothing odd in it must come back empty. (In notebook 02 a stronger model's program does better.)


# %%
def suspicious(tests: list[str]) -> list[int]:
    """Places of the tests that contradict another one, or alone expect another type than all others."""
    ### BEGIN SOLUTION
    sides = [ast.parse(test).body[0].test for test in tests]
    calls = [ast.unparse(side.left) for side in sides]
    values = [ast.literal_eval(side.comparators[0]) for side in sides]
    types = [type(value) for value in values]
    found = set()
    for i in range(len(tests)):
        found |= {i for j in range(len(tests)) if calls[i] == calls[j] and values[i] != values[j]}
        found |= {i} if len(tests) > 2 and types.count(types[i]) == 1 and len(set(types)) == 2 else set()
    return sorted(found)
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    (["assert f(1) == 1", "assert f(2) == 4", "assert f(3) == 9"], [], "nothing is odd"),
    (["assert f(1) == 1", "assert f(1)==2", "assert f(3) == 9"], [0, 1], "f(1) cannot be 1 and 2"),
    (["assert f(1) == 1", "assert f(1)==1", "assert f(3) == 9"], [], "the same test twice is no contradiction"),
    (["assert f([]) == []", "assert f([1]) == [1]", "assert f([2]) == 2"], [2], "one number among lists"),
    (["assert f(1,2) == 3", "assert f(1, 2) == 5", "assert f(2, 1) == 3"], [0, 1], "spaces do not count"),
]
with check(suspicious) as answer:
    for tests, right, why in CASES:
        found = sorted(answer(tests))
        assert found == right, f"{tests}: suspicious are {right}, for {why}; yours are {found}"
