"""Would the course's claims hold with another policy? (notebook 10)

    python -m experiments.worlds [--only seed1-votes0 ...] [--to FOLDER]

The shipped policy is one training, and it has read votes, which weigh ten times in its loss (data/README.md). Here it
is trained as it was from three seeds, from three without votes, and from three whose votes weigh as any token, and
notebooks 01 to 07 run with each: with that seed, too, and the same teacher and proxies. In two more worlds the policy
is trained as the shipped one, and teacher and proxies anew. Beside the reward model's score stands one that has learnt
nothing: the same policy with a random head. A world is made in `runs/worlds/NAME`; what is there is kept, so an
interrupted command goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch

from acelib.best_of_n import selection_curves
from acelib.core import ROOT, Run, load_profile, read_json, stoppable, write_json
from acelib.models import load_policy, solve_messages
from acelib.pocket import corpus
from acelib.pocket.train import RECIPES, train
from acelib.reward_model import load_reward_model, score
from acelib.rewards import RewardFunction, model_reward
from acelib.schema import Row
from acelib.stats import auc
from experiments.published import publish
from experiments.trainings import Policy, train_policy
from runner.course import NOTEBOOKS, Course, select
from tools.commands import explained

LAST = "07"
N = 16  # programs to choose among


@dataclass(frozen=True)
class World:
    """A training of the policy: its seed, and how much a vote weighs in its loss (0: it never learns votes). `others`:
    teacher and proxies are the shipped ones (0), or trained anew, from seeds higher by ten times that."""

    seed: int
    vote_weight: float
    others: int = 0

    @property
    def name(self) -> str:
        return f"seed{self.seed}-votes{self.vote_weight:g}" + (f"-others{self.others}" if self.others else "")


VOTES = RECIPES["policy"].vote_weight
SEEDS = (0, 1, 2)
WORLDS = [World(seed, weight) for weight in (VOTES, 0.0) for seed in SEEDS]
WORLDS += [World(0, VOTES, others=1), World(0, VOTES, others=2)] + [World(seed, 1.0) for seed in SEEDS]


def trained(role: str, folder: Path, **changed: Any) -> Path:
    """The model, trained now by its recipe unless it is there (one core: policy 12 minutes, proxies 9, teacher 35)."""
    if not (folder / role / "training.json").exists():
        torch.set_num_threads(1)
        made = train(role, replace(RECIPES[role], **changed), corpus.train_tokenizer(), folder)
        write_json(folder / role / "training.json", made)
    return folder / role


def models_of(world: World, folder: Path) -> dict[str, Any]:
    """The profile's values that name the world's models, which are trained now unless they are there."""
    policy = str(trained("policy", folder, seed=world.seed, vote_weight=world.vote_weight))
    values: dict[str, Any] = {"models.policy": policy, "reward_model.base": policy}
    for role in ("teacher", "proxy") if world.others else ():
        values[f"models.{role}"] = str(trained(role, folder, seed=RECIPES[role].seed + 10 * world.others))
    if world.others:
        folders = {"weak": "proxy_weak", "medium": "proxy_medium", "strong": "proxy"}
        values["models.proxies"] = [{"label": label, "model": str(folder / name)} for label, name in folders.items()]
    return values


def untrained_score(run: Run, seed: int) -> RewardFunction:
    """The score of the policy with a random head, which spreads on the run's samples as much as its reward model's: a
    preference that is as consistent, and says nothing about programs."""
    profile, models = run.profile, run.profile.models
    model, tokenizer = load_reward_model(run.path("reward_model"), models.dtype, models.device)
    questions = [
        (
            solve_messages(profile.prompts.solve, row["question"])[-1]["content"],
            [x["completion"] for x in row["inferences"]],
        )
        for row in run.read("samples")[:64]
    ]

    def spread() -> float:
        """The standard deviation of scores within a question, on average."""
        return fmean(pstdev(score(model, tokenizer, [asked] * len(texts), texts)) for asked, texts in questions)

    wanted = spread()
    policy = load_policy(profile.resolve(models.policy), models.dtype, models.device)
    getattr(model, model.base_model_prefix).load_state_dict(policy.base_model.state_dict())
    with torch.no_grad():
        model.score.weight.normal_(generator=torch.Generator().manual_seed(seed))
        model.score.weight.mul_(wanted / spread())
    return model_reward(model, tokenizer, profile.reward_model.score_batch)


def control(run: Run, seed: int) -> Row:
    """RL on `untrained_score`, as long as the run's own."""
    spec = Policy("untrained_model", steps=run.profile.reinforce.steps, seed=seed)
    made = lambda scratch: [train_policy(run, spec, scratch, untrained_score(run, seed))]  # noqa: E731
    (row,) = run.table("control", made, ("samples", "reward_model"), vars(spec))
    solved = [round(count / row["samples"], 4) for count in row["correct"]]
    return {"sampled_control": solved, "greedy_control": row["greedy"], "kl_control": round(row["kl"], 4)}


