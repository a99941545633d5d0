"""Peaks of memory that `plan` computes beside those that the course's own trainers reach on a CPU.

    python bench/peaks.py                       two toy shapes of Qwen2 with random weights, some minutes and 2 GiB
    python bench/peaks.py --shapes 10M --how lora
    python bench/peaks.py --model <folder>      a real model's weights and shape instead, with adapters: 0.5B in 5 GiB

Each cell has a process of its own, which trains two steps of two passes each, so that the second step's activations
stand beside gradients and Adam's moments. Computed: `plan` for just these counts. Measured: the highest resident set
during the training less the one before the model was loaded; the processes are forked from one that has trained tiny
models in the same ways, so that libraries do not count. glibc is told to hand back what is freed, as memory that it
keeps in reserve is no need.
"""
# ruff: noqa: E402

import argparse
import ctypes
import gc
import json
import os
import re
import sys
import tempfile
import traceback
from contextlib import redirect_stdout
from importlib.util import find_spec
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `bench` is not installed

FREED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
if __name__ == "__main__" and not FREED.items() <= os.environ.items():  # glibc reads them when a process starts
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | FREED | {"CUDA_VISIBLE_DEVICES": ""})

from acelib.course import contain

contain()  # before the libraries look for their caches

import torch
from accelerate import PartialState
from datasets import disable_progress_bars

from acelib.core import ROOT
from acelib.pocket.train import save_tokenizer
from acelib.training import Shape, shape_of
from bench import gpu
from bench.architecture import TINY, random_model, word_tokenizer
from bench.phases import planned_gib, policy_trainer, problems_of, reward_trainer, run

SHAPES = {  # with the number of query heads
    "10M": (Shape(4, 384, 1536, 128, 4096, True), 6),  # weights are in the layers
    "34M": (Shape(8, 192, 768, 64, 151_936, True), 3),  # Qwen2.5's words: weights and logits are in the head
}
HOW = ("full", "lora", "nf4")
PASSES = {
    "bfloat16, kept": ("bfloat16", True),
    "bfloat16, recomputed": ("bfloat16", False),
    "float32, kept": ("float32", True),
}  # dtype, and what is done about activations
STAGES = ("reward model", "RL")
COUNTS = {
    "reward model": "--prompt 256 --reply 256 --questions 2 --micro-batch 2",  # two programs of 256 tokens at once
    "RL": "--prompt 64 --reply 64 --questions 2 --replies 4 --micro-batch 4",  # four replies of 128 tokens at once
}
COLUMNS = ("shape", "how", "passes, activations", "stage", "computed GiB", "measured GiB", "ratio")


def kib(key: str) -> int:
    """`VmRSS`, what is resident now, or `VmHWM`, the most since `forget_peak`."""
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def map_libraries() -> None:
    """A fork begins without the pages of libraries that its parent has read, which would count as the training's."""
    advise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, _, _, inode, *_ = line.split()
        if inode != "0" and rights[0] == "r":
            begin, end = (int(one, 16) for one in place.split("-"))
            advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), 22)  # MADV_POPULATE_READ, Linux 5.14


def length(prompts: list, completions: list, **_) -> list[float]:
    """A reward that needs no judge."""
    return [float(len(one[-1]["content"])) for one in completions]


def trained(stage: str, folder: Path, shape: Shape, asked: argparse.Namespace) -> float:
    """The peak in GiB of a training, less what was there before it."""
    gc.collect()
    before = kib("VmRSS")
    with tempfile.TemporaryDirectory() as scratch:
        if stage == "RL":
            trainer = policy_trainer(length, problems_of(shape, asked), folder, asked, Path(scratch))
        else:
            trainer = reward_trainer(folder, shape, asked, Path(scratch))
        forget_peak()
        run(trainer, asked)
    return (kib("VmHWM") - before) / 2**20


def borrowed(model: Path, folder: Path) -> Path:
    """A folder with the weights of `model` and a tokenizer of words, of which texts have any exact length."""
    save_tokenizer(word_tokenizer(shape_of(str(model)).vocabulary), folder)
    for file in [model / "config.json", *model.glob("model*.safetensors*")]:
        (folder / file.name).symlink_to(file.resolve())
    return folder


def asked_for(how: str, passes: str, stage: str) -> argparse.Namespace:
    dtype, keep = PASSES[passes]
    words = [*COUNTS[stage].split(), "--variant", how, "--rank", "16", "--steps", "1", *["--keep"] * keep]
    asked = gpu.arguments(["--tiny", *words])
    asked.dtype = dtype
    return asked


def measured(folder: Path, shape: Shape, how: str, passes: str, stage: str) -> dict[str, float]:
    """One cell, in a process forked for it."""
    asked, (out, into) = asked_for(how, passes, stage), os.pipe()
    if child := os.fork():
        os.close(into)
        with open(out, encoding="utf-8") as said:
            answer = said.read()
        os.waitpid(child, 0)
        if not answer:
            raise SystemExit("A cell failed; its traceback stands above.")
        return json.loads(answer)
    try:
        with redirect_stdout(sys.stderr):
            found = {
                "computed": planned_gib(stage, folder, shape, asked),
                "measured": trained(stage, folder, shape, asked),
            }
        os.write(into, json.dumps(found).encode())
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--how", nargs="+", choices=HOW, help="default: all, or lora of a --model")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--model", type=Path, help="a model folder, instead of the shapes")
    parser.add_argument("--models", type=Path, default=ROOT / "runs" / "gpu" / "models", help="kept for the next time")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # a fork has none of its parent's other threads, and would wait for them
    disable_progress_bars()
    PartialState(cpu=True)
    hows = asked.how or (["lora"] if asked.model else HOW)
    if "nf4" in hows and find_spec("bitsandbytes"):  # what it packs anew for sampling on some CPUs it cannot train
        from bitsandbytes.nn import modules

        modules.has_avx512bf16 = lambda: False
    print("|", " | ".join(COLUMNS), "|\n|" + "---|" * len(COLUMNS), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        tiny = random_model(TINY, 4, asked.models / "tiny", torch.device("cpu"))
        if asked.model:
            models = {asked.model.name: (borrowed(asked.model, Path(scratch)), shape_of(str(asked.model)))}
        else:
            made = {name: (asked.models / name, *SHAPES[name]) for name in asked.shapes}
            cpu = torch.device("cpu")
            models = {n: (random_model(shape, heads, path, cpu), shape) for n, (path, shape, heads) in made.items()}
        hows = [how for how in hows if how != "nf4" or find_spec("bitsandbytes")]
        with redirect_stdout(sys.stderr):
            for how, stage in product(hows, asked.stages):
                trained(stage, tiny, TINY, asked_for(how, asked.passes[0], stage))
        for name, how, passes, stage in product(models, hows, asked.passes, asked.stages):
            found = measured(*models[name], how, passes, stage)
            said = f"{found['computed']:.3f} | {found['measured']:.3f} | {found['computed'] / found['measured']:.2f}"
            print("|", " | ".join([name, how, passes, stage]), f"| {said} |", flush=True)
    print(f"| {', '.join(models)} | every | every | RL with vLLM | | needs a card | |")


if __name__ == "__main__":
    main()
