"""What RL gains at several model sizes: pocket policies trained from nothing, then with REINFORCE++ and the rule.

    python bench/scale_up.py --sizes 1M 10M 30M 100M --seeds 0 1 2      needs a finished run of the course (--run-dir)
    python bench/scale_up.py --sizes 0.3M 1M --rollouts 24              two sizes that a CPU can train
    python bench/scale_up.py --tiny                                     the same code in a minute, with toy sizes

Every size reads the same corpus in as many tokens as the shipped policy (acelib/pocket/train.py) and trains on the same
questions: the hard quarter of the run, which the shipped 1M policy chose. Learning rates fall with the width, as its
reciprocal, from those of the 1M policy; nothing is tuned per size. Evaluation is that of notebook 08, on held-out
compositions; intervals are over questions. FLOP are 6 per weight and token of pre-training.

Each size and seed is kept in `--out` when it is done and skipped the next time; an interrupted one goes on at its last
RL checkpoint (pre-training begins anew). `scale_up.csv` has one row each, `scale_up.png` shows gain against size.
"""
# ruff: noqa: E402

import argparse
import csv
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from acelib.course import contain

contain()  # before the libraries look for their caches

import matplotlib.pyplot as plt
import torch
from datasets import disable_progress_bars

from acelib.core import ROOT, CourseError, Run, write_json
from acelib.course import open_run
from acelib.models import pick_device
from acelib.plots import COLOURS, percent_axis, use_style
from acelib.pocket import corpus
from acelib.pocket.train import RECIPES, Recipe, train
from acelib.stats import paired_bootstrap

sys.path.insert(0, str(ROOT))  # what is not installed
from experiments.trainings import Policy, train_policy

BASE = RECIPES["policy"]
SIZES = {  # hidden, layers, heads; the name is the number of weights, embeddings included
    "tiny": (32, 1, 2),
    "small": (48, 1, 2),
    "0.3M": (80, 3, 4),
    "1M": (128, 4, 4),
    "10M": (320, 8, 10),
    "30M": (512, 9, 16),
    "100M": (768, 14, 24),
}


def recipe(size: str, seed: int, steps: int) -> Recipe:
    """The shipped policy's recipe at another size."""
    hidden, layers, heads = SIZES[size]
    return replace(
        BASE,
        hidden=hidden,
        layers=layers,
        heads=heads,
        steps=steps,
        seed=seed,
        learning_rate=BASE.learning_rate * BASE.hidden / hidden,
    )


def pass_rates(found: dict) -> tuple[list[float], list[float]]:
    """Per question: share of correct samples, and whether the greedy program is correct."""
    return [correct / found["samples"] for correct in found["correct"]], [float(one) for one in found["greedy"]]


