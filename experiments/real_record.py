"""What the recipe made with a real model, as the files of `data/real` that hold no text of a benchmark or of a seed.

    python -m experiments.real_record runs/real [runs/more ...] --seeds runs/seeds/seeds.jsonl
        [--baselines runs/real] [--policies runs/real-mbpp runs/real-mbpp-seed1 ...]
        [--imagined runs/real]
        [--model "80 updates=runs/real/artifacts/reward_model" --humaneval humaneval.jsonl.gz --mbpp mbpp.jsonl]

`recipe.parquet` has a row for each seed that the teacher was asked about, `baselines.parquet` (of the run that
`--baselines` names) one for each greedy program of the untrained policy. Of `--policies`, one run for each seed of RL,
come `rollouts.parquet`, the logs of RL, `policies.parquet`, the benchmarks' verdicts on the policies after (`rule` and
`rm`, where a run has them) and, of the first run, before; and `mbpp_train.parquet`, the pass rates that chose the
questions. `rollouts_imagined.parquet` and `policies_imagined.parquet` are the same of RL with the rule on synthesised
questions, of the run that `--imagined` names. With `--model`, `reward.parquet`
gets a reward model's scores of the programs in `laboratory.parquet`, and of the starting policy's for MBPP; the
questions are read from the benchmarks' files.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from acelib.core import ROOT, Run, load_profile, read_rows, write_rows
from acelib.data import read_benchmark
from acelib.judge import Judge
from acelib.models import solve_messages
from acelib.reward_model import load_reward_model, score
from acelib.sampling import pass_rates, submission
from acelib.schema import Problem, Row
from acelib.synthesis import load_seeds
from acelib.training import LOG_FILE
from experiments.real_laboratory import bare

OUT = ROOT / "data" / "real"


def recipe_rows(run: Run, programs: dict[str, str], judge: Judge) -> list[Row]:
    """One row per seed of a run. `programs`: the seeds' own, by id, which decide what a valid test is."""
    problems = {one.id: one for one in run.read("imagined", Problem)}
    proxy = {row["id"]: row["passed"] for row in run.read("proxy_verdicts")}
    kept = {one.id for one in run.read("filtered", Problem)}
    samples = {row["id"]: row["inferences"] for row in run.read("samples_unfiltered")}
    reports = judge.run([submission(one, programs[one.id]) for one in problems.values()])
    valid = {one: [bool(verdict.passed) for verdict in report.verdicts] for one, report in zip(problems, reports)}
    return [
        {
            "id": row["id"],
            "question": problems[row["id"]].question if row["id"] in problems else None,
            "entry_point": problems[row["id"]].entry_point if row["id"] in problems else None,
            "tests": list(problems[row["id"]].tests) if row["id"] in problems else [],
            "valid": valid.get(row["id"], []),
            "proxy_results": [bool(one) for one in proxy.get(row["id"], [])],
            "kept": row["id"] in kept,
            "programs": [bare(one["program"]) for one in samples.get(row["id"], [])],
            "results": [[bool(x) for x in one["test_results"]] for one in samples.get(row["id"], [])],
        }
        for row in run.read("replies")
    ]


def seed_of(run: Run, policy: str) -> int:
    """The seed that RL was made with; 0 for the policy that it started from."""
    return 0 if policy == "start" else run.manifest(f"policy_{policy}")["seed"]


def policy_rows(run: Run, policy: str) -> list[Row]:
    """One row per question of the benchmarks: verdicts on the greedy program and on the samples; all programs."""
    return [
        {"policy": policy, "seed": seed_of(run, policy)} | row | {"programs": [bare(one) for one in row["programs"]]}
        for row in run.read(f"evaluation_{policy}")
    ]


