"""What works: rewards, algorithms and choices of questions at equal rollout budgets, and reward models with one thing
changed at a time (notebook 08).

`make grid` trains all of them from the artefacts of a finished run. Each training is an artefact of that run, so an
interrupted grid goes on with the next training; the table at the end has one line per training.
"""

import csv
import json
import os
import platform
import random
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from acelib.advantages import ALGORITHMS
from acelib.artifacts import Run, open_run, versions, write_json
from acelib.errors import CourseError
from acelib.evaluation import evaluate, load_benchmark
from acelib.filtering import auc
from acelib.judge import Judge
from acelib.models import load_policy, load_tokenizer, solve_messages
from acelib.pairs import build_pairs, hard_quarter, mixed_share
from acelib.profiles import ROOT
from acelib.reinforce import LOG_FILE, train
from acelib.reward_model import is_held_out, load_reward_model, score, train_reward_model
from acelib.rewards import gated, model_reward, pass_rate_reward, rule_reward, with_format
from acelib.sampling import pass_rates
from acelib.schema import Row, rows_to_problems
from acelib.selection import expected_best

PUBLISHED = ROOT / "data" / "grid"
STEPS, LONG = 24, 80  # rollouts of a training; the long ones show over-optimisation
REWARDS = ("rule", "pass_rate", "rule_format", "reward_model", "gated_reward_model")
CROSSED = ("rule", "pass_rate", "reward_model")  # with every algorithm; the others with the paper's
CHOICES = ("hard quarter", "mixed", "random")
DAPO_STEPS = {"rule": 12, "pass_rate": 17, "reward_model": 24}  # resampling spends the rest of the same budget
MAX_KL = 1.5
SEEDS = (0, 1, 2)


class GridError(CourseError):
    """Trainings of the grid that failed, or a table that cannot be read."""


@dataclass(frozen=True)
class Policy:
    """One RL training: `questions` names who chose the questions, `max_kl` stops early (0: never)."""

    reward: str
    algorithm: str = "reinforce++"
    questions: str = "hard quarter"
    steps: int = STEPS
    max_kl: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Scorer:
    """One reward-model training that differs from the profile in what its name says."""

    variant: str
    seed: int = 0


def policies() -> list[Policy]:
    """All RL trainings; the untrained policy is the one with 0 steps."""
    cells = [Policy("rule", steps=0)]
    for seed in SEEDS:
        cells += [
            Policy(reward, algorithm, steps=DAPO_STEPS[reward] if algorithm == "dapo" else STEPS, seed=seed)
            for reward in REWARDS for algorithm in (ALGORITHMS if reward in CROSSED else ["reinforce++"])
        ]
        cells += [Policy("rule", questions=choice, seed=seed) for choice in CHOICES[1:]]
        cells += [Policy("reward_model", steps=LONG, max_kl=limit, seed=seed) for limit in (0.0, MAX_KL)]
        cells.append(Policy("rule", steps=LONG, seed=seed))
    return cells


VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "unfiltered tests": {"samples": "samples_unfiltered"},
    "any gap": {"min_gap": 0.0, "min_chosen": 0.0},
    "zeros let in": {"min_rejected": -1.0},
    "public code": {"strict": False, "diluted": True},
    "stronger backbone": {"base": "proxy"},
    "regression": {"loss": "regression"},
    "1 pair per question": {"max_pairs_per_question": 1},
    "64 pairs per question": {"max_pairs_per_question": 64},
    "a quarter of the questions": {"share": 0.25},
    "half of the questions": {"share": 0.5},
}


def scorers() -> list[Scorer]:
    return [Scorer(variant, seed) for seed in SEEDS for variant in VARIANTS]


def chosen_questions(rates: Sequence[Sequence[float]], choice: str, seed: int) -> list[int]:
    """Indices of as many questions as the hard quarter has: itself, random ones with both correct and wrong samples,
    or random ones."""
    hard = hard_quarter(rates)
    if choice == "hard quarter":
        return hard
    passed = [[rate == 1.0 for rate in question] for question in rates]
    pool = [i for i in range(len(rates)) if choice == "random" or len(set(passed[i])) == 2]
    return sorted(random.Random(seed).sample(pool, min(len(hard), len(pool))))


def _reward(name: str, run: Run, judge: Judge, problems: Sequence):
    models, rl = run.profile.models, run.profile.reinforce
    if name.endswith("reward_model"):
        scorer = load_reward_model(run.path("reward_model"), models.dtype, models.device)
        learned = model_reward(*scorer, rl.rollout_questions * rl.samples_per_question)
        return gated(learned, problems) if name.startswith("gated") else learned
    if name == "pass_rate":
        return pass_rate_reward(judge, problems)
    rule = rule_reward(judge, problems)
    return with_format(rule, problems) if name == "rule_format" else rule


