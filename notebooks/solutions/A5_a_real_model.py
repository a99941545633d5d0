# %% [markdown]
# ## Exercises
#
# Write your answer in place of the `...`, run that cell, then the check below it. The checks need nothing from the
# notebook above: the next cell and the exercise are enough. A solution is folded under each check.

# %%
import math
import random
from statistics import fmean

from acelib.course import check
from acelib.pairs import hard_quarter

# %% [markdown]
# ### A5.1 A rise without the luck of the questions (10 minutes, easy)
#
# Every rollout asks other questions, and some are easier. `rollouts[t]` has the questions of rollout t, and the share
# of the replies to each that passed; `before` has that share for every question before training. Return one number per
# rollout: the mean gain of its questions over what *they* had before.


# %%
def gains(rollouts: list[dict[str, float]], before: dict[str, float]) -> list[float]:
    """The mean gain of each rollout's questions."""
    ### BEGIN SOLUTION
    return [fmean(share - before[question] for question, share in one.items()) for one in rollouts]
    ### END SOLUTION


# %% tags=["exercise-check"]
BEFORE = {"easy": 0.9, "middling": 0.5, "hard": 0.1}
with check(gains) as answer:
    for name, rollouts, right in [
        ("nothing is learnt, easy questions come last", [{"hard": 0.1}, {"middling": 0.5}, {"easy": 0.9}], [0, 0, 0]),
        ("much is learnt, hard questions come last", [{"easy": 0.9}, {"middling": 0.7}, {"hard": 0.5}], [0, 0.2, 0.4]),
        ("two questions in each rollout", [{"easy": 1.0, "hard": 0.2}, {"middling": 0.5, "hard": 0.5}], [0.1, 0.2]),
    ]:
        raw, found = [fmean(one.values()) for one in rollouts], answer(rollouts, BEFORE)
        assert len(found) == len(right), f"{name}: {len(right)} rollouts have {len(right)} gains, not {len(found)}"
        close = [all(abs(a - b) < 1e-9 for a, b in zip(found, one)) for one in (raw, [x - 0.5 for x in raw])]
        hint = ": these are the shares themselves" if close[0] else ""
        hint = ": you took off the mean of all questions, not of the rollout's" if close[1] else hint
        shown = (" ".join(f"{x:+.2f}" for x in numbers) for numbers in (right, found))
        assert all(abs(a - b) < 1e-9 for a, b in zip(found, right)), "{}: {}, yours {}{}".format(name, *shown, hint)
    print("the first run's raw curve climbs from 10% to 90%, and it has learnt nothing")

# %% [markdown]
# ### A5.2 Will two fresh samples differ? (15 minutes, medium)
#
# Of `n` samples for a question `c` were right. What is the probability that of **two fresh** samples one is right and
# one wrong? Before you saw any, every chance $p$ of a right sample was equally likely; now its density is proportional
# to $p^c (1-p)^{n-c}$. You may use $\int_0^1 p^a (1-p)^b\,dp = \frac{a!\,b!}{(a+b+1)!}$.


# %%
def differ(c: int, n: int) -> float:
    """Probability that two fresh samples differ, after c of n were right."""
    ### BEGIN SOLUTION
    # The mean of 2 p (1 - p): the same integral with one more p above, and one more 1 - p.
    return 2 * (c + 1) * (n - c + 1) / ((n + 2) * (n + 3))
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(differ) as answer:
    grid = [(i + 0.5) / 4000 for i in range(4000)]
    for c, n in [(0, 8), (4, 8), (8, 8), (1, 4), (0, 0)]:
        weights = [p**c * (1 - p) ** (n - c) for p in grid]
        right = sum(2 * p * (1 - p) * w for p, w in zip(grid, weights)) / sum(weights)
        found, middle = answer(c, n), (c + 1) / (n + 2)
        hint = "; after no success in n tries the next one may still succeed" if found == 0 else ""
        if math.isclose(found, 2 * middle * (1 - middle), abs_tol=1e-6):
            hint = "; that is 2 p (1 - p) at the mean p: take the mean of 2 p (1 - p)"
        assert abs(found - right) < 1e-4, f"{c} of {n} right: {right:.4f}, yours {found:.4f}{hint}"
    print("for equal n it is proportional to the notebook's weight of 'uncertain', (c + 1) (n - c + 1)")

# %% [markdown]
# ### A5.3 Predict: when does the hard quarter pay? (15 minutes, medium)
#
# `mixed_shares` makes 400 questions, chooses the hard quarter by eight samples each, and returns the chance that eight
# *fresh* samples are mixed, right and wrong: the mean of the quarter, and of all. As it stands every chance of a right
# sample is equally likely, and the quarter holds more. Change one value at a time:
#
# - `hopeless=0.6`: three questions of five are never solved;
# - `alike=True`: every question is solved half of the time;
# - `easy=True`: every question is solved four times in five, or more often.
#
# Does the quarter hold `"more"`, `"fewer"` or `"as many"` mixed ones (within 2 points)? **Predict first.** Then run the
# three in a cell of your own, and compare. The check runs them once more.


# %%
def mixed_shares(hopeless=0.0, alike=False, easy=False, questions=400):
    """Chance of mixed outcomes among eight fresh samples: mean of the hard quarter, mean of all questions."""
    rng, chances, rates = random.Random(1), [], []
    for _ in range(questions):
        p = 0.5 if alike else rng.uniform(0.8 if easy else 0.0, 1.0)
        p = 0.0 if rng.random() < hopeless else p
        chances.append(p)
        rates.append([1.0 if rng.random() < p else rng.choice([0.0, 0.3, 0.6]) for _ in range(8)])  # of tests passed
    mixed = [1 - p**8 - (1 - p) ** 8 for p in chances]
    return fmean(mixed[i] for i in hard_quarter(rates)), fmean(mixed)


# %%
def how_many() -> dict[str, str]:
    """ "more", "fewer" or "as many" for each change: hopeless, alike, easy."""
    ### BEGIN SOLUTION
    # The lower half holds the hopeless first, so they fill the quarter: fewer. Where all are alike the choice follows
    # chance alone, which fresh samples do not repeat. Where all are easy, the hardest are the least decided ones.
    return {"hopeless": "fewer", "alike": "as many", "easy": "more"}
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(how_many) as answer:
    predicted, changes = answer(), {"hopeless": 0.6, "alike": True, "easy": True}
    reasons = {
        "hopeless": "the lower half by pass rate is full of questions that are never solved",
        "alike": "the questions differ by chance alone, and fresh samples do not repeat it",
        "easy": "the hardest of easy questions are those that are sometimes missed",
    }
    assert set(predicted) == set(reasons), f"predict these: {', '.join(reasons)}"
    for name, value in changes.items():
        quarter, all_of_them = mixed_shares(**{name: value})
        gap = quarter - all_of_them
        seen = "as many" if abs(gap) < 0.02 else "more" if gap > 0 else "fewer"
        print(
            f"{name}={value}: hard quarter {quarter:.0%}, all {all_of_them:.0%}: {seen}; predicted: {predicted[name]}"
        )
        assert predicted[name] == seen, f"{name}, predicted {predicted[name]!r}, is {seen!r}: {reasons[name]}"
