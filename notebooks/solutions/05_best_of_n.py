# %% [markdown]
# ## Exercises
#
# Write your answer in place of the `...`, run that cell, then the check below it. The checks need nothing from the
# notebook above: the next cell and the exercise are enough. A solution is folded under each check.

# %%
import math  # noqa: F811
import random
from collections import Counter
from itertools import combinations
from statistics import fmean

from acelib.best_of_n import dual_agreement, expected_best
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
# ### 5.3 Dual agreement (10 minutes, medium)
#
# CodeT trusts a program when many others agree with it and when it passes many tests. Programs that pass exactly the
# same tests form a group; each of them scores *size of the group* x *tests that it passes*.


# %%
def agreement(passed: list[list[bool]]) -> list[int]:
    """One score per program; `passed` has one row per program and one verdict per test."""
    ### BEGIN SOLUTION
    sizes = Counter(tuple(row) for row in passed)
    return [sizes[tuple(row)] * sum(row) for row in passed]
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(agreement) as answer:
    for passed in ([[1, 1], [1, 1], [1, 0]], [[0, 0], [0, 0], [0, 1]], [[1, 0, 1], [0, 1, 1], [1, 0, 1]]):
        passed = [[one == 1 for one in row] for row in passed]
        found, right = list(answer(passed)), dual_agreement(passed)
        for i, (mine, best) in enumerate(zip(found, right, strict=True)):
            assert mine == best, (
                f"program {i + 1} passes {sum(passed[i])} tests, and {passed.count(passed[i])} programs pass just "
                f"these, which gives {best:.0f}; yours is {mine}"
            )

# %% [markdown]
# ### 5.4 Choose better (project, 40 minutes)
#
# A world with two flawed advisers. Some imagined tests are wrong, and a wrong test is passed by few programs. The
# reward model is good, but it loves one kind of wrong program, and a few samples are of that kind. You see
# which tests each sample passes and how it is scored. Give every sample a score of your own such that the best of
# sixteen is right at least 4 points more often than the best by tests, and than the best by the reward model.


# %%
def samples_of(rng: random.Random):
    """passed (samples, tests), scores, and what you do not see: whether each sample is right."""
    right = [rng.random() < rng.choice([0.1, 0.3, 0.6]) for _ in range(16)]
    loved = [not one and rng.random() < 0.03 for one in right]
    valid = [rng.random() < 0.75 for _ in range(8)]
    slips = [[rng.random() < 0.15 for _ in range(8)] for _ in range(16)]
    passed = [
        [not slip if (one and ok) else (rng.random() < (0.6 if ok else 0.12)) for ok, slip in zip(valid, row)]
        for one, row in zip(right, slips)
    ]
    scores = [rng.gauss(1.0 if one else 4.0 if love else 0.0, 0.8) for one, love in zip(right, loved)]
    return passed, scores, right


# %%
def select(passed: list[list[bool]], scores: list[float]) -> list[float]:
    """One score per sample: the highest is handed in."""
    ### BEGIN SOLUTION
    # Tests that hardly anybody passes are not believed. A score decides among near equals, and counts up to a point.
    believed = [t for t in range(len(passed[0])) if fmean(row[t] for row in passed) >= 0.25]
    rates = [fmean([row[t] for t in believed] or [0]) for row in passed]
    return [8 * rate + min(score, 1.5) for rate, score in zip(rates, scores)]
    ### END SOLUTION


# %% tags=["exercise-check"]
def solved(choose, questions=600):
    rng, found = random.Random(1), []
    for passed, scores, right in (samples_of(rng) for _ in range(questions)):
        found.append(expected_best(right, choose(passed, scores), len(right)))
    return fmean(found)


with check(select) as answer:
    by_tests, by_model = (
        solved(lambda passed, scores: [sum(row) for row in passed]),
        solved(lambda passed, scores: scores),
    )
    mine = solved(answer)
    print(f"right picks: by tests {by_tests:.1%}, by the reward model {by_model:.1%}, by yours {mine:.1%}")
    assert mine > by_model + 0.04, "that is not 4 points more than the reward model alone; what does it fall for?"
    assert mine > by_tests + 0.04, "that is not 4 points more than all tests alone; which tests would you believe?"
