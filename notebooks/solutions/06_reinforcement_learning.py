# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import copy
import functools
import math

import torch
from torch.nn.utils.rnn import pad_sequence  # noqa: F811

from acelib.advantages import group_relative, reinforce_plus_plus_advantages
from acelib.core import load_profile
from acelib.course import check
from acelib.data import load_benchmark
from acelib.judge import Judge
from acelib.models import (
    SamplingParams,
    generate,
    load_policy,
    load_tokenizer,
    prompt_tokens,  # noqa: F811
    solve_messages,
)
from acelib.rewards import rule_reward
from acelib.schema import Problem

# %% [markdown]
# ### 6.1 From rewards to returns (5 minutes, easy)
#
# One reply, one reward per token (small penalties, and at the last token the reward of the whole). The return of a
# token is its own reward plus all that come after it.


# %%
def returns(rewards: list[float]) -> list[float]:
    """The return of each token of one reply."""
    ### BEGIN SOLUTION
    return [sum(rewards[t:]) for t in range(len(rewards))]
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(returns) as answer:
    for rewards in ([-0.5, 1.5], [0.0, 0.0, 1.0], [-0.1, 0.2, -0.3, 1.0], [0.5]):
        found = answer(rewards)
        assert len(found) == len(rewards), f"{len(rewards)} tokens have {len(rewards)} returns; yours are {len(found)}"
        for t, reward in enumerate(rewards):
            later = sum(rewards[t + 1 :])
            assert math.isclose(found[t], reward + later, abs_tol=1e-9), (
                f"token rewards {rewards}: the return of token {t + 1} is {reward + later:+.2f}, its own {reward:+.2f} "
                f"and {later:+.2f} from what follows; yours is {found[t]:+.2f}"
            )

# %% [markdown]
# ### 6.2 REINFORCE++ from memory (25 minutes, medium)
#
# Scroll no further up. From the reward of each reply and the log-probabilities of each token, compute the advantage of
# each token: penalty per token, reward on the last token, return, standardised over all response tokens of the rollout.
# Divide by the standard deviation of those tokens (over $N$, not $N - 1$), with 1e-8 as the smallest variance. Outside
# the mask the advantage is 0. The mask is 1 on a reply's tokens, and 0 on the prompt before and
# the padding behind them, as in `collect`. A reply that could not be judged has the reward nan: it takes no part, and
# its advantages are 0.


# %%
def advantages(rewards, logps, ref_logps, mask, beta):
    """Advantage of every token: (replies, tokens); `rewards` (replies,), the other tensors (replies, tokens)."""
    ### BEGIN SOLUTION
    mask = mask * ~rewards.isnan()[:, None]
    token_rewards = -beta * (logps - ref_logps) * mask
    last = (mask.cumsum(dim=1) * mask).argmax(dim=1)  # mask.sum(1) - 1 is right only without a prompt
    token_rewards[torch.arange(len(rewards)), last] += rewards.nan_to_num()
    returns = token_rewards.flip(1).cumsum(1).flip(1)  # from the last token to the first
    inside = returns[mask.bool()]
    return (returns - inside.mean()) / inside.var(unbiased=False).clamp(min=1e-8).sqrt() * mask
    ### END SOLUTION


