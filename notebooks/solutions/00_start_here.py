# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import math
import tempfile
from dataclasses import replace
from pathlib import Path

from acelib.core import load_profile
from acelib.course import check
from acelib.judge import Judge, Submission

# %% [markdown]
# ### 0.1 Points and per cent (5 minutes, easy)
#
# A model goes from 44.4% to 52.3% of the problems. That is 7.9 *points*, and a relative gain of 17.8 *per cent*. Papers
# mix the two up; this course does not.


# %%
def gains(before: float, after: float) -> tuple[float, float]:
    """(points, relative gain in per cent) from two shares in per cent."""
    ### BEGIN SOLUTION
    return after - before, 100 * (after / before - 1)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(gains) as answer:
    for before, after in [(44.4, 52.3), (49.6, 50.9), (50.0, 25.0)]:
        points, relative = after - before, 100 * (after - before) / before
        mine = answer(before, after)
        for name, right, found in zip(("in points", "in per cent"), (points, relative), mine, strict=True):
            assert math.isclose(found, right), f"{before} to {after} is {right:+.1f} {name}; yours is {found:+.1f}"

# %% [markdown]
# ### 0.2 A profile of your own (10 minutes, easy)
#
# Write the text of a profile that is called `mine`, extends `pocket` and asks the teacher for 400 questions; everything
# else stays. (As `profiles/mine.yaml` it would run with `make course PROFILE=mine`.) Then misspell a key on purpose and
# read what the check says: a run that silently took the default would have cost you an evening.


# %%
def my_profile() -> str:
    """The text of a profile, in YAML."""
    ### BEGIN SOLUTION
    return "extends: pocket\nname: mine\nsynthesis: {questions: 400}\n"
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(my_profile) as answer, tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "mine.yaml"
    path.write_text(answer())
    mine, pocket = load_profile(str(path)), load_profile("pocket")
    assert mine.name == "mine", f"its name is {mine.name!r}, not 'mine'"
    assert mine.synthesis.questions == 400, f"it asks for {mine.synthesis.questions} questions, not 400"
    same = replace(mine, name=pocket.name, synthesis=replace(mine.synthesis, questions=pocket.synthesis.questions))
    assert same == pocket, "it changes something else, too; extend pocket and name only what differs"

# %% [markdown]
# ### 0.3 Be the teacher (project, 30 minutes)
#
# The whole recipe rests on imagined tests, so imagine some. Question: *`f(xs)` returns the numbers of the list that
# occur exactly once, in their order.* Write at most six asserts. A right program has to pass them all, and each of
# five wrong ones has to fail one of them; they stand in the folded check, which you may leave
# folded. The judge runs them. Which ideas did you need?


# %%
def my_tests() -> list[str]:
    """At most six tests, each like "assert f([1]) == [1]"."""
    ### BEGIN SOLUTION
    return [
        "assert f([]) == []",
        "assert f([3, 1, 2]) == [3, 1, 2]",
        "assert f([1, 1, 2]) == [2]",
        "assert f([1, 2, 1]) == [2]",
        "assert f([5, 5, 5, 0, -1]) == [0, -1]",
    ]
    ### END SOLUTION


# %% tags=["exercise-check"]
RIGHT = "def f(xs):\n    return [x for x in xs if xs.count(x) == 1]"
WRONG = {
    "keeps one of each": "def f(xs):\n    return list(dict.fromkeys(xs))",
    "sorts": "def f(xs):\n    return sorted(x for x in xs if xs.count(x) == 1)",
    "forgets what came before": "def f(xs):\n    return [x for i, x in enumerate(xs) if x not in xs[i + 1 :]]",
    "drops pairs, not triples": "def f(xs):\n    return [x for x in xs if xs.count(x) % 2]",
    "loses the zero": "def f(xs):\n    return [x for x in xs if x and xs.count(x) == 1]",
}
with check(my_tests) as answer, Judge(workers=1) as judge:
    tests = answer()
    assert 1 <= len(tests) <= 6, f"write one to six tests; yours are {len(tests)}"
    right, *wrong = judge.run([Submission(text, tests, entry_point="f") for text in (RIGHT, *WRONG.values())])
    for test, one in zip(tests, right.verdicts):
        assert one.passed, f"a right program does not pass {test}: {one.reason or one.status}"
    for name, report in zip(WRONG, wrong):
        assert not report.passed, f"a program that {name} passes all your tests"

# %% [markdown]
# ### 0.4 Read the map (5 minutes, easy)
#
# You change one value of the profile and run the course again: first `filtering.min_tests` (how many tests a question
# must keep), then `reward_model.learning_rate`, then `reinforce.beta`. In which of the notebooks 01 to 07 is something
# made again? Begin where the value is used, and follow the arrows.


# %%
def made_again() -> dict[str, list[str]]:
    """For each of the three values the notebooks, like {"reinforce.beta": ["01", "02"], ...}."""
    ### BEGIN SOLUTION
    return {
        "filtering.min_tests": ["02", "03", "04", "05", "06", "07"],
        "reward_model.learning_rate": ["04", "05", "06", "07"],
        "reinforce.beta": ["06", "07"],
    }
    ### END SOLUTION


# %% tags=["exercise-check"]
USED_IN = {"filtering.min_tests": "02", "reward_model.learning_rate": "04", "reinforce.beta": "06"}
READ_BY = {"01": ["02"], "02": ["03"], "03": ["04", "06"], "04": ["05", "06"], "05": ["07"], "06": ["07"], "07": []}
with check(made_again) as answer:
    mine = answer()
    for value, start in USED_IN.items():
        again = {start: f"it is where {value} is used"}
        for notebook, readers in READ_BY.items():  # in the order of the course
            if notebook in again:
                again |= {reader: f"it reads what {notebook} writes" for reader in readers if reader not in again}
        assert value in mine, f"{value} is missing"
        for notebook, why in again.items():
            assert notebook in mine[value], f"{value}: {notebook} makes something again, for {why}"
        for notebook in mine[value]:
            assert notebook in again, f"{value}: nothing that {notebook} reads changes, so it keeps its files"
