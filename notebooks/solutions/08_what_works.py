# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import math
import random
from statistics import fmean

import torch

from acelib.advantages import ALGORITHMS
from acelib.course import check
from acelib.pairs import mixed_share

# %% [markdown]
# ### 8.1 RLOO's advantage (10 minutes, easy)
#
# The advantage of a reply is its reward minus the mean reward of the **other** replies to the same question. Without a
# KL penalty that is all of RLOO.


# %%
def rloo(rewards: list[float]) -> list[float]:
    """The advantage of each reply to one question."""
    ### BEGIN SOLUTION
    return [reward - (sum(rewards) - reward) / (len(rewards) - 1) for reward in rewards]
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(rloo) as answer:
    for rewards in ([1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5], [2.0, 1.0, 0.0]):
        found = answer(rewards)
        for i, reward in enumerate(rewards):
            others = rewards[:i] + rewards[i + 1 :]
            right = reward - fmean(others)
            assert math.isclose(found[i], right, abs_tol=1e-9), (
                f"rewards {rewards}: reply {i + 1} has {reward}, the others {others}, so its advantage is "
                f"{right:+.3f}; yours is {found[i]:+.3f}"
            )

# %% [markdown]
# ### 8.2 Rule and score together (15 minutes, medium)
#
# Write a reward that is half the rule and half the reward model's score, squeezed by the sigmoid so that it cannot
# outshout the rule. Both come as lists with None where nothing is known; then the blend is None, too. Scores may be as
# extreme as -800.


# %%
def blend(rule: list[float | None], score: list[float | None]) -> list[float | None]:
    """0.5 * rule + 0.5 * sigmoid(score) of each reply."""

    ### BEGIN SOLUTION
    def squeezed(x):  # the same function, written so that exp never overflows
        return 0.5 * (1 + math.tanh(x / 2))

    return [None if None in (r, s) else 0.5 * r + 0.5 * squeezed(s) for r, s in zip(rule, score, strict=True)]
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(blend) as answer:
    for rule, score, right in [
        (1.0, 0.0, 0.75),
        (0.0, 0.0, 0.25),
        (0.0, 50.0, 0.5),
        (1.0, -800.0, 0.5),
        (1.0, 2.0, 0.9404),
    ]:
        (found,) = answer([rule], [score])
        assert found is not None and abs(found - right) < 1e-3, (
            f"rule {rule}, score {score}: the blend is {right:.3f}; yours is {found}"
        )
    assert answer([None, 1.0, 0.0], [0.0, None, 0.0]) == [None, None, 0.25], "None in either makes the blend None"

# %% [markdown]
# ### 8.3 A prediction without the winner's curse (20 minutes, medium)
#
# The hard quarter is chosen by the very samples that then predict its share of mixed outcomes, and what was chosen for
# an extreme regresses. Split instead: let `choose` see the first eight outcomes of every question, and predict from the
# other eight, for the questions that it chose, the mean `mixed_share` of `n` outcomes.


# %%
def honest_prediction(outcomes: list[list[bool]], choose, n: int) -> float:
    """Predicted share of mixed groups of `n`; `outcomes` (questions, 16), `choose(outcomes)` returns places."""
    ### BEGIN SOLUTION
    chosen = choose([question[:8] for question in outcomes])
    return fmean(mixed_share(outcomes[place][8:], n) for place in chosen)
    ### END SOLUTION