# %%
def replies(rewards, lengths, logps=None, ref_logps=None, beta=0.0):
    """The arguments of `advantages`; without log-probabilities the policy is its reference."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).float()
    logps, ref_logps = (torch.zeros_like(mask) if one is None else torch.tensor(one) for one in (logps, ref_logps))
    return torch.tensor(rewards), logps, ref_logps, mask, beta


EPISODES = {
    "one right, one wrong": replies([1.0, 0.0], [2, 2]),
    "a penalty, beta = 0.5": replies(
        [1.0, 0.0], [2, 2], [[-1.0, -2.0], [-1.0, -1.0]], [[-1.2, -1.5], [-1.2, -2.0]], 0.5
    ),
    "a short right reply, a long wrong one": replies([1.0, 0.0], [1, 3]),
    "all rewards equal": replies([1.0, 1.0], [2, 1]),
    "a prompt before each reply": (
        torch.tensor([1.0, 0.0]),
        torch.zeros(2, 5),
        torch.zeros(2, 5),
        torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0, 0.0]]),
        0.0,
    ),
    "a reply that could not be judged": replies([1.0, math.nan, 0.0], [2, 3, 1]),
    "hardly any spread": replies([0.0, 0.0], [1, 1], [[-1.0], [-1.01]], [[-1.0], [-1.0]], 1e-4),
}

# %% tags=["exercise-check"]
with check(advantages) as answer:
    for name, (rewards, logps, ref_logps, mask, beta) in EPISODES.items():
        right, found = (f(rewards, logps, ref_logps, mask, beta) for f in (reinforce_plus_plus_advantages, answer))
        assert found.shape == mask.shape, f"{name}: the shape is {tuple(mask.shape)}; yours is {tuple(found.shape)}"
        assert not found.isnan().any(), f"{name}: some are nan; a reply with the reward nan takes no part"
        assert not (found * (1 - mask)).any(), f"{name}: a padding token has the advantage 0"
        factor = math.sqrt(1 - 1 / int(mask.sum()))
        hint = "; divide by N, not by N - 1" if torch.allclose(found, right * factor, atol=1e-4) and right.any() else ""
        wrong_way = reinforce_plus_plus_advantages(rewards, logps, ref_logps, mask, -beta)
        tiny = right.any() and right.abs().max() < 0.1 < found.abs().max()
        hint = hint or ("; a spread so small is not blown up: the variance is at least 1e-8" if tiny else "")
        hint = hint or ("; a reply begins behind its prompt: where is its last token?" if "prompt" in name else "")
        hint = hint or ("; the penalty has the wrong sign" if torch.allclose(found, wrong_way, atol=1e-4) else "")
        for i, t in mask.nonzero().tolist():
            own = -beta * (logps - ref_logps)[i, t:] * mask[i, t:]
            assert abs(found[i, t] - right[i, t]) < 1e-3, (
                f"{name}: your advantage of token {t + 1} of reply {i + 1} is {found[i, t]:+.2f}; its return is "
                f"{own.sum() + rewards[i]:+.2f}, its advantage {right[i, t]:+.2f}{hint}"
            )

# %% [markdown]
# ### 6.3 The clipped loss (20 minutes, medium)
#
# From the ratios and advantages of a batch's tokens to the number that `backward` is called on. Per token the objective
# is $\min(\rho A, \text{clip}(\rho, 1 - \epsilon, 1 + \epsilon) A)$; the loss is minus its mean over all response
# tokens.


# %%
def clipped_loss(ratio, advantage, mask, epsilon=0.2):
    """The loss (a tensor without dimensions); `ratio`, `advantage` and `mask` are (replies, tokens)."""
    ### BEGIN SOLUTION
    objective = torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon) * advantage)
    return -(objective * mask).sum() / mask.sum()
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(clipped_loss) as answer:
    for rho, A, moves in [
        (1.0, 1.0, True),
        (1.1, -2.0, True),
        (1.5, 1.0, False),
        (1.5, -1.0, True),
        (0.5, 1.0, True),
        (0.5, -1.0, False),
    ]:
        ratio = torch.tensor([[1.0, rho, 9.0]], requires_grad=True)  # the third token is padding
        loss = answer(ratio, torch.tensor([[1.0, A, 5.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
        right = -(1.0 + min(rho * A, min(max(rho, 0.8), 1.2) * A)) / 2
        case = f"two tokens, the second with ratio {rho} and advantage {A:+.0f}"
        assert not torch.isclose(loss, torch.tensor(-right)), f"{case}: turn the sign, the loss is {right:+.2f}"
        unmasked = ((2 * right - 1.2 * 5) / 3, 2 * right / 3)  # in the sum, or only in its count
        hint = "; the third token is padding" if min(abs(loss.item() - one) for one in unmasked) < 1e-5 else ""
        assert abs(loss.item() - right) < 1e-5, f"{case}: the loss is {right:+.2f}, yours is {loss.item():+.2f}{hint}"
        (slope,) = torch.autograd.grad(loss, ratio)
        assert bool(slope[0, 1]) == moves, f"{case}: that token has {'a' if moves else 'no'} gradient"

# %% [markdown]
# ### 6.4 GRPO's advantage (15 minutes, medium)
#
# GRPO standardises the rewards **within each question**, with $n - 1$ under the root and 1e-4 added to the standard
# deviation, and gives every token of a reply the same number. Replies to one question lie next to each other. Predict
# first: what becomes of a question on which all replies fail, and what does REINFORCE++ make of it?


# %%
def grpo(rewards, n):
    """The advantage of each reply, (replies,); `rewards` (replies,), `n` replies per question."""
    ### BEGIN SOLUTION
    # Where all replies fail, each gets 0: nothing is learnt. REINFORCE++ pushes them down, below the rollout's mean.
    groups = rewards.view(-1, n)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (groups.std(dim=1, keepdim=True) + 1e-4)).view(-1)
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(grpo) as answer:
    for rewards, n in [([1.0, 0.0], 2), ([1.0, 0.0, 0.0, 0.0], 4), ([1.0, 0.0, 0.0, 0.0], 2), ([1.0, 1.0, 0.0], 3)]:
        rewards, mask = torch.tensor(rewards), torch.ones(len(rewards), 1)
        right, found = group_relative(rewards, mask, mask, mask, n, 0.0)[:, 0], answer(rewards, n)
        assert found.shape == rewards.shape, f"give one number per reply; your shape is {tuple(found.shape)}"
        whole = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        hint = ", of all replies instead of its question's" if torch.allclose(found, whole, atol=1e-3) else ""
        for i in range(len(rewards)):
            assert abs(found[i] - right[i]) < 1e-3, (
                f"rewards {rewards.tolist()}, {n} per question: reply {i + 1} has the advantage {right[i]:+.2f}; "
                f"yours is {found[i]:+.2f}{hint}"
            )

# %% [markdown]
# ### 6.5 Add a reward (project, 45 minutes)
#
# TRL calls a reward with keyword arguments, among them `problem_id` and `completions` (one conversation per reply; its
# last message holds the reply), and wants one float per reply, or None where nothing is known. Pass on whatever comes:
# the check leaves some of these out. Write a reward that prefers, *among right programs only*, the short ones: what
# `reward` gives, plus, where that is 1, up to `weight`: all of it for an empty reply, nothing for one of `most`
# characters or more, in proportion between. Then think about what a policy could do with it, and whether you would
# rather give the bonus to wrong programs as well.


# %%
def brief(reward, weight=0.1, most=400):
    """A reward function for TRL: `reward`, and a bonus for short replies that earn 1."""
    ### BEGIN SOLUTION

    def rewarded(completions, **rest):
        values = reward(completions=completions, **rest)
        lengths = [len(one[-1]["content"]) for one in completions]
        return [
            value + weight * max(0.0, 1 - length / most) if value == 1 else value
            for value, length in zip(values, lengths, strict=True)
        ]

    return rewarded
    ### END SOLUTION


# %% tags=["exercise-check"]
SHORT = "```python\ndef f(x):\n    return x * x\n```"
LONG = SHORT.replace("return", "answer = x * x\n    return").replace("    ", "    # Now we go on.\n    ")
with check(brief) as answer, Judge(workers=1) as judge:
    rule = rule_reward(judge, [Problem("q", "Square x.", "f", ("assert f(3) == 9", "assert f(-1) == 1"))])
    texts = [SHORT, LONG, SHORT.replace("* x", "+ x"), "x" * 900]
    batch = {"completions": [[{"role": "assistant", "content": text}] for text in texts], "problem_id": ["q"] * 4}
    short, long, wrong, endless = answer(rule)(prompts=[[]] * 4, **batch)
    right = 1 + 0.1 * (1 - len(SHORT) / 400)
    assert abs(short - right) < 1e-9, f"a right reply of {len(SHORT)} characters earns {right:.3f}, yours {short:.3f}"
    assert short > long > 1, f"the longer right reply earns less, but more than 1; yours earns {long:.3f}"
    assert wrong == endless == 0, f"wrong programs earn 0, however short or long; yours earn {wrong} and {endless}"
    (huge,) = answer(lambda **_: [1.0])(completions=[[{"content": "x" * 900}]], problem_id=["q"])
    assert huge == 1, f"beyond {400} characters there is no bonus and no fine; yours earns {huge:.3f}"
    (unknown,) = answer(lambda **_: [None])(completions=[[{"content": SHORT}]], problem_id=["q"])
    assert unknown is None, "where the judge could not judge, the reward stays None"

# %% [markdown]
# ### 6.6 Predict: what moves the policy in a first rollout? (15 minutes, medium)
#
# `distance` makes a first rollout by this notebook's loop without its warm-up (the pocket policy, two questions x
# 8 replies). It returns how far the updates move the policy: the KL from the old policy to the new, in nats per
# reply. Change one value at a time:
#
# - `bonus=10` adds 10 to every reward;
# - `beta=1` makes the penalty a hundred times as dear;
# - `equal=True` pays every reply 1, right or wrong;
# - `learning_rate=1e-3` is ten times the rate.
#
# Does the policy move `"farther"` than with `distance()`, the `"same"` (within a tenth), or `"nowhere"`? **Predict
# first.** Then run the four in a cell of your own, a second each, and compare. The check runs them once more.


# %%
@functools.cache
def first_rollout(questions=2, n=8):
    """The policy, ids of prompts with replies, mask of the replies, old log-probs, rewards (1 if all tests pass)."""
    lesson, problems = load_profile("pocket"), load_benchmark(load_profile("pocket"), questions)
    folder = lesson.resolve(lesson.models.policy)
    policy, tokenizer = load_policy(folder, device="cpu"), load_tokenizer(folder)
    asked = [solve_messages(lesson.prompts.solve, one.question) for one in problems]
    params = SamplingParams.of(lesson.reinforce, n=n, batch_size=n * questions, seed=0)
    replies = sum(generate(policy, tokenizer, asked, params), [])
    texts = [[{"role": "assistant", "content": one.text}] for one in replies]
    with Judge(workers=1) as judge:
        names = [one.id for one in problems for _ in range(n)]
        rewards = rule_reward(judge, problems)(prompts=None, completions=texts, problem_id=names)
    prompts = [one for one in prompt_tokens(tokenizer, asked) for _ in range(n)]
    rows = [torch.tensor(one + reply.token_ids) for one, reply in zip(prompts, replies)]
    marks = [torch.tensor([0.0] * len(one) + [1.0] * len(reply.token_ids)) for one, reply in zip(prompts, replies)]
    ids, mask = (pad_sequence(one, batch_first=True) for one in (rows, marks))
    with torch.no_grad():
        return policy, ids, mask[:, 1:], logps_of(policy, ids), torch.tensor(rewards)


def logps_of(model, ids):
    """Log-probability of every token but the first, (replies, tokens) -> (replies, tokens - 1)."""
    return model(ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


# %%
def distance(bonus=0.0, beta=0.01, equal=False, learning_rate=1e-4, updates=4):
    """How far all updates on the first rollout move the policy, in nats per reply."""
    policy, ids, mask, old, rewards = first_rollout()
    rewards = bonus + (torch.ones_like(rewards) if equal else rewards)
    advantages = reinforce_plus_plus_advantages(rewards, old, old, mask, beta)  # the reference is the policy itself
    model = copy.deepcopy(policy)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    for rows in torch.randperm(len(ids), generator=torch.Generator().manual_seed(0)).view(updates, -1):
        ratio = (logps_of(model, ids[rows]) - old[rows]).exp()
        free, clipped = ratio * advantages[rows], ratio.clamp(0.8, 1.2) * advantages[rows]
        loss = -(torch.minimum(free, clipped) * mask[rows]).sum() / mask[rows].sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        d = (logps_of(model, ids) - old) * mask
    return (d.exp() - 1 - d).sum(dim=1).mean().item()  # never negative; its mean is the KL


# %%
def how_far() -> dict[str, str]:
    """ "farther", "same" or "nowhere" for each change: bonus, beta, equal, learning_rate."""
    ### BEGIN SOLUTION
    # Advantages are returns minus their mean: what all replies get alike, a bonus or the whole reward, drops out. In
    # the first rollout the policy still is the reference: there is nothing to charge, at whatever price. (Later there
    # is.) The rate alone decides how far the same advantages carry.
    return {"bonus": "same", "beta": "same", "equal": "nowhere", "learning_rate": "farther"}
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(how_far) as answer:
    predicted, changes = answer(), {"bonus": 10.0, "beta": 1.0, "equal": True, "learning_rate": 1e-3}
    reasons = {
        "bonus": "what every reply gets alike goes off again with the mean",
        "beta": "the policy is still the reference, so no token is charged, at whatever price",
        "equal": "all returns are their mean, so every advantage is 0",
        "learning_rate": "the advantages are the same, each step on them is ten times as long",
    }
    assert set(predicted) == set(reasons), f"predict these: {', '.join(reasons)}"
    plain = distance()
    for name, value in changes.items():
        far = distance(**{name: value})
        seen = "nowhere" if far < 1e-6 else "same" if abs(far / plain - 1) <= 0.1 else "farther"
        print(f"{name}={value}: {far:.2f} nats per reply, without {plain:.2f}: {seen}; predicted: {predicted[name]}")
        assert predicted[name] == seen, f"{name}, predicted {predicted[name]!r}, is {seen!r}: {reasons[name]}"