def train_policy(run: Run, spec: Policy, scratch: Path) -> list[Row]:
    """Trains and evaluates; one row per held-out question, with what is known of the whole training in every row."""
    profile, models = run.profile, run.profile.models
    start, folder, log = _cpu_seconds(), profile.resolve(models.policy), []
    rows = run.read("samples")
    rates = [pass_rates(row) for row in rows]
    chosen = chosen_questions(rates, spec.questions, spec.seed)
    settings = replace(profile.reinforce, algorithm=spec.algorithm, steps=spec.steps, max_kl=spec.max_kl)
    n = min(settings.samples_per_question, len(rates[0]))
    outcomes = [rates[i] if spec.reward == "pass_rate" else [rate == 1.0 for rate in rates[i]] for i in chosen]
    with Judge(workers=1, limits=profile.judge_limits()) as judge:
        if spec.steps:
            problems = rows_to_problems([rows[i] for i in chosen])
            settings = replace(settings, eval_every=spec.steps)
            trained = scratch / "policy"
            if not (trained / LOG_FILE).is_file():
                train(folder, problems, _reward(spec.reward, run, judge, problems), trained, scratch / "training",
                      settings=settings, prompt=profile.prompts.solve, seed=spec.seed, dtype=models.dtype,
                      device=models.device)
            folder, log = trained, json.loads((trained / LOG_FILE).read_text())[1:]
        held_out = evaluate(
            load_policy(folder, models.dtype, models.device), load_tokenizer(folder), load_benchmark(profile), judge,
            name="policy", prompt=profile.prompts.solve, samples=profile.evaluation.samples,
            temperature=profile.evaluation.temperature, max_new_tokens=settings.max_new_tokens,
            batch_size=profile.sampling.batch_size, seed=profile.seed, scratch=scratch,
        )
    kl = [row["kl"] for row in log if row["kl"] is not None]
    known = {
        "rollouts": len(log), "replies": sum(row["sampled"] for row in log),
        "kl": fmean(kl[-5:]) if kl else None, "entropy": fmean(row["entropy"] for row in log[-5:]) if log else None,
        "mixed_predicted": None if spec.reward.endswith("model") else fmean(mixed_share(one, n) for one in outcomes),
        "mixed_seen": fmean(row["mixed"] for row in log[:5]) if log else None,
        "mixed_at_the_end": fmean(row["mixed"] for row in log[-5:]) if log else None,
        "cpu_seconds": _cpu_seconds() - start,
    }  # fmt: skip
    return [{"id": row["id"], "correct": row["correct"], "greedy": row["greedy"]} | known for row in held_out]


def variant_pairs(run: Run, variant: str, seed: int) -> list:
    """The preference pairs of a variant. `seed` chooses the pairs and questions that are kept."""
    change = VARIANTS[variant]
    rule = asdict(run.profile.pairs) | {key: value for key, value in change.items() if key in asdict(run.profile.pairs)}
    rows = run.read(change.get("samples", "samples"))
    if change.get("diluted"):  # divided by all imagined tests, those that the filter dropped included
        imagined = {row["id"]: len(row["test_cases"]) for row in run.read("imagined")}
        rows = [row | {"inferences": [
            item | {"pass_rate": rate} for item, rate in zip(row["inferences"], pass_rates(row, imagined[row["id"]]))
        ]} for row in rows]
    if share := change.get("share"):
        kept = {row["id"] for row in rows if not is_held_out(row["id"], run.profile.reward_model.held_out)}
        kept = set(random.Random(seed).sample(sorted(kept), round(share * len(kept))))
        rows = [row for row in rows if row["id"] in kept]
    solve = run.profile.prompts.solve
    return build_pairs(rows, lambda question: solve_messages(solve, question)[-1]["content"], seed=seed, **rule)


def train_scorer(run: Run, spec: Scorer, scratch: Path) -> list[Row]:
    """Trains and examines: one row per question, `measure` is AUC on held-out synthesised questions (programs that are
    truly correct against others) or the share of correct picks among 16 samples for a benchmark question."""
    profile, change, start = run.profile, VARIANTS[spec.variant], _cpu_seconds()
    pairs = variant_pairs(run, spec.variant, spec.seed)
    base = getattr(profile.models, change["base"]) if "base" in change else profile.reward_model.base
    settings = replace(profile.reward_model, **{key: change[key] for key in ("loss",) if key in change})
    trained = scratch / "reward_model"
    log = train_reward_model(pairs, profile.resolve(base), trained, scratch / "training", settings=settings,
                             n=profile.sampling.n, seed=spec.seed, dtype=profile.models.dtype,
                             device=profile.models.device)
    scorer = load_reward_model(trained, profile.models.dtype, profile.models.device)

    def scores(rows: Sequence[Row], column: str) -> Iterator[tuple[Row, list[float]]]:
        prompts = [solve_messages(profile.prompts.solve, row["question"])[-1]["content"] for row in rows]
        flat = [(prompt, text) for row, prompt in zip(rows, prompts, strict=True) for text in row[column][:32]]
        found = iter(score(*scorer, *zip(*flat, strict=True)))
        for row in rows:
            yield row, [next(found) for _ in row[column][:32]]

    known = {"pairs": len(pairs), "questions": len({pair.problem_id for pair in pairs}),
             "train_loss": next((e["pair_loss"] for e in reversed(log) if "pair_loss" in e), None)}
    rows = [{"id": row["id"], "measure": "auc", "value": auc(found, [rate == 1.0 for rate in row["true_rate"]])}
            for row, found in scores(run.read("reward_audit"), "completion")]
    rows += [{"id": row["id"], "measure": "best_of_16", "value": expected_best(row["correct"][:32], found, 16)}
             for row, found in scores(run.read("candidates"), "completions")]
    known["cpu_seconds"] = _cpu_seconds() - start
    return [row | known for row in rows]


