"""Log-probs of given replies, differentiable, at the price of reading each prompt once."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache


def response_logps(
    model: PreTrainedModel,
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    replies: torch.Tensor,
    reply_mask: torch.Tensor,
    temperature: float,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropies (replies, tokens) of the response tokens, differentiable; 0 outside the mask.

    `prompts` (replies, prompt tokens) are padded on the left, `replies` (replies, tokens) on the right. The same
    numbers as one pass over prompt and reply, for less work: each distinct prompt is read once and its keys and values
    are shared by its replies, and replies of similar length go together (`chunk` at a time), cut to their longest.
    """
    distinct, owner = torch.unique(torch.cat([prompts, prompt_mask], dim=1), dim=0, return_inverse=True)
    width = prompts.shape[1]
    ids, mask = distinct[:, :width], distinct[:, width:]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    first = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1:]

    lengths = reply_mask.sum(dim=1)
    order, parts = lengths.argsort(stable=True), []
    for rows in order.split(chunk):
        longest = max(1, int(lengths[rows].max()))
        tokens, logits, who = replies[rows, :longest], first.index_select(0, owner[rows]), owner[rows]
        if longest > 1:
            shared = DynamicCache(config=model.config)
            for number, layer in enumerate(cache.layers):
                shared.update(layer.keys.index_select(0, who), layer.values.index_select(0, who), number)
            seen = torch.cat([mask[who], mask.new_ones((len(rows), longest - 1))], dim=1)
            steps = positions[who, -1:] + torch.arange(1, longest, device=tokens.device)
            rest = model(
                input_ids=tokens[:, :-1],
                attention_mask=seen,
                position_ids=steps,
                past_key_values=shared,
                use_cache=True,
            ).logits
            logits = torch.cat([logits, rest], dim=1)
        everything = torch.log_softmax(logits.float() / temperature, dim=-1)
        logps = everything.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        entropies = -(everything.detach().exp() * everything.detach()).sum(-1)
        pad = (0, replies.shape[1] - longest)
        parts.append([torch.nn.functional.pad(x * reply_mask[rows, :longest], pad) for x in (logps, entropies)])
    back = order.argsort()
    logps, entropies = (torch.cat(part)[back] for part in zip(*parts, strict=True))
    return logps, entropies


def left_pad(sequences: Sequence[Sequence[int]], pad_id: int, device=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (len(sequences), longest)."""
    width = max(map(len, sequences))
    ids = torch.tensor([[pad_id] * (width - len(s)) + list(s) for s in sequences], device=device)
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=device)
    return ids, mask
