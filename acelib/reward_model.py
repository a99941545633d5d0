"""The reward model: a language model with one number as output; its losses on preference pairs (paper, Eq. 1).

A reward model is stored as an ordinary `AutoModelForSequenceClassification` folder with one label and its tokenizer,
so anything that reads such folders (TRL, vLLM, a plain `transformers` script) can use it. The layouts of LLaMA-Factory
and OpenRLHF are read, too (`acelib.models.reward_heads`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from acelib.core import ModelError
from acelib.models import (
    check_room,
    load_classifier,
    load_tokenizer,
    pad,
    pick_device,
    read_on,
    read_prompts,
    solve_messages,
    unwrapped,
)
from acelib.schema import Pair


def bradley_terry_loss(scores: torch.Tensor, pairs: torch.Tensor, n: int) -> torch.Tensor:
    """Loss of one question (paper, Eq. 1).

    `scores` (programs,): one score per distinct program. `pairs` (pairs, 2): rows (chosen, rejected) that index
    `scores`. `n`: programs sampled for the question; the sum over its pairs is divided by the n(n-1) ordered pairs
    that n programs can form.
    """
    chosen, rejected = scores[pairs[:, 0]], scores[pairs[:, 1]]
    return -F.logsigmoid(chosen - rejected).sum() / (n * (n - 1))


def regression_loss(scores: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """The ablation beside Eq. 1: squared error of sigmoid(score) against the pass rate, both (programs,).

    The sigmoid, because a pass rate lies in [0, 1] and a plain score would have to end exactly there: bounded targets
    then cost no scale, and scores stay the logits that every later stage ranks by.
    """
    return (torch.sigmoid(scores) - rates).square().mean()


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], programs: Sequence[str]) -> list[list[int]]:
    """Token ids of [user: prompt, assistant: program] under the model's own chat template."""
    conversations = [solve_messages("{question}", *one) for one in zip(prompts, programs, strict=True)]
    if not conversations:
        return []
    texts = tokenizer.apply_chat_template(conversations, tokenize=False)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def is_held_out(problem_id: str, fraction: float) -> bool:
    """Whether a question is kept out of training. Depends on nothing but its id, so that every reward model of a
    run, whatever pairs it learns from, is tested on questions that none of them has seen."""
    return int.from_bytes(sha256(problem_id.encode()).digest()[:6], "big") < fraction * 2**48


