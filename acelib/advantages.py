"""The advantage of each response token: the estimators that `acelib.training.reinforce_trainer` can train with.

All take the whole rollout: `rewards` (replies,), NaN where a reply could not be judged; `logps` and `ref_logps`
(replies, tokens), log-probs under the policy that sampled them and under the reference; `mask` (replies, tokens), 1 on
response tokens; `n` replies per question, which lie next to each other; `beta`, the weight of the KL penalty. All give
(replies, tokens), 0 outside the mask and on unjudged replies.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


def reinforce_plus_plus_advantages(
    rewards: torch.Tensor, logps: torch.Tensor, ref_logps: torch.Tensor, mask: torch.Tensor, beta: float
) -> torch.Tensor:
    """REINFORCE++ (Hu 2025; AceCoder section 3.2): of each token, the reward to come with its KL penalty, in standard
    deviations from the mean over all tokens of the rollout."""
    mask = mask * (~torch.isnan(rewards)).unsqueeze(1)
    token_rewards = -beta * (logps - ref_logps) * mask
    last = (mask.cumsum(dim=1) * mask).argmax(dim=1)
    token_rewards[torch.arange(len(rewards)), last] += torch.nan_to_num(rewards)
    returns = token_rewards.flip(1).cumsum(dim=1).flip(1)
    count = mask.sum().clamp(min=1)
    mean = (returns * mask).sum() / count
    variance = ((returns - mean) ** 2 * mask).sum() / count
    return (returns - mean) * variance.clamp(min=1e-8).rsqrt() * mask


def group_mean(rewards: torch.Tensor, n: int) -> torch.Tensor:
    """Mean of the judged rewards of each reply's question, (replies,); NaN where none was judged."""
    return rewards.view(-1, n).nanmean(dim=1).repeat_interleave(n)


def reinforce_plus_plus_baseline(rewards, logps, ref_logps, mask, n, beta):
    """REINFORCE++-baseline (Hu 2025, section 3.2): the mean reward of the question is taken off before everything else
    happens as in REINFORCE++."""
    return reinforce_plus_plus_advantages(rewards - group_mean(rewards, n), logps, ref_logps, mask, beta)


def group_relative(rewards, logps, ref_logps, mask, n, beta):
    """GRPO (Shao et al. 2024, section 4.1.2) and DAPO (Yu et al. 2025, Eq. 9): the reward in standard deviations of its
    question's rewards. A question with equal rewards gives 0."""
    groups = rewards.view(-1, n)
    judged = (~torch.isnan(groups)).sum(dim=1).clamp(min=2)
    squares = (groups - groups.nanmean(dim=1, keepdim=True)).square().nansum(dim=1) / (judged - 1)
    spread = squares.sqrt().repeat_interleave(n)
    return _spread_over_tokens((rewards - group_mean(rewards, n)) / (spread + 1e-4), mask)


def group_centred(rewards, logps, ref_logps, mask, n, beta):
    """Dr. GRPO (Liu et al. 2025, section 3.2): GRPO without the division, which weighs easy and hard questions up."""
    return _spread_over_tokens(rewards - group_mean(rewards, n), mask)


def leave_one_out(rewards, logps, ref_logps, mask, n, beta):
    """RLOO (Ahmadian et al. 2024, Eq. 7): reward with the reply's whole KL penalty inside, minus the mean of that over
    the other judged replies to the question."""
    totals = rewards - beta * ((logps - ref_logps) * mask).sum(dim=1)
    judged = (~torch.isnan(totals)).view(-1, n).sum(dim=1).repeat_interleave(n)
    others = judged / (judged - 1).clamp(min=1)  # r - mean of the others = n / (n - 1) * (r - mean of all)
    return _spread_over_tokens((totals - group_mean(totals, n)) * others, mask)


def _spread_over_tokens(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(values).unsqueeze(1) * mask


@dataclass(frozen=True)
class Algorithm:
    """One column of the comparison. `kl` says where the penalty is: in the reward of the tokens, in the loss (k3), or
    nowhere. `loss` is the normaliser in TRL's words: token mean ("dapo"), mean of reply means ("grpo"), a constant
    ("dr_grpo"). `dynamic_sampling`: questions whose replies all have one reward are replaced by others."""

    advantages: Callable[..., torch.Tensor]
    kl: str
    loss: str
    clip_higher: float | None = None  # upper clip, where it differs from epsilon
    dynamic_sampling: bool = False
    drop_truncated: bool = False  # DAPO's overlong filtering


ALGORITHMS = {
    "reinforce++": Algorithm(lambda *a, n, beta: reinforce_plus_plus_advantages(*a, beta), kl="reward", loss="dapo"),
    "reinforce++-baseline": Algorithm(reinforce_plus_plus_baseline, kl="reward", loss="dapo"),
    "rloo": Algorithm(leave_one_out, kl="reward", loss="dapo"),
    "grpo": Algorithm(group_relative, kl="loss", loss="grpo"),
    "dr_grpo": Algorithm(group_centred, kl="loss", loss="dr_grpo"),
    "dapo": Algorithm(
        group_relative, kl="none", loss="dapo", clip_higher=0.28, dynamic_sampling=True, drop_truncated=True
    ),
}
