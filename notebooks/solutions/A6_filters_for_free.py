# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import random
from collections import Counter
from statistics import fmean

from acelib.course import check

# %% [markdown]
# ### A6.1 Two teachers, equally bad (5 minutes, easy)
#
# Of each teacher's tests the share `p` is right. The first *slips*: each test is right with probability `p`, whatever
# the others are. The second *misreads*: all `n` tests of a question are right, with probability `p`, or all are wrong.
# Without a filter the rule pays nobody where one of the `n` tests is wrong. At which share of the questions can it pay?


# %%
def can_pay(p: float, n: int) -> tuple[float, float]:
    """Share of the questions without a wrong test: by the teacher that slips, and by the one that misreads."""
    ### BEGIN SOLUTION
    return p**n, p
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(can_pay) as answer:
    rng = random.Random(0)
    for p, n in [(0.75, 5), (0.75, 10), (0.2, 5)]:
        drawn = fmean(all(rng.random() < p for _ in range(n)) for _ in range(20_000)), p
        mine = answer(p, n)
        for name, share, yours in zip(("slips", "misreads"), drawn, mine, strict=True):
            assert abs(share - yours) < 0.02, (
                f"p = {p}, n = {n}: of the teacher that {name} {share:.0%} of the questions have no wrong test; "
                f"by yours {yours:.0%}"
            )
        print(f"{p:.0%} right, {n} tests: slips {mine[0]:.1%}, misreads {mine[1]:.0%} of the questions can pay")

# %% [markdown]
# ### A6.2 Predict: when does agreement fail? (15 minutes, medium)
#
# `question` makes a small world: ten imagined tests, some wrong, and sixteen programs. The wrong programs partly share
# one misconception, and some wrong tests agree with it. `payment(agreed)` is the mean of two shares, of right programs
# that agreement's tests pay and of wrong ones that they do not. Change one value at a time:
#
# - `samples=64`: four times as many programs;
# - `easy=(0.2,)`: all questions are hard, one program in five is right;
# - `shared=1.0`: *all* wrong programs share the misconception;
# - `misled=0.0`: no wrong test agrees with it.
#
# Does `payment(agreed)` get `"higher"`, `"lower"`, or stay the `"same"` (within 0.02)? **Predict first.** Then run,
# say, `payment(agreed, samples=64)` in a cell of your own and compare.


# %%
def question(rng: random.Random, samples=16, easy=(0.2, 0.5, 0.8), shared=0.6, misled=0.3):
    """results (programs, tests), and what you do not see: which programs are right."""
    valid, solved = [rng.random() < 0.6 for _ in range(10)], rng.choice(easy)
    misconception = [rng.random() < (0.4 if ok else misled) for ok in valid]
    right = [rng.random() < solved for _ in range(samples)]
    results = []
    for good in right:
        own = [ok and rng.random() < 0.5 for ok in valid]
        results.append(valid if good else misconception if rng.random() < shared else own)
    return results, right


def agreed(results: list[list[bool]]) -> list[bool]:
    """Agreement: which tests the set with the largest tests passed x size^0.25 passes."""
    sizes = Counter(map(tuple, results))
    return list(max(sizes, key=lambda tests: sum(tests) * sizes[tests] ** 0.25))


def payment(choose, questions=300, **values):
    """The mean of the two shares, and the share of the questions that were answered."""
    rng, found, mixed = random.Random(2), [], 0
    for results, right in (question(rng, **values) for _ in range(questions)):
        if 0 < sum(right) < len(right):
            mixed, kept = mixed + 1, choose(results)
            if len(kept):
                paid = [all(row[t] for t, wanted in enumerate(kept) if wanted) for row in results]
                found.append(fmean(p for p, r in zip(paid, right) if r))
                found.append(fmean(not p for p, r in zip(paid, right) if not r))
    return fmean(found or [0]), len(found) / 2 / mixed


# %%
def what_becomes() -> dict[str, str]:
    """ "higher", "lower" or "same" for each change: samples, easy, shared, misled."""
    ### BEGIN SOLUTION
    # More samples make both sets larger, the right one and the misconception's: the order of their scores stays.
    # Where few programs are right, and where all wrong ones err alike, the wrong set outweighs the right one. Where
    # no test agrees with the misconception, it passes few tests, and numbers do not help it.
    return {"samples": "same", "easy": "lower", "shared": "lower", "misled": "higher"}
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(what_becomes) as answer:
    predicted, (plain, _) = answer(), payment(agreed, 1000)
    changes = {"samples": 64, "easy": (0.2,), "shared": 1.0, "misled": 0.0}
    reasons = {
        "samples": "the right set grows, and so does the wrong one",
        "easy": "the wrong set is often four times as large as the right one",
        "shared": "all wrong programs stand in one large set",
        "misled": "the misconception passes no wrong test, so its set passes few tests",
    }
    assert set(predicted) == set(reasons), f"predict these: {', '.join(reasons)}"
    for name, value in changes.items():
        found, _ = payment(agreed, 1000, **{name: value})
        gap = found - plain
        seen = "same" if abs(gap) <= 0.02 else "higher" if gap > 0 else "lower"
        print(f"{name}={value}: {plain:.2f} -> {found:.2f}, {seen}; predicted: {predicted[name]}")
        assert predicted[name] == seen, f"{name}, predicted {predicted[name]!r}, is {seen!r}: {reasons[name]}"

# %% [markdown]
# ### A6.3 When not to trust it (project, 30 minutes)
#
# Nobody stronger is there to help. You see which program passes which test in the world of A6.2,
# `results[program][test]`. Which tests do you keep? Return [] to leave a question out, as the paper's filter leaves out
# those with few tests. Answer at least two thirds of the questions, and let `payment` be 12 points more than the
# majority's on all of them. Agreement, which answers every question, does not get so far.


# %%
def keep(results: list[list[bool]]) -> list[bool]:
    """Which tests to keep, one answer per test, from which program passes which test; [] leaves the question out."""
    ### BEGIN SOLUTION
    # Sets of programs that pass just the same tests: the best is believed where no other comes near it.
    sizes = Counter(map(tuple, results))
    worth = {tests: sum(tests) * sizes[tests] ** 0.25 for tests in sizes}
    best, *others = sorted(worth, key=worth.get, reverse=True)
    return list(best) if not others or worth[best] > 1.4 * worth[others[0]] else []
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(keep) as answer:
    mine, answered = payment(answer)
    majority, _ = payment(lambda results: [fmean(column) >= 0.5 for column in zip(*results)])
    print(f"right payments: the majority's {majority:.1%}, yours {mine:.1%} on {answered:.0%} of the questions")
    assert answered >= 2 / 3, "fewer than two thirds of the questions were answered; which ones need not be left out?"
    assert mine > majority + 0.05, "that is not 5 points more than the majority's; when do the many share a mistake?"
    assert mine > majority + 0.12, "that is not 12 points more than the majority's; where does the best set barely win?"
