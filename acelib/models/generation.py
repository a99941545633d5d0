"""Load language models and sample from them.

Everything works with any causal language model of `transformers` that comes with a chat template: the pocket models
in `data/models`, or a hub name on a larger profile.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from acelib.core import DeviceError, ModelError, Progress, Remote, load_explained
from acelib.models.decoding import SampledTokens, decode
from acelib.models.devices import gpu_problem, machine_facts
from acelib.models.params import SamplingParams
from acelib.models.server import Server, connect, is_address

Conversation = list[dict[str, str]]
MARK = "-[[the reply goes on here]]-"
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


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


def _check_location(name_or_path: str | Path) -> str:
    """A relative or absolute path must exist; anything shaped like `owner/name` may be a hub name."""
    location = Path(name_or_path)
    kinds = {one.suffix.lower() for one in (location.iterdir() if location.is_dir() else [location])}
    gguf = ".gguf" in kinds or location.name.lower().endswith("-gguf")
    if gguf and not kinds & {".safetensors", ".bin"}:
        raise ModelError(
            f"{location} holds GGUF weights, which cannot be trained; take the repository that they were made from, "
            "with its safetensors, or serve them (`llama-server`) and give the address as teacher or proxy."
        )
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


def pick_device(device: str = "auto", dtype: str = "float32") -> torch.device:
    """`auto` takes the GPU when there is one. Raises DeviceError when there is none for `cuda`, or when it cannot
    compute in `dtype`."""
    available = torch.cuda.is_available()
    if device == "auto":
        device = "cuda" if available else "cpu"
    if device == "cuda" and (not available or dtype == "bfloat16") and (problem := gpu_problem(machine_facts(), dtype)):
        raise DeviceError(problem)
    return torch.device(device)


def load_tokenizer(name_or_path: str | Path, chats: bool = True) -> PreTrainedTokenizerBase | None:
    """A tokenizer with a chat template and a padding token, padding on the left; None for a server, which has its own.

    Raises ModelError when the folder has no tokenizer, when the hub does not hand it out (`core.hub`), or, if it
    `chats`, when it has no chat template that works: training would go on without, and would silently learn nothing.
    """
    if is_address(name_or_path):
        return None
    mend = "mend config.json or the tokenizer's files, or save one there with tokenizer.save_pretrained(...)"
    with load_explained(name_or_path, "has no tokenizer that can be loaded", mend):
        location = _check_location(name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(location, padding_side="left", trust_remote_code=False)
        if not tokenizer("def")["input_ids"]:  # without a vocabulary file transformers returns an empty tokenizer
            raise ValueError("it has no vocabulary")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise ValueError("it names neither a pad_token nor an eos_token")
    if not chats:
        return tokenizer
    instruct = "use an instruct model, or put a chat_template.jinja beside it"
    if tokenizer.chat_template is None:
        raise ModelError(f"The tokenizer of {location} has no chat template; {instruct}.")
    with load_explained(name_or_path, "has a chat template that renders no question with its reply", instruct):
        render(tokenizer, solve_messages("{question}", "QUESTION"))
        turn_end(tokenizer)
    return tokenizer


def load_weights(kind: Any, name_or_path: str | Path, **options: Any) -> PreTrainedModel:
    """What `kind.from_pretrained` makes of a folder or hub name, or of a `state_dict` among its `options`. Raises
    ModelError when there is none, and when weights that would be random are missing or of another size."""
    mend = "mend config.json, generation_config.json or the weights, fetch them again, or take another model"
    with load_explained(name_or_path, "holds no causal language model that can be loaded", mend):
        location = None if options.get("state_dict") else _check_location(name_or_path)
        how = dict(trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True)
        model, info = kind.from_pretrained(location, **how, **options)
    if wrong := sorted(info["missing_keys"] | {name for name, *_ in info["mismatched_keys"]}):
        raise ModelError(
            f"{name_or_path} is incomplete: it lacks {', '.join(wrong[:3])} in the size that config.json says; fetch "
            "or convert it again."
        )
    return model


def load_policy(
    name_or_path: str | Path,
    dtype: str = "float32",
    device: str = "auto",
    remote: tuple[Remote, Path] | None = None,
    quantised: BitsAndBytesConfig | None = None,
) -> PreTrainedModel | Server:
    """A causal language model in eval mode. Raises ModelError when the folder holds none or the hub hands out
    none, and DeviceError as `pick_device` does.

    An address such as `http://host:8000/v1#model` gives a server to sample from, with limits and log from `remote`
    (a run's `run.remote`); without `remote` it is refused, for a stage that needs the weights. `quantised` weights stay
    where transformers makes them, on the GPU where there is one.
    """
    if is_address(name_or_path):
        if remote is None:
            raise ModelError(
                f"{name_or_path} is a server, and this stage needs the weights; name a model folder or a hub model "
                "under `models` in the profile."
            )
        return connect(str(name_or_path), *remote)
    where = pick_device(device, dtype)
    model = load_weights(AutoModelForCausalLM, name_or_path, dtype=dtype, quantization_config=quantised)
    # None of the values for sampling is used, and transformers loads many together that it refuses to save.
    tokens = {name: getattr(model.generation_config, name) for name in TOKENS}
    model.generation_config = GenerationConfig(**{name: one for name, one in tokens.items() if one != -1})
    return (model if quantised else model.to(where)).eval()


def render(tokenizer: PreTrainedTokenizerBase, messages: Conversation) -> str:
    """The conversation as the model sees it, ready for the assistant's reply, or in the middle of it where the last
    message is the assistant's."""
    if messages[-1]["role"] != "assistant":
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    *before, begun = messages  # EvalPlus's way: whatever the template does to the end of a message comes after the mark
    marked = [*before, begun | {"content": begun["content"] + MARK}]
    return tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=False).partition(MARK)[0]


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, conversations: Iterable[Conversation]) -> list[list[int]]:
    """Token ids of what `render` makes of each."""
    return [tokenizer(render(tokenizer, one), add_special_tokens=False)["input_ids"] for one in conversations]


