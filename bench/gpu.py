"""What a GPU makes of the course's own trainers at the paper's shapes, with random weights of the true architecture.

    python bench/gpu.py --sizes 0.5B 1.5B             one reward model and one RL training each
    python bench/gpu.py --sizes 7B --variant lora     7B on one card; see docs/hardware.md for the choices
    python bench/gpu.py --tiny                        the same code on a CPU, in seconds, with a toy shape
    accelerate launch --config_file configs/zero3-8.yaml bench/gpu.py --sizes 7B --generation vllm    eight cards

Reward model: pairs of programs of `--prompt` + `--reply` / 2 tokens with their question (2,048 in the paper). RL:
REINFORCE++ with the rule, `--prompt` + `--reply` tokens per reply (2,048 + 2,048). Every sequence is exactly as long as
it may be: the end-of-sequence token stops nothing (where vLLM samples it does, once in as many tokens as there are
words), and one word of the tokenizer is one token. Programs of random words do not parse, so the seconds of the reward
are what the judge takes to say so. The first step only warms up.

Needed operations, a multiplication and an addition counted as two; N: weights that multiply a token (no embeddings, and
the output head only where its logits are used), L: layers, h: width, s..e: the positions that are run:
    forward(s, e) = 2 N (e - s) + 2 L h (e^2 - s^2)                                            causal attention
    generate  = questions * forward(0, prompt) + replies * forward(prompt, prompt + reply)
    reference = replies * forward(0, prompt + reply)
    update    = 3 * that; with LoRA the weights' gradients, 2 N per token, are not needed
What gradient checkpointing computes again, and passes beyond these, cost time and count nothing. Generation is timed up
to the last token, the optimiser on its own, and `update` is all that the other phases are not.

One Markdown table per measurement goes to `--out`, and one line of JSON beside it (.jsonl).
"""
# ruff: noqa: E402

import argparse
import gc
import inspect
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from acelib.course import contain

contain()  # before the libraries look for their caches

import torch
from accelerate import PartialState
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Qwen2Config,
    TrainerCallback,
)
from trl import RewardConfig

from acelib.artifacts import peak_memory_mb, versions
from acelib.errors import CourseError
from acelib.judge import Judge
from acelib.models import load_tokenizer
from acelib.plan import SHAPES, Shape
from acelib.pocket.train import save
from acelib.profiles import ROOT, load_profile
from acelib.reinforce import make_trainer
from acelib.reinforce_log import log_rows
from acelib.reward_model import QuestionRewardTrainer, question_rows
from acelib.rewards import rule_reward
from acelib.schema import Pair, Problem

PAPER = load_profile("paper")
HEADS = {"0.5B": 14, "1.5B": 12, "7B": 28}  # query heads, from the models' config.json
TINY = Shape(layers=2, hidden=64, intermediate=128, key_values=32, vocabulary=512, tied=True)
VARIANTS = {
    "full": "float32 weights and gradients, and Adam's two moments: 16 bytes per weight",
    "no-moments": "float32 weights and gradients, plain SGD in the place of Adam: 8 bytes per weight",
    "lora": "adapters of rank --rank, their gradients and Adam's moments; the other weights stay as they are",
}
PHASES = ("generate", "reward", "reference", "update", "optimiser")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "user", "assistant"]
CHATML = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
TURN, OPENING = 3, 2  # tokens that the template adds to a message, and before a reply


class BenchError(CourseError):
    """A measurement that cannot be made here, or that measured something else than it says."""


@dataclass(frozen=True)
class Phase:
    """What one phase of a step took, and what it had to compute."""

    seconds: float
    tokens: int = 0
    flop: float = 0.0


# --- shapes, operations, the card's rate -----------------------------------------------------------------------------


def forward_flop(shape: Shape, start: float, end: float, logits: float) -> float:
    """Operations of running positions `start` to `end` of one sequence, and the output head at `logits` of them."""
    table = shape.vocabulary * shape.hidden
    weights = shape.parameters - table * (1 if shape.tied else 2)
    attention = 2 * shape.layers * shape.hidden * (end**2 - start**2)
    return 2 * weights * (end - start) + 2 * table * logits + attention


def update_flop(shape: Shape, length: float, logits: float, lora: bool) -> float:
    """Operations of forward and backward of one sequence."""
    forward = forward_flop(shape, 0, length, logits)
    return 2 * forward + 2 * shape.layers * shape.hidden * length**2 if lora else 3 * forward


