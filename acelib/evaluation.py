"""Held-out evaluation of models, paired comparisons, and the scorecard against the paper's claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from acelib.benchmarks import EvaluationError, read_benchmark
from acelib.judge import Judge
from acelib.models import sample_tokens, solve_messages, stop_tokens
from acelib.profiles import ROOT, Profile
from acelib.remote import Progress
from acelib.sampling import judge_programs, sample_programs
from acelib.schema import Problem, Row


def load_benchmark(profile: Profile, limit: int | None = None) -> list[Problem]:
    """The first `limit` (default `evaluation.questions`) held-out problems of the profile (see `read_benchmark`).

    Raises EvaluationError.
    """
    problems = read_benchmark(profile.resolve(profile.data.benchmark))
    return problems[: limit or profile.evaluation.questions]


def evaluate(
    model: Any, tokenizer: Any, problems: Sequence[Problem], judge: Judge, *, name: str, prompt: str, samples: int,
    temperature: float, top_p: float = 1.0, max_new_tokens: int, batch_size: int, seed: int, scratch: Path,
    progress: Progress | None = None,
) -> list[Row]:
    """One greedy and `samples` sampled programs per problem, judged by all tests of the problem.

    Rows: id, question, model, greedy (bool: the greedy program passes every test), correct (bool per sample), pass_rate
    (float per sample), completions (the sampled replies). Replies are kept in `scratch` until the caller has stored
    the rows, so an interrupted evaluation goes on where it stopped.
    """
    common = dict(prompt=prompt, max_new_tokens=max_new_tokens, batch_size=batch_size, model_name=name)
    greedy = sample_programs(model, tokenizer, problems, n=1, temperature=0.0, seed=seed,
                             log=scratch / f"{name}-greedy.jsonl", **common)
    sampled = sample_programs(model, tokenizer, problems, n=samples, temperature=temperature, top_p=top_p, seed=seed,
                              log=scratch / f"{name}-sampled.jsonl", progress=progress, **common)
    rates = [float(report.pass_rate) for report in judge_programs(judge, problems, greedy + sampled)]
    rows = []
    for number, problem in enumerate(problems):
        mine = slice(number * samples, (number + 1) * samples)
        passed = rates[len(greedy) :][mine]
        rows.append({
            "id": problem.id,
            "question": problem.question,
            "model": name,
            "greedy": rates[number] == 1.0,
            "correct": [rate == 1.0 for rate in passed],
            "pass_rate": passed,
            "completions": [program.reply for program in sampled[mine]],
        })
    return rows


@dataclass(frozen=True)
class Prompt:
    """What the user says ({question} is filled in) and, for `prefill`, how the model's reply is made to begin."""

    user: str
    prefill: str = ""


# EvalPlus 0.3.1, evalplus/codegen.py and provider/utility.py, for models with a chat template
EVALPLUS = Prompt(
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
    "```\n{question}\n```\n",
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    "```python\n",
)
MARK = "-[[the reply goes on here]]-"