def solve_messages(template: str, question: str, reply: str | None = None) -> Conversation:
    """The conversation that asks for a program, up to the `reply` if there is one; `template` is the profile's
    `prompts.solve`."""
    asked = [{"role": "user", "content": template.replace("{question}", question)}]
    return asked if reply is None else [*asked, {"role": "assistant", "content": reply}]


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token with which the chat template ends an assistant's turn; None when it adds nothing there."""
    turn = solve_messages("{question}", "QUESTION", "REPLY")
    after = tokenizer.apply_chat_template(turn, tokenize=False).rpartition("REPLY")[2]
    return next(iter(tokenizer(after, add_special_tokens=False)["input_ids"]), None)


def stop_tokens(eos: int | list[int] | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a reply: `eos` of the generation config, the tokenizer's, and, where it is a special token,
    the template's end of a turn, which base models have learned beside an end of their own. Raises ModelError when one
    is no number."""
    end, special = turn_end(tokenizer), tokenizer.added_tokens_decoder
    named = [one for one in (eos if isinstance(eos, list) else [eos]) if one is not None]
    if not all(isinstance(one, int) for one in named):
        path = tokenizer.name_or_path
        raise ModelError(
            f"{path} stops at {eos!r}, no number of a token; mend eos_token_id in its generation_config.json."
        )
    ends = [end] if end in special and special[end].special else []
    return sorted({*named, *ends, tokenizer.eos_token_id} - {None})


def prompt_seeds(prompts: Sequence[Sequence[int]], seed: int) -> list[int]:
    """A seed per prompt (token ids) from its tokens and from how often it came before, so that order, batching and
    resuming do not change what is sampled."""
    seen, seeds = Counter(), []
    for prompt in prompts:
        key = f"{seed} {seen[tuple(prompt)]} {list(prompt)}".encode()
        seen[tuple(prompt)] += 1
        seeds.append(int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big"))
    return seeds


def check_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int = 0) -> None:
    """Raises ModelError when a prompt is empty, too long for so many new tokens, or has tokens that `model` lacks."""
    if not all(prompts):
        raise ModelError("A prompt has no tokens; check the chat template and the question.")
    last, known = max(map(max, prompts), default=0), model.config.get_text_config().vocab_size
    if last >= known:
        raise ModelError(
            f"The tokenizer makes token {last} and the model knows {known:,} tokens; take the tokenizer that came with "
            "the weights, or call model.resize_token_embeddings(len(tokenizer)), train the new tokens and save both."
        )
    longest, context = max(map(len, prompts), default=0), getattr(model.config, "max_position_embeddings", None)
    if context is not None and longest + max_new_tokens > context:
        raise ModelError(
            f"Texts of up to {longest} tokens, with {max_new_tokens} to come, do not fit the model's context of "
            f"{context}; lower max_new_tokens in the profile or drop the longest questions."
        )


def sample_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
    complete: Callable[[int, list[SampledTokens]], None] | None = None,
) -> list[list[SampledTokens]]:
    """`params.n` replies per prompt (token ids), as one list per prompt; the engine below `generate`.

    Each distinct prompt is read once, its cache is repeated for its samples, and replies that have ended make room for
    the next ones. `seeds`, one per prompt, replace those that follow from `params.seed` (`prompt_seeds`). `progress`
    counts replies, also in parts; complete(i, replies) is called when prompt i has all of its own. Raises ModelError
    when a prompt and `params.max_new_tokens` exceed the model's context.
    """
    check_room(model, prompts, params.max_new_tokens)
    if params.stop is None:
        params = replace(params, stop=tuple(stop_tokens(model.generation_config.eos_token_id, tokenizer)))
    seeds = prompt_seeds(prompts, params.seed) if seeds is None else seeds
    report = progress and (lambda done: progress(round(done, 2), len(prompts) * params.n))
    return decode(model, prompts, seeds, params, tokenizer.pad_token_id, complete, report)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    params: SamplingParams,
    progress: Progress | None = None,
    complete: Callable[[int, list[Completion]], None] | None = None,
) -> list[list[Completion]]:
    """`params.n` replies per conversation, as one list per conversation in the order given; complete(i, replies) is
    called when conversation i has all of its own.

    What is sampled depends on `params.seed` and on each conversation's text (and on how often that text came before in
    the list), not on the order or on `params.batch_size`, up to the rounding of batched sums. Raises ModelError when a
    prompt and `params.max_new_tokens` exceed the model's context.
    """
    rows: list[list[Completion]] = [[] for _ in conversations]

    def completed(i: int, replies: list[SampledTokens]) -> None:
        texts = tokenizer.batch_decode([one.ids for one in replies], skip_special_tokens=True)
        for text, one in zip(texts, replies, strict=True):
            rows[i].append(Completion(text, one.ids, one.finished, sum(one.logprobs)))
        if complete:
            complete(i, rows[i])

    prompts = prompt_tokens(tokenizer, conversations)
    sample_tokens(model, tokenizer, prompts, params, progress=progress, complete=completed)
    return rows
