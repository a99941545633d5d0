# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import math
import random
from itertools import combinations
from statistics import fmean

import numpy as np

from acelib.course import check
from acelib.pairs import hard_quarter

# %% [markdown]
# ### 3.1 How sure is pass@1? (5 minutes, easy)
#
# On one question a program is right with probability $p$. Its pass@1 is estimated from $n$ programs, as $c / n$.
# What is the [standard error](../docs/glossary.md#standard-error) of that, and how many programs does it take to bring
# it down to `error`?


# %%
def programs_needed(p: float, error: float) -> int:
    """The smallest n at which the standard error of c / n is at most `error`."""
    ### BEGIN SOLUTION
    # The outcome of one program has variance p (1 - p), the mean of n of them p (1 - p) / n.
    return math.ceil(p * (1 - p) / error**2 - 1e-9)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(programs_needed) as answer:
    for p, error in [(0.5, 0.05), (0.1, 0.05), (0.5, 0.025)]:
        n = answer(p, error)
        reached, before = (math.sqrt(p * (1 - p) / max(1, n - less)) for less in (0, 1))
        hint = "; p (1 - p) / n is its square" if reached**2 <= error + 1e-9 else ""
        assert reached <= error + 1e-9, (
            f"with p = {p} and your n = {n} the standard error is {reached:.3f}, not {error}{hint}"
        )
        assert before > error, f"with p = {p} your n = {n} is more than it takes: n = {n - 1} gives {before:.4f}"

# %% [markdown]
# ### 3.2 pass@k by counting (10 minutes, easy)
#
# The formula counts picks of $k$ programs that hold no right one. Do it the slow way: look at every pick of $k$ of the
# programs, and return the share of picks in which at least one program is right.


# %%
def pass_at_k_by_counting(right: list[bool], k: int) -> float:
    """Share of all picks of `k` programs that hold a right one; `right` has one entry per program."""
    ### BEGIN SOLUTION
    return fmean(any(pick) for pick in combinations(right, k))
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(pass_at_k_by_counting) as answer:
    for right, k in [([True, False, False, True], 2), ([True, False, False, True], 1), ([False] * 5, 3), ([True], 1)]:
        n, c, found = len(right), sum(right), answer(right, k)
        picks, without = math.comb(n, k), math.comb(n - c, k)
        assert math.isclose(found, 1 - without / picks, abs_tol=1e-9), (
            f"of {n} programs {c} are right; {picks - without} of the {picks} picks of {k} hold a right one, "
            f"{(picks - without) / picks:.3f}; yours is {found:.3f}"
        )

# %% [markdown]
# ### 3.3 Equation 3 from memory (15 minutes, medium)
#
# Write the paper's rule for which two programs make a pair. Scroll no further up. The rule has three conditions.


# %%
def pairs_of(rates: list[float]) -> list[tuple[int, int]]:
    """(better, worse) places of one question's programs, from the share of tests that each passes."""
    ### BEGIN SOLUTION
    return [
        (i, j)
        for i, good in enumerate(rates)
        for j, bad in enumerate(rates)
        if good - bad > 0.4 and good > 0.8 and bad > 0
    ]
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    ([1.0, 0.5], [(0, 1)], "1.0 beats 0.5 by more than 0.4"),
    ([0.5, 1.0], [(1, 0)], "the better program comes first in a pair, wherever it stands in the list"),
    ([1.0, 0.5, 0.0], [(0, 1)], "a program that passes nothing is in no pair"),
    ([0.8, 0.2], [], "0.8 is not more than 0.8"),
    ([1.0, 0.6], [], "a gap of exactly 0.4 is too small"),
    ([0.9, 0.5], [], "0.9 - 0.5 is a gap of exactly 0.4, too"),
    ([1.0, 1.0, 0.3], [(0, 2), (1, 2)], "each good program makes a pair with each weak one"),
    ([], [], "no programs, no pairs"),
]
with check(pairs_of) as answer:
    for rates, right, why in CASES:
        found = sorted(answer(rates))
        assert found == right, f"rates {rates} give {right}: {why}. Yours gives {found}"

