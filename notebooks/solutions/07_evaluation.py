# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import math

import numpy as np

from acelib.course import check
from acelib.stats import paired_bootstrap

# %% [markdown]
# ### 7.1 Rows that hold by chance (5 minutes, easy)
#
# A claim holds when its whole 95% interval lies above 0. If no effect existed at all, how many of `rows` independent
# claims would hold by chance? (Such an interval misses 0 in 5% of all cases, on either side.)


# %%
def by_chance(rows: int) -> float:
    """Expected number of claims that hold although there is nothing."""
    ### BEGIN SOLUTION
    return rows * 0.05 / 2
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(by_chance) as answer:
    for rows in (10, 40):
        found = answer(rows)
        assert not math.isclose(found, rows * 0.05), "half of the misses lie below 0, and such a claim does not hold"
        assert math.isclose(found, rows * 0.025), f"of {rows} claims {rows * 0.025} hold by chance; yours is {found}"

# %% [markdown]
# ### 7.2 How many questions? (10 minutes, medium)
#
# Two reward models differ by `effect` (in questions solved), and the difference of one question has the standard
# deviation `spread`. How many questions does it take until the 95% interval (1.96 standard errors to either side) of
# an estimate that hits `effect` exactly just leaves 0 out?


# %%
def questions_needed(effect: float, spread: float) -> int:
    """The smallest number of questions at which effect > 1.96 standard errors."""
    ### BEGIN SOLUTION
    return math.floor((1.96 * spread / effect) ** 2) + 1
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(questions_needed) as answer:
    for effect, spread in [(0.01, 0.3), (0.02, 0.3), (0.1, 0.5)]:
        n = answer(effect, spread)
        reach = [1.96 * spread / math.sqrt(max(1, count)) for count in (n, n - 1)]
        assert effect > reach[0], f"effect {effect}: with your {n} questions the interval still reaches {reach[0]:.4f}"
        assert effect <= reach[1], f"effect {effect}: {n - 1} questions would do, your {n} are more than it takes"

# %% [markdown]
# ### 7.3 A paired interval from memory (20 minutes, medium)
#
# Draw as many questions as there are, with replacement; take the mean difference on them; do so `draws` times; the 2.5%
# and 97.5% percentiles are the interval. Both models face the *same* drawn questions.


# %%
def interval(after: list[float], before: list[float], draws: int = 2000) -> tuple[float, float]:
    """(low, high) of mean(after) - mean(before) over questions; after[i] and before[i] are of the same question."""
    ### BEGIN SOLUTION
    difference = np.array(after) - np.array(before)
    picks = np.random.default_rng(0).integers(len(difference), size=(draws, len(difference)))
    low, high = np.percentile(difference[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(interval) as answer:
    rng = np.random.default_rng(1)
    before = rng.random(100) * 0.9
    for after, name in [(before + 0.04 + 0.02 * rng.standard_normal(100), "better"), (rng.random(100), "unrelated")]:
        (low, high), right = answer(after, before), paired_bootstrap(after, before)
        width, unpaired = right.high - right.low, 3.92 * math.sqrt((np.var(after) + np.var(before)) / 100)
        close = max(abs(low - right.low), abs(high - right.high)) < 0.2 * width
        hint = " (as wide as if each had questions of its own)" if abs(high - low - unpaired) < 0.3 * unpaired else ""
        assert close, f"{name}: [{right.low:+.3f}, {right.high:+.3f}]; yours is [{low:+.3f}, {high:+.3f}]{hint}"

# %% [markdown]
# ### 7.4 Without a bootstrap: flip the signs (20 minutes, medium)
#
# If the two models were equally good, each question's difference could as well have had the other sign. With few
# questions one can write all $2^n$ sign patterns down. Return the share of patterns whose mean is at least as large as
# the one that was seen: the one-sided p-value.


# %%
def p_value(differences: list[float]) -> float:
    """Share of all sign patterns with a mean difference at least as large as the observed one."""
    ### BEGIN SOLUTION
    from itertools import product

    seen = sum(differences)
    patterns = product([1, -1], repeat=len(differences))
    as_large = [sum(s * d for s, d in zip(signs, differences)) >= seen - 1e-12 for signs in patterns]
    return sum(as_large) / len(as_large)
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    ([1.0, 1.0, 1.0], 1 / 8, "of 8 patterns only the one that was seen"),
    ([1.0, -1.0], 3 / 4, "of 4 patterns three have a mean of 0 or more"),
    ([0.0, 0.0], 1.0, "every pattern has the same mean"),
    ([0.5, 0.25, 1.0, -0.25], 3 / 16, "of 16 patterns three reach a sum of 1.5"),
]
with check(p_value) as answer:
    for differences, right, why in CASES:
        found = answer(differences)
        assert math.isclose(found, right), f"{differences}: {right:.4f}, {why}; yours is {found:.4f}"

# %% [markdown]
# ### 7.5 A verdict (project, 15 minutes)
#
# Write the rule of the scorecard and use it on your own claim. `here` is (estimate, low, high), or None where a profile
# cannot measure the claim; `reproduced` says whether the policy before training, the start, reached its published
# figure (None: nothing is published); `gain` whether the claim is a gain over that policy. The verdicts: "holds",
# "not clear" (the interval includes 0), "does not hold", "not claimable" and "not testable here". The claim here is
# only: above 0, with the whole interval. Where several words would do, the order decides: what was not measured cannot
# fail, and what is not shown needs no reproduction.


# %%
def verdict(here: tuple[float, float, float] | None, gain: bool, reproduced: bool | None) -> str:
    """The word that stands in the scorecard."""
    ### BEGIN SOLUTION
    if here is None:
        return "not testable here"
    if here[2] < 0:
        return "does not hold"
    if here[1] <= 0:
        return "not clear"
    return "not claimable" if gain and reproduced is False else "holds"
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    ((0.1, 0.05, 0.15), False, None, "holds", "the whole interval lies above 0"),
    ((0.1, -0.01, 0.2), False, True, "not clear", "the interval reaches below 0"),
    ((-0.1, -0.2, -0.05), True, True, "does not hold", "it points the other way"),
    (None, True, False, "not testable here", "what was not measured is not judged"),
    ((0.3, 0.2, 0.4), True, False, "not claimable", "the policy it starts from was not reproduced"),
    ((-0.1, -0.2, 0.1), True, False, "not clear", "there is no gain that could be claimed"),
    ((0.3, 0.2, 0.4), False, False, "holds", "it is no gain over that policy"),
    ((0.3, 0.2, 0.4), True, None, "holds", "nothing is published that could be missed"),
]
with check(verdict) as answer:
    for here, gain, reproduced, right, why in CASES:
        found = answer(here, gain, reproduced)
        assert found == right, f"{here}, gain={gain}, reproduced={reproduced}: {right}, for {why}; yours is {found!r}"
