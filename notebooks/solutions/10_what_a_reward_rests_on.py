# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import random
from statistics import fmean, stdev  # noqa: F401  yours to use

from acelib.core import ROOT, read_rows
from acelib.course import check

# %% [markdown]
# ### 10.1 Within, then average (5 minutes, easy)
#
# Three policies were trained and each was asked its own number of questions, before and after. What did training
# change on average? Take the difference within each policy first, so that each policy counts once.


# %%
def within(policies: list[tuple[list[float], list[float]]]) -> float:
    """Mean gain; each policy is (before, after), one number per question."""
    ### BEGIN SOLUTION
    return fmean(fmean(after) - fmean(before) for before, after in policies)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(within) as answer:
    weak, strong = ([0.1] * 10, [0.2] * 10), ([0.9] * 40, [0.7] * 40)
    found = answer([weak, strong])
    assert abs(found + 0.05) < 1e-9, (
        f"one gained 0.10, the other lost 0.20: -0.05 on average; yours is {found:+.3f} (-0.14 would let the policy "
        "with more questions count four times)"
    )
    assert abs(answer([weak]) - 0.1) < 1e-9, "one policy alone gained 0.10"

# %% [markdown]
# ### 10.2 What three numbers can say (10 minutes, medium)
#
# Student's interval for a mean of three: $\bar x \pm 4.30\, s / \sqrt{3}$, with $s$ the standard deviation ($n - 1$
# below the root). The bootstrap cannot leave the range of the three; this one can. **Guess first:** is the loss by RL
# on the score without votes clear by it, too? The check prints it.


# %%
def student(values: list[float]) -> tuple[float, float]:
    """(low, high) of the 95% interval for the mean of three values."""
    ### BEGIN SOLUTION
    half = 4.30 * stdev(values) / 3**0.5
    return fmean(values) - half, fmean(values) + half
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(student) as answer:
    low, high = answer([-25.0, -4.0, -16.0])
    assert abs(low + 41.3) < 0.5 and abs(high - 11.3) < 0.5, (
        f"losses of 25, 4 and 16 points: the interval is [-41, +11]; yours is [{low:.1f}, {high:.1f}]"
    )
    rng, inside = random.Random(0), 0
    for _ in range(4000):
        low, high = answer([rng.gauss(1.0, 2.0) for _ in range(3)])
        inside += low <= 1.0 <= high
    print(f"in 4,000 draws of three the interval held the true mean {inside / 4000:.1%} of the time")
    without = [one for one in read_rows(ROOT / "data" / "grid" / "worlds.jsonl") if one["vote_weight"] == 0]
    gains = [100 * (fmean(one["sampled_policy_rm"]) - fmean(one["sampled_policy"])) for one in without]
    print(f"RL on the score without votes: {fmean(gains):+.1f} points, " + "[{:+.0f}, {:+.0f}]".format(*answer(gains)))
    assert 0.93 < inside / 4000 < 0.97, "95 of 100 such intervals should hold the true mean"

# %% [markdown]
# ### 10.3 Where a KL limit stops (15 minutes, medium)
#
# `reinforce.max_kl` ends a training after the first rollout at which the mean KL of the last five (or of all so far,
# if there are fewer) exceeds the limit. How many rollouts are made? All, if the limit is never exceeded.


# %%
def stopped_at(kl: list[float], limit: float) -> int:
    """The number of rollouts that are made; kl has one number per rollout."""
    ### BEGIN SOLUTION
    for rollout in range(1, len(kl) + 1):
        if fmean(kl[max(0, rollout - 5) : rollout]) > limit:
            return rollout
    return len(kl)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(stopped_at) as answer:
    for kl, limit, right in [
        ([0.1, 0.2, 0.3], 1.0, 3),
        ([2.0, 0.0, 0.0], 1.0, 1),
        ([0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0], 1.0, 5),
        ([float(i) for i in range(10)], 4.0, 8),
    ]:
        found = answer(kl, limit)
        assert found == right, f"KL {kl}, limit {limit}: the run stops after rollout {right}; yours says {found}"

# %% [markdown]
# ### 10.4 Is there a limit that fits them all? (project, 40 minutes)
#
# `worlds.jsonl` has the curves of every policy that was trained on a score: `kl_rm` per rollout, and `looks_rm`, pairs
# of (rollouts, held-out pass@1). For each policy choose the KL limit of `limits` that is best, on average, for the
# *others* (the last look at or before the stop counts; of equally good limits take the first), and return what it gains
# over the start for the policy that was left out. Use `stopped_at`. Would you have been glad of such a limit?


# %%
def left_out(worlds: list[dict], limits: list[float]) -> list[float]:
    """For each world the gain in pass@1 over its start, with the limit that is best for the others."""

    ### BEGIN SOLUTION
    def gain(world, limit):
        stop, looks = stopped_at(world["kl_rm"], limit), sorted(world["looks_rm"])
        reached = [truth for step, truth in looks if step <= stop]
        return reached[-1] - looks[0][1]

    found = []
    for world in worlds:
        others = [one for one in worlds if one is not world]
        best = max(limits, key=lambda limit: fmean(gain(one, limit) for one in others))
        found.append(gain(world, best))
    return found
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(left_out) as answer:
    rising = {"kl_rm": [0.5, 1.0, 2.0, 4.0], "looks_rm": [[0, 0.3], [2, 0.5], [4, 0.1]]}
    steady = {"kl_rm": [0.1, 0.2, 0.3, 0.4], "looks_rm": [[0, 0.3], [2, 0.4], [4, 0.6]]}
    late = {"kl_rm": [2.0, 2.0, 2.0, 2.0], "looks_rm": [[0, 0.3], [1, 0.2], [4, 0.7]]}
    found, right = answer([rising, steady, late], [0.9, 9.0]), [-0.2, 0.3, -0.1]
    for name, one, other in zip(("the first", "the second", "the third"), found, right, strict=True):
        assert abs(one - other) < 1e-9, (
            f"three toy policies, limits 0.9 and 9: with the limit that the other two choose, {name} gains "
            f"{other:+.1f}; yours is {one:+.1f}"
        )
    worlds = read_rows(ROOT / "data" / "grid" / "worlds.jsonl")
    gains = answer(worlds, [0.5, 1.0, 1.5, 2.0, 3.0, 100.0])
    last = [sorted(one["looks_rm"])[-1][1] - sorted(one["looks_rm"])[0][1] for one in worlds]
    print("gain with the others' limit ", ", ".join(f"{one:+.2f}" for one in gains))
    print("gain without any limit      ", ", ".join(f"{one:+.2f}" for one in last))
