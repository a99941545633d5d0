"""One training of the grid (`acelib.course.grid`): a policy or a reward model with one thing changed, and its test."""

import json
import random
import resource
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from acelib.best_of_n import expected_best
from acelib.core import Run
from acelib.data import load_benchmark
from acelib.evaluation import evaluate
from acelib.judge import Judge
from acelib.models import SamplingParams, load_policy, load_tokenizer, solve_messages
from acelib.pairs import build_pairs, hard_quarter, mixed_share
from acelib.reward_model import is_held_out, load_reward_model, score
from acelib.rewards import gated, model_reward, pass_rate_reward, rule_reward, with_format
from acelib.sampling import pass_rates
from acelib.schema import Row, rows_to_problems
from acelib.stats import auc
from acelib.training import LOG_FILE, train, train_reward_model

STEPS = 24  # rollouts of a training


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
    models = run.profile.models
    if name.endswith("reward_model"):
        scorer = load_reward_model(run.path("reward_model"), models.dtype, models.device)
        learned = model_reward(*scorer, run.profile.reward_model.score_batch)
        return gated(learned, problems) if name.startswith("gated") else learned
    if name == "pass_rate":
        return pass_rate_reward(judge, problems)
    rule = rule_reward(judge, problems)
    return with_format(rule, problems) if name == "rule_format" else rule


def train_policy(run: Run, spec: Policy, scratch: Path) -> list[Row]:
    """Trains and evaluates; one row per held-out question, with what is known of the whole training in every row.

    Called again with the same `scratch` it goes on where it stopped. Raises as the trainers do.
    """
    profile, models = run.profile, run.profile.models
    start, folder, log = _cpu_seconds(), profile.resolve(models.policy), []
    rows = run.read("samples")
    rates = [pass_rates(row) for row in rows]
    chosen = chosen_questions(rates, spec.questions, spec.seed)
    settings = replace(profile.reinforce, algorithm=spec.algorithm, steps=spec.steps, max_kl=spec.max_kl)
    n = min(settings.samples_per_question, len(rates[0]))
    outcomes = [rates[i] if spec.reward == "pass_rate" else [rate == 1.0 for rate in rates[i]] for i in chosen]
    with Judge.from_settings(profile.judge, workers=1) as judge:
        if spec.steps:
            problems = rows_to_problems([rows[i] for i in chosen])
            settings = replace(settings, eval_every=spec.steps)
            trained = scratch / "policy"
            if not trained.is_dir():
                half = scratch / "policy-half"
                train(
                    folder,
                    problems,
                    _reward(spec.reward, run, judge, problems),
                    half,
                    scratch / "training",
                    settings=settings,
                    prompt=profile.prompts.solve,
                    seed=spec.seed,
                    dtype=models.dtype,
                    device=models.device,
                    engine=profile.engine,
                )
                half.rename(trained)
            folder, log = trained, json.loads((trained / LOG_FILE).read_text())[1:]
        held_out = evaluate(
            load_policy(folder, models.dtype, models.device),
            load_tokenizer(folder),
            load_benchmark(profile),
            judge,
            SamplingParams.of(
                profile.sampling,
                settings,
                profile.evaluation,
                n=profile.evaluation.samples,
                top_p=1.0,
                seed=profile.seed,
            ),
            name="policy",
            prompt=profile.prompts.solve,
            scratch=scratch,
        )
    kl = [row["kl"] for row in log if row["kl"] is not None]
    known = {
        "rollouts": len(log),
        "replies": sum(row["sampled"] for row in log),
        "kl": fmean(kl[-5:]) if kl else None,
        "entropy": fmean(row["entropy"] for row in log[-5:]) if log else None,
        "mixed_predicted": None if spec.reward.endswith("model") else fmean(mixed_share(one, n) for one in outcomes),
        "mixed_seen": fmean(row["mixed"] for row in log[:5]) if log else None,
        "mixed_at_the_end": fmean(row["mixed"] for row in log[-5:]) if log else None,
        "cpu_seconds": _cpu_seconds() - start,
    }
    return [{"id": row["id"], "correct": row["correct"], "greedy": row["greedy"]} | known for row in held_out]


def variant_pairs(run: Run, variant: str, seed: int) -> list:
    """The preference pairs of a variant. `seed` chooses the pairs and questions that are kept."""
    change = VARIANTS[variant]
    rule = asdict(run.profile.pairs) | {key: value for key, value in change.items() if key in asdict(run.profile.pairs)}
    rows = run.read(change.get("samples", "samples"))
    if change.get("diluted"):  # divided by all imagined tests, those that the filter dropped included
        imagined = {row["id"]: len(row["test_cases"]) for row in run.read("imagined")}
        rows = [
            row
            | {
                "inferences": [
                    item | {"pass_rate": rate}
                    for item, rate in zip(row["inferences"], pass_rates(row, imagined[row["id"]]))
                ]
            }
            for row in rows
        ]
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
    log = train_reward_model(
        pairs,
        profile.resolve(base),
        trained,
        scratch / "training",
        settings=settings,
        n=profile.sampling.n,
        seed=spec.seed,
        dtype=profile.models.dtype,
        device=profile.models.device,
        engine=profile.engine,
    )
    scorer = load_reward_model(trained, profile.models.dtype, profile.models.device)

    def scores(rows: Sequence[Row], column: str) -> Iterator[tuple[Row, list[float]]]:
        prompts = [solve_messages(profile.prompts.solve, row["question"])[-1]["content"] for row in rows]
        flat = [(prompt, text) for row, prompt in zip(rows, prompts, strict=True) for text in row[column][:32]]
        found = iter(score(*scorer, *zip(*flat, strict=True)))
        for row in rows:
            yield row, [next(found) for _ in row[column][:32]]

    known = {
        "pairs": len(pairs),
        "questions": len({pair.problem_id for pair in pairs}),
        "train_loss": next((e["pair_loss"] for e in reversed(log) if "pair_loss" in e), None),
    }
    rows = [
        {"id": row["id"], "measure": "auc", "value": auc(found, [rate == 1.0 for rate in row["true_rate"]])}
        for row, found in scores(run.read("reward_audit"), "completion")
    ]
    rows += [
        {"id": row["id"], "measure": "best_of_16", "value": expected_best(row["correct"][:32], found, 16)}
        for row, found in scores(run.read("candidates"), "completions")
    ]
    known["cpu_seconds"] = _cpu_seconds() - start
    return [row | known for row in rows]


def _cpu_seconds() -> float:
    """Of this process and of the sandboxes that it has closed."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
