"""Decoding with any causal language model of `transformers`, several times faster than its `generate` on a CPU.

Each prompt is read once and its keys and values are repeated for its samples, the cache grows in place, the decoded
token's attention copies nothing, and replies that have ended make room for the next ones.
"""

import ctypes
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from acelib.core import ModelError
from acelib.models.params import SamplingParams
from acelib.models.prefix import pad, read_prompts

REPORT_SECONDS = 1.0
THIN = 7 / 8  # share of the rows in use at which the others are given up: that copies the cache, about one step's work
LARGE = 10**8  # weights. In smaller models attention costs most: a new reply beside a long one costs as much as that
CIRCLE = 16  # tokens that a reply must repeat to run in circles
BLOCK = 128  # tokens whose probabilities are summed before one of them is looked for


@dataclass(frozen=True)
class SampledTokens:
    """`ids` and `logprobs` have equal length; the end-of-sequence token, when there is one, is the last of `ids`."""

    ids: list[int]
    logprobs: list[float]
    finished: bool


class _RoomyLayer(DynamicLayer):
    """Keys and values (sequences, heads, tokens, size), with room for the next tokens: the stock layer copies itself at
    every token. One of a sliding window keeps all tokens; its window is in the mask."""

    reserve = 32

    def __init__(self):
        super().__init__()
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
        self.join([(self, indices)], self.get_seq_length())

    def join(self, parts: Sequence[tuple["_RoomyLayer", torch.Tensor]], width: int) -> None:
        """Become the named rows of each layer, below each other: their last `width` tokens, all of them ending in one
        column."""
        counts = [len(rows) for _, rows in parts]

        def joined(name: str) -> torch.Tensor:
            olds = [getattr(layer, name)[:, :, -width:] for layer, _ in parts]
            shape = (sum(counts), olds[0].shape[1], width + self.reserve, olds[0].shape[3])
            room = olds[0].new_zeros(shape)  # zeros: what a mask hides must still be a number
            for new, old, (_, rows) in zip(room.split(counts), olds, parts, strict=True):
                new[:, :, width - old.shape[2] : width] = old.index_select(0, rows)
            return room

        self.room = joined("keys"), joined("values")
        self.keys, self.values = (room[:, :, :width] for room in self.room)


def _new_cache(model: PreTrainedModel) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    known = (DynamicLayer, DynamicSlidingWindowLayer)
    cache.layers = [_RoomyLayer() if type(layer) in known else layer for layer in cache.layers]
    return cache


def _joined(parts: Sequence[tuple[DynamicCache, torch.Tensor]], width: int) -> DynamicCache:
    """The first cache, made of the named rows of each, cut to their last `width` tokens where there are several."""
    cache, rows = parts[0]
    if len(parts) == 1:
        cache.batch_select_indices(rows)
    else:
        for number, layer in enumerate(cache.layers):
            layer.join([(one.layers[number], chosen) for one, chosen in parts], width)
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


