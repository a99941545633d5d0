"""Load language models and sample from them.

Everything works with any causal language model of `transformers` that comes with a chat template: the pocket models
in `data/models`, or a hub name on a larger profile.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from acelib.errors import CourseError

Conversation = list[dict[str, str]]


class ModelError(CourseError):
    """A model folder that cannot be used, or a request that a model cannot serve."""


@dataclass(frozen=True)
class Completion:
    """One sampled reply.

    `logprob` is the sum over `token_ids` of log pi(token | prefix) at the sampling temperature, before top-p cuts the
    tail (temperature 1 when decoding greedily). `finished` says that the reply ended with an end-of-sequence token.
    """

    text: str
    token_ids: list[int]
    finished: bool
    logprob: float


@dataclass(frozen=True)
class SampledTokens:
    """`ids` and `logprobs` have equal length; the end-of-sequence token, when there is one, is the last of `ids`."""

    ids: list[int]
    logprobs: list[float]
    finished: bool


def _check_location(name_or_path: str | Path) -> str:
    """A relative or absolute path must exist; anything shaped like `owner/name` may be a hub name."""
    location = Path(name_or_path)
    if location.is_dir():
        if not (location / "config.json").is_file():
            raise ModelError(
                f"{location} is not a model folder: it has no config.json; save one with "
                f"model.save_pretrained(...), or correct the path under `models` in the profile."
            )
    elif location.is_absolute() or str(name_or_path).startswith((".", "~")) or len(location.parts) != 2:
        raise ModelError(
            f"There is no model folder {location}; correct the path under `models` in the profile, or "
            f"retrain the pocket models with `make pocket-models`."
        )
    return str(name_or_path)


def pick_device(device: str = "auto") -> torch.device:
    """`auto` takes the GPU when there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """A tokenizer with a chat template and a padding token, padding on the left.

    Raises ModelError when the folder has no tokenizer or the tokenizer has no chat template: training would go on
    without one, and would silently learn nothing.
    """
    location = _check_location(name_or_path)
    no_tokenizer = ModelError(
        f"{location} has no tokenizer that can be loaded; save it beside the weights with "
        f"tokenizer.save_pretrained(...)."
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, padding_side="left")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise no_tokenizer from error
    if not tokenizer("def")["input_ids"]:  # without a vocabulary file transformers returns an empty tokenizer
        raise no_tokenizer
    if tokenizer.chat_template is None:
        raise ModelError(
            f"The tokenizer of {location} has no chat template; use an instruct model, or put a "
            f"chat_template.jinja beside it."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(name_or_path: str | Path, dtype: str = "float32", device: str = "auto") -> PreTrainedModel:
    """A causal language model in eval mode. Raises ModelError when the folder holds none."""
    location = _check_location(name_or_path)
    try:
        model = AutoModelForCausalLM.from_pretrained(location, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{location} holds no causal language model that can be loaded ({error}); check that "
            f"config.json and model.safetensors are complete."
        ) from error
    return model.to(pick_device(device)).eval()


def render(tokenizer: PreTrainedTokenizerBase, messages: Conversation) -> str:
    """The conversation as the model sees it, ready for the assistant's reply."""
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def solve_messages(template: str, question: str) -> Conversation:
    """The conversation that asks for a program; `template` is the profile's `prompts.solve`."""
    return [{"role": "user", "content": template.replace("{question}", question)}]


def context_length(model: PreTrainedModel) -> int | None:
    return getattr(model.config, "max_position_embeddings", None)


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a reply.

    Base models stop on another token than their chat template does, so both the generation config and the tokenizer
    are asked.
    """
    eos = model.generation_config.eos_token_id
    ids = set(eos if isinstance(eos, list) else [eos]) | {tokenizer.eos_token_id}
    return sorted(ids - {None})


class _RoomyLayer(DynamicLayer):
    """A cache layer that reserves room for the next tokens; the stock layer copies itself at every token."""

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
    """Attention of one new token per sequence. The stock path copies all keys and values once per query head that
    shares them, and on a CPU that copy is the largest cost of sampling."""
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


AttentionInterface.register("acelib_decode", _decode_attention)
AttentionMaskInterface.register("acelib_decode", sdpa_mask)


@contextmanager
def _fast_attention(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation
    if before == "sdpa" and model.device.type == "cpu":
        model.config._attn_implementation = "acelib_decode"
    try:
        yield
    finally:
        model.config._attn_implementation = before


def left_pad(
    sequences: Sequence[Sequence[int]], pad_id: int, device=None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (len(sequences), longest)."""
    width = max(map(len, sequences))
    ids = torch.tensor([[pad_id] * (width - len(s)) + list(s) for s in sequences], device=device)
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=device)
    return ids, mask


def _draw(logprobs: torch.Tensor, noise: torch.Tensor, top_p: float) -> torch.Tensor:
    """One token per row by the inverse of the cumulative distribution; `noise` is uniform in [0, 1), one per row."""
    probs = logprobs.exp()
    if top_p < 1.0:
        ordered, order = probs.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        probs = probs.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)
    cumulative = probs.double().cumsum(-1)
    target = noise.double().unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


