"""How long a training takes beside a busy core, by number of threads and by how idle threads wait for each other.

    python bench/threads.py                every variant, alone and beside a busy process; minutes on two idle cores

The work is one epoch of the pocket reward model and two rollouts of RL, in a process of its own; passes are interleaved
and the ratios are of medians. A digest of the trained weights shows whether the result depends on the variant.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

VARIANTS = {  # libgomp spins 300,000 times before an idle thread sleeps, unless it is told otherwise
    "2 threads, as libgomp waits": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "300000"},
    "2 threads, 30,000 spins (the course)": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "30000"},
    "2 threads, 1,000 spins": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "1000"},
    "2 threads, passive": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
}
BUSY = [sys.executable, "-c", "while True: pass"]


def longest(completions: list, **_) -> list[float]:
    """A reward that needs no judge."""
    return [float(len(one[-1]["content"])) for one in completions]


def work() -> dict[str, float | str]:
    """Seconds of both trainings in this process, and a digest of the weights that came out of each."""
    import torch
    from datasets import disable_progress_bars
    from training import PROFILE, ROLLOUTS, make_pairs, reward_trainer, rl_trainer
    from transformers import PrinterCallback

    from acelib.data import load_benchmark

    disable_progress_bars()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    measured, pairs, problems = {}, make_pairs(6), load_benchmark(PROFILE)
    for name in ("reward model", "RL"):
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            if name == "RL":
                trainer = rl_trainer("acelib", problems, longest, ROLLOUTS, folder)
            else:
                trainer = reward_trainer("acelib, shared prefix", pairs, folder)
            trainer.remove_callback(PrinterCallback)
            start = time.perf_counter()
            trainer.train()
            measured[name] = time.perf_counter() - start
        weights = b"".join(one.detach().numpy().tobytes() for one in trainer.model.parameters())
        measured[f"{name}, weights"] = hashlib.sha256(weights).hexdigest()[:8]
    return measured


def measure(variant: dict[str, str], busy: bool) -> dict[str, float | str]:
    """`work` in a fresh process, beside a busy one if `busy`."""
    beside = subprocess.Popen(BUSY) if busy else None
    try:
        command = [sys.executable, __file__, "--work"]
        done = subprocess.run(command, env=os.environ | variant, check=True, capture_output=True, text=True)
    finally:
        if beside:
            beside.kill()
            beside.wait()
    return json.loads(done.stdout.splitlines()[-1])


def compare(passes: int) -> None:
    found = {(name, busy): [] for name in VARIANTS for busy in (False, True)}
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; medians of {passes} interleaved passes\n")
    for _ in range(passes):
        for (name, busy), results in found.items():
            results.append(measure(VARIANTS[name], busy))
    for what in ("reward model", "RL"):
        print(f"| {what} | alone, s | beside a busy process, s | times as long | weights |\n|---|---:|---:|---:|---|")
        for name in VARIANTS:
            alone, beside = (statistics.median(one[what] for one in found[name, busy]) for busy in (False, True))
            digests = {one[f"{what}, weights"] for busy in (False, True) for one in found[name, busy]}
            print(f"| {name} | {alone:.1f} | {beside:.1f} | {beside / alone:.2f} | {' '.join(sorted(digests))} |")
        print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    print(json.dumps(work())) if asked.work else compare(asked.passes)
