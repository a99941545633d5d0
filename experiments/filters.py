"""The tests behind the rule's reward: filters with and without a stronger model (notebooks 09 and 10)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from acelib.core import Run
from acelib.engine import sample_and_judge
from acelib.models import SamplingParams
from acelib.pocket.laboratory import Laboratory
from acelib.schema import Problem, Row

AGREEMENT = 0.25  # exponent of agreement; appendix A6 chose it on pocket's questions
SHARE = 0.75  # of the weight that a result needs to become a test; chosen after a look at that table
HIDDEN = 20  # true tests of a question
EVERY_SAMPLE, TABLE = "samples_imagined", "distinguishing"  # tables that a run may have for the experiments


def trusted_tests(results: np.ndarray, exponent: float) -> np.ndarray:
    """Dual agreement (CodeT), as appendix A6 teaches it: the tests that the trusted set passes, (tests,).

    results: (samples, tests), who passes what. Samples that pass just the same tests are a set; trusted is the one with
    the largest tests passed x size^exponent, and equals share. All False where nobody passes anything.
    """
    sets, sizes = np.unique(results, axis=0, return_counts=True)
    scores = sets.sum(axis=1) * sizes.astype(float) ** exponent
    return sets[scores == scores.max()].any(axis=0)


def passes_all(results: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which samples pass all kept tests, (samples,); nobody where none is kept. results: (samples, tests)."""
    return results[:, kept].all(axis=1) & kept.any()


def reliabilities(rows: Sequence[Row]) -> tuple[float, float]:
    """How far to believe the samples and the teacher, without any truth: the log odds of the share of samples that
    pass all tests which agreement keeps, and of the share of imagined tests that it keeps. Below one half: no weight.
    """
    results = [np.array(row["results"], dtype=bool) for row in rows]
    kept = [trusted_tests(one, AGREEMENT) for one in results]
    shares = np.mean([passes_all(*pair).mean() for pair in zip(results, kept)]), np.mean(np.concatenate(kept))
    samples, teacher = (float(np.log(one / (1 - one))) for one in np.clip(shares, 0.5, 0.99))
    return samples, teacher


def weighted_majority(outputs: Sequence[int], votes: Sequence[int], weights: Sequence[float], share: float) -> int:
    """The number of the value that gets at least `share` of the weight, else -1 (appendix A4).

    outputs, votes: numbers of the values that samples return and that the teacher says, -1 for none; each side has its
    entry of `weights` to give, in equal parts.
    """
    sides = [(list(side), weight) for side, weight in zip((outputs, votes), weights) if len(side) and weight]
    total = sum(weight for _, weight in sides)
    scores = {value: sum(w * side.count(value) / len(side) for side, w in sides) for side, _ in sides for value in side}
    best = max((value for value in scores if value >= 0), key=scores.get, default=-1)
    return best if best >= 0 and scores[best] >= share * total else -1


def made_tests(row: Row, weights: Sequence[float], share: float = SHARE) -> list[str]:
    """New tests of a question: for each input that tells its samples apart the result by weighted majority."""
    results = np.array(row["results"], dtype=bool)
    trusted = passes_all(results, trusted_tests(results, AGREEMENT))
    tests = []
    for call, values, outputs, votes in zip(row["calls"], row["values"], row["outputs"], row["votes"], strict=True):
        value = weighted_majority(np.array(outputs)[trusted].tolist(), votes, weights, share)
        tests += [f"assert {call} == {values[value]}"] if value >= 0 else []
    return tests


def made_by_proxy(row: Row) -> list[str]:
    """The same with the results of the proxy's program."""
    parts = zip(row["calls"], row["values"], row["proxy_outputs"], strict=True)
    return [f"assert {call} == {values[value]}" for call, values, value in parts if value >= 0]


def every_sample(run: Run) -> list[Row]:
    """AceCode rows as `samples_unfiltered`, of all imagined questions: those that the proxy's filter drops, too."""

    def make(scratch: Path) -> list[Row]:
        params = SamplingParams.of(run.profile.sampling, seed=run.profile.seed + 1)
        return sample_and_judge(run.profile, run.read("imagined", Problem), params, scratch)

    return run.table(EVERY_SAMPLE, make, inputs=("imagined",))


def _kept_by_agreement(row: Row) -> tuple[str, ...]:
    results = np.array([one["test_results"] for one in row["inferences"]], dtype=bool)
    kept = trusted_tests(results, AGREEMENT)
    return tuple(one for one, good in zip(row["test_cases"], kept, strict=True) if good)


def reward_tests(run: Run, name: str, table: str = "samples_unfiltered") -> dict[str, tuple[str, ...]]:
    """By question, the tests that give the reward; may be empty.

    "all" that were imagined; those that the "proxy"'s program passes; those that the "agreement" of the policy's own
    samples keeps; those that are right by the laboratory ("truth"). With more tests than were imagined: "proxy, made"
    and "agreement, made" (`made_by_proxy`, `made_tests`), and "hidden", true ones on wider inputs.
    """
    filtered, _, made = name.partition(", ")
    if filtered == "proxy":
        found = {row["id"]: tuple(row["test_cases"]) for row in run.read("samples")}
    elif filtered == "all":
        found = {row["id"]: tuple(row["test_cases"]) for row in run.read(table)}
    elif filtered == "agreement":
        found = {row["id"]: _kept_by_agreement(row) for row in run.read(table)}
    else:
        laboratory, true = Laboratory.open(run.profile), filtered == "truth"
        found = {
            row["id"]: tuple(t for t in row["test_cases"] if laboratory.test_is_valid(row["question"], t))
            if true
            else tuple(laboratory.hidden_tests(row["question"], HIDDEN))
            for row in run.read(table)
        }
    if made:
        rows = run.read(TABLE)
        weights = reliabilities(rows)
        for row in rows:
            found[row["id"]] += tuple(made_by_proxy(row) if filtered == "proxy" else made_tests(row, weights))
    return found


def share_all_right(problems: Sequence[Problem], laboratory: Laboratory) -> float | None:
    """The share of questions without a wrong test, of those whose tests the laboratory understands (None: of none)."""
    known = [[laboratory.test_is_valid(one.question, test) for test in one.tests] for one in problems]
    right = [all(valid) for valid in known if None not in valid]
    return float(np.mean(right)) if right else None


def own_questions(run: Run, name: str) -> list[Row]:
    """Rows of the questions that a filter itself would let through, with its tests and the pass rates on these: of all
    imagined questions those that keep enough tests."""
    kept, minimum = reward_tests(run, name, EVERY_SAMPLE), run.profile.filtering.min_tests
    rows = []
    for row in run.read(EVERY_SAMPLE):
        places = [n for n, test in enumerate(row["test_cases"]) if test in kept[row["id"]]]
        if len(places) >= minimum:
            rates = [float(np.mean([one["test_results"][n] for n in places])) for one in row["inferences"]]
            judged = [one | {"pass_rate": rate} for one, rate in zip(row["inferences"], rates, strict=True)]
            rows.append(row | {"test_cases": [row["test_cases"][n] for n in places], "inferences": judged})
    return rows
