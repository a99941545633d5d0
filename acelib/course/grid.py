"""What works: rewards, algorithms and choices of questions at equal rollout budgets, and reward models with one thing
changed at a time (notebook 08).

`make grid` trains all of them from the artefacts of a finished run. Each training is an artefact of that run, so an
interrupted grid goes on with the next training; the table at the end has one line per training.
"""

import csv
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from acelib.advantages import ALGORITHMS
from acelib.core import ROOT, DataError, Profile, Run, load_profile, versions, write_json
from acelib.course.grid_trainings import STEPS, VARIANTS, Policy, Scorer, train_policy, train_scorer
from acelib.course.opening import open_run
from acelib.engine import processes_per_machine
from acelib.models import pick_device
from acelib.schema import Row

PUBLISHED = ROOT / "data" / "grid"
LONG = 80  # rollouts; what over-optimisation takes to show
REWARDS = ("rule", "pass_rate", "rule_format", "reward_model", "gated_reward_model")
CROSSED = ("rule", "pass_rate", "reward_model")  # with every algorithm; the others with the paper's
CHOICES = ("hard quarter", "mixed", "random")
DAPO_STEPS = {"rule": 12, "pass_rate": 17, "reward_model": 24}  # resampling spends the rest of the same budget
MAX_KL = 1.5
SEEDS = (0, 1, 2)


def policies() -> list[Policy]:
    """All RL trainings; the untrained policy is the one with 0 steps."""
    cells = [Policy("rule", steps=0)]
    for seed in SEEDS:
        cells += [
            Policy(reward, algorithm, steps=DAPO_STEPS[reward] if algorithm == "dapo" else STEPS, seed=seed)
            for reward in REWARDS
            for algorithm in (ALGORITHMS if reward in CROSSED else ["reinforce++"])
        ]
        cells += [Policy("rule", questions=choice, seed=seed) for choice in CHOICES[1:]]
        cells += [Policy("reward_model", steps=LONG, max_kl=limit, seed=seed) for limit in (0.0, MAX_KL)]
        cells.append(Policy("rule", steps=LONG, seed=seed))
    return cells


def scorers() -> list[Scorer]:
    return [Scorer(variant, seed) for seed in SEEDS for variant in VARIANTS]


def inputs_of(spec: Policy | Scorer) -> list[str]:
    """Artefacts of a finished run that a training starts from."""
    if isinstance(spec, Scorer):
        return ["samples", "samples_unfiltered", "imagined", "reward_audit", "candidates"]
    return ["samples", *(["reward_model"] if spec.reward.endswith("reward_model") else [])]


def _unit(profile: str, run_dir: str, spec: Policy | Scorer) -> str:
    """Makes one training's artefact, in a process of its own with one thread; returns its name."""
    import torch

    run = open_run(profile, run_dir)
    torch.set_num_threads(1)
    name = artefact(spec)
    make = train_policy if isinstance(spec, Policy) else train_scorer
    run.table(name, lambda scratch: make(run, spec, scratch), inputs=inputs_of(spec), params=asdict(spec))
    return name


def artefact(spec: Policy | Scorer) -> str:
    words = ("rl" if isinstance(spec, Policy) else "rm", *map(str, asdict(spec).values()))
    return "grid_" + "_".join(words).replace(" ", "-").replace("+", "p").replace(".", "-")


def table(run: Run, specs: Sequence[Policy | Scorer]) -> list[Row]:
    """One row per training: what it was, what is known of it, and per question, in one text, how many samples were
    correct and whether the greedy program was (policies), or the value of each measure (scorers)."""
    lines = []
    for spec in specs:
        rows = run.read(artefact(spec))
        first = {
            key: value for key, value in rows[0].items() if key not in ("id", "correct", "greedy", "measure", "value")
        }
        if isinstance(spec, Policy):
            correct = [sum(row["correct"]) for row in rows]
            samples = len(rows[0]["correct"])
            texts = {
                "samples": samples,
                "correct": " ".join(map(str, correct)),
                "greedy": " ".join(str(int(row["greedy"])) for row in rows),
            }
        else:
            texts = {
                measure: " ".join(f"{row['value']:.4g}" for row in rows if row["measure"] == measure)
                for measure in ("auc", "best_of_16")
            }
        lines.append(
            asdict(spec)
            | {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in first.items()}
            | texts
        )
    return lines