def _cpu_seconds() -> float:
    """Of this process and of the sandboxes that it has closed."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _unit(profile: str, run_dir: str, spec: Policy | Scorer) -> str:
    """Makes one training's artefact, in a process of its own with one thread; returns its name."""
    import torch

    run = open_run(profile, run_dir)
    torch.set_num_threads(1)
    name = artefact(spec)
    if isinstance(spec, Policy):
        inputs, build = ["samples"], lambda scratch: train_policy(run, spec, scratch)
        inputs += ["reward_model"] if spec.reward.endswith("reward_model") else []
    else:
        inputs, build = ["samples", "samples_unfiltered", "imagined", "reward_audit", "candidates"], (
            lambda scratch: train_scorer(run, spec, scratch))
    run.table(name, build, inputs=inputs, params=asdict(spec))
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
        first = {key: value for key, value in rows[0].items()
                 if key not in ("id", "correct", "greedy", "measure", "value")}
        if isinstance(spec, Policy):
            correct = [sum(row["correct"]) for row in rows]
            samples = len(rows[0]["correct"])
            texts = {"samples": samples, "correct": " ".join(map(str, correct)),
                     "greedy": " ".join(str(int(row["greedy"])) for row in rows)}
        else:
            texts = {measure: " ".join(f"{row['value']:.4g}" for row in rows if row["measure"] == measure)
                     for measure in ("auc", "best_of_16")}
        lines.append(asdict(spec) | {key: f"{value:.4g}" if isinstance(value, float) else value
                                     for key, value in first.items()} | texts)
    return lines


def read_table(name: str, folder: Path = PUBLISHED) -> list[dict[str, Any]]:
    """A table of `run_grid`: numbers as numbers, texts of numbers as lists of them. Raises GridError."""
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise GridError(f"There is no {path}; make it with `make grid`.")
    with path.open(newline="", encoding="utf-8") as handle:
        return [{key: _value(key, text) for key, text in row.items()} for row in csv.DictReader(handle)]


def _value(key: str, text: str) -> Any:
    if key in ("correct", "greedy", "auc", "best_of_16"):
        return [float(one) for one in text.split()]
    try:
        return float(text) if text else None
    except ValueError:
        return text


def run_grid(profile: str, run_dir: Path, only: str | None = None, processes: int = 2, target: Path = PUBLISHED,
             specs: Sequence[Policy | Scorer] | None = None) -> list[Path]:
    """Makes all trainings, `processes` at a time with one thread each, and writes `rl.csv`, `rm.csv` and
    `provenance.json` to `target`; `only` is "rl" or "rm". What is up to date is kept.

    Raises GridError when trainings failed, after all others were made.
    """
    specs = [*scorers(), *policies()] if specs is None else specs
    kinds = {"rm": Scorer, "rl": Policy}
    wanted = [spec for spec in specs if only is None or isinstance(spec, kinds[only])]
    start, failed = time.monotonic(), {}
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(_unit, profile, str(run_dir), spec): spec for spec in wanted}
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                if error := job.exception():
                    failed[artefact(jobs[job])] = error
                minutes = (time.monotonic() - start) / 60
                print(f"[{done}/{len(wanted)}] {minutes:.1f} min, about {minutes / done * (len(wanted) - done):.0f} to "
                      f"go  {artefact(jobs[job])}{'  FAILED' if error else ''}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        name, error = next(iter(failed.items()))
        raise GridError(f"{len(failed)} of {len(wanted)} trainings failed, {name} first ({type(error).__name__}: "
                        f"{error}); mend the cause and repeat, the others are kept.") from error
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
    write_json(path, known | {name: {
        "made": time.strftime("%Y-%m-%d"), "commit": commit.stdout.strip() or "unknown", "versions": versions(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}", "trainings": len(lines),
        "core_minutes": round(sum(float(line["cpu_seconds"]) for line in lines) / 60, 1),
        "profile": run.profile.to_dict(),
    }})  # fmt: skip