def ask(
    model: Any, tokenizer: Any, problems: Sequence[Problem], prompt: Prompt, *, n: int = 1, temperature: float = 0.0,
    top_p: float = 1.0, max_new_tokens: int, batch_size: int, seed: int = 0, progress: Progress | None = None,
) -> list[list[str]]:
    """`n` replies per problem (temperature 0: greedy), each with the prefill that it continues.

    Raises ModelError when a prompt and `max_new_tokens` exceed the model's context.
    """
    texts = []
    for problem in problems:
        chat = solve_messages(prompt.user, problem.question)
        # EvalPlus's way: whatever the template does to the end of a message, it does it after the mark
        chat += [{"role": "assistant", "content": prompt.prefill + MARK}] if prompt.prefill else []
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=not prompt.prefill)
        texts.append(text.partition(MARK)[0])
    found = sample_tokens(
        model, [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts], n=n, temperature=temperature,
        top_p=top_p, max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed,
        stop=stop_tokens(model, tokenizer), pad_id=tokenizer.pad_token_id, progress=progress,
    )
    return [[prompt.prefill + tokenizer.decode(one.ids, skip_special_tokens=True) for one in row] for row in found]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_bootstrap(
    after: Sequence[float], before: Sequence[float], draws: int = 2000, seed: int = 0, relative: bool = False
) -> Interval:
    """mean(after) - mean(before), or with `relative` mean(after) / mean(before) - 1, over the same questions.

    One value per question in both; questions are resampled in pairs, so what makes a question easy or hard for both
    cancels. Percentile interval of 95%. Raises EvaluationError when the two do not belong together, or when a
    relative change has nothing to start from.
    """
    after, before = np.asarray(after, dtype=float), np.asarray(before, dtype=float)
    if after.shape != before.shape or after.ndim != 1 or not len(after):
        raise EvaluationError(f"A paired comparison needs one value per question on both sides, got {after.shape} and "
                              f"{before.shape}; evaluate both on the same questions.")
    if relative and not before.any():
        raise EvaluationError("The starting point solves no question, so a relative gain has no meaning; compare "
                              "differences, or begin from a stronger model.")
    picks = np.random.default_rng(seed).integers(len(after), size=(draws, len(after)))
    ends, starts = (np.r_[x.mean(), x[picks].mean(axis=1)] for x in (after, before))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = ends / starts - 1 if relative else ends - starts
    low, high = np.percentile(found[1:][np.isfinite(found[1:])], [2.5, 97.5])
    return Interval(float(found[0]), float(low), float(high))


@dataclass(frozen=True)
class Baseline:
    """A published pass@1 of an untrained model. `prompt`: in whose words it was asked, profile or harness; `rival`:
    what another set-up gives, which need not be reproduced."""

    published: float
    tolerance: float
    decoding: str
    prompt: str
    source: str
    rival: bool = False


def published_baselines(
    model: str, benchmarks: dict[str, int], temperature: float | None = None, path: Path = ROOT / "data/baselines.yaml"
) -> list[Baseline]:
    """What data/baselines.yaml has for a model on one of `benchmarks` (name: number of questions); often nothing.

    Sampled figures count at their own temperature only. Raises EvaluationError on one in a harness's words.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = []
    for entry in content["published"]:
        if (entry["decoding"], entry["prompt"]) == ("sampled", "harness"):
            raise EvaluationError(f"{path.name} has a sampled figure in a harness's words ({entry['source']}), which "
                                  "nothing here measures; give the greedy one.")
        for name, value in entry["figures"].get(model, {}).items():
            whole = name in benchmarks and benchmarks[name] == content["questions"].get(name, benchmarks[name])
            if whole and (entry["decoding"] == "greedy" or entry["temperature"] == temperature):
                found.append(Baseline(value, entry["tolerance"], entry["decoding"], entry["prompt"], entry["source"],
                                      entry.get("rival", False)))
    return found


def profile_baselines(profile: Profile) -> list[Baseline]:
    """What is published for the profile's policy on its benchmark. Raises EvaluationError, as `read_benchmark` does."""
    problems = read_benchmark(profile.resolve(profile.data.benchmark))
    names = {profile.data.benchmark, *(problem.source for problem in problems)}
    return published_baselines(profile.models.policy, dict.fromkeys(names, len(problems)),
                               profile.evaluation.temperature)