# %% [markdown]
# ### 3.4 Is there a signal? (15 minutes, medium)
#
# A question whose sampled programs all get the same reward teaches nothing about that question. Given the rewards of
# the $n$ programs that you have, what is the probability that $k$ of them, drawn without replacement, are **not** all
# equal? Mind that there may be more than two different rewards.


# %%
def mixed(rewards: list[float], k: int) -> float:
    """Probability that `k` of the rewards, drawn without replacement, are not all the same."""
    ### BEGIN SOLUTION
    same = sum(math.comb(rewards.count(reward), k) for reward in set(rewards))
    return 1 - same / math.comb(len(rewards), k)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(mixed) as answer:
    for rewards, k in [([1, 1, 0, 0], 2), ([0, 0, 0, 0], 2), ([1, 0], 1), ([1, 0.5, 0.5, 0], 2), ([1, 0, 0, 0, 0], 4)]:
        picks = list(combinations(rewards, k))
        right = fmean(len(set(pick)) > 1 for pick in picks)
        found = answer(rewards, k)
        assert math.isclose(found, right, abs_tol=1e-9), (
            f"of the {len(picks)} ways to draw {k} of {rewards}, {right * len(picks):.0f} are mixed, "
            f"{right:.3f}; yours is {found:.3f}"
        )

# %% [markdown]
# ### 3.5 Beat the hard quarter (20 minutes, medium)
#
# The paper chooses its questions by mean and spread of the **pass rate**, but its rule rewards only programs that
# pass **everything**. Below is a world in which that matters: on a third of the questions programs are partly right
# in many ways and never wholly. `rates` holds the sixteen pass rates of each of 200 questions. Choose 50 of them such
# that eight *fresh* programs per question are mixed, right and wrong ones, more often than on the hard quarter: on 90%
# of them at least. As in life you are not told how often a fresh program is right: judge by the sixteen that you have.


# %%
def world(seed: int, questions: int = 200, programs: int = 16):
    """Pass rates (questions, programs), and for each question the true chance that a program passes everything."""
    rng = random.Random(seed)
    chance = [0.0 if i % 3 == 0 else rng.choice([0.01, 0.05, 0.3, 0.5, 0.8]) for i in range(questions)]
    partly = [[0.0, 0.5, 0.9] if i % 3 == 0 else [0.2, 0.3, 0.4] for i in range(questions)]
    rates = [
        [1.0 if rng.random() < p else rng.choice(part) for _ in range(programs)] for p, part in zip(chance, partly)
    ]
    return rates, chance


# %%
def choose(rates: list[list[float]]) -> list[int]:
    """Places of a quarter of the questions: those to train on with the reward "passes everything"."""
    ### BEGIN SOLUTION
    # The share of right programs says it: eight fresh ones are mixed most often where it is near one half.
    right = [fmean(rate == 1.0 for rate in question) for question in rates]
    by_distance = sorted(range(len(rates)), key=lambda i: abs(right[i] - 0.5))
    return sorted(by_distance[: len(rates) // 4])
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(choose) as answer:
    shares = {"yours": [], "hard quarter": []}
    for seed in range(5):
        rates, chance = world(seed)
        chosen = answer(rates)
        assert len(set(chosen)) == len(chosen) == 50, f"choose 50 different questions; yours are {len(set(chosen))}"
        for name, places in (("yours", chosen), ("hard quarter", hard_quarter(rates))):
            shares[name].append(float(np.mean([1 - chance[i] ** 8 - (1 - chance[i]) ** 8 for i in places])))
    mine, theirs = fmean(shares["yours"]), fmean(shares["hard quarter"])
    print(f"mixed among eight fresh programs, five worlds: yours {mine:.1%}, the hard quarter {theirs:.1%}")
    assert mine > theirs, "that is no better than the hard quarter; which of its questions are wasted?"
    assert mine > 0.9, f"{mine:.0%}, where 94% can be reached; which of your questions were never solved, or always?"
