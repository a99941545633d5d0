"""The course's trainers beside TRL's own, on the same work, passes interleaved.

    python bench/training.py               both tables
    python bench/training.py --only rm     the reward model; `--only rl` for RL

Reward model: one epoch over the same questions and pairs in as many optimiser steps, from the same backbone. Two, six
and twelve pairs of a question hold three, six and eight distinct programs, as they do on average in a pocket run.
RL: rollouts of the pocket profile, from the same policy with the same arguments, on questions of the benchmark with the
judge as reward. Both trainers are measured by the same hooks; `reference` is every pass without gradient (GRPO also
takes the old policy's log-probs there), `other` is optimiser, data and logging.

The stock trainers run in float32 without gradient checkpointing; for RL, TRL's defaults have lines of their own (bf16
pays only where the CPU multiplies it in hardware). CPU time counts the judge's processes. On a busy machine
OMP_NUM_THREADS=1 gives the steadier figures.
"""

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from judge import cpu_seconds

from acelib.course import contain

contain()  # before the libraries look for their caches

import torch
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback
from trl import GRPOTrainer, RewardConfig, RewardTrainer

from acelib.core import load_profile
from acelib.data import load_benchmark
from acelib.judge import Judge
from acelib.models import load_policy, load_tokenizer, solve_messages
from acelib.pocket import corpus, mistakes
from acelib.pocket import problems as pocket
from acelib.reward_model import question_rows
from acelib.rewards import rule_reward
from acelib.schema import Pair
from acelib.training import QuestionRewardTrainer, ReinforceTrainer, question_order, trainer_arguments

PROFILE = load_profile("pocket")
QUESTIONS, MICRO_PAIRS = 96, 8  # eight pairs per forward pass are the fastest for TRL here
SHAPES = {2: (1, 2), 6: (3, 2), 12: (4, 3)}  # pairs of a question: right programs, partners of each
ROLLOUTS = 2
STOCK = {
    "TRL GRPOTrainer": {},
    "TRL GRPOTrainer, checkpointing": {"gradient_checkpointing": True},
    "TRL GRPOTrainer, checkpointing and bf16 (its defaults)": {"gradient_checkpointing": True, "bf16": True},
}
PHASES = ("generate", "reward", "reference", "update", "other")


def clocks() -> tuple[float, float]:
    """Wall and CPU seconds so far."""
    return time.perf_counter(), cpu_seconds(os.getpid())


def since(start: tuple[float, float]) -> tuple[float, float]:
    return tuple(now - then for now, then in zip(clocks(), start))


def median(measured: list[tuple[float, float]]) -> tuple[float, float]:
    return tuple(statistics.median(column) for column in zip(*measured))


# --- reward model ----------------------------------------------------------------------------------------------------


