# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import math
import random
from statistics import fmean

from acelib.course import check
from acelib.judge import Judge, Submission  # noqa: F811

# %% [markdown]
# ### 2.1 Precision and recall (5 minutes, easy)
#
# `kept` says which tests a filter keeps, `right` which are right. Of those it keeps, how many are right (precision)?
# Of the right ones, how many does it keep (recall)?


# %%
def precision_and_recall(kept: list[bool], right: list[bool]) -> tuple[float, float]:
    """(precision, recall) of a filter; there is at least one kept and one right test."""
    ### BEGIN SOLUTION
    both = sum(k and r for k, r in zip(kept, right))
    return both / sum(kept), both / sum(right)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(precision_and_recall) as answer:
    for kept, right in [([1, 1, 1, 0, 0], [1, 1, 0, 1, 1]), ([1, 0, 0, 0], [1, 1, 1, 1]), ([1, 1], [1, 0])]:
        both = sum(k and r for k, r in zip(kept, right))
        precision, recall = answer([k == 1 for k in kept], [r == 1 for r in right])
        assert math.isclose(precision, both / sum(kept)), (
            f"{sum(kept)} tests are kept, {both} of them right: precision {both / sum(kept):.2f}, yours {precision:.2f}"
        )
        assert math.isclose(recall, both / sum(right)), (
            f"{sum(right)} tests are right, {both} of them kept: recall {both / sum(right):.2f}, yours {recall:.2f}"
        )

# %% [markdown]
# ### 2.2 The AUC by hand (10 minutes, easy)
#
# The AUC of some programs is the probability that a right one scores higher than a wrong one: look at every pair of a
# right and a wrong program, and count a win as 1, a tie as one half.


# %%
def auc_by_hand(scores: list[float], right: list[bool]) -> float:
    """The AUC of one question's programs; there is at least one right and one wrong program."""
    ### BEGIN SOLUTION
    good = [score for score, one in zip(scores, right) if one]
    bad = [score for score, one in zip(scores, right) if not one]
    return fmean(1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad)
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    ([0.9, 0.4], [True, False], 1.0, "the one right program is above the one wrong program"),
    ([0.5, 0.5], [True, False], 0.5, "a tie counts one half"),
    ([1.0, 0.5, 0.5, 0.0], [True, False, True, False], 0.875, "of 4 pairs 3 are won and 1 is a tie"),
    ([0.2, 0.8, 0.6], [True, False, False], 0.0, "both wrong programs are above the right one"),
]
with check(auc_by_hand) as answer:
    for scores, right, value, why in CASES:
        found = answer(scores, right)
        assert math.isclose(found, value, abs_tol=1e-9), f"{scores}, {right}: {value}, for {why}; yours is {found:.3f}"

# %% [markdown]
# ### 2.3 A gentler filter (15 minutes, medium)
#
# One wrong program of the proxy deletes right tests. Sample several programs instead and drop a test only when **all**
# of them fail it. Guess first: what happens to precision, and what to recall?


# %%
def gentle_filter(tests: list[str], passed: list[list[bool]], min_tests: int = 5) -> list[str] | str:
    """The tests that at least one program passes, or "too few" when they are fewer than `min_tests`.

    `passed` has one row per program of the proxy, and in it one verdict per test.
    """
    ### BEGIN SOLUTION
    # Recall cannot fall. Precision can: one wrong program that passes a wrong test saves it.
    kept = [test for test, verdicts in zip(tests, zip(*passed)) if any(verdicts)]
    return kept if len(kept) >= min_tests else "too few"
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(gentle_filter) as answer:
    tests = [f"test {i}" for i in range(6)]
    good, bad, other = [True] * 6, [False] * 6, [True, True, False, False, True, True]
    assert answer(tests, [good]) == tests, "a single program that passes everything drops nothing"
    assert answer(tests, [bad, good, bad]) == tests, (
        "one program that passes a test saves it, two that fail do not count"
    )
    found = answer(tests, [other, [False, False, True, False, True, True]])
    assert found == [tests[i] for i in (0, 1, 2, 4, 5)], f"only test 3 is failed by all programs; yours keeps {found}"
    assert answer(tests, [other]) == "too few", "four tests are left, and min_tests is 5"
    assert len(answer(tests, [other], min_tests=4)) == 4, "with min_tests = 4 the four tests are kept"

