"""Rollouts: in which order questions come, how replies to them are sampled, and how rollouts are taken apart."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from acelib.errors import CourseError
from acelib.models import prompt_seeds, render, sample_tokens


class RolloutError(CourseError):
    """A rollout that cannot be sampled."""


def question_order(questions: int, needed: int, seed: int) -> list[int]:
    """`needed` indices: random passes over all questions, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    passes = -(-needed // questions)
    return torch.cat([torch.randperm(questions, generator=generator) for _ in range(passes)])[:needed].tolist()


def sample_rollout(prompts: list, trainer: Any) -> dict[str, list]:
    """Sampled replies in TRL's `rollout_func` form; each question arrives repeated once per reply."""
    n, tokenizer = trainer.num_generations, trainer.processing_class
    questions = prompts[::n]
    if [q for q in questions for _ in range(n)] != prompts:
        raise RolloutError(
            f"A process got {len(prompts)} replies to sample, which are not whole questions of {n}; choose "
            "reinforce.rollout_questions as a multiple of the number of processes."
        )
    ids = [tokenizer(render(tokenizer, q), add_special_tokens=False)["input_ids"] for q in questions]
    everybody = gather_object(ids)  # a question may come twice, and the second time in another process
    seeds = prompt_seeds(everybody, trainer.args.seed + 1 + trainer.rollout + 10**6 * trainer.attempt)
    first = len(ids) * trainer.accelerator.process_index
    model = trainer.accelerator.unwrap_model(trainer.model)
    training = model.training
    model.eval()
    with trainer.timed("generate"):
        replies = sample_tokens(
            model, ids, n=n, temperature=trainer.temperature, max_new_tokens=trainer.max_completion_length,
            batch_size=len(prompts), seed=seeds[first : first + len(ids)], stop=trainer.stop,
            pad_id=tokenizer.pad_token_id,
        )
    model.train(training)
    flat = [reply for row in replies for reply in row]
    trainer._sampled_logps = None
    if model.dtype == torch.float32:
        rows = [torch.tensor(reply.logprobs) for reply in flat]
        trainer._sampled_logps = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
    return {
        "prompt_ids": [row for row in ids for _ in range(n)],
        "completion_ids": [reply.ids for reply in flat],
        "logprobs": [reply.logprobs for reply in flat],
    }


def mixed(questions: torch.Tensor) -> torch.Tensor:
    """Which rows of (questions, replies) hold two different rewards."""
    return questions.nan_to_num(-math.inf).amax(1) > questions.nan_to_num(math.inf).amin(1)


def partition(rollout: dict[str, torch.Tensor], n: int) -> list[dict[str, torch.Tensor]]:
    """The questions with different rewards, and the others."""
    chosen = mixed(rollout["rewards"].view(-1, n)).repeat_interleave(n)
    return [{name: x[rows] for name, x in rollout.items()} for rows in (chosen, ~chosen)]


def join(rollouts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Rollouts below each other; prompts are padded on the left, replies on the right."""
    joined = {}
    for name in rollouts[0]:
        parts = [rollout[name] for rollout in rollouts]
        width = max(part.shape[-1] for part in parts)
        if parts[0].dim() == 2:
            side = (lambda short: (short, 0)) if name.startswith("prompt") else (lambda short: (0, short))
            parts = [torch.nn.functional.pad(part, side(width - part.shape[1])) for part in parts]
        joined[name] = torch.cat(parts)
    return joined
