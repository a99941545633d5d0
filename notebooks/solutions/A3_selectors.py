# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import random
from collections import Counter  # noqa: F811
from statistics import fmean

from acelib.best_of_n import dual_agreement, expected_best, expected_consensus, rate_then_score  # noqa: F811
from acelib.course import check

# %% [markdown]
# ### A3.1 Dual agreement (10 minutes, medium)
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
# ### A3.2 A majority, the slow way (15 minutes, medium)
#
# A majority is counted *among the samples drawn*, so what a sample scores depends on the subset. Say 9 of 16 samples
# agree on a wrong text. Draw one of the 9 and one right sample: a tie. Notebook 05's formula ranks all sixteen once,
# and would let the wrong text win.
#
# So: draw `n` of the samples; hand in one whose text most of those drawn share; if several texts are equally common,
# each of their samples is equally likely. Write every subset down and return the mean of the value that is handed in.
# (With sixteen samples that takes a second; `expected_consensus` draws 2,000 subsets instead.)


# %%
def majority(values: list[int], texts: list[str], n: int) -> float:
    """Mean value of the pick by majority of texts over all subsets of `n` samples."""
    ### BEGIN SOLUTION
    from itertools import combinations

    picks = []
    for drawn in combinations(range(len(values)), n):
        votes = Counter(texts[i] for i in drawn)
        picks.append(fmean(values[i] for i in drawn if votes[texts[i]] == max(votes.values())))
    return fmean(picks)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(majority) as answer:
    for values, texts in [([1, 0, 0], "abb"), ([1, 1, 0, 0], "aabc"), ([0, 1, 0, 1, 0], "abcbd")]:
        for n in range(1, len(values) + 1):
            (right,) = expected_consensus(values, list(texts), [1] * len(values), [n], draws=50_000)
            found = answer(values, texts, n)
            assert abs(found - right) < 0.01, (
                f"texts {', '.join(texts)} with values {values}, {n} drawn: about {right:.2f}; yours is {found:.3f}"
            )

# %% [markdown]
# ### A3.3 Choose better (project, 40 minutes)
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
    # Tests that hardly anybody passes are not believed: a wrong one is passed by 12%, a right one by 60% or more.
    # A test of the eight is worth 1, as much as a right program's mean score is above a wrong one's. Right programs
    # score around 1, the loved ones around 4: above 1.5 a score says nothing more.
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

# %% [markdown]
# ### A3.4 Predict: whose picks change? (10 minutes, medium)
#
# In the world of A3.3 four selectors choose: `all tests`, `dual agreement`, `reward model`, and `all tests, then RM`.
# Three changes, one at a time: `nobody` adds a test that no sample passes, `everybody` adds one that all pass, and
# `cut` sets every score above 0.5 to 0.5. For each change, which selectors choose differently on some questions?
# **Predict first**, then run the check.


# %%
def chances(selector: str, passed: list[list[bool]], scores: list[float], right: list[bool]) -> float:
    """How likely that selector is to pick a right sample; equals share the pick."""
    rates = [sum(row) for row in passed]
    chosen_by = {
        "all tests": rates,
        "dual agreement": dual_agreement(passed),
        "reward model": scores,
        "all tests, then RM": rate_then_score(rates, scores),
    }
    return expected_best(right, chosen_by[selector], len(right))


# %%
def differ() -> dict[str, set[str]]:
    """For the changes "nobody", "everybody" and "cut": the selectors that choose differently."""
    ### BEGIN SOLUTION
    # A test that nobody passes adds nothing to any score. One that all pass adds 1 to each count and leaves the order,
    # but dual agreement multiplies: 3 programs x 1 test lose to 1 x 4 before, and 3 x 2 win against 1 x 5 after. A cut
    # makes equals of the best-scored samples, wherever scores decide.
    return {"nobody": set(), "everybody": {"dual agreement"}, "cut": {"reward model", "all tests, then RM"}}
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(differ) as answer:
    predicted, rng = answer(), random.Random(1)
    changes = {
        "nobody": lambda passed, scores: ([[*row, False] for row in passed], scores),
        "everybody": lambda passed, scores: ([[*row, True] for row in passed], scores),
        "cut": lambda passed, scores: (passed, [min(score, 0.5) for score in scores]),
    }
    selectors = {"all tests", "dual agreement", "reward model", "all tests, then RM"}
    assert set(predicted) == set(changes), f"predict these: {', '.join(changes)}"
    questions = [samples_of(rng) for _ in range(300)]
    for name, change in changes.items():
        assert set(predicted[name]) <= selectors, f"the names are {', '.join(sorted(selectors))}"
        for selector in sorted(selectors):
            before = [chances(selector, *one) for one in questions]
            after = [chances(selector, *change(passed, scores), right) for passed, scores, right in questions]
            other = sum(abs(a - b) > 1e-9 for a, b in zip(before, after))
            print(f"{name}: {selector} chooses differently on {other} of {len(questions)} questions")
            assert (other > 0) == (selector in predicted[name]), (
                f"{name}, {selector}: it chooses differently on {other} questions ({fmean(before):.1%} right before, "
                f"{fmean(after):.1%} after); what does the change do to each sample's score?"
            )
