"""Decoding with any causal language model of `transformers`, several times faster than its `generate` on a CPU.

Each prompt is read once and its keys and values are repeated for its samples, the cache grows in place, the decoded
token's attention copies nothing, and sequences that have ended leave the batch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from acelib.models.params import SamplingParams
from acelib.models.prefix import pad, read_prompts

REPORT_SECONDS = 1.0  # between two reports from inside a batch


@dataclass(frozen=True)
class SampledTokens:
    """`ids` and `logprobs` have equal length; the end-of-sequence token, when there is one, is the last of `ids`."""

    ids: list[int]
    logprobs: list[float]
    finished: bool


class _RoomyLayer(DynamicLayer):
    """Keys and values (sequences, heads, tokens, size), with room for the next tokens: the stock layer copies itself at
    every token."""

    reserve = 32

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.room = None

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.room is None or end > self.room[0].shape[-2]:
            shape = (*key_states.shape[:2], end + self.reserve, key_states.shape[-1])
            room = key_states.new_empty(shape), value_states.new_empty((*shape[:3], value_states.shape[-1]))
            if start:
                room[0][:, :, :start], room[1][:, :, :start] = self.keys, self.values
            self.room = room
        self.room[0][:, :, start:end], self.room[1][:, :, start:end] = key_states, value_states
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        end = self.get_seq_length()
        self.room = tuple(room.index_select(0, indices) for room in self.room)
        self.keys, self.values = (room[:, :, :end] for room in self.room)


def _new_cache(model: PreTrainedModel) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _decode_attention(module, query, key, value, attention_mask, scaling=None, position_bias=None, **kwargs):
    """Attention of one new token per sequence: query (sequences, heads, 1, size), key and value (sequences, groups,
    tokens, size), mask (sequences, 1, 1, tokens), result (sequences, 1, heads, size).

    The stock path copies all keys and values once per query head that shares them, and on a CPU that copy is the
    largest cost of sampling."""
    batch, heads, new, size = query.shape
    if new > 1 or position_bias is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, position_bias=position_bias, **kwargs
        )
    groups = key.shape[1]
    scores = query.reshape(batch * groups, -1, size) @ key.flatten(0, 1).transpose(1, 2)
    scores = scores.view(batch, groups, -1, key.shape[2]) * (size**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    out = weights.view(batch * groups, -1, key.shape[2]) @ value.flatten(0, 1)
    return out.view(batch, 1, heads, size), None


@contextmanager
def _fast_attention(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation
    if before == "sdpa" and model.device.type == "cpu":
        AttentionInterface.register("acelib_decode", _decode_attention)
        AttentionMaskInterface.register("acelib_decode", sdpa_mask)
        model.config._attn_implementation = "acelib_decode"
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _draw(logprobs: torch.Tensor, noise: torch.Tensor, top_p: float) -> torch.Tensor:
    """One token per row (rows,) of `logprobs` (rows, vocabulary), by the inverse of the cumulative distribution.

    noise: (rows,), uniform in [0, 1).
    """
    probs = logprobs.exp()
    if top_p < 1.0:
        ordered, order = probs.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        probs = probs.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)
    cumulative = probs.double().cumsum(-1)
    target = noise.double().unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    copies: Sequence[int],
    noise: torch.Tensor,
    params: SamplingParams,
    pad_id: int,
    report: Callable[[float], None] | None = None,
) -> list[SampledTokens]:
    """`copies[i]` replies to `prompts[i]` (token ids), in order, all decoded together; `params.stop` must be given.

    noise: (sum(copies), max_new_tokens), uniform in [0, 1), the only source of chance, so a row of it decides a reply
    whatever else is in the batch. `report` gets, about once a second, how many replies are done, fractions included.
    """
    device, size = model.device, params.max_new_tokens
    with _fast_attention(model):
        read = read_prompts(model, *pad(prompts, pad_id, device), _new_cache(model), logits_to_keep=1)
        rows = torch.arange(len(prompts), device=device).repeat_interleave(torch.tensor(copies, device=device))
        cache, logits = read.cache, read.output.logits[rows, -1]
        cache.batch_select_indices(rows)
        mask, position = read.mask[rows], read.last[rows]
        noise, stop = noise.to(device), torch.tensor(params.stop, device=device)

        total, due = len(rows), time.monotonic() + REPORT_SECONDS
        tokens = torch.full((total, size), pad_id, device=device)
        logprobs = torch.zeros((total, size), device=device)
        lengths = torch.full((total,), size, device=device)
        finished = torch.zeros(total, dtype=torch.bool, device=device)
        alive = torch.arange(total, device=device)  # which reply each row of the cache belongs to
        for step in range(size):
            scores = torch.log_softmax(logits.float() / (params.temperature or 1.0), dim=-1)
            token = _draw(scores, noise[alive, step], params.top_p) if params.temperature else scores.argmax(-1)
            running = ~finished[alive]
            written = alive[running]
            tokens[written, step] = token[running]
            logprobs[written, step] = scores.gather(-1, token.unsqueeze(-1)).squeeze(-1)[running]
            ended = written[torch.isin(token[running], stop)]
            finished[ended], lengths[ended] = True, step + 1
            keep = (~finished[alive]).nonzero().squeeze(-1)
            if len(keep) == 0 or step + 1 == size:
                break
            if report and time.monotonic() > due:
                report(total - len(keep) * (1 - (step + 1) / size))
                due = time.monotonic() + REPORT_SECONDS
            if len(keep) <= 0.9 * len(alive):  # copying the cache costs about as much as one step
                cache.batch_select_indices(keep)
                alive, token, mask, position = alive[keep], token[keep], mask[keep], position[keep]
            mask = torch.cat([mask, mask.new_ones((len(alive), 1))], dim=-1)
            position = position + 1
            logits = model(
                input_ids=token.unsqueeze(-1),
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
    columns = (column.tolist() for column in (tokens, logprobs, lengths, finished))
    return [SampledTokens(ids[:n], lps[:n], done) for ids, lps, n, done in zip(*columns, strict=True)]