# %% tags=["exercise-check"]
def nearest_to_half(outcomes):
    order = sorted(range(len(outcomes)), key=lambda i: abs(fmean(outcomes[i]) - 0.5))
    return order[: len(outcomes) // 4]


with check(honest_prediction) as answer:
    rng = random.Random(0)
    chance = [rng.choice([0.05, 0.1, 0.2, 0.8, 0.9]) for _ in range(2000)]
    outcomes = [[rng.random() < p for _ in range(16)] for p in chance]
    halves = [[question[8 * half :][:8] for question in outcomes] for half in (0, 1)]
    chosen = nearest_to_half(halves[0])
    true = fmean(1 - chance[i] ** 4 - (1 - chance[i]) ** 4 for i in chosen)
    cursed = fmean(mixed_share(halves[0][i], 4) for i in chosen)
    found = answer(outcomes, nearest_to_half, 4)
    print(f"truly mixed {true:.1%}; predicted by the samples that chose {cursed:.1%}, by yours {found:.1%}")
    assert abs(found - true) < 0.02, "it is more than two points off; which outcomes does the choice not know?"

# %% [markdown]
# ### 8.4 What a mixed group costs (10 minutes, medium)
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
# ### 8.5 What does dynamic sampling cost? (project, 30 minutes)
#
# DAPO keeps sampling questions until it has `wanted` whose replies do not all have the same reward, and throws the
# others away. `sample()` gives the rewards of the replies to the next question. Write that loop; give up after `most`
# questions, or a policy that has learnt everything would never come back. Then look at the printed price at the two
# shares of mixed questions: pocket's, and the paper's.


# %%
def dynamic_sampling(sample, wanted: int, most: int = 1000) -> tuple[list[list[float]], int]:
    """(the mixed groups, the number of replies sampled for them)."""
    ### BEGIN SOLUTION
    groups, replies = [], 0
    for _ in range(most):
        if len(groups) == wanted:
            break
        rewards = sample()
        replies += len(rewards)
        if len(set(rewards)) > 1:
            groups.append(rewards)
    return groups, replies
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(dynamic_sampling) as answer:
    stream = iter([[1, 1], [1, 0], [0, 0], [0, 1], [1, 0]])
    groups, replies = answer(lambda: next(stream), 2)
    assert groups == [[1, 0], [0, 1]], (
        f"of [1, 1], [1, 0], [0, 0], [0, 1] the mixed ones are kept; yours keeps {groups}"
    )
    assert replies == 8, f"four questions with two replies each were sampled, 8 replies; yours says {replies}"
    assert next(stream) == [1, 0], "the fifth question should not have been sampled: two mixed ones were there"
    groups, replies = answer(lambda: [1, 1, 1], 2, most=10)
    assert (groups, replies) == ([], 30), "where nothing is mixed it gives up after `most` questions, 30 replies here"
    for share in (0.83, 0.168):
        stream = iter([[1, 0] * 4 if random.Random(i).random() < share else [0] * 8 for i in range(5000)])
        groups, replies = answer(lambda: next(stream), 400, 5000)  # noqa: B023
        print(f"{share:.1%} mixed: {replies / (8 * len(groups)):.1f} times the replies of plain sampling")

# %% [markdown]
# ### 8.6 Predict: whose advantages change? (10 minutes, medium)
#
# A rollout of two questions, four replies each: of the first question's one is right, of the second's two. `advantages`
# gives what the algorithm makes of the **first** question's replies. Change one value at a time: `plus=10` adds 10 to
# every reward, `times=10` multiplies them, and `other=(1, 1, 1, 1)` makes the *second* question's replies all right.
# For each change, which of the six algorithms give the first question's replies other advantages? **Predict first**,
# with the table of algorithms above. Then run, say, `advantages("rloo", times=10)` in a cell of your own and compare.


# %%
def advantages(algorithm: str, plus=0.0, times=1.0, other=(1.0, 1.0, 0.0, 0.0)) -> list[float]:
    """Advantages of the first question's four replies (of one token each), without a KL penalty."""
    rewards = times * torch.tensor([1.0, 0.0, 0.0, 0.0, *other]) + plus
    logps, mask = torch.zeros(len(rewards), 1), torch.ones(len(rewards), 1)
    found = ALGORITHMS[algorithm].advantages(rewards, logps, logps, mask, n=4, beta=0.0)
    return [round(value, 2) + 0.0 for value in found[:4, 0].tolist()]


# %%
def changed() -> dict[str, set[str]]:
    """For the changes "plus", "times" and "other": the algorithms with other advantages (keys of ALGORITHMS)."""
    ### BEGIN SOLUTION
    # All take off a mean, so what is added to all drops out. Two never divide by a standard deviation: a reward in
    # larger units pushes harder. (AdamW takes most of that back: it divides by the gradient's usual size.) And two
    # standardise over the whole rollout, so that one question's rewards decide how hard another's replies are pushed.
    return {"plus": set(), "times": {"rloo", "dr_grpo"}, "other": {"reinforce++", "reinforce++-baseline"}}
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(changed) as answer:
    predicted, changes = answer(), {"plus": 10.0, "times": 10.0, "other": (1.0, 1.0, 1.0, 1.0)}
    reasons = {
        "plus": "each takes off a mean, and 10 goes with it",
        "times": "only a division by a standard deviation takes the unit away",
        "other": "only a mean or a standard deviation over the whole rollout sees the second question",
    }
    assert set(predicted) == set(reasons), f"predict these: {', '.join(reasons)}"
    for name, value in changes.items():
        before = {one: advantages(one) for one in ALGORITHMS}
        after = {one: advantages(one, **{name: value}) for one in ALGORITHMS}
        seen = {one for one in ALGORITHMS if before[one] != after[one]}
        print(f"{name}={value} changes " + (", ".join(f"{one} {after[one]}" for one in sorted(seen)) or "none"))
        assert set(predicted[name]) <= set(ALGORITHMS), f"the names are {', '.join(ALGORITHMS)}"
        wrong = sorted(seen ^ set(predicted[name]))
        assert not wrong, f"{name}, {wrong[0]}: before {before[wrong[0]]}, after {after[wrong[0]]}; {reasons[name]}"
