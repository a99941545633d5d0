"""The two trainings that `bench/gpu.py` measures, phase by phase. `asked` is what its command line said."""

import argparse
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainerCallback

from acelib.core import Profile, assume, load_profile
from acelib.judge import Judge
from acelib.preflight import Shape
from acelib.rewards import rule_reward
from acelib.schema import Pair, Problem
from acelib.training import log_rows, make_reinforce_trainer
from acelib.training import reward_trainer as reward_training
from bench.architecture import OPENING, TURN, BenchError, forward_flop, update_flop, words

PAPER = load_profile("paper")
VARIANTS = {
    "full": "float32 weights and gradients, and Adam's two moments: 16 bytes per weight",
    "no-moments": "float32 weights and gradients, plain SGD in the place of Adam: 8 bytes per weight",
    "lora": "adapters of rank --rank with gradients and Adam's moments; frozen weights in the dtype of the passes",
}
PHASES = ("generate", "reward", "reference", "update", "optimiser")


@dataclass(frozen=True)
class Phase:
    """What one phase of a step took, and what it had to compute."""

    seconds: float
    tokens: int = 0
    flop: float = 0.0


def now(device: torch.device) -> float:
    """Seconds, once everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(TrainerCallback):
    """When each optimiser step ended, and how long the optimiser itself took in it."""

    def __init__(self, device: torch.device):
        self.device, self.ends, self.optimiser = device, [], []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._start = now(self.device)

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.optimiser.append(now(self.device) - self._start)

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(now(self.device))


def run(trainer, asked: argparse.Namespace) -> Clock:
    """Trains without checkpoints, which would be measured, and fill disks."""
    clock = Clock(asked.device)
    trainer.args.save_strategy = "no"
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    if asked.variant == "no-moments":
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=trainer.args.learning_rate)
    trainer.train()
    return clock


def profile_of(folder: Path, asked: argparse.Namespace, **sections) -> Profile:
    """The paper's, for the model in `folder`, with adapters or vLLM as asked and `sections` of its own. vLLM shares its
    weights out over as many cards as there are."""
    engine = replace(
        PAPER.engine,
        lora_rank=asked.rank if asked.variant == "lora" else 0,
        generation=asked.generation,
        vllm_parallel=math.gcd(PAPER.engine.vllm_parallel, asked.world),
    )
    models = replace(PAPER.models, policy=str(folder), dtype=asked.dtype, device=asked.device.type)
    prompts = replace(PAPER.prompts, solve="{question}")
    return assume(PAPER, engine=engine, models=models, prompts=prompts, seed=0, **sections)


def reward_trainer(pairs: list[Pair], folder: Path, length: int, asked: argparse.Namespace, scratch: Path):
    """The trainer that `train_reward_model` would start."""
    settings = assume(
        PAPER.reward_model,
        base=str(folder),
        batch_size=asked.questions,
        micro_batch=max(1, asked.micro_batch // 2),
        epochs=1.0,
        max_length=length,
        held_out=0.0,
    )
    profile = profile_of(folder, asked, reward_model=settings)
    return reward_training.make_reward_trainer(profile, pairs, scratch)


def reward_model_step(folder: Path, shape: Shape, asked: argparse.Namespace, scratch: Path) -> dict[str, Phase]:
    """Phases of one optimiser step on `--questions` questions with two programs each."""
    rng, length = random.Random(0), (asked.prompt + asked.reply) // 2
    asks, room = length // 8, length - length // 8 - 2 * TURN
    pairs = [
        Pair(str(i), words(rng, asks, shape.vocabulary), *(words(rng, room, shape.vocabulary) for _ in range(2)), 1, 0)
        for i in range(asked.questions * (asked.steps + 1))
    ]
    trainer = reward_trainer(pairs, folder, length, asked, scratch)
    if {len(sequence) for row in trainer.train_dataset for sequence in row["sequences"]} != {length}:
        raise BenchError(f"A program does not have {length} tokens with its question; mend the tokenizer.")
    clock = run(trainer, asked)
    note(asked, trainer)
    optimiser = sum(clock.optimiser[1:]) / asked.steps
    programs = 2 * asked.questions
    flop = programs * update_flop(shape, length, 0, asked.variant == "lora")
    return {
        "update": Phase((clock.ends[-1] - clock.ends[0]) / asked.steps - optimiser, programs * length, flop),
        "optimiser": Phase(optimiser),
    }


def reinforce_rollout(folder: Path, shape: Shape, asked: argparse.Namespace, scratch: Path) -> dict[str, Phase]:
    """Phases of one rollout of `--questions` x `--replies` and its updates."""
    rng, n = random.Random(0), asked.replies
    room = asked.prompt - TURN - OPENING
    problems = [
        Problem(str(i), words(rng, room, shape.vocabulary), "solve", ("assert solve(1) == 1",))
        for i in range(asked.questions * (asked.steps + 1))
    ]
    settings = assume(
        PAPER.reinforce,
        rollout_questions=asked.questions,
        samples_per_question=n,
        steps=asked.steps + 1,
        updates_per_rollout=asked.updates,
        micro_batch=asked.micro_batch,
        max_new_tokens=asked.reply,
        eval_every=asked.steps + 1,
    )
    with Judge.from_settings(PAPER.judge, workers=min(8, os.cpu_count() or 1)) as judge:
        profile = profile_of(folder, asked, reinforce=settings)
        trainer = make_reinforce_trainer(profile, problems, rule_reward(judge, problems), scratch)
        trainer.stop = [-1]  # no token ends a reply
        clock = run(trainer, asked)
    note(asked, trainer)
    rows = log_rows(trainer.state.log_history, asked.updates)[-asked.steps :]
    reply = sum(row["length"] for row in rows) / asked.steps
    if reply < 0.9 * asked.reply:
        raise BenchError(f"Replies have {reply:.0f} tokens on average instead of {asked.reply}; let no token end them.")
    mean = {phase: sum(row[f"seconds_{phase}"] for row in rows) / asked.steps for phase in PHASES[:3]}
    mean["optimiser"] = sum(clock.optimiser[asked.updates :]) / asked.steps
    whole = (clock.ends[-1] - clock.ends[asked.updates - 1]) / asked.steps
    replies, length = asked.questions * n, asked.prompt + reply
    written = asked.questions * forward_flop(shape, 0, asked.prompt, 0) + replies * forward_flop(
        shape, asked.prompt, length, reply
    )
    update = update_flop(shape, length, reply, asked.variant == "lora")
    return {
        "generate": Phase(mean["generate"], round(replies * reply), written),
        "reward": Phase(mean["reward"]),
        "reference": Phase(mean["reference"], round(replies * length), replies * forward_flop(shape, 0, length, reply)),
        "update": Phase(whole - sum(mean.values()), round(replies * length), replies * update),
        "optimiser": Phase(mean["optimiser"]),
    }


def note(asked: argparse.Namespace, trainer) -> None:
    """What the trainer made of the request, for the record."""
    kinds = {True: set(), False: set()}
    for weight in trainer.model.parameters():
        kinds[weight.requires_grad].add(str(weight.dtype).removeprefix("torch."))
    asked.found = {
        "trained_weights": sorted(kinds[True]),
        "frozen_weights": sorted(kinds[False]),
        "autocast": "bfloat16" if trainer.args.bf16 else "none",
        "checkpointing": trainer.args.gradient_checkpointing,
        "optimiser": type(getattr(trainer.optimizer, "optimizer", trainer.optimizer)).__name__,
        "micro_batch": trainer.args.per_device_train_batch_size,
    }


STAGES: dict[str, Callable] = {"reward model": reward_model_step, "RL": reinforce_rollout}