def make_pairs(count: int) -> list[Pair]:
    """`count` pairs for each of `QUESTIONS` questions of the pocket world: right programs against misread ones."""
    rng = random.Random(0)
    right, partners = SHAPES[count]
    wrong, pairs = max(right, partners), []
    compositions = pocket.compositions(0, "seeds")
    while len(pairs) < QUESTIONS * count:
        asked = next(compositions)
        question = pocket.phrase_question(rng, asked, "solve", "xs")
        programs: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for _ in range(200):
            meant = asked if rng.random() < 0.5 else mistakes.misread(rng, asked)
            text = corpus.solve_messages(question, pocket.write_program(rng, meant, "solve", "xs"))[1]["content"]
            programs[meant.key == asked.key][text] = None
        good, bad = list(programs[True])[:right], list(programs[False])[:wrong]
        if len(good) == right and len(bad) == wrong:
            pairs += [
                Pair(str(len(pairs)), question, good[i], bad[(i + shift) % wrong], 1.0, 0.5)
                for i in range(right)
                for shift in range(partners)
            ]
    return [replace(pair, problem_id=str(i // count)) for i, pair in enumerate(pairs)]


def reward_trainer(name: str, pairs: list[Pair], folder: str) -> RewardTrainer:
    settings, base = PROFILE.reward_model, PROFILE.resolve(PROFILE.reward_model.base)
    tokenizer = load_tokenizer(base)
    common = dict(
        output_dir=folder,
        learning_rate=settings.learning_rate,
        num_train_epochs=1,
        max_length=settings.max_length,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=5,
        dataloader_pin_memory=False,
        bf16=False,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
    )
    if name.startswith("acelib"):
        args = RewardConfig(per_device_train_batch_size=settings.batch_size, remove_unused_columns=False, **common)
        rows = Dataset.from_list(question_rows(pairs, tokenizer, settings.max_length))
        trainer = QuestionRewardTrainer(
            model=base, args=args, n=PROFILE.sampling.n, processing_class=tokenizer, train_dataset=rows
        )
        trainer.shares_prompts = name.endswith("shared prefix")
        return trainer
    batch = settings.batch_size * len(pairs) // QUESTIONS
    micro = min(batch, MICRO_PAIRS)
    args = RewardConfig(per_device_train_batch_size=micro, gradient_accumulation_steps=batch // micro, **common)
    rows = [
        {
            side: [{"role": "user", "content": pair.instruction}, {"role": "assistant", "content": getattr(pair, side)}]
            for side in ("chosen", "rejected")
        }
        for pair in pairs
    ]
    return RewardTrainer(model=base, args=args, processing_class=tokenizer, train_dataset=Dataset.from_list(rows))


def compare_reward_models(passes: int) -> None:
    names = ["TRL RewardTrainer", "acelib", "acelib, shared prefix"]
    counts = list(SHAPES)
    pairs = {count: make_pairs(count) for count in counts}
    measured = {(name, count): [] for name in names for count in counts}
    steps = set()
    for number in range(passes + 1):
        for (name, count), results in measured.items():
            if number == 0 and count != counts[0]:
                continue  # the first pass only warms up
            with tempfile.TemporaryDirectory() as folder:
                trainer = reward_trainer(name, pairs[count], folder)
                trainer.remove_callback(PrinterCallback)
                start = clocks()
                trainer.train()
                if number:
                    results.append(since(start))
                steps.add(trainer.state.global_step)
    assert len(steps) == 1, steps
    print(
        f"\nReward model: one epoch over {QUESTIONS} questions, {steps.pop()} optimiser steps, medians of {passes} "
        "passes; wall s / CPU s, and how many times cheaper than TRL in CPU time\n"
    )
    titles = [f"{c} pairs, {len({t for p in pairs[c][:c] for t in (p.chosen, p.rejected)})} programs" for c in counts]
    print("| trainer |", " | ".join(titles), "|\n|---|" + "---|" * len(titles))
    stock = {count: median(measured[names[0], count])[1] for count in counts}
    for name in names:
        cells = []
        for count in counts:
            wall, cpu = median(measured[name, count])
            cells.append(f"{wall:.2f} / {cpu:.2f} ({stock[count] / cpu:.2f}x)")
        print(f"| {name} |", " | ".join(cells), "|")


# --- RL --------------------------------------------------------------------------------------------------------------


class Phases:
    """Mixed into a trainer: wall and CPU seconds of each phase, without those of the phases inside it."""

    def __init__(self, *args, **kwargs):
        self.spent = dict.fromkeys(PHASES, (0.0, 0.0))
        self._open, self._mark = ["other"], None
        super().__init__(*args, **kwargs)

    def _switch(self) -> None:
        if self._mark is not None:
            phase = self._open[-1]
            self.spent[phase] = tuple(a + b for a, b in zip(self.spent[phase], since(self._mark)))
        self._mark = clocks()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._switch()
        self._open.append(name)
        yield
        self._switch()
        self._open.pop()

    def train(self, *args, **kwargs):
        with self.phase("other"):
            return super().train(*args, **kwargs)

    def training_step(self, *args, **kwargs):
        with self.phase("update"):
            return super().training_step(*args, **kwargs)

    def _generate_and_score_completions(self, *args, **kwargs):
        with self.phase("other"):
            return super()._generate_and_score_completions(*args, **kwargs)

    def _generate(self, *args, **kwargs):
        with self.phase("generate"):
            return super()._generate(*args, **kwargs)

    def _calculate_rewards(self, *args, **kwargs):
        with self.phase("reward"):
            return super()._calculate_rewards(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        with self.phase("update" if torch.is_grad_enabled() else "reference"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)


class StockTrainer(Phases, GRPOTrainer):
    pass


class CourseTrainer(Phases, ReinforceTrainer):
    def sampled_share(self, done: float) -> None:
        """Nobody asks for progress here; in the course `RolloutMonitor` does."""


def rl_trainer(name: str, problems: list, reward: Callable, rollouts: int, folder: str) -> Phases:
    settings, path = replace(PROFILE.reinforce, steps=rollouts), PROFILE.resolve(PROFILE.models.policy)
    profile = replace(PROFILE, reinforce=settings, models=replace(PROFILE.models, device="cpu"))
    model, tokenizer = load_policy(path, device="cpu"), load_tokenizer(path)
    order = question_order(len(problems), rollouts * settings.rollout_questions, PROFILE.seed)
    dataset = Dataset.from_list(
        [
            {"prompt": solve_messages(PROFILE.prompts.solve, problems[i].question), "problem_id": problems[i].id}
            for i in order
        ]
    )
    args = trainer_arguments(profile, Path(folder))
    args.save_strategy = "no"
    if name.startswith("acelib"):
        return CourseTrainer(profile, model, tokenizer, dataset, reward, args)
    if changes := STOCK[name]:
        args = replace(args, generation_batch_size=None, **changes)  # that size follows from the others
    return StockTrainer(model=model, processing_class=tokenizer, train_dataset=dataset, reward_funcs=reward, args=args)


def compare_rl(passes: int) -> None:
    names = [*STOCK, "acelib ReinforceTrainer"]
    problems = load_benchmark(PROFILE)
    measured = {name: {phase: [] for phase in PHASES} for name in names}
    lengths = {name: [] for name in names}
    with Judge(workers=PROFILE.judge.workers) as judge:
        reward = rule_reward(judge, problems)
        for number in range(passes + 1):
            for name in names:
                rollouts = ROLLOUTS if number else 1  # the first pass only warms up
                with tempfile.TemporaryDirectory() as folder:
                    trainer = rl_trainer(name, problems, reward, rollouts, folder)
                    trainer.remove_callback(PrinterCallback)
                    trainer.train()
                if number:
                    for phase, cost in trainer.spent.items():
                        measured[name][phase].append(tuple(seconds / rollouts for seconds in cost))
                    lengths[name] += [
                        row["completions/mean_length"]
                        for row in trainer.state.log_history
                        if "completions/mean_length" in row
                    ]
    rl = PROFILE.reinforce
    print(
        f"\nRL: {rl.rollout_questions} questions x {rl.samples_per_question} replies, {rl.updates_per_rollout} "
        f"updates per rollout, medians of {passes} passes of {ROLLOUTS} rollouts; wall s / CPU s per rollout\n"
    )
    print("| trainer |", " | ".join(PHASES), "| all | times cheaper in CPU | tokens per reply |\n|---|" + "---|" * 8)
    stock = None
    for name in names:
        cells = [median(measured[name][phase]) for phase in PHASES]
        wall, cpu = median([tuple(map(sum, zip(*one))) for one in zip(*measured[name].values())])
        stock = stock or cpu
        text = " | ".join(f"{w:.2f} / {c:.2f}" for w, c in [*cells, (wall, cpu)])
        print(f"| {name} | {text} | {stock / cpu:.2f}x | {statistics.fmean(lengths[name]):.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--only", choices=["rm", "rl"])
    arguments = parser.parse_args()
    disable_progress_bars()
    torch.set_num_threads(max(1, min(PROFILE.threads, torch.get_num_threads())))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"{torch.get_num_threads()} threads; Python {platform.python_version()}, {packages}"
    )
    if arguments.only != "rl":
        compare_reward_models(arguments.passes)
    if arguments.only != "rm":
        compare_rl(arguments.passes)
