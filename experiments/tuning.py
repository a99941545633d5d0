"""Are the pocket profile's learning rates well chosen, on questions that are not the benchmark's? (notebook 08)

    python -m experiments.tuning [--run-dir runs/pocket] [--to data/grid]

They were first chosen by looking at the benchmark. Here they are tried again on `data/validation.jsonl`, whose
compositions are in neither the benchmark nor any training. The rule, fixed before the first training: a shipped value
stays unless another one is better by a paired 95% interval over questions and three seeds. RL is tried at the grid's
number of rollouts and at the profile's, and, at the profile's, with the reward model's score as its reward, too: both
runs of notebook 06 share one rate. What is there is kept, so a stop loses one training.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from acelib.core import ROOT, Run, load_profile, stoppable
from acelib.data import load_benchmark
from acelib.evaluation import evaluate
from acelib.judge import Judge
from acelib.models import SamplingParams, load_policy, load_tokenizer
from acelib.schema import Row
from experiments.grid import SEEDS, inputs_of
from experiments.published import publish
from experiments.trainings import STEPS, Policy, Scorer, train_policy, train_scorer
from tools.commands import explained

VALUES = {"reinforce.learning_rate": (3e-5, 1e-4, 3e-4, 1e-3), "reward_model.learning_rate": (1e-4, 3e-4, 1e-3)}
LONG = load_profile("pocket").reinforce.steps
# Of RL: with which reward, and for how many rollouts.
TRAININGS: dict[str, tuple[tuple[str | None, int | None], ...]] = {
    "reinforce.learning_rate": (("rule", STEPS), ("rule", LONG), ("reward_model", LONG)),
    "reward_model.learning_rate": ((None, None),),
}
VALIDATION = "data/validation.jsonl"
STARTS_FROM = ("samples", "samples_unfiltered", "imagined", "reward_audit", "reward_model")
N = 16


def candidates(run: Run, scratch: Path) -> list[Row]:
    """`N` programs of the untrained policy for each validation question, judged."""
    profile = run.profile
    policy = profile.resolve(profile.models.policy)
    with Judge.from_settings(profile.judge, workers=1) as judge:
        return evaluate(
            load_policy(policy, profile.models.dtype, profile.models.device),
            load_tokenizer(policy),
            load_benchmark(profile),
            judge,
            SamplingParams.of(profile.sampling, profile.best_of_n, n=N, seed=profile.seed),
            name="policy",
            prompt=profile.prompts.solve,
            scratch=scratch,
        )


def trained(run_dir: Path, key: str, value: float, reward: str | None, steps: int | None, seed: int) -> Row:
    """One training with one value changed, RL (None: a reward model) on `reward` for `steps` rollouts: `solved` is, per
    validation question, the share of right programs of the policy, or the chance that the reward model's pick of `N` is
    right; `kl` how far the policy went, in nats per reply."""
    run = Run(run_dir, load_profile("pocket", {"data.benchmark": VALIDATION, key: value}))
    run.table("candidates", lambda scratch: candidates(run, scratch), params={"benchmark": VALIDATION, "n": N})
    rl = reward is not None
    made, spec = (train_policy, Policy(reward, steps=steps, seed=seed)) if rl else (train_scorer, Scorer("paper", seed))
    words = ("tuning", key, f"{value:g}", seed, steps, reward)
    name = "_".join(str(one) for one in words if one is not None).replace(".", "-")
    (row,) = run.table(name, lambda scratch: [made(run, spec, scratch)], inputs_of(spec), {"value": value})
    solved = [count / row["samples"] for count in row["correct"]] if rl else row["best_of_16"]
    what = {"key": key, "value": value, "reward": reward, "rollouts": steps, "seed": seed}
    return what | {"cpu_seconds": row["cpu_seconds"], "kl": row.get("kl"), "solved": solved}


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.tuning", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs" / "pocket", help="a finished run to start from")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "tuning", help="where trainings are kept")
    parser.add_argument("--to", type=Path, default=ROOT / "data" / "grid", help="folder for tuning.jsonl")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    (asked.runs / "artifacts").mkdir(parents=True, exist_ok=True)
    for name in STARTS_FROM:
        source = Run(asked.run_dir, load_profile("pocket")).path(name)
        copy = partial(shutil.copytree, dirs_exist_ok=True) if source.is_dir() else shutil.copy
        copy(source, asked.runs / "artifacts" / source.name)
        shutil.copy(source.with_name(f"{name}.manifest.json"), asked.runs / "artifacts")
    profile = load_profile("pocket")
    start = trained(asked.runs, "reinforce.learning_rate", profile.reinforce.learning_rate, "rule", 0, 0)
    lines = [start] + [
        trained(asked.runs, key, value, reward, steps, seed)
        for key, values in VALUES.items()
        for reward, steps in TRAININGS[key]
        for value in values
        for seed in SEEDS
    ]
    publish(asked.to, "tuning", profile, lines)


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
