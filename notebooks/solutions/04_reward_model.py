# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import functools
import math
from collections import Counter
from unittest.mock import patch
from zlib import crc32

import torch
from torch.nn import functional as F  # noqa: F811

from acelib.core import ROOT, read_rows
from acelib.course import check
from acelib.judge import Judge, Submission  # noqa: F811
from acelib.pairs import preference_pairs  # noqa: F811

# %% [markdown]
# ### 4.1 From two scores to a probability (5 minutes, easy)
#
# By the Bradley-Terry model, with which probability does a program with score `a` beat one with score `b`?


# %%
def probability(a: float, b: float) -> float:
    """P(the program with score `a` is better than the one with score `b`)."""
    ### BEGIN SOLUTION
    return 1 / (1 + math.exp(b - a))
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(probability) as answer:
    for a, b, right in [(0, 0, 0.5), (2, 0, 0.8808), (0, 2, 0.1192), (42, 40, 0.8808), (-1, -4, 0.9526)]:
        found = answer(a, b)
        assert abs(found - right) < 1e-3, (
            f"scores {a} and {b} differ by {a - b}, which gives {right:.3f}; yours is {found:.3f}"
            + ("" if abs(found - 1 + right) > 1e-3 else ", the probability that the other one wins")
        )

# %% [markdown]
# ### 4.2 The loss of one question, by hand (15 minutes, medium)
#
# Write Eq. 1 in plain Python, without torch: the sum of $-\log \sigma(R_i - R_j)$ over the pairs $(i, j)$,
# divided by $n (n - 1)$. It has to survive scores of 500 and -500: $\log(\sigma(-1000))$ is $\log 0$ if you are not
# careful, but $-\log \sigma(d) = \log(1 + e^{-d})$, and for very negative $d$ that is nearly $-d$.


# %%
def loss_by_hand(scores: list[float], pairs: list[tuple[int, int]]) -> float:
    """Eq. 1 for the `scores` of one question's programs; `pairs` are (chosen, rejected) places."""
    ### BEGIN SOLUTION
    n, total = len(scores), 0.0
    for chosen, rejected in pairs:
        d = scores[chosen] - scores[rejected]
        total += max(0.0, -d) + math.log1p(math.exp(-abs(d)))
    return total / (n * (n - 1))
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(loss_by_hand) as answer:
    for scores, pairs in [([2.0, 0.0, -1.0], [(0, 1), (0, 2)]), ([0.0, 0.0], [(1, 0)]), ([1.0, 3.0], [(0, 1)])]:
        n, found = len(scores), answer(scores, pairs)
        differences = [scores[i] - scores[j] for i, j in pairs]
        total = sum(math.log1p(math.exp(-d)) for d in differences)
        right = total / (n * (n - 1))
        hints = {total: "divide by n (n - 1)", -right: "turn the sign", total / len(pairs): "divide by n (n - 1)"}
        hint = next((hint for value, hint in hints.items() if math.isclose(found, value)), "look at each pair's term")
        assert math.isclose(found, right), (
            f"scores {scores}, pairs {pairs}: the differences are {differences}, the loss is {right:.4f}; "
            f"yours is {found:.4f} ({hint})"
        )
    assert math.isclose(answer([-500.0, 500.0], [(0, 1)]), 500), "a wrong order of 1000 costs 1000 / 2"
    assert answer([500.0, -500.0], [(0, 1)]) < 1e-9, "a right order of 1000 costs nothing"
    assert answer([1.0, 2.0, 3.0], []) == 0, "a question without a pair costs nothing"

# %% [markdown]
# ### 4.3 Who is pushed, and how hard? (15 minutes, medium)
#
# Write the gradient of the loss with respect to each score, again without torch. The derivative of $-\log \sigma(d)$ is
# $\sigma(d) - 1$; each pair pushes its two programs by the same amount in opposite directions.


# %%
def gradient_by_hand(scores: list[float], pairs: list[tuple[int, int]]) -> list[float]:
    """d loss / d score of each program, for the loss of exercise 4.2."""
    ### BEGIN SOLUTION
    n, gradient = len(scores), [0.0] * len(scores)
    for chosen, rejected in pairs:
        push = (1 / (1 + math.exp(scores[rejected] - scores[chosen])) - 1) / (n * (n - 1))
        gradient[chosen] += push
        gradient[rejected] -= push
    return gradient
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(gradient_by_hand) as answer:
    for values, pairs in [([2.0, 0.0, -1.0], [(0, 1), (0, 2)]), ([0.0, 1.0, 0.5], [(2, 0), (0, 1)])]:
        scores, (chosen, rejected) = torch.tensor(values, requires_grad=True), zip(*pairs)
        losses = -F.logsigmoid(scores[list(chosen)] - scores[list(rejected)])
        (losses.sum() / (len(values) * (len(values) - 1))).backward()
        found = answer(values, pairs)
        for place, (mine, right) in enumerate(zip(found, scores.grad.tolist(), strict=True)):
            assert abs(mine - right) < 1e-5, (
                f"scores {values}, pairs {pairs}: program {place} has the gradient {right:+.4f}; yours is {mine:+.4f}"
                + (", with the wrong sign" if abs(mine + right) < 1e-5 else "")
                + (", not divided by n (n - 1)" if abs(mine - right * len(values) * (len(values) - 1)) < 1e-5 else "")
            )
        assert abs(sum(found)) < 1e-9, f"the pushes must cancel; yours sum to {sum(found):+.4f}"

