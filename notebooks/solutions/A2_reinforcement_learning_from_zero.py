# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import math
import random

from acelib.course import check

# %% [markdown]
# ### A2.1 Which way does a pick push? (10 minutes, easy)
#
# The policy is a softmax of the numbers `theta`. Program number `pick` was picked. Give the gradient of
# $\log \pi(\text{pick})$ with respect to each of the numbers.


# %%
def push(theta: list[float], pick: int) -> list[float]:
    """d log pi(pick) / d theta, one number per program."""
    ### BEGIN SOLUTION
    total = sum(math.exp(one) for one in theta)
    return [(number == pick) - math.exp(one) / total for number, one in enumerate(theta)]
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(push) as answer:
    for theta, pick in (([0.0, 0.0], 0), ([1.0, 0.0, -1.0], 1), ([2.0, 2.0, 0.0, 1.0], 3)):
        found, share = answer(theta, pick), math.exp(theta[pick]) / sum(map(math.exp, theta))
        assert len(found) == len(theta), f"{len(theta)} programs have {len(theta)} numbers; yours are {len(found)}"
        assert found[pick] > 0, (
            f"theta {theta}: the pick goes up, by one minus its probability; yours is {found[pick]:+.3f}"
        )
        assert math.isclose(found[pick], 1 - share, abs_tol=1e-6), (
            f"theta {theta}, pick {pick}: its probability is {share:.3f}, so its own push is {1 - share:+.3f}; "
            f"yours is {found[pick]:+.3f}"
        )
        assert abs(sum(found)) < 1e-6, (
            f"what one gains the others lose: the pushes sum to 0, yours to {sum(found):+.3f}"
        )
        total = sum(map(math.exp, theta))
        for other in set(range(len(theta))) - {pick}:
            lost = -math.exp(theta[other]) / total
            assert math.isclose(found[other], lost, abs_tol=1e-6), (
                f"theta {theta}, pick {pick}: program {other} loses its probability, {lost:+.3f}; "
                f"yours is {found[other]:+.3f}"
            )

# %% [markdown]
# ### A2.2 The distance from the reference (5 minutes, easy)
#
# The KL divergence of a policy `p` from the reference `q`, in nats; both are lists of probabilities. What has
# probability 0 under `p` adds nothing.


# %%
def kl(p: list[float], q: list[float]) -> float:
    """KL(p | q) in nats."""
    ### BEGIN SOLUTION
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(kl) as answer:
    assert abs(answer([0.5, 0.5], [0.5, 0.5])) < 1e-9, "equal policies are no distance apart"
    found, right = answer([0.9, 0.1], [0.5, 0.5]), 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert not math.isclose(found, right / math.log(2), abs_tol=1e-4), "these are bits; nats use the natural logarithm"
    assert not math.isclose(found, 0.5 * math.log(1 / 1.8) + 0.5 * math.log(5), abs_tol=1e-4), (
        "that is the distance of q from p: the mean is taken under p"
    )
    assert math.isclose(found, right, abs_tol=1e-6), f"[0.9, 0.1] from [0.5, 0.5] is {right:.4f}; yours is {found:.4f}"
    found = answer([1.0, 0.0], [0.25, 0.75])
    assert math.isclose(found, math.log(4), abs_tol=1e-6), (
        f"[1, 0] from [0.25, 0.75] is log 4 = 1.3863; yours is {found}"
    )

# %% [markdown]
# ### A2.3 A bandit of your own (25 minutes, medium)
#
# Learn a softmax policy over the programs from their rewards alone: for each update pick `batch` programs with
# `rng.choices`, take the mean of their rewards as the baseline, and move `theta` by `rate` times the mean of advantage
# times your `push`. Start at zeros and return `theta`. The rewards may all be large: only a baseline saves you then.


# %%
def learn(
    rewards: list[float], rng: random.Random, updates: int = 300, rate: float = 0.3, batch: int = 8
) -> list[float]:
    """`theta` after `updates` updates; program i is worth `rewards[i]`."""
    ### BEGIN SOLUTION
    theta = [0.0] * len(rewards)
    for _ in range(updates):
        picks = rng.choices(range(len(rewards)), [math.exp(one) for one in theta], k=batch)
        baseline = sum(rewards[pick] for pick in picks) / batch
        pushes = [(rewards[pick] - baseline, push(theta, pick)) for pick in picks]
        theta = [one + rate * sum(a * p[i] for a, p in pushes) / batch for i, one in enumerate(theta)]
    return theta
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(learn) as answer:
    for rewards in ([0.0, 1.0, 0.5], [1.0, 0.0, 0.0, 0.0], [10.0, 11.0, 10.5]):
        theta = [answer(rewards, random.Random(seed)) for seed in range(5)]
        assert all(len(one) == len(rewards) for one in theta), f"{len(rewards)} programs have {len(rewards)} numbers"
        best = rewards.index(max(rewards))
        shares = [math.exp(one[best]) / sum(map(math.exp, one)) for one in theta]
        assert min(shares) > 0.8, (
            f"rewards {rewards}: program {best} should end above 80% from every seed; yours end at "
            + ", ".join(f"{share:.0%}" for share in shares)
            + (" (is the baseline subtracted?)" if min(rewards) > 1 else "")
        )

