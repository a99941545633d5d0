"""One training of the grid (`experiments.grid`): a policy or a reward model with one thing changed, and its test."""

import json
import math
import random
import resource
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from acelib.best_of_n import expected_best
from acelib.core import DataError, Run
from acelib.data import load_benchmark
from acelib.evaluation import evaluate
from acelib.judge import Judge
from acelib.models import SamplingParams, load_policy, load_tokenizer, solve_messages
from acelib.pairs import build_pairs, hard_quarter, mixed_share
from acelib.pocket.laboratory import Laboratory
from acelib.reward_model import is_held_out, load_reward_model, score
from acelib.rewards import RewardFunction, model_reward, rule_reward
from acelib.sampling import pass_rates
from acelib.schema import Pair, Problem, Row
from acelib.stats import auc
from acelib.training import LOG_FILE, make_reinforce_trainer, make_reward_trainer
from experiments.filters import own_questions, reward_tests, share_all_right
from experiments.rewards import gated, pass_rate_reward, with_format

STEPS = 24  # rollouts of a training
OWN = "own "  # a choice of those questions that the filter itself lets through


@dataclass(frozen=True)
class Policy:
    """One RL training: `questions` names who chose the questions, `max_kl` stops early (0: never), `tests` which tests
    give the reward (see `reward_tests`; "": those of the run)."""

    reward: str
    algorithm: str = "reinforce++"
    questions: str = "hard quarter"
    steps: int = STEPS
    max_kl: float = 0.0
    seed: int = 0
    tests: str = ""


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
    uncertain ones (drawn in proportion to p (1 - p), p = (correct + 1) / (samples + 2), as appendix A5 predicts for),
    or random ones."""
    hard, rng = hard_quarter(rates), random.Random(seed)
    if choice == "hard quarter":
        return hard
    correct = [sum(rate == 1.0 for rate in question) for question in rates]
    if (
        choice == "uncertain"
    ):  # the largest of u^(1 / weight): a draw without replacement (Efraimidis and Spirakis 2006)
        weights = [(right + 1) * (len(question) - right + 1) for right, question in zip(correct, rates, strict=True)]
        keys = [rng.random() ** (1 / weight) for weight in weights]
        return sorted(sorted(range(len(rates)), key=keys.__getitem__)[-len(hard) :])
    pool = [i for i in range(len(rates)) if choice == "random" or 0 < correct[i] < len(rates[i])]
    return sorted(rng.sample(pool, min(len(hard), len(pool))))


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


def _held_out(run: Run, folder: str | Path, judge: Judge, scratch: Path) -> list[Row]:
    """How the policy in `folder` does on the benchmark."""
    profile, models = run.profile, run.profile.models
    how = {"n": profile.evaluation.samples, "top_p": 1.0, "seed": profile.seed}
    return evaluate(
        load_policy(folder, models.dtype, models.device),
        load_tokenizer(folder),
        load_benchmark(profile),
        judge,
        SamplingParams.of(profile.sampling, profile.reinforce, profile.evaluation, **how),
        name="policy",
        prompt=profile.prompts.solve,
        scratch=scratch,
    )


def chosen_problems(run: Run, spec: Policy) -> tuple[list[Problem], list[list[float]]]:
    """What a training asks, with the tests behind its reward, and the pass rates by which the questions were chosen; a
    question that keeps no test is asked no more. Raises DataError when none is left."""
    own = spec.questions.startswith(OWN)
    rows = own_questions(run, spec.tests) if own else run.read("samples")
    rates = [pass_rates(row) for row in rows]
    chosen = chosen_questions(rates, spec.questions.removeprefix(OWN), spec.seed)
    problems = [Problem.from_row(rows[i]) for i in chosen]
    if spec.tests and not own:
        kept = reward_tests(run, spec.tests)
        problems = [replace(one, tests=kept[one.id]) for one in problems if kept[one.id]]
    if not problems:
        raise DataError(f"No question has a test left ({spec}); train on more questions, or with another filter.")
    return problems, [rates[i] for i in chosen]


def train_policy(run: Run, spec: Policy, scratch: Path, reward: RewardFunction | None = None) -> Row:
    """Trains (on `reward`, or on the one that the spec names) and evaluates. `correct` and `greedy` hold one number per
    held-out question: how many of `samples` programs were correct, and whether (1 or 0) the greedy one was.

    Called again with the same `scratch` it goes on where it stopped. Raises as the trainers do.
    """
    profile, start, settings = run.profile, _cpu_seconds(), run.profile.reinforce
    folder, log = profile.resolve(profile.models.policy), []
    problems, rates = chosen_problems(run, spec)
    with Judge.from_settings(profile.judge, workers=1) as judge:
        if spec.steps:
            trained = scratch / "policy"
            if not trained.is_dir():
                mine = dict(algorithm=spec.algorithm, steps=spec.steps, max_kl=spec.max_kl, eval_every=spec.steps)
                make_reinforce_trainer(
                    replace(profile, seed=spec.seed, reinforce=replace(settings, **mine)),
                    problems,
                    reward or _reward(spec.reward, run, judge, problems),
                    scratch / "training",
                ).train_and_save(scratch / "policy-half")
                (scratch / "policy-half").rename(trained)
            folder, log = trained, json.loads((trained / LOG_FILE).read_text())[1:]
        held_out = _held_out(run, folder, judge, scratch)
    n = min(settings.samples_per_question, len(rates[0]))
    outcomes = [one if spec.reward == "pass_rate" else [rate == 1.0 for rate in one] for one in rates]
    predictable = not spec.reward.endswith("model")  # a reward model's scores are hardly ever equal
    measured: Row = {}
    if spec.tests:
        measured = {"asked": len(problems), "all_right": share_all_right(problems, Laboratory.open(profile))}
    return measured | {
        "rollouts": len(log),
        "replies": sum(row["sampled"] for row in log),
        "kl": _mean([row["kl"] for row in log if row["kl"] is not None][-5:]),
        "entropy": _mean([row["entropy"] for row in log[-5:]]),
        "mixed_predicted": _mean([mixed_share(one, n) for one in outcomes if predictable]),
        "mixed_seen": _mean([row["mixed"] for row in log[:5]]),
        "mixed_at_the_end": _mean([row["mixed"] for row in log[-5:]]),
        "cpu_seconds": _cpu_seconds() - start,
        "samples": profile.evaluation.samples,
        "correct": [sum(row["correct"]) for row in held_out],
        "greedy": [int(row["greedy"]) for row in held_out],
    }


def variant_pairs(run: Run, variant: str, seed: int) -> list[Pair]:
    """The preference pairs of a variant. `seed` chooses the pairs and questions that are kept."""
    change, rule = VARIANTS[variant], asdict(run.profile.pairs)
    rows = run.read(change.get("samples", "samples"))
    if change.get("diluted"):  # divided by all imagined tests, those that the filter dropped included
        imagined = {row["id"]: len(row["test_cases"]) for row in run.read("imagined")}
        for row in rows:
            for item, rate in zip(row["inferences"], pass_rates(row, imagined[row["id"]]), strict=True):
                item["pass_rate"] = rate
    if share := change.get("share"):
        learnt = sorted({row["id"] for row in rows if not is_held_out(row["id"], run.profile.reward_model.held_out)})
        kept = set(random.Random(seed).sample(learnt, round(share * len(learnt))))
        rows = [row for row in rows if row["id"] in kept]
    rule |= {key: value for key, value in change.items() if key in rule}
    return build_pairs(rows, partial(_asked, run), seed=seed, **rule)


def _asked(run: Run, question: str) -> str:
    """A question in the words in which the policy is asked."""
    return solve_messages(run.profile.prompts.solve, question)[-1]["content"]


def train_scorer(run: Run, spec: Scorer, scratch: Path) -> Row:
    """Trains and examines. `auc` holds one number per held-out synthesised question (programs that are truly correct
    against others; None where all are alike), `best_of_16` one per benchmark question: the expected share of correct
    picks among 16 samples."""
    profile, change, start = run.profile, VARIANTS[spec.variant], _cpu_seconds()
    pairs, settings = variant_pairs(run, spec.variant, spec.seed), profile.reward_model
    base = getattr(profile.models, change["base"]) if "base" in change else settings.base
    settings = replace(settings, base=base, loss=change.get("loss", settings.loss))
    mine = replace(profile, seed=spec.seed, reward_model=settings)
    log = make_reward_trainer(mine, pairs, scratch / "training").train_and_save(scratch / "reward_model")
    model, tokenizer = load_reward_model(scratch / "reward_model", profile.models.dtype, profile.models.device)

    def scored(table: str, column: str) -> Iterator[tuple[Row, list[float]]]:
        """Rows of a table with the scores of the first 32 texts in a column."""
        rows = run.read(table)
        flat = [(_asked(run, row["question"]), text) for row in rows for text in row[column][:32]]
        found = iter(score(model, tokenizer, *zip(*flat, strict=True)))
        return ((row, list(islice(found, len(row[column][:32])))) for row in rows)

    audit = [
        auc(found, [rate == 1.0 for rate in row["true_rate"]]) for row, found in scored("reward_audit", "completion")
    ]
    picks = [expected_best(row["correct"][:32], found, 16) for row, found in scored("candidates", "completions")]
    return {
        "pairs": len(pairs),
        "questions": len({pair.problem_id for pair in pairs}),
        "train_loss": next((entry["pair_loss"] for entry in reversed(log) if "pair_loss" in entry), None),
        "cpu_seconds": _cpu_seconds() - start,
        "auc": [None if math.isnan(one) else round(one, 4) for one in audit],
        "best_of_16": [round(one, 4) for one in picks],
    }


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _cpu_seconds() -> float:
    """Of this process and of the sandboxes that it has closed."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