def measure(run: Run, size: str, seed: int, steps: int, rollouts: int, folder: Path) -> dict:
    """One row: a policy trained from nothing, before and after RL. What is finished in `folder` is kept."""
    device, start = pick_device(run.profile.models.device), time.monotonic()
    report, policy, scratch = folder / "training.json", folder / "policy", [folder / "before", folder / "after"]
    for one in scratch:
        one.mkdir(parents=True, exist_ok=True)
    asked = recipe(size, seed, steps)
    if not report.is_file():
        write_json(report, train("policy", asked, corpus.train_tokenizer(), folder, device))
    trained = json.loads(report.read_text(encoding="utf-8"))
    rl = run.profile.reinforce
    rl = replace(rl, learning_rate=rl.learning_rate * BASE.hidden / asked.hidden)
    mine = Run(run.dir, replace(run.profile, models=replace(run.profile.models, policy=str(policy)), reinforce=rl))
    before = train_policy(mine, Policy("rule", steps=0, seed=seed), scratch[0])
    after = train_policy(mine, Policy("rule", steps=rollouts, seed=seed), scratch[1])
    (sampled, greedy), (sampled_after, greedy_after) = pass_rates(before), pass_rates(after)
    gain = paired_bootstrap(sampled_after, sampled, run.profile.evaluation.bootstrap)
    greedy_gain = paired_bootstrap(greedy_after, greedy, run.profile.evaluation.bootstrap)
    return {
        "size": size,
        "seed": seed,
        "parameters": trained["parameters"],
        "hidden": asked.hidden,
        "layers": asked.layers,
        "steps": steps,
        "tokens": trained["tokens"],
        "loss": trained["loss"],
        "flop": 6.0 * trained["parameters"] * trained["tokens"],
        "rollouts": rollouts,
        "replies": after["replies"],
        "learning_rate": asked.learning_rate,
        "rl_learning_rate": rl.learning_rate,
        "questions": len(sampled),
        "before": mean(sampled),
        "after": mean(sampled_after),
        "gain": gain.value,
        "low": gain.low,
        "high": gain.high,
        "greedy_before": mean(greedy),
        "greedy_after": mean(greedy_after),
        "greedy_gain": greedy_gain.value,
        "greedy_low": greedy_gain.low,
        "greedy_high": greedy_gain.high,
        "kl": after["kl"],
        "device": str(device),
        "training_cpu_seconds": trained["cpu_seconds"],
        "rl_cpu_seconds": after["cpu_seconds"],
        "seconds": time.monotonic() - start,
    }


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def draw(rows: list[dict], path: Path) -> None:
    """Held-out pass@1 before and after, and the gain, against the number of weights."""
    use_style()
    figure, axes = plt.subplots(2, 1, figsize=(5.2, 6.4), sharex=True)
    sizes = sorted({row["parameters"] for row in rows})
    for name, colour, marker in (("before", "grey", "o"), ("after", "blue", "s")):
        means = [mean([row[name] for row in rows if row["parameters"] == size]) for size in sizes]
        axes[0].plot(sizes, means, color=COLOURS[colour], label=f"{name} RL")
        axes[0].plot([row["parameters"] for row in rows], [row[name] for row in rows], marker, color=COLOURS[colour])
    for row in rows:
        axes[1].errorbar(
            row["parameters"],
            row["gain"],
            [[row["gain"] - row["low"]], [row["high"] - row["gain"]]],
            fmt="o",
            color=COLOURS["blue"],
            capsize=4,
        )
    axes[1].axhline(0, color=COLOURS["black"], linewidth=1)
    axes[0].set(ylabel="sampled pass@1, held out", ylim=(0, 1), title=f"{rows[0]['rollouts']} rollouts with the rule")
    axes[0].legend()
    axes[1].set(xlabel="weights of the policy", ylabel="gain by RL, 95% interval", xscale="log")
    for ax in axes:
        percent_axis(ax.yaxis)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, help=f"optimiser steps from nothing (default: {BASE.steps:,})")
    parser.add_argument("--rollouts", type=int, help="of REINFORCE++ (default: the profile's reinforce.steps)")
    parser.add_argument("--profile", default="pocket")
    parser.add_argument("--run-dir", type=Path, help="a finished run of the course (default: runs/<profile>)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "scale-up")
    parser.add_argument("--tiny", action="store_true", help="two toy sizes, 20 steps and 2 rollouts")
    asked = parser.parse_args(words)
    sizes = ["tiny", "small"] if asked.tiny else asked.sizes
    if not sizes:
        print("bench/scale_up.py trains for hours; say what: `python bench/scale_up.py --sizes 1M 10M 30M 100M`.")
        return 0
    disable_progress_bars()
    run = open_run(asked.profile, str(asked.run_dir or ROOT / "runs" / Path(asked.profile).stem))
    steps = asked.steps or (20 if asked.tiny else BASE.steps)
    rollouts = asked.rollouts or (2 if asked.tiny else run.profile.reinforce.steps)
    run.path("samples")  # a missing run costs a second, not a training
    rows = []
    for seed in asked.seeds:
        for size in sizes:
            folder = asked.out.resolve() / f"{size}-seed{seed}-steps{steps}-rollouts{rollouts}"
            if not (folder / "row.json").is_file():
                write_json(folder / "row.json", measure(run, size, seed, steps, rollouts, folder))
            rows.append(json.loads((folder / "row.json").read_text(encoding="utf-8")))
            row = rows[-1]
            print(
                f"{size}, seed {seed}: {row['parameters']:,} weights, pass@1 {row['before']:.3f} -> "
                f"{row['after']:.3f} ({row['gain']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}])",
                flush=True,
            )
    with (asked.out / "scale_up.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, asked.out / "scale_up.png")
    print(asked.out / "scale_up.csv")
    return 0


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")  # TF32 on cards that have it
    try:
        sys.exit(main(sys.argv[1:]))
    except CourseError as error:
        sys.exit(str(error))
