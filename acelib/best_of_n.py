"""Best-of-N: which of N sampled programs to hand in, and how good that choice is (paper, Table 3).

From S samples per question (S >= N) the expectation over all subsets of size N is computed exactly, as pass@k is: no
subset is drawn, so a curve over N has no noise of its own and all selectors see the same samples.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from acelib.core import DataError
from acelib.judge import Report


def expected_best(values: Sequence[float], scores: Sequence[float], n: int) -> float:
    """Mean of the value picked by the highest score, over all subsets of `n` of the samples of one question.

    values, scores: (samples,). The sample of rank r (0 = best score) is picked by C(S-1-r, n-1) of the C(S, n)
    subsets. Samples with equal scores share their subsets evenly: a selector that cannot tell them apart picks at
    random. With `scores` equal to 0/1 `values` this is pass@n. Raises DataError unless 1 <= n <= samples and
    every score is a number.
    """
    values, scores = np.asarray(values, dtype=float), np.asarray(scores, dtype=float)
    total = len(values)
    if len(scores) != total or not 1 <= n <= total or np.isnan(scores).any():
        raise DataError(
            f"Cannot pick the best of {n} from {total} samples with {len(scores)} scores; give one "
            "score that is a number per sample, and sample at least n programs."
        )
    expected, before = 0.0, 0
    for level in np.unique(scores)[::-1]:
        tied = scores == level
        after = before + int(tied.sum())
        picked = math.comb(total - before, n) - math.comb(total - after, n)
        expected += values[tied].mean() * (picked / math.comb(total, n))
        before = after
    return float(expected)


def selection_curve(
    values: Sequence[Sequence[float]], scores: Sequence[Sequence[float]], ns: Sequence[int]
) -> np.ndarray:
    """`expected_best` of every question and every n: (questions, ns)."""
    return np.array([[expected_best(v, s, n) for n in ns] for v, s in zip(values, scores, strict=True)])


def selection_curves(rows: Sequence[dict], ns: Sequence[int], selectors: dict[str, str]) -> dict[str, np.ndarray]:
    """Share of correct picks per question for every way to choose: name -> (questions, ns).

    `rows` has one question per row with `greedy` (0/1), `correct` (0/1 per sample) and one column of scores per
    entry of `selectors` (name -> column). "greedy" and "average" do not depend on n.
    """
    correct = [row["correct"] for row in rows]
    fixed = {"greedy": [float(row["greedy"]) for row in rows], "average": [np.mean(row) for row in correct]}
    scores = {name: [row[column] for row in rows] for name, column in selectors.items()} | {"oracle": correct}
    return {name: np.tile(np.array(values)[:, None], len(ns)) for name, values in fixed.items()} | {
        name: selection_curve(correct, mine, ns) for name, mine in scores.items()
    }


def expected_consensus(
    values: Sequence[float], votes: Sequence[Hashable], weights: Sequence[int], ns: Sequence[int], draws: int = 2000
) -> list[float]:
    """Mean of the value picked by the heaviest consensus, over `draws` random subsets of each size in `ns`: (ns,).

    values, votes, weights: (samples,). In a subset a sample scores its weight times the number of samples there with
    the same vote and weight: weights of 1 (0 for a sample without output) make a majority vote, the number of
    passed tests makes `dual_agreement`. Such scores change with the subset, so `expected_best` cannot count them.
    Equal scores share the pick evenly. Raises DataError unless 1 <= n <= samples for every n, and each sample has a
    vote and a weight of 0 or more.
    """
    total, groups = len(values), list(zip(votes, weights))
    if {len(votes), len(weights)} != {total} or not all(1 <= n <= total for n in ns) or min(weights, default=0) < 0:
        raise DataError(
            f"Cannot pick by consensus among {list(ns)} of {total} samples with {len(votes)} votes and {len(weights)} "
            "weights; give one of each per sample, no weight below 0, and sample at least n programs."
        )
    agree = np.array([[one == other for other in groups] for one in groups], dtype=float)  # (samples, samples)
    ranks = np.random.default_rng(0).random((draws, total)).argsort(axis=1).argsort(axis=1)  # the first n are drawn
    found = []
    for drawn in (ranks < n for n in ns):  # (draws, samples)
        scores = np.where(drawn, drawn @ agree * np.array(weights), -1)
        best = scores == scores.max(axis=1, keepdims=True)
        found.append(float((best @ np.array(values, dtype=float) / best.sum(axis=1)).mean()))
    return found


def share_passed(passed: Sequence[Sequence[bool]], kept: Sequence[int] | None = None) -> list[float]:
    """Share of the tests that each sample passes, in [0, 1]; 0 for all when there are no tests.

    passed: (samples, tests). `kept` chooses the tests that survived filtering, by their places; None takes all.
    """
    table = _table(passed) if kept is None else _table(passed)[:, list(kept)]
    return table.mean(axis=1).tolist() if table.shape[1] else [0.0] * len(table)


def dual_agreement(passed: Sequence[Sequence[bool]]) -> list[float]:
    """CodeT's score: number of samples that pass exactly the same tests, times number of tests they pass.

    passed: (samples, tests). Chen et al. 2022, "CodeT: Code Generation with Generated Tests", section 2: the score of
    a consensus set is |S_x| |S_y|. Samples count as often as they were drawn; one that passes nothing scores 0.
    """
    groups = [row.tobytes() for row in _table(passed)]
    size = Counter(groups)
    return [float(size[group] * sum(group)) for group in groups]


def rate_then_score(rates: Sequence[float], scores: Sequence[float]) -> list[float]:
    """The sample with the best `rates` wins, among equals the one with the best `scores`, say of a reward model.

    rates, scores: (samples,). Returns places in that order from 0 (worst); the same in both is the same place. Raises
    DataError when the two differ in length or hold values that are no numbers.
    """
    if len(rates) != len(scores) or np.isnan([*rates, *scores]).any():
        raise DataError(
            f"Cannot order samples by {len(rates)} pass rates and {len(scores)} scores; "
            "give one of each per sample, all of them numbers."
        )
    _, places = np.unique(np.column_stack([rates, scores]), axis=0, return_inverse=True)
    return places.ravel().astype(float).tolist()


def shown_outputs(reports: Sequence[Report]) -> list[Hashable | None]:
    """What each sample did on every test, as far as the judge shows it, for a majority vote; None without any result.

    A test that passed stands for its expected value, one that failed for the value the judge names (its first 160
    characters), an exception or time-out for just that.
    """
    return [
        tuple((one.status, one.reason if one.status == "failed" else "") for one in report.verdicts)
        if any(one.status in ("passed", "failed") for one in report.verdicts)
        else None
        for report in reports
    ]


def _table(passed: Sequence[Sequence[bool]]) -> np.ndarray:
    if len({len(row) for row in passed}) > 1:
        raise DataError("The samples ran against different numbers of tests; give one verdict per sample and test.")
    return np.array(passed, dtype=bool).reshape(len(passed), -1 if len(passed) and len(passed[0]) else 0)