def run_world(world: World, folder: Path) -> Row:
    """Trains the policy, runs the notebooks that are not up to date, returns the world's line of the table.

    Raises NotebookError as the course does.
    """
    course = Course("pocket", {"seed": world.seed} | models_of(world, folder), folder / "run")
    for path in select(NOTEBOOKS):
        if "01" <= path.name[:2] <= LAST and not course.up_to_date(path):
            course.run(only=path.name[:2])
    training = read_json(folder / "policy" / "training.json")
    made = line(world, course.store) | control(course.store, world.seed)
    return {"policy_cpu_seconds": training["cpu_seconds"]} | made


def line(world: World, run: Run) -> Row:
    """What a finished run says.

    One number per question: AUC of the reward model (None where all programs are alike), the pick among `N` by each
    rule, greedy and sampled correctness of each policy. Of each RL run (`rule`, `rm`) one per rollout: `reward`,
    `reward_rule` (the share that passes) and `kl`; and its looks at held-out questions, (rollouts, pass@1). Of the
    policy trained on the score, a reply to each of the first three questions. Of the imagined tests the share `valid`
    is right, of those that the filter kept `valid_kept`.
    """
    picks = selection_curves(run.read("best_of_n"), [N], {"rm": "score", "rm_unfiltered": "score_unfiltered"})
    found: Row = {"seed": world.seed, "vote_weight": world.vote_weight, "others": world.others}
    tests = [row for row in run.read("filter_audit") if row["valid"] is not None]
    found["valid"] = round(fmean(row["valid"] for row in tests), 4)
    found["valid_kept"] = round(fmean(row["valid"] for row in tests if row["kept"]), 4)
    for row in run.read("reward_audit"):
        value = auc(row["score"], [rate == 1.0 for rate in row["true_rate"]])
        found.setdefault("auc", []).append(None if value != value else round(value, 4))
    found |= {f"pick_{rule}": [round(float(one), 4) for one in curve[:, 0]] for rule, curve in picks.items()}
    for name in ("rule", "rm"):
        log = [row for row in run.read("rl_log") if row["run"] == name]
        found[f"looks_{name}"] = [[row["step"], row["pass_at_1"]] for row in log if row["pass_at_1"] is not None]
        found |= {f"{key}_{name}": [round(row[key], 4) for row in log[1:]] for key in ("reward", "reward_rule", "kl")}
    for row in run.read("evaluation"):
        found.setdefault(f"greedy_{row['model']}", []).append(int(row["greedy"]))
        found.setdefault(f"sampled_{row['model']}", []).append(sum(row["correct"]) / len(row["correct"]))
    hacked = [row for row in run.read("evaluation") if row["model"] == "policy_rm"][:3]
    return found | {"replies_rm": [[row["question"], row["completions"][0]] for row in hacked]}


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.worlds", description=__doc__.partition("\n\n")[0])
    names = {world.name: world for world in WORLDS}
    parser.add_argument("--only", nargs="+", choices=names, default=list(names), help="some, without the table")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "worlds", help="where worlds are made")
    parser.add_argument("--to", type=Path, default=ROOT / "data" / "grid", help="folder for worlds.jsonl")
    asked = parser.parse_args(words)
    lines = [run_world(names[name], asked.runs / name) for name in asked.only]
    if set(asked.only) == set(names):  # a table of some would take the place of the whole one
        publish(asked.to, "worlds", load_profile("pocket"), lines, "policy_cpu_seconds")


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
