"""What works: rewards, algorithms and choices of questions at equal rollout budgets, and reward models with one thing
changed at a time; and the tests behind the rule (notebooks 08 and 10).

    python -m experiments.grid --help            (`make grid`)

All are trained from the artefacts of a finished run. Each training is an artefact of that run, so an interrupted grid
goes on with the next training; the table at the end has one line per training.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from acelib.advantages import ALGORITHMS
from acelib.core import ROOT, DataError, Profile, Run, end_descendants, load_profile, stoppable
from acelib.course import open_run
from acelib.engine import processes_per_machine
from acelib.models import pick_device
from experiments.distinguishing import pocket_table
from experiments.filters import EVERY_SAMPLE, TABLE, every_sample
from experiments.published import publish
from experiments.trainings import OWN, STEPS, VARIANTS, Policy, Scorer, train_policy, train_scorer
from tools.commands import explained

PUBLISHED = ROOT / "data" / "grid"
LONG = 80  # rollouts; what over-optimisation takes to show
REWARDS = ("rule", "pass_rate", "rule_format", "reward_model", "gated_reward_model")
CROSSED = ("rule", "pass_rate", "reward_model")  # with every algorithm; the others with the paper's
CHOICES = ("hard quarter", "mixed", "uncertain", "random")
DAPO_STEPS = {"rule": 12, "pass_rate": 17, "reward_model": 24}  # resampling spends the rest of the same budget
MAX_KL = 1.5
SEEDS = (0, 1, 2)
TESTS = ("proxy", "all", "agreement", "truth", "agreement, made", "proxy, made", "hidden")
CHOOSING = (("agreement", "hard quarter"), ("all", "hard quarter"), ("truth", "hard quarter"), ("agreement", "mixed"))


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
    """All reward-model trainings."""
    return [Scorer(variant, seed) for seed in SEEDS for variant in VARIANTS]


def by_tests() -> list[Policy]:
    """RL trainings with the rule that differ in the tests behind it, and in who chose the questions."""
    same = [Policy("rule", tests=tests, seed=seed) for seed in SEEDS for tests in TESTS]
    own = [Policy("rule", questions=OWN + how, tests=tests, seed=seed) for seed in SEEDS for tests, how in CHOOSING]
    return same + own  # all of `same` have the questions that the proxy's filter lets through


TABLES = {"rm": scorers, "rl": policies, "filters": by_tests}


def table_of(spec: Policy | Scorer) -> str:
    """In which table a training stands."""
    return "rm" if isinstance(spec, Scorer) else "filters" if spec.tests else "rl"


def inputs_of(spec: Policy | Scorer) -> list[str]:
    """Artefacts of a finished run that a training starts from."""
    if isinstance(spec, Scorer):
        return ["samples", "samples_unfiltered", "imagined", "reward_audit", "candidates"]
    if spec.tests:
        extra = [TABLE] * spec.tests.endswith("made") + [EVERY_SAMPLE] * spec.questions.startswith(OWN)
        return ["samples", "samples_unfiltered", *extra]
    return ["samples", "reward_model"] if spec.reward.endswith("reward_model") else ["samples"]


def artefact(spec: Policy | Scorer) -> str:
    """Name of a training's artefact."""
    words = ("rl" if isinstance(spec, Policy) else "rm", *(str(one) for one in asdict(spec).values() if one != ""))
    return "grid_" + "_".join(words).replace(" ", "-").replace(",", "").replace("+", "p").replace(".", "-")


def _make(profile: str, run_dir: str, spec: Policy | Scorer) -> None:
    """Makes one training's artefact, in a process of its own with one thread."""
    import torch

    run, train = open_run(profile, run_dir), train_policy if isinstance(spec, Policy) else train_scorer
    torch.set_num_threads(1)
    run.table(artefact(spec), lambda scratch: [train(run, spec, scratch)], inputs=inputs_of(spec), params=asdict(spec))


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
    """Makes all trainings, `processes` at a time (see `check_engine`) with one thread each, and writes `rm.jsonl`,
    `rl.jsonl`, `filters.jsonl` and `provenance.json` to `target`; `only` names one of `TABLES`. What is up to date is
    kept.

    Raises ArtifactError when the run lacks what they start from, as `check_engine` does, and DataError for `filters`
    without a laboratory, and when trainings failed, after all others were made.
    """
    values = load_profile(profile)
    run, processes = Run(run_dir, values), check_engine(values, processes)
    specs = [spec for plan in TABLES.values() for spec in plan()] if specs is None else specs
    wanted = [spec for spec in specs if only in (None, table_of(spec))]
    if not values.data.laboratory and any(table_of(spec) == "filters" for spec in wanted):
        raise DataError(
            f"The trainings of `filters` need to know which tests are right, and profile {values.name} has no "
            "laboratory; ask for one of the other tables: --only rl, or --only rm."
        )
    missing = {name for spec in wanted for name in inputs_of(spec)}
    for name, make in ((TABLE, pocket_table), (EVERY_SAMPLE, every_sample)):
        if name in missing:
            make(open_run(profile, str(run_dir)))
    for name in {name: None for spec in wanted for name in inputs_of(spec)}:
        run.path(name)
    train_all(profile, run_dir, wanted, processes, values.engine.generation)
    written = []
    for name in TABLES:
        if lines := [asdict(one) | run.read(artefact(one))[0] for one in wanted if table_of(one) == name]:
            written.append(publish(target, name, values, lines))
    return written


def train_all(profile: str, run_dir: Path, wanted: Sequence[Policy | Scorer], processes: int, sampler: str) -> None:
    """Makes the artefacts of all trainings. Raises DataError when some failed, after all others were made."""
    start, failed = time.monotonic(), {}
    os.environ["OMP_NUM_THREADS"] = "1"
    once = 1 if sampler == "vllm" else None  # training; vLLM's memory pool outlives it in its process
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=once) as pool:
        jobs = {pool.submit(_make, profile, str(run_dir), spec): artefact(spec) for spec in wanted}
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                if error := job.exception():
                    failed[jobs[job]] = error
                minutes = (time.monotonic() - start) / 60
                print(
                    f"[{done}/{len(jobs)}] {minutes:.1f} min, about {minutes / done * (len(jobs) - done):.0f} to go  "
                    f"{jobs[job]}{'  FAILED' if error else ''}",
                    flush=True,
                )
        except KeyboardInterrupt:  # without waiting for the trainings of this moment
            pool.shutdown(wait=False, cancel_futures=True)
            end_descendants()
            raise
    for name, error in failed.items():
        raise DataError(
            f"{len(failed)} of {len(wanted)} trainings failed, {name} first ({type(error).__name__}: "
            f"{error}); mend the cause and repeat, the others are kept."
        ) from error


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.grid", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    parser.add_argument("--run-dir", type=Path, help="a finished run to start from (default: runs/<profile>)")
    parser.add_argument("--only", choices=sorted(TABLES), help="one table: policies, reward models, tests")
    parser.add_argument("--processes", type=int, help="trainings at a time, one thread each (default: 2, on a GPU 1)")
    parser.add_argument("--to", type=Path, default=PUBLISHED, help="folder for the tables (default: data/grid)")
    asked = parser.parse_args(words)
    run_dir = asked.run_dir or ROOT / "runs" / load_profile(asked.profile).name
    print(*run_grid(asked.profile, run_dir, asked.only, asked.processes, asked.to), sep="\n")


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