@torch.inference_mode()
def _decode(
    model, prompts, noise, copies, temperature, top_p, max_new_tokens, stop, pad_id
) -> list[SampledTokens]:
    """Sample `copies[i]` replies for `prompts[i]`; `noise` is (sum(copies), max_new_tokens)."""
    device = model.device
    input_ids, mask = left_pad(prompts, pad_id, device)
    cache = _new_cache(model)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    rows = torch.arange(len(prompts), device=device).repeat_interleave(torch.tensor(copies, device=device))
    cache.batch_select_indices(rows)
    logits, mask, position = logits[rows], mask[rows], positions[rows, -1]
    noise, stop = noise.to(device), torch.tensor(stop, device=device)

    total = len(rows)
    tokens = torch.full((total, max_new_tokens), pad_id, device=device)
    logprobs = torch.zeros((total, max_new_tokens), device=device)
    lengths = torch.full((total,), max_new_tokens, device=device)
    finished = torch.zeros(total, dtype=torch.bool, device=device)
    alive = torch.arange(total, device=device)  # which sample each row of the cache belongs to
    for step in range(max_new_tokens):
        scores = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
        token = _draw(scores, noise[alive, step], top_p) if temperature else scores.argmax(-1)
        running = ~finished[alive]
        written = alive[running]
        tokens[written, step] = token[running]
        logprobs[written, step] = scores.gather(-1, token.unsqueeze(-1)).squeeze(-1)[running]
        ended = written[torch.isin(token[running], stop)]
        finished[ended], lengths[ended] = True, step + 1
        keep = (~finished[alive]).nonzero().squeeze(-1)
        if len(keep) == 0 or step + 1 == max_new_tokens:
            break
        if len(keep) <= 0.9 * len(alive):  # copying the cache costs about as much as one step
            cache.batch_select_indices(keep)
            alive, token, mask, position = alive[keep], token[keep], mask[keep], position[keep]
        mask = torch.cat([mask, mask.new_ones((len(alive), 1))], dim=-1)
        position = position + 1
        logits = model(
            input_ids=token.unsqueeze(-1),
            attention_mask=mask,
            position_ids=position.unsqueeze(-1),
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return [
        SampledTokens(ids[:n], lps[:n], done)
        for ids, lps, n, done in zip(
            tokens.tolist(), logprobs.tolist(), lengths.tolist(), finished.tolist(), strict=True
        )
    ]


def _seeds(prompts: Sequence[Sequence[int]], seed: int) -> Iterator[int]:
    """A seed per prompt from its tokens, so that order, batching and resuming do not change what is sampled."""
    seen = Counter()
    for prompt in prompts:
        key = f"{seed} {seen[tuple(prompt)]} {list(prompt)}".encode()
        seen[tuple(prompt)] += 1
        yield int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big")


def check_room(prompts: Sequence[Sequence[int]], max_new_tokens: int, context: int | None) -> None:
    if any(not prompt for prompt in prompts):
        raise ModelError("A prompt has no tokens; check the chat template and the question.")
    longest = max(map(len, prompts), default=0)
    if context is not None and longest + max_new_tokens > context:
        raise ModelError(
            f"A prompt of {longest} tokens and {max_new_tokens} new tokens do not fit the model's context "
            f"of {context}; lower max_new_tokens in the profile or drop the longest questions."
        )


def sample_tokens(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    n: int,
    temperature: float,
    top_p: float = 1.0,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    stop: Sequence[int],
    pad_id: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[SampledTokens]]:
    """`n` replies per prompt (token ids), as one list per prompt; the engine below `generate`.

    Each distinct prompt is read once, its cache is repeated for its samples, and replies that have ended leave the
    batch. `batch_size` counts the replies that are decoded together. Temperature 0 is greedy.
    """
    if n < 1 or max_new_tokens < 1 or batch_size < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise ModelError(
            f"Cannot sample n={n}, max_new_tokens={max_new_tokens}, batch_size={batch_size}, "
            f"temperature={temperature}, top_p={top_p}; counts must be positive, temperature at least 0 "
            f"and top_p in (0, 1]."
        )
    check_room(prompts, max_new_tokens, context_length(model))
    noises = [
        torch.rand((n, max_new_tokens), generator=torch.Generator().manual_seed(s))
        for s in _seeds(prompts, seed)
    ]
    # Prompts of similar length share a batch, which keeps padding small.
    jobs = [(i, j) for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])) for j in range(n)]
    results: list[list[SampledTokens]] = [[None] * n for _ in prompts]
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        copies = Counter(i for i, _ in batch)
        noise = torch.stack([noises[i][j] for i, j in batch])
        with _fast_attention(model):
            replies = _decode(model, [prompts[i] for i in copies], noise, list(copies.values()), temperature, top_p,
                              max_new_tokens, list(stop), pad_id)
        for (i, j), reply in zip(batch, replies, strict=True):
            results[i][j] = reply
        if progress is not None:
            progress(min(start + batch_size, len(jobs)), len(jobs))
    return results


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    *,
    n: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Completion]]:
    """`n` replies per conversation, as one list per conversation in the order given.

    Temperature 0 is greedy. What is sampled depends on `seed` and on each conversation's text (and on how often that
    text came before in the list), not on the order or on `batch_size`, up to the rounding of batched sums.
    Raises ModelError when a prompt and `max_new_tokens` exceed the model's context.
    """
    prompts = [tokenizer(render(tokenizer, c), add_special_tokens=False)["input_ids"] for c in conversations]
    sampled = sample_tokens(
        model,
        prompts,
        n=n,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed,
        stop=stop_tokens(model, tokenizer),
        pad_id=tokenizer.pad_token_id,
        progress=progress,
    )
    texts = iter(
        tokenizer.batch_decode([r.ids for replies in sampled for r in replies], skip_special_tokens=True)
    )
    return [
        [Completion(next(texts), r.ids, r.finished, sum(r.logprobs)) for r in replies] for replies in sampled
    ]
