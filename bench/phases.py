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

from acelib.core import Engine, Profile, assume, load_profile
from acelib.judge import Judge
from acelib.preflight import CostModel
from acelib.rewards import rule_reward
from acelib.schema import Pair, Problem
from acelib.training import Shape, log_rows, make_reinforce_trainer
from acelib.training import reward_trainer as reward_training
from bench.architecture import OPENING, TURN, BenchError, forward_flop, update_flop, words

PAPER = load_profile("paper")
VARIANTS = {
    "full": "float32 weights and gradients, and Adam's two moments: 16 bytes per weight",
    "no-moments": "float32 weights and gradients, plain SGD in the place of Adam: 8 bytes per weight",
    "lora": "adapters of rank --rank with gradients and Adam's moments; frozen weights in the dtype of the passes",
    "nf4": "as lora, with the frozen weights in 4 bits (bitsandbytes)",
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


def engine(asked: argparse.Namespace) -> Engine:
    """The paper's, with adapters or vLLM as asked. vLLM shares its weights out over as many cards as there are."""
    return replace(
        PAPER.engine,
        lora_rank=asked.rank if asked.variant in ("lora", "nf4") else 0,
        quantise="nf4" if asked.variant == "nf4" else "none",
        gradient_checkpointing=not asked.keep,
        launch=PAPER.engine.launch if asked.world > 1 else "none",
        generation=asked.generation,
        vllm_parallel=math.gcd(PAPER.engine.vllm_parallel, asked.world),
    )


def profile_of(folder: Path, asked: argparse.Namespace, **sections) -> Profile:
    """The paper's profile for the model in `folder`, with `sections` of its own."""
    models = replace(PAPER.models, policy=str(folder), dtype=asked.dtype, device=asked.device.type)
    prompts = replace(PAPER.prompts, solve="{question}")
    plan = assume(PAPER.plan, gpus=asked.world, question_tokens=asked.prompt)
    return assume(PAPER, engine=engine(asked), models=models, prompts=prompts, plan=plan, seed=0, **sections)


def reward_profile(folder: Path, asked: argparse.Namespace) -> Profile:
    """Of notebook 04: two programs per question."""
    settings = assume(
        PAPER.reward_model,
        base=str(folder),
        batch_size=asked.questions,
        micro_batch=max(1, asked.micro_batch // 2),
        epochs=1.0,
        max_length=(asked.prompt + asked.reply) // 2,
        held_out=0.0,
    )
    return profile_of(folder, asked, reward_model=settings, pairs=assume(PAPER.pairs, max_pairs_per_question=1))


def reinforce_profile(folder: Path, asked: argparse.Namespace) -> Profile:
    """Of notebook 06."""
    settings = assume(
        PAPER.reinforce,
        rollout_questions=asked.questions,
        samples_per_question=asked.replies,
        steps=asked.steps + 1,
        updates_per_rollout=asked.updates,
        micro_batch=asked.micro_batch,
        max_new_tokens=asked.reply,
        eval_every=asked.steps + 1,
    )
    return profile_of(folder, asked, reinforce=settings)


def planned_gib(stage: str, folder: Path, shape: Shape, asked: argparse.Namespace) -> float:
    """The peak that `plan` computes for these counts."""
    if stage == "RL":
        gib = CostModel(reinforce_profile(folder, asked)).reinforce(shape, None)[2]
    else:
        gib = CostModel(reward_profile(folder, asked)).reward_model(shape)[2]
    return gib - (8 * shape.parameters / asked.world / 2**30 if asked.variant == "no-moments" else 0)


def reward_trainer(folder: Path, shape: Shape, asked: argparse.Namespace, scratch: Path):
    """The trainer of notebook 04, for programs of half as many tokens as prompt and reply have."""
    rng, length = random.Random(0), (asked.prompt + asked.reply) // 2
    asks, room = length // 8, length - length // 8 - 2 * TURN
    pairs = [
        Pair(str(i), words(rng, asks, shape.vocabulary), *(words(rng, room, shape.vocabulary) for _ in range(2)), 1, 0)
        for i in range(asked.questions * (asked.steps + 1))
    ]
    trainer = reward_training.make_reward_trainer(reward_profile(folder, asked), pairs, scratch)
    if {len(sequence) for row in trainer.train_dataset for sequence in row["sequences"]} != {length}:
        raise BenchError(f"A program does not have {length} tokens with its question; mend the tokenizer.")
    return trainer


def reward_model_step(folder: Path, shape: Shape, asked: argparse.Namespace, scratch: Path) -> dict[str, Phase]:
    """Phases of one optimiser step on `--questions` questions with two programs each."""
    trainer = reward_trainer(folder, shape, asked, scratch)
    clock = run(trainer, asked)
    note(asked, trainer)
    optimiser = sum(clock.optimiser[1:]) / asked.steps
    programs, length = 2 * asked.questions, (asked.prompt + asked.reply) // 2
    flop = programs * update_flop(shape, length, 0, asked.variant in ("lora", "nf4"))
    return {
        "update": Phase((clock.ends[-1] - clock.ends[0]) / asked.steps - optimiser, programs * length, flop),
        "optimiser": Phase(optimiser),
    }


def policy_trainer(reward: Callable, problems: list[Problem], folder: Path, asked: argparse.Namespace, scratch: Path):
    """The trainer of notebook 06, whose replies no token ends."""
    trainer = make_reinforce_trainer(reinforce_profile(folder, asked), problems, reward, scratch)
    trainer.stop = [-1]
    return trainer


def problems_of(shape: Shape, asked: argparse.Namespace) -> list[Problem]:
    rng, room = random.Random(0), asked.prompt - TURN - OPENING
    return [
        Problem(str(i), words(rng, room, shape.vocabulary), "solve", ("assert solve(1) == 1",))
        for i in range(asked.questions * (asked.steps + 1))
    ]


def reinforce_rollout(folder: Path, shape: Shape, asked: argparse.Namespace, scratch: Path) -> dict[str, Phase]:
    """Phases of one rollout of `--questions` x `--replies` and its updates."""
    problems, n = problems_of(shape, asked), asked.replies
    with Judge.from_settings(PAPER.judge, workers=min(8, os.cpu_count() or 1)) as judge:
        trainer = policy_trainer(rule_reward(judge, problems), problems, folder, asked, scratch)
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
    update = update_flop(shape, length, reply, asked.variant in ("lora", "nf4"))
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
