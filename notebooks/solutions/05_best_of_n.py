# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import math  # noqa: F811
import random
from collections import Counter
from itertools import combinations
from statistics import fmean

from acelib.best_of_n import expected_best
from acelib.course import check

# %% [markdown]
# ### 5.1 The value of the pick (5 minutes, easy)
#
# Hand in the sample with the highest score. If several share it, each of them is equally likely to be handed in.


# %%
def pick(values: list[float], scores: list[float]) -> float:
    """Expected value (1 right, 0 wrong) of the sample that is handed in."""
    ### BEGIN SOLUTION
    return fmean(value for value, score in zip(values, scores) if score == max(scores))
    ### END SOLUTION


# %% tags=["exercise-check"]
CASES = [
    ([1, 0, 0], [3.0, 1.0, 2.0], 1.0, "the first has the highest score, and is right"),
    ([1, 0, 0], [1.0, 2.0, 2.0], 0.0, "both favourites are wrong"),
    ([1, 0, 0, 1], [2.0, 2.0, 2.0, 1.0], 1 / 3, "of three favourites one is right"),
    ([0, 1], [-5.0, -7.0], 0.0, "-5 is more than -7"),
]
with check(pick) as answer:
    for values, scores, right, why in CASES:
        found = answer(values, scores)
        assert math.isclose(found, right, abs_tol=1e-9), (
            f"values {values}, scores {scores}: {right:.3f}, for {why}; yours is {found:.3f}"
        )

# %% [markdown]
# ### 5.2 Who is picked how often? (15 minutes, medium)
#
# There are `samples` samples with different scores; rank 0 has the best. Draw `n` of them. With which probability is
# the sample of rank `rank` the best among those drawn? It has to be drawn, and all others drawn rank below it.


# %%
def chance(rank: int, samples: int, n: int) -> float:
    """Probability that the sample of this rank is the pick of `n` drawn without replacement."""
    ### BEGIN SOLUTION
    return math.comb(samples - 1 - rank, n - 1) / math.comb(samples, n)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(chance) as answer:
    for samples, n in [(4, 2), (4, 1), (5, 5), (6, 3)]:
        picks = Counter(min(drawn) for drawn in combinations(range(samples), n))
        for rank in range(samples):
            right, found = picks[rank] / math.comb(samples, n), answer(rank, samples, n)
            assert math.isclose(found, right, abs_tol=1e-9), (
                f"{n} of {samples} drawn: rank {rank} is the pick in {picks[rank]} of {math.comb(samples, n)} "
                f"ways, {right:.3f}; yours is {found:.3f}"
            )

# %% [markdown]
# ### 5.3 Stop searching in time (project, 30 minutes)
#
# Here is a scorer that is good, and in love with a few wrong programs. With sixty-four samples such a program is often
# among them, so more search is worse. You have questions whose samples were judged: for each the `values` (1 right, 0
# wrong) and the `scores` of its samples. Choose the N, out of `ns`, at which the pick is right most often. The check
# tries your N on other questions. (Without judged questions you could not have known. What would you look at then?)


# %%
def judged(seed: int, questions: int = 150, samples: int = 64):
    """(values, scores) of each question."""
    rng = random.Random(seed)
    rows = []
    for _ in range(questions):
        values = [int(rng.random() < 0.3) for _ in range(samples)]
        scores = [rng.gauss(value, 1.0) if value or rng.random() > 0.015 else 6.0 for value in values]
        rows.append((values, scores))
    return rows


# %%
def choose_n(rows: list[tuple[list[int], list[float]]], ns: list[int]) -> int:
    """The number of samples at which the best by score is right most often on these questions."""
    ### BEGIN SOLUTION
    # Without judged questions, look at the picks and not at their mean score, which can only rise with N. From some N
    # on a few have a score far above all others, here 6: read these programs, or have a handful of them judged.
    return max(ns, key=lambda n: fmean(expected_best(values, scores, n) for values, scores in rows))
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(choose_n) as answer:
    ns = [1, 2, 4, 8, 16, 32, 64]
    n, fresh = answer(judged(0), ns), judged(1)
    assert n in ns, f"choose one of {ns}; yours is {n}"
    right = {one: fmean(expected_best(values, scores, one) for values, scores in fresh) for one in ns}
    print("right picks on fresh questions: " + ", ".join(f"N = {one}: {share:.0%}" for one, share in right.items()))
    best = max(ns, key=right.get)
    assert right[n] > right[best] - 0.02, f"your N = {n} is right on {right[n]:.1%}, N = {best} on {right[best]:.1%}"
    turned = [(values, [-one for one in scores]) for values, scores in judged(0)]
    assert answer(turned, ns) == 1, "where every choice by score is a bad one, one sample is best; look at the rows"