def matrix_rate(device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...], repeats: int = 5) -> float:
    """Operations per second of the best square matrix product, ten in a row."""
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        for _ in range(repeats + 1):  # the first one warms up
            start = now(device)
            for _ in range(10):
                a @ b
            best = max(best, 20 * size**3 / (now(device) - start))
    return best


def now(device: torch.device) -> float:
    """Seconds, once everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token per word, for every id of the vocabulary, so that texts of any exact length can be written."""
    words = SPECIAL + [f"w{i}" for i in range(vocabulary - len(SPECIAL))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   unk_token="<|endoftext|>", chat_template=CHATML, model_max_length=32_768)


def architecture(shape: Shape, heads: int, **tokens: int) -> Qwen2Config:
    """The configuration of a Qwen2.5 model of this shape."""
    return Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=heads,
        num_key_value_heads=shape.key_values * heads // shape.hidden, max_position_embeddings=32_768,
        rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=shape.tied, bos_token_id=None, **tokens,
    )


def random_model(shape: Shape, heads: int, folder: Path, device: torch.device) -> Path:
    """A folder with random bf16 weights of this shape, as the hub's are stored; made once."""
    if (folder / "tokenizer_config.json").is_file():
        return folder
    tokenizer = word_tokenizer(shape.vocabulary)
    config = architecture(shape, heads, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if model.num_parameters() != shape.parameters:
        raise BenchError(f"The model has {model.num_parameters():,} weights and its shape says {shape.parameters:,}; "
                         "mend acelib.plan.SHAPES.")
    save(model, tokenizer, folder)
    return folder


def words(rng: random.Random, count: int, vocabulary: int) -> str:
    return " ".join(f"w{rng.randrange(vocabulary - len(SPECIAL))}" for _ in range(count))


# --- the two trainings -----------------------------------------------------------------------------------------------


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


def run(trainer, variant: str, device: torch.device) -> Clock:
    """Trains without checkpoints, which would be measured, and fill disks."""
    clock = Clock(device)
    trainer.args.save_strategy = "no"
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    if variant == "no-moments":
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=trainer.args.learning_rate)
    trainer.train()
    return clock


def reward_model_step(folder: Path, shape: Shape, asked: argparse.Namespace, scratch: Path) -> dict[str, Phase]:
    """Phases of one optimiser step on `--questions` questions with two programs each."""
    rng, length = random.Random(0), (asked.prompt + asked.reply) // 2
    asks, room = length // 8, length - length // 8 - 2 * TURN
    pairs = [
        Pair(str(i), words(rng, asks, shape.vocabulary), *(words(rng, room, shape.vocabulary) for _ in range(2)), 1, 0)
        for i in range(asked.questions * (asked.steps + 1))
    ]
    tokenizer, gpu = load_tokenizer(folder), asked.device.type == "cuda"
    rows = question_rows(pairs, tokenizer, length)
    if {len(sequence) for row in rows for sequence in row["sequences"]} != {length}:
        raise BenchError(f"A program does not have {length} tokens with its question; mend the tokenizer.")
    mine, at_once = asked.questions // asked.world, max(1, asked.micro_batch // 2)
    args = RewardConfig(  # as in acelib.reward_model.train_reward_model, which would keep checkpoints
        output_dir=str(scratch), learning_rate=PAPER.reward_model.learning_rate, max_steps=asked.steps + 1,
        per_device_train_batch_size=at_once, gradient_accumulation_steps=max(1, mine // at_once), max_length=length,
        bf16=gpu, gradient_checkpointing=gpu, use_cpu=not gpu, report_to="none", disable_tqdm=True, save_strategy="no",
        dataloader_pin_memory=gpu, remove_unused_columns=False,
        model_init_kwargs={"dtype": "bfloat16" if gpu and asked.variant == "lora" else "float32"},
    )
    adapters = LoraConfig(r=asked.rank, lora_alpha=2 * asked.rank, target_modules="all-linear", task_type="SEQ_CLS",
                          modules_to_save=["score"])
    trainer = QuestionRewardTrainer(
        model=str(folder), args=args, n=PAPER.sampling.n, processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows), peft_config=adapters if asked.variant == "lora" else None,
    )
    clock = run(trainer, asked.variant, asked.device)
    optimiser = sum(clock.optimiser[1:]) / asked.steps
    programs = 2 * asked.questions
    flop = programs * update_flop(shape, length, 0, asked.variant == "lora")
    note(asked, trainer)
    return {"update": Phase((clock.ends[-1] - clock.ends[0]) / asked.steps - optimiser, programs * length, flop),
            "optimiser": Phase(optimiser)}