# %% [markdown]
# ### A2.4 On a leash, with few picks (project, 45 minutes)
#
# Picks are expensive: `ask(probabilities, n)` gives `n` of them as pairs of program and reward, 320 in all. A reward is
# 1 or 0, by chance: a better program earns 1 more often. Return the probabilities that make mean reward minus `beta`
# times KL from the reference large. Put together what stands above: begin at the reference, the penalty inside each
# pick's reward, a baseline, several updates for each rollout, with ratio and clip. How many picks make a rollout, how
# often is it used, how long is a step? Over twenty worlds, get 80% of what the best policy gains over the reference.
# When it works, take the clip away and use each rollout twice as often, with twice the step.


# %%
def softmax(theta: list[float]) -> list[float]:
    weights = [math.exp(one - max(theta)) for one in theta]
    return [one / sum(weights) for one in weights]


def world(seed: int) -> tuple[list[float], list[float]]:
    """The reference's probabilities of six programs, and what you do not see: how often each earns 1."""
    rng = random.Random(seed)
    return softmax([rng.gauss(0, 1.2) for _ in range(6)]), [rng.random() for _ in range(6)]


# %%
def leashed(reference: list[float], ask, beta: float) -> list[float]:
    """Probabilities of the programs after 320 picks."""
    ### BEGIN SOLUTION
    # Ten rollouts of 32 picks, each used eight times. Other splits do nearly as well, but not two large rollouts: the
    # clip stops them near the reference. Without the clip alone hardly anything is lost. With twice the uses and twice
    # the step, too, the policy runs far from the reference and ends far below it; with the clip, that costs little.
    theta = [math.log(one) for one in reference]
    for _ in range(10):
        old = softmax(theta)
        rollout = [(pick, reward - beta * math.log(old[pick] / reference[pick])) for pick, reward in ask(old, 32)]
        baseline = sum(reward for _, reward in rollout) / 32
        for _ in range(8):
            new, step = softmax(theta), [0.0] * len(theta)
            for pick, reward in rollout:
                ratio, advantage = new[pick] / old[pick], reward - baseline
                if ratio < 1.2 if advantage > 0 else ratio > 0.8:  # the others are clipped
                    for number, share in enumerate(new):
                        step[number] += ratio * advantage * ((number == pick) - share) / 32
            theta = [one + move for one, move in zip(theta, step)]
    return softmax(theta)
    ### END SOLUTION


# %% tags=["exercise-check"]
def tried_in(seed, answer, beta=0.25):
    """Gain and KL of the answer, gain and KL of the best policy, in one world."""
    reference, chances = world(seed)
    rng, asked = random.Random(100 + seed), []

    def ask(probabilities, n):
        asked.extend(rng.choices(range(6), probabilities, k=n))
        assert len(asked) <= 320, f"320 picks are all there are; yours asks for {len(asked)}"
        return [(pick, float(rng.random() < chances[pick])) for pick in asked[-n:]]

    mine, found = answer(reference, ask, beta), []
    assert len(mine) == 6 and abs(sum(mine) - 1) < 1e-6, "six probabilities sum to 1; give softmax(theta), not theta"
    for policy in (mine, softmax([math.log(b) + chance / beta for b, chance in zip(reference, chances)])):
        kl = sum(a * math.log(a / b) for a, b in zip(policy, reference) if a > 0)
        gain = sum((a - b) * chance for a, b, chance in zip(policy, reference, chances)) - beta * kl
        found += [gain, kl]
    return found


with check(leashed) as answer:
    gain, distance, most, far = (sum(one) / 20 for one in zip(*(tried_in(seed, answer) for seed in range(20))))
    print(
        f"your gain {gain:+.3f} of {most:+.3f}; KL from the reference {distance:.2f} nats, of the best policy {far:.2f}"
    )
    assert distance < 1.5 * far, (
        f"{distance:.2f} nats from the reference are too far: is the penalty inside the reward, with its sign?"
    )
    assert gain > 0.8 * most, f"that is {gain / most:.0%} of what can be gained: what else does a rollout teach?"