def rollout_rows(run: Run, policy: str) -> list[Row]:
    """A trainer's log, one row per rollout, the first before training. `reward_rule` is what the rule says, whatever
    was the reward."""
    log = json.loads((run.path(f"policy_{policy}") / LOG_FILE).read_text(encoding="utf-8"))
    return [{"policy": policy, "seed": seed_of(run, policy), "reward_reward_model": None} | row for row in log]


def reward_rows(name: str, folder: str, questions: Sequence[Problem], programs: dict[str, list[str]]) -> list[Row]:
    """A reward model's scores of the greedy program and of the samples, by question."""
    profile = load_profile("real")
    scorer = load_reward_model(folder, profile.models.dtype, "cpu")
    asked = {one.id: solve_messages(profile.prompts.solve, one.question)[-1]["content"] for one in questions}
    found = []
    for key, mine in programs.items():
        texts = [f"```python\n{one}\n```" if one else "" for one in mine]
        greedy, *sampled = score(*scorer, [asked[key]] * len(texts), texts, len(texts))
        found.append({"model": name, "id": key, "greedy": greedy, "scores": sampled})
        print(f"{len(found)} of {len(programs)} questions scored", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--seeds", default="runs/seeds/seeds.jsonl")
    parser.add_argument("--baselines", type=Path, help="run directory that has them")
    parser.add_argument("--policies", nargs="+", type=Path, help="runs with evaluation_rule or _rm; the first: _start")
    parser.add_argument(
        "--imagined", type=Path, help="run with evaluation_rule of a policy trained on synthesised questions"
    )
    parser.add_argument("--model", metavar="NAME=FOLDER", help="a trained reward model, and what to call it")
    parser.add_argument("--humaneval", help="its file or hub name; without, its programs are not scored")
    parser.add_argument("--mbpp", help="likewise")
    args = parser.parse_args()
    profile = load_profile("real")
    if args.runs:
        programs = {one["id"]: one["program"] for one in load_seeds(args.seeds)}
        with Judge.from_settings(profile.judge) as judge:
            rows = [row for run in args.runs for row in recipe_rows(Run(run, profile), programs, judge)]
        write_rows(OUT / "recipe.parquet", rows)
    if args.baselines:
        rows = Run(args.baselines, profile).read("baselines")
        write_rows(OUT / "baselines.parquet", [row | {"program": bare(row["program"])} for row in rows])
    if args.policies:
        runs = [Run(folder, profile) for folder in args.policies]
        trained = [(run, one) for one in ("rule", "rm") for run in runs if run.manifest(f"evaluation_{one}")]
        write_rows(OUT / "rollouts.parquet", [row for one in trained for row in rollout_rows(*one)])
        tasks = [{"id": row["id"], "pass_rate": pass_rates(row)} for row in runs[0].read("samples")]
        write_rows(OUT / "mbpp_train.parquet", tasks)
        rows = [row for one in ((runs[0], "start"), *trained) for row in policy_rows(*one)]
        write_rows(OUT / "policies.parquet", rows)
    if args.imagined:
        for name, rows in (("rollouts", rollout_rows), ("policies", policy_rows)):
            write_rows(OUT / f"{name}_imagined.parquet", rows(Run(args.imagined, profile), "rule"))
    if args.model:
        name, _, folder = args.model.partition("=")
        asked, programs = [], {}
        if args.humaneval:
            asked += read_benchmark(args.humaneval)
            laboratory = read_rows(OUT / "laboratory.parquet")
            programs |= {row["id"]: [row["greedy_program"], *row["programs"]] for row in laboratory}
        if args.mbpp:
            asked += read_benchmark(args.mbpp)
            start = [row for row in read_rows(OUT / "policies.parquet") if row["policy"] == "start"]
            programs |= {row["id"]: row["programs"] for row in start if row["id"].startswith("MBPP")}
        rows = reward_rows(name, folder, asked, programs)
        before = [row for row in read_rows(OUT / "reward.parquet") if row["model"] != name or row["id"] not in programs]
        write_rows(OUT / "reward.parquet", before + rows)


if __name__ == "__main__":
    main()