# %% [markdown]
# ### 2.4 Wrong, and nobody notices (10 minutes, easy)
#
# Even right tests let wrong programs through: nobody imagined the input on which they fail. Question: *return the
# numbers of the list that are greater than 2, largest first.* Below are six right tests. Write a program that passes
# them all and is wrong. The judge runs it, on these and on tests in the folded check.


# %%
IMAGINED = [
    "assert f([1, 2, 3]) == [3]",
    "assert f([5, 4]) == [5, 4]",
    "assert f([]) == []",
    "assert f([2, 2, 2]) == []",
    "assert f([9, 0, 7, 8]) == [9, 8, 7]",
    "assert f([3, 6]) == [6, 3]",
]


def loophole() -> str:
    """A program, as text, that passes the tests above without doing what the question asks."""
    ### BEGIN SOLUTION
    # No test repeats a number that is to be kept: a set loses repetitions unseen.
    return "def f(xs):\n    return sorted({x for x in xs if x > 2}, reverse=True)"
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(loophole) as answer, Judge(workers=1) as judge:
    hidden = [
        f"assert f({xs}) == {sorted([x for x in xs if x > 2], reverse=True)}" for xs in ([4, 4], [-5, 30], [2, 3, 3])
    ]
    seen, unseen = judge.run([Submission(answer(), tests, entry_point="f") for tests in (IMAGINED, hidden)])
    failed = [f"{test} ({one.reason})" for test, one in zip(IMAGINED, seen.verdicts) if not one.passed]
    assert not failed, f"it fails {failed[0]}"
    assert not unseen.passed, "it passes the hidden tests, too. Which kind of list is missing above?"

# %% [markdown]
# ### 2.5 Beat the filter (project, 45 minutes)
#
# Do you need a proxy at all? Here is a small world: each question has ten imagined tests, some of them wrong, and
# sixteen programs of the policy. A proxy that is right on 60% of the questions filters the tests. You see only which
# program passes which test, `results[program][test]`, and decide which tests to keep. The kept tests then score the
# programs, and the AUC says whether the right ones come out on top. Be better than the proxy by at least 0.02, and
# better than no filter at all.


# %%
def question(rng: random.Random):
    """results (programs, tests), and what you do not see: which programs are right, which tests the proxy passes."""
    truth, slips = [0] * 10, [[rng.random() < 0.5 for _ in range(10)] for _ in range(3)]
    kinds = [truth] + [[slip * (i + 1) for slip in one] for i, one in enumerate(slips)]  # 0: the true value
    invented = [kinds[rng.choice([2, 3])][t] if rng.random() < 0.6 else 0 for t in range(10)]
    programs = [rng.choice([0, 0, 1, 1, 2, 3]) for _ in range(16)]
    proxy = 0 if rng.random() < 0.6 else 1
    passed = [[kinds[kind][t] == invented[t] for t in range(10)] for kind in (*programs, proxy)]
    return passed[:-1], [kinds[kind] == truth for kind in programs], passed[-1]


# %%
def keep(results: list[list[bool]]) -> list[bool]:
    """Which tests to keep, one answer per test, from which program (row) passes which test (column)."""
    ### BEGIN SOLUTION
    # Wrong programs disagree with each other, right ones do not: a test that few programs pass is probably wrong.
    # Here one kind of wrong program alone (a sixth of all) passes it; a third of all is right and passes a right test.
    # One quarter lies between the two.
    return [fmean(column) >= 0.25 for column in zip(*results)]
    ### END SOLUTION


# %% tags=["exercise-check"]
def mean_auc(choose, number=300):
    """The mean AUC over questions with right and wrong programs; `choose` gets a question and chooses tests."""
    rng, found = random.Random(0), []
    for results, right, proxy in (question(rng) for _ in range(number)):
        if 0 < sum(right) < len(right):
            places = [t for t, kept in enumerate(choose(results, proxy)) if kept]
            scores = [sum(row[t] for t in places) for row in results]
            pairs = [(g, b) for g, one in zip(scores, right) for b, other in zip(scores, right) if one > other]
            found.append(fmean((g > b) + 0.5 * (g == b) for g, b in pairs))
    return fmean(found)


with check(keep) as answer:
    everything, proxy = mean_auc(lambda results, proxy: [True] * 10), mean_auc(lambda results, proxy: proxy)
    mine = mean_auc(lambda results, proxy: answer(results))
    print(f"AUC: all tests {everything:.3f}, the proxy's {proxy:.3f}, yours {mine:.3f}")
    assert mine > everything, "keeping all tests does as well"
    assert mine > proxy + 0.02, "that is not 0.02 more than the proxy's. What do wrong tests have in common?"
