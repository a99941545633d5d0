# %% [markdown]
# ## Exercises
#
# Write your answer in place of the `...`, run that cell, then the check below it. The checks need nothing from the
# notebook above: the next cell and the exercise are enough. A solution is folded under each check.

# %%
import math  # noqa: F811
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
# ### 9.2 What a mixed group costs (10 minutes, medium)
#
# Choosing questions costs samples, too. `known` programs are sampled for every question; the share `chosen` of the
# questions is taken, each for one group of `n` further programs; the share `mixed` of these groups is mixed. How many
# programs are sampled, all in all, for one mixed group?


# %%
def programs_per_mixed_group(n: int, known: int, chosen: float, mixed: float) -> float:
    """Programs per mixed group, those of questions that were not chosen included."""
    ### BEGIN SOLUTION
    return (n + known / chosen) / mixed
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(programs_per_mixed_group) as answer:
    for n, known, chosen, mixed in [(8, 0, 1.0, 0.5), (8, 8, 1.0, 0.5), (8, 8, 0.5, 0.8), (8, 16, 0.25, 0.4)]:
        asked = 1000  # questions: count everything once more
        groups = asked * chosen
        right, found = (asked * known + groups * n) / (groups * mixed), answer(n, known, chosen, mixed)
        assert math.isclose(found, right), (
            f"{asked} questions with {known} programs each, {groups:.0f} of them chosen, {groups * mixed:.0f} mixed "
            f"groups of {n}: {right:.1f} programs for one; yours is {found:.1f}"
        )

# %% [markdown]
# ### 9.3 A filter for free (project, 30 minutes)
#
# Nobody stronger is there to help. Each question has ten imagined tests, some wrong, and sixteen programs, many of
# which share one misconception; some wrong tests agree with it. You see which program passes which test,
# `results[program][test]`. Which tests do you keep? A program is then paid if it passes all that you keep, and the
# payment is right so often as right programs are paid and wrong ones are not (the mean of both shares).


# %%
def question(rng: random.Random):
    """results (programs, tests), and what you do not see: which programs are right."""
    valid, easy = [rng.random() < 0.6 for _ in range(10)], rng.choice([0.2, 0.5, 0.8])
    misconception = [rng.random() < (0.4 if ok else 0.3) for ok in valid]
    right = [rng.random() < easy for _ in range(16)]
    results = []
    for good in right:
        own = [ok and rng.random() < 0.5 for ok in valid]
        results.append(valid if good else misconception if rng.random() < 0.6 else own)
    return results, right


# %%
def keep(results: list[list[bool]]) -> list[bool]:
    """Which tests to keep, one answer per test, from which program (row) passes which test (column)."""
    ### BEGIN SOLUTION
    from collections import Counter

    # Programs that pass just the same tests agree. Trust those that pass many tests; agreement breaks near ties.
    sizes = Counter(map(tuple, results))
    return list(max(sizes, key=lambda tests: sum(tests) * sizes[tests] ** 0.25))
    ### END SOLUTION


# %% tags=["exercise-check"]
def payment(choose, questions=300):
    rng, found = random.Random(2), []
    for results, right in (question(rng) for _ in range(questions)):
        if 0 < sum(right) < len(right):
            kept = [t for t, wanted in enumerate(choose(results)) if wanted]
            paid = [all(row[t] for t in kept) for row in results]
            found.append(fmean(p for p, r in zip(paid, right) if r))
            found.append(fmean(not p for p, r in zip(paid, right) if not r))
    return fmean(found)


with check(keep) as answer:
    everything, majority = (
        payment(lambda results: [True] * 10),
        payment(lambda results: [fmean(column) >= 0.5 for column in zip(*results)]),
    )
    mine = payment(answer)
    print(f"right payments: all tests {everything:.1%}, the majority's {majority:.1%}, yours {mine:.1%}")
    assert mine > everything + 0.2, "that is not 20 points more than with all tests; what does one wrong test do?"
    assert mine > majority + 0.05, "that is not 5 points more than the majority's; when do the many share a mistake?"