def question_rows(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[dict]:
    """One row per question: `sequences`, the token ids of its distinct programs, `rates`, their pass rates, and
    `pairs`, rows (chosen, rejected) of indices into both.

    Raises ModelError when a program with its question is longer than `max_length` tokens. (TRL drops such
    pairs without a word, LLaMA-Factory cuts them; both hide that the model never sees the end of a program.)
    """
    grouped: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault((pair.problem_id, pair.instruction), []).append(pair)
    rows = []
    for (problem_id, instruction), group in grouped.items():
        rates = {}
        for pair in group:
            rates |= {pair.chosen: pair.chosen_rate, pair.rejected: pair.rejected_rate}
        index = {text: i for i, text in enumerate(rates)}
        sequences = encode(tokenizer, [instruction] * len(index), list(index))
        chosen = [[index[pair.chosen], index[pair.rejected]] for pair in group]
        rows.append({"id": problem_id, "sequences": sequences, "rates": list(rates.values()), "pairs": chosen})
    lengths = [len(sequence) for row in rows for sequence in row["sequences"]]
    long = sum(length > max_length for length in lengths)
    if long:
        raise ModelError(
            f"{long} of {len(lengths)} programs are longer than {max_length} tokens with their question (longest: "
            f"{max(lengths)}); raise reward_model.max_length in the profile, or leave these pairs out."
        )
    return rows


def score_questions(
    model: PreTrainedModel, questions: Sequence[Sequence[Sequence[int]]], pad_id: int, share_prefix: bool
) -> list[torch.Tensor]:
    """Scores (programs,) of each question's programs, given as token ids; differentiable.

    With `share_prefix` the tokens that all programs of a question begin with (above all the question itself) are run
    once, and their keys and values are shared: the same numbers for less work. It calls the backbone directly, so it
    must stay off where the model is wrapped for several processes or checkpoints its activations.
    """
    counts = [len(programs) for programs in questions]
    if not share_prefix:
        flat, config = [ids for programs in questions for ids in programs], unwrapped(model).config
        lasts, usual = {ids[-1] for ids in flat}, config.pad_token_id
        # The score is read at the last token that is not padding to transformers, so padding must end no program.
        config.pad_token_id = next(i for i in (pad_id, *range(len(lasts) + 1)) if i not in lasts)
        ids, mask = pad(flat, config.pad_token_id, model.device, side="right")
        unwrapped(model).score.forward = partial(head_scores, unwrapped(model).score)  # float32, as below
        scores = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.squeeze(-1)
        config.pad_token_id = usual
        return scores.split(counts)
    shared = [_common_prefix(programs) for programs in questions]
    starts = pad([programs[0][:k] for programs, k in zip(questions, shared)], pad_id, model.device)
    tails = [program[k:] for programs, k in zip(questions, shared) for program in programs]
    ids, mask = pad(tails, pad_id, model.device, side="right")
    owner = torch.arange(len(questions)).repeat_interleave(torch.tensor(counts)).to(model.device)
    model = unwrapped(model)
    hidden = read_on(model.base_model, read_prompts(model.base_model, *starts), owner, ids, mask).last_hidden_state
    last = hidden[torch.arange(len(tails)), mask.sum(-1) - 1]
    return head_scores(model.score, last).squeeze(-1).split(counts)


def head_scores(head: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Scores (..., 1) of hidden states (..., size) in float32, whatever autocast is about: bfloat16 has two digits."""
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(hidden.float(), head.weight.float())


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all sequences share, with at least one token left over in each."""
    first, last = min(sequences), max(sequences)
    limit = min(map(len, sequences)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def can_share_prefix(model: PreTrainedModel) -> bool:
    """Whether all its layers attend to everything before: others keep no keys and values that could be shared."""
    return set(getattr(model.config, "layer_types", [None])) == {"full_attention"}


def load_reward_model(
    path: str | Path, dtype: str = "float32", device: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A reward model in eval mode and its tokenizer, from a folder or hub name in any of `reward_heads.LAYOUTS`.

    A head's bias is dropped: it shifts all scores alike. Raises ModelError when the folder holds another model.
    """
    tokenizer = load_tokenizer(path)
    model = load_classifier(path, dtype)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.to(pick_device(device)).eval(), tokenizer


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    programs: Sequence[str],
    batch_size: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """One score per (prompt, program): `prompts` are user messages, `programs` the replies as sampled.

    Scores have no unit and no zero: only differences between programs of one question mean something.
    Each distinct text is scored once, next to others of its question, `batch_size` at a time or half as many where a
    GPU is too small. Raises ModelError on a score that is no number, and on a text that is too long (`check_room`).
    """
    keys = list(zip(prompts, programs, strict=True))
    distinct = sorted(dict.fromkeys(keys), key=lambda key: (len(key[0]), key[0], len(key[1])))
    share_prefix, found = can_share_prefix(model), {}
    while chunk := distinct[len(found) : len(found) + batch_size]:
        questions: dict[str, list] = {}
        for (prompt, _), ids in zip(chunk, encode(tokenizer, *zip(*chunk, strict=True)), strict=True):
            questions.setdefault(prompt, []).append(ids)
        for programs in questions.values():
            check_room(model, programs)
        try:
            scores = score_questions(model, list(questions.values()), tokenizer.pad_token_id, share_prefix)
        except torch.OutOfMemoryError:
            if (batch_size := len(chunk) // 2) < 1:
                raise
            continue
        found.update(zip(chunk, torch.cat(scores).tolist(), strict=True))
        if progress is not None:
            progress(len(found), len(distinct))
    if any(value != value for value in found.values()):
        raise ModelError(
            "The reward model gives scores that are not numbers; train it again with a lower "
            "reward_model.learning_rate."
        )
    return [found[key] for key in keys]