def read_table(name: str, folder: Path = PUBLISHED) -> list[dict[str, Any]]:
    """A table of `run_grid`: numbers as numbers, texts of numbers as lists of them. Raises DataError."""
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise DataError(f"There is no {path}; make it with `make grid`.")
    with path.open(newline="", encoding="utf-8") as handle:
        return [{key: _value(key, text) for key, text in row.items()} for row in csv.DictReader(handle)]


def _value(key: str, text: str) -> Any:
    if key in ("correct", "greedy", "auc", "best_of_16"):
        return [float(one) for one in text.split()]
    try:
        return float(text) if text else None
    except ValueError:
        return text


def check_engine(profile: Profile, processes: int | None = None) -> int:
    """Trainings at a time: `processes`, or else one on a GPU and two elsewhere.

    Raises DataError for what the profile's `engine` asks and the grid cannot do, and DeviceError without its GPU.
    """
    engine = profile.engine
    if processes_per_machine(profile.resolve(engine.launch)) != (1, 1) or engine.cluster != "none":
        raise DataError(
            f"The grid makes each training in one process of this machine, and profile {profile.name} has "
            f"engine.launch {engine.launch} and engine.cluster {engine.cluster}; set both to none in a "
            f"profile of your own that begins with `extends: {profile.name}`."
        )
    if engine.generation == "vllm" and (processes or 1) > 1:
        raise DataError(
            f"With engine.generation vllm a training needs the GPU to itself; leave out --processes "
            f"{processes}, or set engine.generation to transformers in the profile."
        )
    on_gpu = pick_device(profile.models.device, profile.models.dtype).type == "cuda"
    return processes or (1 if on_gpu else 2)


def run_grid(
    profile: str,
    run_dir: Path,
    only: str | None = None,
    processes: int | None = None,
    target: Path = PUBLISHED,
    specs: Sequence[Policy | Scorer] | None = None,
) -> list[Path]:
    """Makes all trainings, `processes` at a time (see `check_engine`) with one thread each, and writes `rl.csv`,
    `rm.csv` and `provenance.json` to `target`; `only` is "rl" or "rm". What is up to date is kept.

    Raises ArtifactError when the run lacks what they start from, as `check_engine` does, and DataError when trainings
    failed, after all others were made.
    """
    specs = [*scorers(), *policies()] if specs is None else specs
    kinds = {"rm": Scorer, "rl": Policy}
    wanted = [spec for spec in specs if only is None or isinstance(spec, kinds[only])]
    values = load_profile(profile)
    processes = check_engine(values, processes)
    for name in {name: None for spec in wanted for name in inputs_of(spec)}:
        Run(run_dir, values).path(name)
    start, failed = time.monotonic(), {}
    os.environ["OMP_NUM_THREADS"] = "1"
    once = 1 if values.engine.generation == "vllm" else None  # training; vLLM's memory pool outlives it in its process
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=once) as pool:
        jobs = {pool.submit(_unit, profile, str(run_dir), spec): spec for spec in wanted}
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                if error := job.exception():
                    failed[artefact(jobs[job])] = error
                minutes = (time.monotonic() - start) / 60
                print(
                    f"[{done}/{len(wanted)}] {minutes:.1f} min, about {minutes / done * (len(wanted) - done):.0f} to "
                    f"go  {artefact(jobs[job])}{'  FAILED' if error else ''}",
                    flush=True,
                )
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        name, error = next(iter(failed.items()))
        raise DataError(
            f"{len(failed)} of {len(wanted)} trainings failed, {name} first ({type(error).__name__}: "
            f"{error}); mend the cause and repeat, the others are kept."
        ) from error
    run = open_run(profile, str(run_dir))
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, kind in kinds.items():
        lines = table(run, [spec for spec in wanted if isinstance(spec, kind)])
        if lines:
            written.append(target / f"{name}.csv")
            with written[-1].open("w", newline="", encoding="utf-8") as handle:
                writer = csv.DictWriter(handle, list(lines[0]))
                writer.writeheader()
                writer.writerows(lines)
            _provenance(target, name, run, lines)
    return written


def _provenance(target: Path, name: str, run: Run, lines: Sequence[Row]) -> None:
    path = target / "provenance.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    write_json(
        path,
        known
        | {
            name: {
                "made": time.strftime("%Y-%m-%d"),
                "commit": commit.stdout.strip() or "unknown",
                "versions": versions(),
                "machine": f"{os.cpu_count()} cores, {platform.machine()}",
                "trainings": len(lines),
                "core_minutes": round(sum(float(line["cpu_seconds"]) for line in lines) / 60, 1),
                "profile": run.profile.to_dict(),
            }
        },
    )
