"""What a GPU makes of the course's own trainers at the paper's shapes, with random weights of the true architecture.

    python bench/gpu.py --sizes 0.5B                  one reward-model training and one RL training
    python bench/gpu.py --sizes 7B --variant lora     7B on one card; bench/README.md has the choices for each card
    python bench/gpu.py --tiny                        the same code on a CPU, in seconds, with a toy shape
    accelerate launch --config_file configs/zero3-8.yaml bench/gpu.py --sizes 7B --stages RL --generation vllm

Reward model: pairs of programs of (`--prompt` + `--reply`) / 2 tokens with their question (2,048 in the paper). RL:
REINFORCE++ with the rule, `--prompt` + `--reply` tokens per reply (2,048 + 2,048). The trainers are those that
`acelib.training` makes from profile `paper`; nothing is saved. Sequences are as long as
they may be: the end-of-sequence token stops nothing (where vLLM samples it does, once in as many tokens as there
are words). Programs of random words do not parse, so the seconds of the reward are what the judge takes to say so. The
first step only warms up.

Generation is timed up to the last token, the optimiser on its own (by DeepSpeed it is called inside `update`), and
`update` is all that the other phases are not. One Markdown table per measurement goes to `--out`, and one line of JSON
beside it (.jsonl).
"""
# ruff: noqa: E402

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `bench` is not installed

from acelib.course import contain

contain()  # before the libraries look for their caches

import torch
from accelerate import PartialState
from datasets import disable_progress_bars

from acelib.core import ROOT, CourseError, peak_memory_mb, versions
from acelib.training import SHAPES, Shape
from bench.architecture import HEADS, TINY, random_model
from bench.phases import STAGES, VARIANTS, Phase, now, planned_gib


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
        f"### {record['model']}, {record['stage']}, {record['variant']}: {record['devices']} x {record['device']}",
        "",
        f"{record['date']}: `{record['command']}`",
        "",
        f"Peak {peaks} ({record['planned_gib']:.1f} GiB computed).",
        "",
        f"Matrix products {record['matrix_tflops']:.3g} TFLOP/s ({record['matrix_dtype']}).",
        "",
        "| phase | seconds | share of time | tokens | tokens/s | TFLOP | share of matrix rate |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = record["phases"]["all"]["seconds"]
    for name, phase in record["phases"].items():
        seconds, tokens, tflop = phase["seconds"], phase["tokens"], phase["flop"] / 1e12
        speed = (
            f"{tokens:,} | {tokens / seconds:,.0f} | {tflop:,.4g} | {tflop / seconds / rate:.1%}"
            if tokens
            else "– | – | – | –"
        )
        lines.append(f"| {name} | {seconds:.3f} | {seconds / whole:.1%} | {speed} |")
    return "\n".join(lines) + "\n\n"


def measure(stage: str, size: str, shape: Shape, folder: Path, rate: float, asked: argparse.Namespace) -> dict:
    """One record: a step of `stage`, phase by phase and as a whole."""
    cuda = asked.device.type == "cuda"
    if cuda:  # what earlier measurements left would count as this one's, and vLLM would find it missing
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as scratch:
        phases = STAGES[stage](folder, shape, asked, Path(scratch))
    # Tokens of the whole are those that are trained on: prompts and replies.
    phases["all"] = Phase(
        sum(one.seconds for one in phases.values()), phases["update"].tokens, sum(one.flop for one in phases.values())
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "bench/gpu.py", *asked.words]),
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "devices": asked.world,
        "driver_cuda": torch.version.cuda,
        "versions": versions(),
        "model": size,
        "parameters": shape.parameters,
        "stage": stage,
        "variant": asked.variant,
        "generation": asked.generation,
        **asked.found,
        "questions": asked.questions,
        "replies": asked.replies,
        "prompt": asked.prompt,
        "reply": asked.reply,
        "updates": asked.updates,
        "steps": asked.steps,
        "matrix_tflops": rate / 1e12,
        "matrix_dtype": asked.dtype,
        "peak_gib": memory(asked.device),
        "planned_gib": planned_gib(stage, folder, shape, asked),
        "phases": {name: vars(one) for name, one in phases.items()},
    }


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=HEADS, default=["0.5B"])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        default="full",
        help="; ".join(f"{name}: {what}" for name, what in VARIANTS.items()),
    )
    parser.add_argument("--rank", type=int, default=64, help="of LoRA's adapters")
    parser.add_argument("--generation", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--questions", type=int, default=4, help="per step or rollout, on all cards together")
    parser.add_argument("--replies", type=int, default=8, help="per question")
    parser.add_argument("--updates", type=int, default=1, help="per rollout")
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences per forward pass with gradient")
    parser.add_argument("--keep", action="store_true", help="activations instead of computing them again")
    parser.add_argument("--prompt", type=int, help="tokens (default: 2,048; 64 with --tiny)")
    parser.add_argument("--reply", type=int, help="tokens (as --prompt)")
    parser.add_argument("--steps", type=int, default=2, help="measured ones, after one that warms up")
    parser.add_argument("--tiny", action="store_true", help="a toy shape, on the CPU")
    parser.add_argument("--models", type=Path, default=ROOT / "runs" / "gpu" / "models", help="kept for the next time")
    parser.add_argument("--out", type=Path, help="Markdown file to append to (default: runs/gpu/results.md)")
    asked = parser.parse_args(words)
    if asked.generation == "vllm" and len(asked.sizes) > 1:
        parser.error("one process can hold one engine of vLLM; give one of --sizes per command with --generation vllm.")
    asked.words, asked.world = words, int(os.environ.get("WORLD_SIZE", 1))
    asked.device = torch.device("cpu" if asked.tiny else "cuda")
    asked.dtype = "float32" if asked.tiny else "bfloat16"
    asked.prompt, asked.reply = (given or (64 if asked.tiny else 2048) for given in (asked.prompt, asked.reply))
    asked.out = asked.out or ROOT / "runs" / "gpu" / ("tiny.md" if asked.tiny else "results.md")
    return asked


def main(words: list[str]) -> int:
    asked = arguments(words)
    if not asked.tiny and not torch.cuda.is_available():
        print("bench/gpu.py measures a GPU and finds none; `python bench/gpu.py --tiny` runs the same code on a CPU.")
        return 0
    disable_progress_bars()
    processes = PartialState(cpu=asked.tiny)
    rate = matrix_rate(asked.device, getattr(torch, asked.dtype), (256,) if asked.tiny else (4096, 8192, 16_384))
    failed = 0
    for size in ["tiny"] if asked.tiny else asked.sizes:
        shape, heads = (TINY, 4) if asked.tiny else (SHAPES[size], HEADS[size])
        with processes.main_process_first():
            folder = random_model(shape, heads, asked.models / size, asked.device)
        for stage in asked.stages:
            try:
                record = measure(stage, size, shape, folder, rate, asked)
            except torch.OutOfMemoryError:
                print(
                    f"{size}, {stage}, {asked.variant}: out of the card's memory; lower --micro-batch or "
                    "--questions, or take another --variant.",
                    file=sys.stderr,
                )
                failed = 1
                continue
            if processes.is_main_process:
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                with asked.out.open("a", encoding="utf-8") as lines:
                    lines.write(table(record))
                with asked.out.with_suffix(".jsonl").open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(record) + "\n")
                print(table(record), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # or its threads may outlive the interpreter, and abort the process
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CourseError as error:
        sys.exit(str(error))
