# %% [markdown]
# ## Exercises
#
# Write your answer in place of the `...`, run that cell, then the check below it. The checks need nothing from the
# notebook above: the next cell and the exercise are enough. A solution is folded under each check.

# %%
import random
from statistics import fmean

from acelib.course import check

# %% [markdown]
# ### 9.1 Break-even (5 minutes, easy)
#
# Where its program is right a filter gains `up`, where it is wrong it gains `down`, which is below 0. Which share of
# the questions must the proxy solve, so that the filter gains nothing and loses nothing?


# %%
def needed_share(up: float, down: float) -> float:
    """The share of questions in [0, 1]; up > 0 > down."""
    ### BEGIN SOLUTION
    return -down / (up - down)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(needed_share) as answer:
    for up, down in [(0.1, -0.1), (0.08, -0.20), (0.01, -0.34)]:
        share = answer(up, down)
        total = share * up + (1 - share) * down
        assert abs(total) < 1e-9, (
            f"gains {up:+.2f} and {down:+.2f}: a proxy that solves {share:.0%} gains {total:+.3f} on average, not 0"
        )

# %% [markdown]
# ### 9.2 Who is paid? (10 minutes, easy)
#
# The rule pays a program that passes every kept test. `results[i][j]` says whether program i passes test j,
# `kept[j]` whether the filter keeps test j. If nothing is kept, nobody is paid. Then look how one wrong test changes
# who is paid.


# %%
def paid(results: list[list[bool]], kept: list[bool]) -> list[bool]:
    """Whether each program earns the reward."""
    ### BEGIN SOLUTION
    return [any(kept) and all(passed for passed, keep in zip(row, kept, strict=True) if keep) for row in results]
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(paid) as answer:
    right, near, wrong = [True, True, True, False], [True, False, True, False], [False, False, True, True]
    programs = [right, right, near, wrong]  # the last test is wrong: only the wrong program passes it
    for name, kept, expected in [
        ("the right three", [True, True, True, False], [True, True, False, False]),
        ("all four", [True] * 4, [False] * 4),
        ("those that the wrong program passes", wrong, [False, False, False, True]),
        ("none", [False] * 4, [False] * 4),
    ]:
        found = answer(programs, kept)
        assert list(found) == expected, f"{name} kept: {expected} are paid; yours pays {found}"
    print("all four tests: nobody is paid; the wrong program's tests: only the wrong program is")

# %% [markdown]
# ### 9.3 Predict: what do the tests still tell? (15 minutes, medium)
#
# `worth` makes 2,000 small questions: four right programs, four wrong ones, four right tests, and one wrong test that
# nobody passes. A wrong program passes a right test with probability 0.6. It returns two AUCs (0.5 is a coin): of the
# order by pass rate, and of a reward for passing all tests. Change the values as follows:
#
# - `"fooled"`: `fooled=True`, all wrong programs pass the wrong test;
# - `"by a right one"`: `by="right"`, the tests are filtered by a right program;
# - `"by a wrong one"`: `by="wrong"`, they are filtered by one of the wrong programs;
# - `"and all alike"`: `by="wrong", alike=True`, and the wrong programs fail the same tests.
#
# For each, is the order and is the reward `"higher"`, `"lower"` or the `"same"` (within 0.02), against `worth()`?
# **Predict first.** Then run, say, `worth(by="right")` in a cell of your own and compare.


# %%
def ahead(right: list[float], wrong: list[float]) -> float:
    """The AUC: how often a right program comes out ahead; a tie counts one half."""
    return fmean((r > w) + (r == w) / 2 for r in right for w in wrong)


def worth(by: str = "nobody", fooled: bool = False, alike: bool = False) -> tuple[float, float]:
    """(order, reward): two AUCs, means over questions."""
    rng, order, reward = random.Random(0), [], []
    for _ in range(2000):
        own = [[rng.random() < 0.6 for _ in range(4)] + [fooled] for _ in range(4)]
        wrong = [own[0]] * 4 if alike else own
        right = [[True] * 4 + [False]] * 4
        kept = {"nobody": [True] * 5, "right": right[0], "wrong": wrong[0]}[by]
        judged = right, wrong[1:] if by == "wrong" else wrong
        rates = [[sum(p for p, k in zip(row, kept) if k) / max(1, sum(kept)) for row in side] for side in judged]
        order.append(ahead(*rates))
        reward.append(ahead(*([rate == 1 for rate in side] for side in rates)))
    return fmean(order), fmean(reward)


# %%
def told_by_tests() -> dict[str, tuple[str, str]]:
    """(order, reward), each "higher", "lower" or "same", for the four changes by their names."""
    ### BEGIN SOLUTION
    # A wrong test that nobody passes takes every reward and leaves the order alone: without it only the reward
    # gains. Where wrong programs pass it, they rise in the order, and the luckiest are paid. A wrong program drops
    # the wrong test, and right ones with it: rewards come back, but fewer tests tell the order. Where all err alike,
    # it drops just the tests that would have shown the others' mistakes: nothing is left but a coin.
    return {
        "fooled": ("lower", "lower"),
        "by a right one": ("same", "higher"),
        "by a wrong one": ("lower", "higher"),
        "and all alike": ("lower", "same"),
    }
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(told_by_tests) as answer:
    predicted, plain = answer(), worth()
    changes = {"fooled": {"fooled": True}, "by a right one": {"by": "right"}, "by a wrong one": {"by": "wrong"}}
    changes |= {"and all alike": {"by": "wrong", "alike": True}}
    reasons = {
        "fooled": "wrong programs pass one test more, and those that pass all five are paid, right ones are not",
        "by a right one": "nobody passed the wrong test: it took every reward, and lowered all rates alike",
        "by a wrong one": "the wrong test goes, and with it right ones: who is right is paid, the order rests on less",
        "and all alike": "just the tests go that would have shown the mistake; then all programs look the same",
    }
    assert set(predicted) == set(reasons), f"predict these: {', '.join(reasons)}"
    for name, values in changes.items():
        found = worth(**values)
        gaps = [new - old for new, old in zip(found, plain)]
        seen = tuple("same" if abs(gap) <= 0.02 else "higher" if gap > 0 else "lower" for gap in gaps)
        told = f"order {plain[0]:.2f} -> {found[0]:.2f}, reward {plain[1]:.2f} -> {found[1]:.2f}"
        print(f"{name}: {told}; predicted: {' and '.join(predicted[name])}")
        assert tuple(predicted[name]) == seen, f"{name}: {told}, {' and '.join(seen)}: {reasons[name]}"