def reinforce_rollout(folder: Path, shape: Shape, asked: argparse.Namespace, scratch: Path) -> dict[str, Phase]:
    """Phases of one rollout of `--questions` x `--replies` and its updates."""
    rng, n = random.Random(0), asked.replies
    room = asked.prompt - TURN - OPENING
    problems = [Problem(str(i), words(rng, room, shape.vocabulary), "solve", ("assert solve(1) == 1",))
                for i in range(asked.questions * (asked.steps + 1))]
    settings = replace(
        PAPER.reinforce, rollout_questions=asked.questions, samples_per_question=n, steps=asked.steps + 1,
        updates_per_rollout=asked.updates, micro_batch=asked.micro_batch, max_new_tokens=asked.reply,
        eval_every=asked.steps + 1,
    )
    with Judge(workers=min(8, os.cpu_count() or 1), limits=PAPER.judge_limits()) as judge:
        trainer = make_trainer(
            folder, problems, rule_reward(judge, problems), scratch, settings=settings, prompt="{question}", seed=0,
            dtype="bfloat16" if asked.device.type == "cuda" else "float32", device=asked.device.type, **engine(asked),
        )
        trainer.stop = [-1]  # no token ends a reply
        clock = run(trainer, asked.variant, asked.device)
    note(asked, trainer)
    rows = log_rows(trainer.state.log_history, asked.updates)[-asked.steps:]
    reply = sum(row["length"] for row in rows) / asked.steps
    if reply < 0.9 * asked.reply:
        raise BenchError(f"Replies have {reply:.0f} tokens on average instead of {asked.reply}; let no token end them.")
    mean = {phase: sum(row[f"seconds_{phase}"] for row in rows) / asked.steps for phase in PHASES[:3]}
    mean["optimiser"] = sum(clock.optimiser[asked.updates :]) / asked.steps
    whole = (clock.ends[-1] - clock.ends[asked.updates - 1]) / asked.steps
    replies, length = asked.questions * n, asked.prompt + reply
    written = (asked.questions * forward_flop(shape, 0, asked.prompt, 0)
               + replies * forward_flop(shape, asked.prompt, length, reply))
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
        "trained_weights": sorted(kinds[True]), "frozen_weights": sorted(kinds[False]),
        "autocast": "bfloat16" if trainer.args.bf16 else "none", "checkpointing": trainer.args.gradient_checkpointing,
        "optimiser": type(getattr(trainer.optimizer, "optimizer", trainer.optimizer)).__name__,
        "micro_batch": trainer.args.per_device_train_batch_size,
    }


STAGES: dict[str, Callable] = {"reward model": reward_model_step, "RL": reinforce_rollout}


def engine(asked: argparse.Namespace) -> dict:
    """What makes the course's own RL trainer learn adapters, or let vLLM write."""
    rank = asked.rank if asked.variant == "lora" else 0
    if not rank and asked.generation == "transformers":
        return {}
    if "engine" not in inspect.signature(make_trainer).parameters:
        raise BenchError("The RL trainer of this checkout knows neither adapters nor vLLM; take --variant full or "
                         "no-moments, and --generation transformers.")
    return {"engine": replace(PAPER.engine, lora_rank=rank, generation=asked.generation)}


# --- the record ------------------------------------------------------------------------------------------------------