# %% [markdown]
# ### 4.4 Hold out questions, not pairs (15 minutes, medium)
#
# Decide for each question whether it is held out. About `share` of the questions should be; all pairs of a question go
# the same way, and a larger share must contain a smaller one. The decision must not change when questions are added or
# the list is shuffled, nor from one start of Python to the next (`hash` differs between processes; `hashlib` does not).


# %%
def held_out(question_id: str, share: float) -> bool:
    """Whether the question is kept for testing; a property of its id and nothing else."""
    ### BEGIN SOLUTION
    import hashlib

    number = int.from_bytes(hashlib.sha256(question_id.encode()).digest()[:8], "big")
    return number / 2**64 < share
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(held_out) as answer:
    for name, start in (("pocket", 0), ("pocket", 1000), ("other", 5000)):
        ids = [f"{name}/{i}" if name == "pocket" else f"{i:b}" for i in range(start, start + 1000)]
        for share in (0.1, 0.4):
            first = {one: answer(one, share) for one in ids}
            found = sum(first.values()) / len(ids)
            assert abs(found - share) < 0.06, (
                f"of the questions {ids[0]} to {ids[-1]} {found:.1%} are held out, not about {share:.0%}"
            )
            again = {one: answer(one, share) for one in reversed(ids)}
            assert first == again, "asked again in another order, it changes"
            with patch("builtins.hash", lambda one: crc32(repr(one).encode())):  # as after another start of Python
                again = {one: answer(one, share) for one in ids}
            assert first == again, "after another start of Python it changes: `hash` does"
        assert all(answer(one, 0.4) for one in ids if answer(one, 0.1)), "a larger share must contain a smaller one"

# %% [markdown]
# ### 4.5 Fool your own reward model (project, 40 minutes)
#
# Here is a reward model small enough to see through: each word of a program has a weight, and the score is their sum.
# It is trained with the loss above on a handful of pairs for one question, and it ranks them all right. Look at
# `weights`, then write a program that it likes better than every right program, and that passes not a single test.
# When you have it, ask what would have closed the hole: other pairs, other features, or a look at what the program
# does? Then look at the probe figure of this notebook again.


# %%
RIGHT = [
    "def f(xs):\n    return sum(x * x for x in xs)",
    "def f(xs):\n    total = 0\n    for x in xs:\n        total += x * x\n    return total",
    "def f(xs):\n    return sum([x ** 2 for x in xs])",
]
WRONG = [
    "def f(xs):\n    return sum(x + x for x in xs)",
    "def f(xs):\n    return sum(xs) ** 2",
    "def f(xs):\n    total = 1\n    for x in xs:\n        total *= x\n    return total",
    "def f(xs):\n    return [x * x for x in xs]",
]
TESTS = ["assert f([1, 2]) == 5", "assert f([]) == 0", "assert f([3]) == 9", "assert f([-1, 4]) == 17"]
VOCABULARY = sorted(set(" ".join(RIGHT + WRONG).split()))


def counts(program: str) -> torch.Tensor:
    found = Counter(program.split())
    return torch.tensor([float(found[word]) for word in VOCABULARY])


difference = torch.stack([counts(good) - counts(bad) for good in RIGHT for bad in WRONG])
weights = torch.zeros(len(VOCABULARY), requires_grad=True)
for _ in range(300):
    (gradient,) = torch.autograd.grad(-F.logsigmoid(difference @ weights).mean(), weights)
    weights.data -= 0.5 * gradient
weights = weights.detach()


# %%
def fool() -> str:
    """A program that the model scores above every right one, and that passes no test."""
    ### BEGIN SOLUTION
    # The score counts words and never asks what they do. The words it likes best fit into a comment.
    best = VOCABULARY[int(weights.argmax())]
    return "def f(xs):\n    return None  # " + " ".join([best] * 50)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(fool) as answer:
    program = answer()
    best = max(float(counts(right) @ weights) for right in RIGHT)
    mine = float(counts(program) @ weights)
    print(f"score of the best right program {best:+.1f}, of yours {mine:+.1f}")
    with Judge(workers=1) as judge:
        (report,) = judge.run([Submission(program, TESTS, entry_point="f")])
    assert report.pass_rate == 0, f"it passes {report.pass_rate:.0%} of the tests; it should pass none"
    assert mine > best, "the model still likes a right program better; which word has the largest weight?"

