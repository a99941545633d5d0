"""Reading each prompt once: its keys and values are kept, repeated for its replies, and read on from."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.utils import ModelOutput

TILE = 2**25  # logits: 128 MiB in float32


class Prompts(NamedTuple):
    """What was read: the model's output, cache and mask (prompts, tokens), and each last position (prompts, 1)."""

    output: ModelOutput
    cache: DynamicCache
    mask: torch.Tensor
    last: torch.Tensor


def pad(
    sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device | str | None = None, side: str = "left"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (sequences, longest), padded on the `side` "left" or "right"."""
    rows = [torch.tensor(list(one), dtype=torch.long) for one in sequences]
    ids, mask = (
        pad_sequence(each, batch_first=True, padding_value=value, padding_side=side).to(device)
        for each, value in ((rows, pad_id), ([torch.ones_like(row) for row in rows], 0))
    )
    return ids, mask


def token_positions(mask: torch.Tensor) -> torch.Tensor:
    """Positions (sequences, tokens) under a mask of that shape: each sequence counts its own tokens from 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def read_prompts(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None = None, **options
) -> Prompts:
    """Read prompts (prompts, tokens), padded on the left. `options` go to the model, such as `logits_to_keep`."""
    cache = DynamicCache(config=model.config) if cache is None else cache
    positions = token_positions(mask)
    output = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, **options
    )
    return Prompts(output, cache, mask, positions[:, -1:])


def read_on(
    model: torch.nn.Module, prompts: Prompts, owner: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> ModelOutput:
    """The model's output for replies (replies, tokens), padded on the right; `owner` (replies,): the prompt of each.

    Differentiable in what was read, which stays as it is: other replies can go on from it, too.
    """
    cache = DynamicCache(config=model.config)
    for number, layer in enumerate(prompts.cache.layers):
        cache.update(layer.keys.index_select(0, owner), layer.values.index_select(0, owner), number)
    return model(
        input_ids=ids,
        attention_mask=torch.cat([prompts.mask[owner], mask], dim=1),
        position_ids=prompts.last[owner] + torch.arange(1, ids.shape[1] + 1, device=ids.device),
        past_key_values=cache,
        use_cache=True,
    )


def unwrapped(model: torch.nn.Module) -> PreTrainedModel:
    """The model below what wraps it for several processes, with its adapters in place where it has any."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def token_logps(
    model: PreTrainedModel, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs (tokens,), differentiable, of `tokens` (tokens,) after the last hidden states (tokens, size), and the
    entropies (tokens,) of what they were drawn from.

    At most TILE logits are held at a time, and computed again for the gradient where there are more.
    """
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)

    def tile(hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = head(hidden).float() * scale
        if cap:
            logits = cap * (logits / cap).tanh()
        everything = torch.log_softmax(logits / temperature, dim=-1)
        entropies = -(everything.detach().exp() * everything.detach()).sum(-1)
        return everything.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), entropies

    size = max(1, TILE // head.weight.shape[0])
    if len(tokens) <= size:
        return tile(hidden, tokens)
    tiles = zip(hidden.split(size), tokens.split(size), strict=True)
    logps, entropies = zip(*(checkpoint(tile, *one, use_reentrant=False) for one in tiles), strict=True)
    return torch.cat(logps), torch.cat(entropies)


def response_logps(
    model: torch.nn.Module,
    prompts: torch.Tensor,
    prompt_mask: torch.Tensor,
    replies: torch.Tensor,
    reply_mask: torch.Tensor,
    temperature: float,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropies (replies, tokens) of the response tokens, differentiable; 0 outside the mask.

    `prompts` (replies, prompt tokens) are padded on the left, `replies` (replies, tokens) on the right. The same
    numbers as one pass over prompt and reply, for less work: each distinct prompt is read once, and replies of similar
    length go together (`chunk` at a time), cut to their longest. `model` may carry LoRA adapters; it is called below
    any other wrapper.
    """
    model = unwrapped(model)
    distinct, owner = torch.unique(torch.cat([prompts, prompt_mask], dim=1), dim=0, return_inverse=True)
    read = read_prompts(model.base_model, *distinct.split(prompts.shape[1], dim=1))
    lengths = reply_mask.sum(dim=1)
    order, parts = lengths.argsort(stable=True), []
    for rows in order.split(chunk):
        longest = max(1, int(lengths[rows].max()))
        tokens, mask = replies[rows, :longest], reply_mask[rows, :longest]
        hidden = read.output.last_hidden_state[:, -1:].index_select(0, owner[rows])
        if longest > 1:
            rest = read_on(model.base_model, read, owner[rows], tokens[:, :-1], torch.ones_like(mask[:, 1:]))
            hidden = torch.cat([hidden, rest.last_hidden_state], dim=1)
        found = token_logps(model, hidden.flatten(0, 1), tokens.flatten(), temperature)
        room = (0, replies.shape[1] - longest)
        parts.append([torch.nn.functional.pad(x.view(mask.shape) * mask, room) for x in found])
    back = order.argsort()
    logps, entropies = (torch.cat(part)[back] for part in zip(*parts, strict=True))
    return logps, entropies
