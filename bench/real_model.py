"""A model folder of yours: the course's sampler beside `transformers.generate`, one RL rollout beside stock TRL's.

    python bench/real_model.py --model <folder>     Qwen2.5-Coder-0.5B-Instruct, say; without a folder nothing is done

Sampling: programs for pocket questions at temperature 1, `--rows` at a time. Equal lengths: one batch in which no reply
ends before `--tokens`. Mixed lengths: three times as many replies, which end when they end; `generate` works them off
batch by batch. RL: one rollout of `--questions` x `--replies` with LoRA of rank 16, two updates, the length of a reply
as its reward, the same arguments for both trainers. Every measurement has a process of its own, so that its peak memory
is its own; CPU seconds are what to compare on a busy machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from datasets import Dataset
from training import CourseTrainer, StockTrainer, clocks, since
from transformers import PrinterCallback

from acelib.core import load_profile
from acelib.data import load_benchmark
from acelib.models import (
    SamplingParams,
    load_policy,
    load_tokenizer,
    pad,
    prompt_tokens,
    sample_tokens,
    solve_messages,
    stop_tokens,
)
from acelib.training import adapters, trainer_arguments

SUFFIX = "{question}\n\nReply with one Python function in a fenced code block."
SAMPLING = ("equal, transformers", "equal, acelib", "mixed, transformers", "mixed, acelib")
ROLLOUTS = ("TRL GRPOTrainer", "acelib ReinforceTrainer")
PHASES = ("generate", "reference", "update", "other")


def longest(completions: list, **_) -> list[float]:
    """A reward that needs no judge."""
    return [float(len(one[-1]["content"])) for one in completions]


def sampled(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """Tokens, and what they took without loading the model."""
    model, tokenizer = load_policy(asked.model, asked.dtype, "cpu"), load_tokenizer(asked.model)
    problems = load_benchmark(load_profile("pocket"), asked.rows * (1 if name.startswith("equal") else 3))
    prompts = prompt_tokens(tokenizer, [solve_messages(SUFFIX, one.question) for one in problems])
    stop = () if name.startswith("equal") else tuple(stop_tokens(model.generation_config.eos_token_id, tokenizer))
    params = SamplingParams(max_new_tokens=asked.tokens, batch_size=asked.rows, seed=0, stop=stop)
    start, count = clocks(), 0
    if name.endswith("acelib"):
        count = sum(len(row[0].ids) for row in sample_tokens(model, tokenizer, prompts, params))
    else:
        options = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0)
        options |= {"eos_token_id": list(stop)} if stop else {"min_new_tokens": asked.tokens}
        for begin in range(0, len(prompts), asked.rows):
            ids, mask = pad(prompts[begin : begin + asked.rows], tokenizer.pad_token_id)
            made = model.generate(
                ids, attention_mask=mask, max_new_tokens=asked.tokens, pad_token_id=tokenizer.pad_token_id, **options
            )[:, ids.shape[1] :]
            for row in made.tolist():
                ends = [at + 1 for at, token in enumerate(row) if token in stop]
                count += ends[0] if ends else len(row)
    wall, cpu = since(start)
    return {"tokens": count, "wall": wall, "cpu": cpu}


def rolled_out(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of each phase of a rollout, and its wall seconds."""
    changes = {"rollout_questions": asked.questions, "samples_per_question": asked.replies, "steps": 1}
    changes |= {"updates_per_rollout": 2, "micro_batch": 8, "max_new_tokens": asked.tokens}
    models = {"dtype": asked.dtype, "device": "cpu"}
    profile = load_profile("pocket", {"engine.lora_rank": 16, "reinforce": changes, "models": models})
    rows = [
        {"prompt": solve_messages(SUFFIX, one.question), "problem_id": one.id}
        for one in load_benchmark(profile, asked.questions)
    ]
    model, tokenizer = load_policy(asked.model, asked.dtype, "cpu"), load_tokenizer(asked.model)
    with tempfile.TemporaryDirectory() as folder:
        args = trainer_arguments(profile, Path(folder))
        args.save_strategy = "no"
        if name == ROLLOUTS[0]:
            options = dict(processing_class=tokenizer, train_dataset=Dataset.from_list(rows), reward_funcs=longest)
            trainer = StockTrainer(model=model, args=args, peft_config=adapters(profile.engine, "CAUSAL_LM"), **options)
        else:
            dataset = Dataset.from_list(rows)
            trainer = CourseTrainer(profile, model, tokenizer, dataset, longest, args)
        trainer.remove_callback(PrinterCallback)
        start = clocks()
        trainer.train()
        wall, cpu = since(start)
    spent = {phase: trainer.spent[phase][1] for phase in PHASES}
    log = next(row for row in trainer.state.log_history if "completions/mean_length" in row)
    return spent | {"cpu": cpu, "wall": wall, "tokens": log["completions/mean_length"]}


def measured(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """What `--one` prints in a fresh process."""
    passed = [f"--{key}={value}" for key, value in vars(asked).items() if key not in ("one", "passes", "only")]
    done = subprocess.run(
        [sys.executable, __file__, *passed, "--one", name], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def table(columns: tuple[str, ...], rows: dict[str, list[str]]) -> None:
    print("\n| |", " | ".join(columns), "|\n|---|" + "---|" * len(columns))
    for name, cells in rows.items():
        print(f"| {name} |", " | ".join(cells), "|")


def best(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """Of several passes the one that took least CPU time."""
    return min((measured(name, asked) for _ in range(asked.passes)), key=lambda one: one["cpu"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--replies", type=int, default=8)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--only", choices=["sampling", "rl"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.model:
        print("Nothing was measured: name a model folder with --model.")
    elif asked.one:
        found = (sampled if asked.one in SAMPLING else rolled_out)(asked.one, asked)
        print(json.dumps(found | {"gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
    else:
        print(f"{Path(asked.model).name}, {asked.dtype}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
        if asked.only != "rl":
            found = {name: best(name, asked) for name in SAMPLING}
            rows = {
                name: [f"{one['tokens'] / one[kind]:.0f}" for kind in ("wall", "cpu")] + [f"{one['gib']:.1f}"]
                for name, one in found.items()
            }
            table(("tokens/s", "tokens per CPU second", "GiB"), rows)
        if asked.only != "sampling":
            found = {name: best(name, asked) for name in ROLLOUTS}
            columns = (*PHASES, "cpu", "wall", "tokens", "gib")
            table(columns, {name: [f"{one[key]:.1f}" for key in columns] for name, one in found.items()})


if __name__ == "__main__":
    main()
