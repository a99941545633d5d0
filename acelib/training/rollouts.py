"""Rollouts: in which order questions come, how replies to them are sampled, and how rollouts are taken apart.

`trainer` is a `ReinforceTrainer` throughout, and a `Rollout` the dict of tensors that its module describes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from acelib.models import Conversation, SamplingParams, generate, prompt_seeds, prompt_tokens, sample_tokens
from acelib.training.settings import precision

Rollout = dict[str, torch.Tensor]


def question_order(questions: int, needed: int, seed: int) -> list[int]:
    """`needed` indices: random passes over all questions, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    passes = -(-needed // questions)
    return torch.cat([torch.randperm(questions, generator=generator) for _ in range(passes)])[:needed].tolist()


def sample_rollout(prompts: list, trainer: Any) -> dict[str, list]:
    """Sampled replies in TRL's `rollout_func` form: lists with the token ids of each prompt and reply, and with the
    reply's log-probs at `trainer.temperature`. `prompts` are this process's conversations, each `n` times in a row.

    The log-probs stay in `trainer._sampled_logps` (replies, tokens), too, where they are exact.
    """
    n, tokenizer = trainer.num_generations, trainer.processing_class
    ids = prompt_tokens(tokenizer, prompts[::n])
    everybody = gather_object(ids)  # a question may come twice, and the second time in another process
    seeds = prompt_seeds(everybody, trainer.args.seed + 1 + trainer.rollout + 10**6 * trainer.attempt)
    first = len(ids) * trainer.accelerator.process_index
    with trainer.timed("generate"):
        if trainer.use_vllm:
            replies, logprobs = _vllm_replies(trainer, ids, n, trainer.temperature)
        else:
            with evaluating(trainer) as model:
                params = _params(trainer, n, trainer.temperature, len(prompts))
                how = dict(seeds=seeds[first : first + len(ids)], progress=lambda i, of: trainer.sampled_share(i / of))
                rows = sample_tokens(model, tokenizer, ids, params, **how)
            replies, logprobs = zip(*[(reply.ids, reply.logprobs) for row in rows for reply in row], strict=True)
    trainer._sampled_logps = None
    if trainer.samples_exactly:
        rows = [torch.tensor(row) for row in logprobs]
        trainer._sampled_logps = pad_sequence(rows, batch_first=True).to(trainer.model.device)
    return {
        "prompt_ids": [row for row in ids for _ in range(n)],
        "completion_ids": list(replies),
        "logprobs": list(logprobs),
    }


def _params(trainer: Any, n: int, temperature: float, together: int) -> SamplingParams:
    how = dict(n=n, temperature=temperature, batch_size=together, seed=trainer.args.seed, stop=tuple(trainer.stop))
    return SamplingParams.of(trainer.settings, **how)


@contextmanager
def evaluating(trainer: Any) -> Iterator[PreTrainedModel]:
    """The policy in eval mode, at the precision it is trained in."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    training = model.training
    model.eval()
    with precision(trainer):
        yield model
    model.train(training)


def _vllm_replies(trainer: Any, prompts: list[list[int]], n: int, temperature: float) -> tuple[list, list]:
    """`n` replies (token ids) to each prompt and their log-probs, from vLLM with the policy's present weights. Every
    process must bring as many prompts as the others."""
    vllm = trainer.vllm_generation
    if trainer.state.global_step != trainer._last_loaded_step:
        vllm.sync_weights()
        trainer._last_loaded_step = trainer.state.global_step
    usual, vllm.temperature = vllm.temperature, temperature
    _, ids, logprobs, _ = vllm.generate([one for one in prompts for _ in range(n)], images=None, num_generations=n)
    vllm.temperature = usual
    return [list(reply) for reply in ids], [[token[0] for token in reply] for reply in logprobs]


def sample_texts(trainer: Any, conversations: Sequence[Conversation], n: int, temperature: float) -> list[list[str]]:
    """`n` replies of the policy as it is now to each conversation, the same on every process."""
    tokenizer = trainer.processing_class
    if not trainer.use_vllm:
        with evaluating(trainer) as model:
            together = trainer.settings.rollout_questions * trainer.num_generations
            rows = generate(model, tokenizer, conversations, _params(trainer, n, temperature, together))
        return [[reply.text for reply in row] for row in rows]
    prompts = prompt_tokens(tokenizer, conversations)
    world, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    share = -(-len(prompts) // world)
    mine = [prompts[i % len(prompts)] for i in range(rank * share, (rank + 1) * share)]  # equal shares, or some wait
    texts = tokenizer.batch_decode(_vllm_replies(trainer, mine, n, temperature)[0], skip_special_tokens=True)
    rows = gather_object([texts[i : i + n] for i in range(0, len(texts), n)])
    return rows[: len(prompts)]


LogpsOf = Callable[[torch.Tensor, torch.Tensor, int], tuple]  # ids, mask, tokens of the reply: TRL's three results


def by_length(logps_of: LogpsOf, ids: torch.Tensor, mask: torch.Tensor, reply: int, at_once: int) -> tuple:
    """Log-probs and entropies (rows, reply), or None, by `logps_of` for ids and mask (rows, tokens), whose last `reply`
    tokens are asked for: rows of similar length together, cut to the longest of them.

    A rollout is padded to its longest reply, and one of hundreds nearly always reaches the limit: most of what goes
    through the model would be padding (huggingface/trl, issue 7179).
    """
    lengths, parts = mask[:, -reply:].sum(1), []
    order = lengths.argsort(stable=True)
    for rows in order.split(at_once):
        longest, first = max(1, int(lengths[rows].max())), int(mask[rows].any(0).int().argmax())
        chosen = slice(first, ids.shape[1] - reply + longest)
        found = logps_of(ids[rows, chosen], mask[rows, chosen], longest)
        parts.append([one if one is None else pad(one, (0, reply - longest)) for one in found[:2]])
    logps, entropies = zip(*parts, strict=True)
    back = order.argsort()
    return torch.cat(logps)[back], None if entropies[0] is None else torch.cat(entropies)[back]


def has_signal(rewards: torch.Tensor) -> torch.Tensor:
    """Which rows (questions,) of `rewards` (questions, replies) hold two different ones; NaN is none."""
    return rewards.nan_to_num(-math.inf).amax(1) > rewards.nan_to_num(math.inf).amin(1)


def partition(rollout: Rollout, n: int) -> tuple[Rollout, Rollout]:
    """The questions whose `n` replies have different rewards, and the others."""
    chosen = has_signal(rollout["rewards"].view(-1, n)).repeat_interleave(n)
    kept, dropped = ({name: x[rows] for name, x in rollout.items()} for rows in (chosen, ~chosen))
    return kept, dropped


def join(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts below each other; tensors of two dimensions get the width of the widest."""

    def widened(name: str, part: torch.Tensor) -> torch.Tensor:
        missing = max(rollout[name].shape[-1] for rollout in rollouts) - part.shape[-1]
        return pad(part, (missing, 0) if name.startswith("prompt") else (0, missing)) if part.dim() == 2 else part

    return {name: torch.cat([widened(name, rollout[name]) for rollout in rollouts]) for name in rollouts[0]}