# %% [markdown]
# ### 4.6 Predict: one pair in five the wrong way round (15 minutes, medium)
#
# `train` is the plain loop of this notebook, but only the head learns: it reads the real model's hidden states, and
# imagined tests made its pairs. It takes a second. Change one value: `swapped=0.2` turns one training pair in five
# round, at random. The pairs of unseen questions stay as they are. What becomes of each of the three figures
# (`loss` is taken on the training pairs as given, the turned ones included; the other two on unseen pairs):
# `"higher"`, `"lower"`, or `"same"`, which means within a tenth? **Predict first.** Then run `train()` and
# `train(swapped=0.2)` in a cell of your own and compare. The check runs both once more.


# %%
@functools.cache
def differences():
    """Hidden state of the chosen program minus that of the rejected, (pairs, width): to train on, and of questions
    that training does not see."""
    folder, found = ROOT / "data" / "real", ([], [])
    states = {row["id"]: row for row in read_rows(folder / "features.parquet") if row["layer"] == 24}
    for number, row in enumerate(read_rows(folder / "laboratory.parquet")):
        kept = [i for i, passes in enumerate(row["greedy_results"]) if passes]  # the tests that survive
        if len(kept) >= 3:
            features = torch.frombuffer(bytearray(states[row["id"]]["features"]), dtype=torch.float16)
            programs = features.view(states[row["id"]]["programs"], -1)[1:].float()
            rates = [sum(results[i] for i in kept) / len(kept) for results in row["results"]]
            pairs = preference_pairs(rates, 0.4, 0.0, -1.0, True)
            found[number % 4 == 0].extend(programs[good] - programs[bad] for good, bad in pairs)
    return torch.stack(found[0]), torch.stack(found[1])


# %%
def train(swapped=0.0, updates=300, learning_rate=0.01, heads=10):
    """Bradley-Terry for ten heads at once, each with swaps of its own; mean figures: loss on the pairs trained on,
    size of a gap (difference of two scores) and share ranked right on pairs of unseen questions."""
    torch.set_num_threads(1)  # for operations this small more threads only wait for each other
    torch.manual_seed(0)
    pairs, unseen = differences()
    turned = 1 - 2 * (torch.rand(len(pairs), heads) < swapped).float()  # -1 where the pair is turned round
    weights = torch.zeros(pairs.shape[1], heads, requires_grad=True)
    optimiser = torch.optim.AdamW([weights], lr=learning_rate, weight_decay=0.0)
    for _ in range(updates):
        batch = torch.randint(len(pairs), (64,))
        loss = -F.logsigmoid(turned[batch] * (pairs[batch] @ weights)).mean(dim=0).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        gaps, loss = unseen @ weights, -F.logsigmoid(turned * (pairs @ weights)).mean()
    found = {"loss": loss, "size of a gap": gaps.abs().mean(), "ranked right": (gaps > 0).float().mean()}
    return {name: value.item() for name, value in found.items()}


# %%
def after_swapping() -> dict[str, str]:
    """ "higher", "lower" or "same" for each figure of `train(swapped=0.2)`, against that of `train()`."""
    ### BEGIN SOLUTION
    # A fifth of the pairs contradicts the rest and cannot be learnt: the loss rises. Who is right in four cases of
    # five should be 80% sure, a gap of 1.4 and no more: the gaps shrink. But swaps at random cancel, for four right
    # pairs outvote each wrong one: the order hardly suffers. (A wrong test errs the same way each time.)
    return {"loss": "higher", "size of a gap": "lower", "ranked right": "same"}
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(after_swapping) as answer:
    predicted, plain, changed = answer(), train(), train(swapped=0.2)
    reasons = {
        "loss": "a pair that was turned round contradicts the others and cannot be learnt",
        "size of a gap": "whoever is wrong in one case of five must not be too sure",
        "ranked right": "swaps at random cancel, for four right pairs outvote each wrong one",
    }
    assert set(predicted) == set(reasons), f"predict these: {', '.join(reasons)}"
    for name, before in plain.items():
        change = changed[name] / before - 1
        seen = "same" if abs(change) <= 0.1 else "higher" if change > 0 else "lower"
        print(f"{name:14} {before:.2f} -> {changed[name]:.2f}, {seen}; predicted: {predicted[name]}")
        assert predicted[name] == seen, f"{name}, predicted {predicted[name]!r}, is {seen!r}: {reasons[name]}"