def memory(device: torch.device) -> dict[str, float]:
    """Peak GiB: allocated and reserved on the card, or the resident set of this process since its start."""
    if device.type != "cuda":
        return {"resident": peak_memory_mb() / 1024}
    peaks = {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    return {name: peak / 2**30 for name, peak in peaks.items()}


def table(record: dict) -> str:
    """A measurement as Markdown. Shares of the matrix rate are of all cards together."""
    rate = record["matrix_tflops"] * record["devices"]
    peaks = ", ".join(f"{value:.1f} GiB {name}" for name, value in record["peak_gib"].items())
    lines = [
        f"### {record['model']}, {record['stage']}, {record['variant']}: {record['devices']} x {record['device']}", "",
        f"{record['date']}: `{record['command']}`", "",
        f"Peak {peaks}; matrix products {record['matrix_tflops']:.3g} TFLOP/s ({record['matrix_dtype']}).", "",
        "| phase | seconds | share of time | tokens | tokens/s | TFLOP | share of matrix rate |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = record["phases"]["all"]["seconds"]
    for name, phase in record["phases"].items():
        seconds, tokens, tflop = phase["seconds"], phase["tokens"], phase["flop"] / 1e12
        speed = (f"{tokens:,} | {tokens / seconds:,.0f} | {tflop:,.4g} | {tflop / seconds / rate:.1%}" if tokens
                 else "– | – | – | –")
        lines.append(f"| {name} | {seconds:.3f} | {seconds / whole:.1%} | {speed} |")
    return "\n".join(lines) + "\n\n"


def measure(stage: str, size: str, shape: Shape, folder: Path, rate: float, asked: argparse.Namespace) -> dict:
    """One record: a step of `stage`, phase by phase and as a whole."""
    cuda = asked.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as scratch:
        phases = STAGES[stage](folder, shape, asked, Path(scratch))
    # Tokens of the whole are those that are trained on: prompts and replies.
    phases["all"] = Phase(sum(one.seconds for one in phases.values()), phases["update"].tokens,
                          sum(one.flop for one in phases.values()))
    return {
        "date": time.strftime("%Y-%m-%d"), "command": " ".join(["python", "bench/gpu.py", *asked.words]),
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "devices": asked.world, "driver_cuda": torch.version.cuda, "versions": versions(), "model": size,
        "parameters": shape.parameters, "stage": stage, "variant": asked.variant,
        "generation": asked.generation, **asked.found,
        "questions": asked.questions, "replies": asked.replies, "prompt": asked.prompt, "reply": asked.reply,
        "updates": asked.updates, "steps": asked.steps, "matrix_tflops": rate / 1e12,
        "matrix_dtype": str(asked.dtype).removeprefix("torch."), "peak_gib": memory(asked.device),
        "phases": {name: vars(one) for name, one in phases.items()},
    }


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=HEADS, default=["0.5B"])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--variant", choices=VARIANTS, default="full",
                        help="; ".join(f"{name}: {what}" for name, what in VARIANTS.items()))
    parser.add_argument("--rank", type=int, default=64, help="of LoRA's adapters")
    parser.add_argument("--generation", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--questions", type=int, default=4, help="per step or rollout, on all cards together")
    parser.add_argument("--replies", type=int, default=8, help="per question")
    parser.add_argument("--updates", type=int, default=1, help="per rollout")
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences per forward pass with gradient")
    parser.add_argument("--prompt", type=int, default=2048, help="tokens")
    parser.add_argument("--reply", type=int, default=2048, help="tokens")
    parser.add_argument("--steps", type=int, default=2, help="measured ones, after one that warms up")
    parser.add_argument("--tiny", action="store_true", help="a toy shape, on the CPU")
    parser.add_argument("--models", type=Path, default=ROOT / "runs" / "gpu" / "models", help="kept for the next time")
    parser.add_argument("--out", type=Path, help="Markdown file to append to (default: runs/gpu/results.md)")
    asked = parser.parse_args(words)
    asked.words, asked.world = words, int(os.environ.get("WORLD_SIZE", 1))
    asked.device = torch.device("cpu" if asked.tiny else "cuda")
    asked.dtype = torch.float32 if asked.tiny else torch.bfloat16
    asked.out = asked.out or ROOT / "runs" / "gpu" / ("tiny.md" if asked.tiny else "results.md")
    return asked


def main(words: list[str]) -> int:
    asked = arguments(words)
    if not asked.tiny and not torch.cuda.is_available():
        print("bench/gpu.py measures a GPU and finds none; `python bench/gpu.py --tiny` runs the same code on a CPU.")
        return 0
    disable_progress_bars()
    processes = PartialState(cpu=asked.tiny)
    rate = matrix_rate(asked.device, asked.dtype, (256,) if asked.tiny else (4096, 8192, 16_384))
    failed = 0
    for size in ["tiny"] if asked.tiny else asked.sizes:
        shape, heads = (TINY, 4) if asked.tiny else (SHAPES[size], HEADS[size])
        with processes.main_process_first():
            folder = random_model(shape, heads, asked.models / size, asked.device)
        for stage in asked.stages:
            try:
                record = measure(stage, size, shape, folder, rate, asked)
            except torch.cuda.OutOfMemoryError:
                print(f"{size}, {stage}, {asked.variant}: out of the card's memory; lower --micro-batch or "
                      "--questions, or take another --variant.", file=sys.stderr)
                failed = 1
                continue
            finally:
                gc.collect()
                if not asked.tiny:
                    torch.cuda.empty_cache()
            if processes.is_main_process:
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                with asked.out.open("a", encoding="utf-8") as lines:
                    lines.write(table(record))
                with asked.out.with_suffix(".jsonl").open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(record) + "\n")
                print(table(record), flush=True)
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CourseError as error:
        sys.exit(str(error))