def reproduces(here: Interval, published: float, tolerance: float) -> bool:
    """Whether the estimate lies within `tolerance` of what was published.

    The estimate and not its interval: on few questions the interval would reach anything. What the tolerance allows
    for (other questions, rounding) is stated where the figure stands.
    """
    return abs(here.value - published) <= tolerance


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and what is measured for it: a number that should be at least `at_least` (and above 0).

    `gain`: it compares something with the untrained policy, which must first reproduce what is published for it.
    """

    key: str
    claim: str
    measure: str
    paper: str
    at_least: float = 0.0
    must_hold: bool = False
    gain: bool = False


CLAIMS = (
    Claim("filter", "Filtering by a proxy's program raises the share of valid tests",
          "valid tests, after - before", "an audit of 200 surviving tests found 3 invalid", must_hold=True),
    Claim("rm_average", "The reward model's pick beats the average sample",
          "correct, RM best-of-N - average", "+6.6 points (57.6 vs 51.0, N = 16)", must_hold=True, gain=True),
    Claim("rm_greedy", "The reward model's pick beats greedy decoding",
          "correct, RM best-of-N - greedy", "+2.4 points (57.6 vs 55.2, N = 16)", gain=True),
    Claim("oracle", "The oracle stays above the reward model, greedy and the average",
          "correct, oracle - best of the others", "+21.1 points (78.9 vs 57.8, N = 64)", must_hold=True),
    Claim("filtered_rm", "A reward model from filtered tests beats one from unfiltered tests",
          "correct, best-of-N, filtered - unfiltered", "+1.0 points (57.6 vs 56.6, N = 16)"),
    Claim("rule_rl", "RL with the rule reward lifts sampled pass@1 by a third or more",
          "relative gain in sampled pass@1", "not given; greedy from the base: +18% (44.4 to 52.3)", at_least=1 / 3,
          must_hold=True, gain=True),
    Claim("rule_rl_greedy", "RL with the rule reward beats the base model, decoded greedily",
          "greedy pass@1, rule RL - base", "+7.9 points (44.4 to 52.3)", gain=True),
    Claim("rm_rl", "RL with the reward model's score beats the base model",
          "sampled pass@1, RM RL - base", "+4.7 points (44.4 to 49.1, greedy)", gain=True),
    Claim("rm_rl_less", "RL gains less with the reward model's score than with the rule",
          "sampled pass@1, rule RL - RM RL", "+3.2 points (52.3 vs 49.1, greedy)"),
    Claim("few_steps", "Most of the gain comes in few steps",
          "held-out pass@1, gain up to half-time - gain after it", "80 steps in all; no curve is given", gain=True),
    Claim("backbone", "A reward model on a code model's backbone beats one on a general model's",
          "correct, best-of-16", "+6.1 points (47.7 vs 41.6)"),
    Claim("general_rm", "General-purpose reward models hardly beat greedy decoding",
          "correct, best-of-N - greedy", "at most +2.6 points"),
)


def verdict(claim: Claim, here: Interval | None, reproduced: bool | None = None) -> str:
    """`holds` when the estimate reaches what is claimed and its 95% interval lies above 0; no measurement means
    `not testable here`; anything else `does not hold`, an interval that straddles 0 included. A gain over a baseline
    that was not `reproduced` (None: nothing is published for it) is `not claimable`, however large."""
    if here is None:
        return "not testable here"
    if here.value < claim.at_least or here.low <= 0:
        return "does not hold"
    return "not claimable" if claim.gain and reproduced is False else "holds"


def scorecard(evidence: dict[str, Interval | None], reproduced: bool | None = None) -> list[Row]:
    """One row per claim of the paper: key, claim, measure, paper, here ({value, low, high} or None), verdict,
    must_hold. `evidence` has an entry for every claim that could be measured; `reproduced` as in `verdict`. Raises
    EvaluationError on an unknown key.
    """
    known = [claim.key for claim in CLAIMS]
    unknown = evidence.keys() - set(known)
    if unknown:
        raise EvaluationError(f"No claim is called {', '.join(sorted(unknown))}; known: {', '.join(known)}.")
    rows = []
    for claim in CLAIMS:
        here = evidence.get(claim.key)
        rows.append({
            "key": claim.key,
            "claim": claim.claim,
            "measure": claim.measure,
            "paper": claim.paper,
            "here": None if here is None else {"value": here.value, "low": here.low, "high": here.high},
            "verdict": verdict(claim, here, reproduced),
            "must_hold": claim.must_hold,
        })
    return rows
