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
# The rule reward pays a program that passes every kept test. `results[i][j]` says whether program i passes test j,
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
        ("the valid three", [True, True, True, False], [True, True, False, False]),
        ("all four", [True] * 4, [False] * 4),
        ("those that the wrong program passes", wrong, [False, False, False, True]),
        ("none", [False] * 4, [False] * 4),
    ]:
        found = answer(programs, kept)
        assert list(found) == expected, f"{name} kept: {expected} are paid; yours pays {found}"
    print("all four tests: nobody is paid; the wrong program's tests: only the wrong program is")

# %% [markdown]
# ### 9.3 When not to trust it (project, 30 minutes)
#
# Nobody stronger is there to help. Each question has ten imagined tests, some wrong, and sixteen programs, many of
# which share one misconception; some wrong tests agree with it. You see which program passes which test,
# `results[program][test]`. Which tests do you keep? Return [] to leave a question out, as the paper's filter leaves out
# those with few tests. A program is paid if it passes all that you keep, and the score is the mean of two shares:
# right programs that are paid, and wrong ones that are not. Answer at least two thirds of the questions, and score
# 12 points more than the majority does on all. Agreement, which answers every question, does not get so far.


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
    """Which tests to keep, one answer per test, from which program passes which test; [] leaves the question out."""
    ### BEGIN SOLUTION
    from collections import Counter

    # Sets of programs that pass just the same tests: the best is believed where no other comes near it.
    sizes = Counter(map(tuple, results))
    worth = {tests: sum(tests) * sizes[tests] ** 0.25 for tests in sizes}
    best, *others = sorted(worth, key=worth.get, reverse=True)
    return list(best) if not others or worth[best] > 1.4 * worth[others[0]] else []
    ### END SOLUTION


# %% tags=["exercise-check"]
def payment(choose, questions=300):
    """The score, and the share of the questions that were answered."""
    rng, found, mixed = random.Random(2), [], 0
    for results, right in (question(rng) for _ in range(questions)):
        if 0 < sum(right) < len(right):
            mixed, kept = mixed + 1, choose(results)
            if len(kept):
                paid = [all(row[t] for t, wanted in enumerate(kept) if wanted) for row in results]
                found.append(fmean(p for p, r in zip(paid, right) if r))
                found.append(fmean(not p for p, r in zip(paid, right) if not r))
    return fmean(found or [0]), len(found) / 2 / mixed


with check(keep) as answer:
    mine, answered = payment(answer)
    majority, _ = payment(lambda results: [fmean(column) >= 0.5 for column in zip(*results)])
    print(f"right payments: the majority's {majority:.1%}, yours {mine:.1%} on {answered:.0%} of the questions")
    assert answered >= 2 / 3, "fewer than two thirds of the questions were answered; which ones need not be left out?"
    assert mine > majority + 0.05, "that is not 5 points more than the majority's; when do the many share a mistake?"
    assert mine > majority + 0.12, "that is not 12 points more than the majority's; where does the best set barely win?"