def _draw(
    logits: torch.Tensor, noise: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row of `logits` (rows, vocabulary) and its log-prob, both (rows,), by the inverse of the cumulative
    distribution; at temperature 0 the likeliest token.

    noise: (rows,), uniform in [0, 1). A block of tokens is looked for first, then the token in it: a sum in double
    precision over a whole vocabulary takes longer than a small model's forward pass.
    """
    scores = logits.float()
    if temperature not in (0.0, 1.0):
        scores = scores / temperature
    probs = scores.softmax(-1)
    if temperature:
        token = _token_at(noise.double().unsqueeze(-1), _nucleus(probs, top_p) if top_p < 1.0 else probs)
    else:
        token = scores.argmax(-1, keepdim=True)
    return token.squeeze(-1), probs.gather(-1, token).log().squeeze(-1)


def _nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """`probs` without the tail: the likeliest tokens that together reach `top_p`."""
    ordered, order = probs.sort(dim=-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return probs.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)


def _token_at(share: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """The token (rows, 1) up to which `share` (rows, 1) of the sum of `probs` (rows, vocabulary) is reached."""
    if rest := -probs.shape[-1] % BLOCK:
        probs = torch.nn.functional.pad(probs, (0, rest))
    blocks = probs.unflatten(-1, (-1, BLOCK))
    sums = blocks.sum(-1).double().cumsum(-1)
    target = share * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True)
    before = torch.where(block > 0, sums.gather(-1, (block - 1).clamp(min=0)), 0.0)
    share = (target - before) / (sums.gather(-1, block) - before)
    within = blocks[torch.arange(len(blocks), device=probs.device), block.squeeze(-1)].double().cumsum(-1)
    place = torch.searchsorted(within, share * within[:, -1:], right=True).clamp(max=BLOCK - 1)
    return block * BLOCK + place


def runs_in_circles(ids: Sequence[int], times: int) -> bool:
    """Whether `ids` end in some block of at least CIRCLE tokens, `times` times in a row."""
    return any(
        ids[-period * (times - 1) :] == ids[-period * times : -period]
        for period in range(CIRCLE, len(ids) // times + 1)
        if ids[-1] == ids[-1 - period]
    )


class _Batch:
    """The replies in the making. Each has a row in the cache and in the tensors of `rows`."""

    def __init__(self, model: PreTrainedModel, params: SamplingParams, pad_id: int):
        self.model, self.params, self.pad_id = model, params, pad_id
        self.stop = torch.tensor(params.stop, device=model.device)
        self.cache, self.rows = None, {"running": torch.zeros(0, dtype=torch.bool)}

    def __len__(self) -> int:
        return len(self.rows["running"])

    def running(self) -> int:
        return int(self.rows["running"].sum())

    def part(self) -> float:
        """How many replies all that is decoded of the running ones would make."""
        return float((self.rows["length"] * self.rows["running"]).sum()) / self.params.max_new_tokens

    def fill(
        self, prompts: Sequence[Sequence[int]], owner: Sequence[int], waiting: Sequence[int], noise: Callable
    ) -> int:
        """Give up the rows of replies that have ended and begin as many of those `waiting`; gives their number."""
        kept = self.rows["running"].nonzero().squeeze(-1)
        parts = [(self.cache, kept)] if len(kept) else []
        self.rows = {name: x[kept] for name, x in self.rows.items()}
        joins = not parts or (  # rows of another cache cannot, where a layer holds anything but keys and values
            self.model.num_parameters() > LARGE and all(isinstance(one, _RoomyLayer) for one in self.cache.layers)
        )
        replies = waiting[: self.params.batch_size - len(kept)] if joins else ()
        if replies:
            asked = {prompt: place for place, prompt in enumerate(dict.fromkeys(owner[i] for i in replies))}
            ids, mask = pad([prompts[i] for i in asked], self.pad_id, self.model.device)
            read = read_prompts(self.model, ids, mask, _new_cache(self.model), logits_to_keep=1)
            if read.output.logits.isnan().any():
                raise ModelError(
                    f"The model from {self.model.name_or_path} gives logits that are not numbers; fetch its weights "
                    "again, or train them with a lower learning rate."
                )
            of = torch.tensor([asked[owner[i]] for i in replies], device=ids.device)
            made = torch.zeros((len(of), self.params.max_new_tokens), device=ids.device)
            fresh = {
                "running": torch.ones_like(of, dtype=torch.bool),
                "reply": torch.tensor(replies, device=ids.device),
                "held": mask.sum(-1)[of],  # tokens in the cache
                "length": torch.zeros_like(of),  # of the reply, so far
                "noise": torch.stack([noise(i) for i in replies]).to(ids.device),
                "ids": made.long(),
                "logprobs": made,
                "logits": read.output.logits[of, -1],  # of the next token
            }
            self.rows = {name: torch.cat([self.rows[name], x]) if len(kept) else x for name, x in fresh.items()}
            parts.append((read.cache, of))
        self.cache = _joined(parts, int(self.rows["held"].max()))
        return len(replies)

    def draw(self) -> list[tuple[int, SampledTokens]]:
        """Add a token to every running reply. Gives the number and the tokens of each that has ended with it."""
        rows, params = self.rows, self.params
        column = rows["length"].clamp(max=params.max_new_tokens - 1)  # a reply that has ended may still have its row
        at = torch.arange(len(self), device=column.device), column
        token, logprob = _draw(rows["logits"], rows["noise"][at], params.temperature, params.top_p)
        rows["token"], rows["ids"][at], rows["logprobs"][at] = token, token, logprob
        rows["length"] = rows["length"] + rows["running"]
        stopped = torch.isin(token, self.stop)
        ended = stopped | (rows["length"] == params.max_new_tokens)
        if params.repeats:
            for row in (rows["running"] & (rows["length"] % CIRCLE == 0)).nonzero().flatten().tolist():
                ended[row] |= runs_in_circles(rows["ids"][row, : rows["length"][row]].tolist(), params.repeats)
        which = (ended & rows["running"]).nonzero().squeeze(-1)
        rows["running"] = rows["running"] & ~ended
        columns = (rows["reply"], rows["length"], rows["ids"], rows["logprobs"], stopped)
        found = zip(*(column[which].tolist() for column in columns), strict=True)
        return [(reply, SampledTokens(ids[:n], logprobs[:n], done)) for reply, n, ids, logprobs, done in found]

    def read(self) -> None:
        """The drawn tokens through the model, also those of replies that have ended and still have their row."""
        held = self.rows["held"]
        columns = torch.arange(self.cache.get_seq_length() + 1, device=held.device)
        self.rows["logits"] = self.model(
            input_ids=self.rows["token"].unsqueeze(-1),
            attention_mask=(columns >= len(columns) - 1 - held.unsqueeze(-1)).long(),
            position_ids=held.unsqueeze(-1),
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.rows["held"] = held + 1


def _return_freed_memory() -> None:
    """Let glibc hand back every freed tensor of 4 MiB or more: a cache grows all the time, and the holes that it leaves
    among smaller things grew to 17 GiB where 3 are in use (0.5B, 256 replies; measured)."""
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):  # not on macOS
        set_option(-3, 4 << 20)  # M_MMAP_THRESHOLD


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    params: SamplingParams,
    pad_id: int,
    complete: Callable[[int, list[SampledTokens]], None] | None = None,
    report: Callable[[float], None] | None = None,
) -> list[list[SampledTokens]]:
    """`params.n` replies per prompt (token ids), as one list per prompt; `params.stop` must be given.

    At most `params.batch_size` are decoded together; when some have ended, the next ones join. The seed of a prompt is
    the only source of chance, so it decides its replies whatever else is in the batch. complete(i, replies) is called
    when prompt i has all of its own; `report` about once a second, and at the end, with how many replies are done,
    fractions included.
    """
    if model.num_parameters() > LARGE:
        _return_freed_memory()
    # Prompts of similar length are read together, which keeps padding small.
    owner = [i for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])) for _ in range(params.n)]
    results: list[list[SampledTokens]] = [[None] * params.n for _ in prompts]
    missing, noises = Counter(owner), {}

    def noise(number: int) -> torch.Tensor:
        """(max_new_tokens,), uniform in [0, 1), of a reply."""
        i = owner[number]
        if i not in noises:
            noises.clear()  # replies begin in order
            generator = torch.Generator().manual_seed(seeds[i])
            noises[i] = torch.rand((params.n, params.max_new_tokens), generator=generator)
        return noises[i][number % params.n]

    batch, begun, done, due = _Batch(model, params, pad_id), 0, 0, time.monotonic() + REPORT_SECONDS
    with _fast_attention(model):
        while done < len(owner):
            if batch.running() <= THIN * len(batch):
                begun += batch.fill(prompts, owner, range(begun, len(owner)), noise)
            for number, reply in batch.draw():
                i = owner[number]
                results[i][number % params.n] = reply
                missing[i] -= 1
                if complete and not missing[i]:
                    complete(i, results[i])
                done += 1
            if report and (done == len(owner) or time.monotonic() > due):
                report(done + batch.part())
                due = time.monotonic() + REPORT_SECONDS
            if batch.running():
                batch.read()
    return results
