"""Best-of-N: which of N sampled programs to hand in, and how good that choice is (paper, Table 3).

From S samples per question (S >= N) the expectation over all subsets of size N is computed exactly, as pass@k is: no
subset is drawn, so a curve over N has no noise of its own and all selectors see the same samples.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import fmean

import numpy as np

from acelib.errors import CourseError
from acelib.pairs import bootstrap_mean


class SelectionError(CourseError):
    """A subset size or a set of scores that fits the samples in no way."""


def expected_best(values: Sequence[float], scores: Sequence[float], n: int) -> float:
    """Mean of the value picked by the highest score, over all subsets of `n` of the samples of one question.

    values, scores: (samples,). The sample of rank r (0 = best score) is picked by C(S-1-r, n-1) of the C(S, n)
    subsets. Samples with equal scores share their subsets evenly: a selector that cannot tell them apart picks at
    random. With `scores` equal to 0/1 `values` this is pass@n. Raises SelectionError unless 1 <= n <= samples and
    every score is a number.
    """
    values, scores = np.asarray(values, dtype=float), np.asarray(scores, dtype=float)
    total = len(values)
    if len(scores) != total or not 1 <= n <= total or np.isnan(scores).any():
        raise SelectionError(f"Cannot pick the best of {n} from {total} samples with {len(scores)} scores; give one "
                             "score that is a number per sample, and sample at least n programs.")
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
    flat = np.ones((1, len(ns)))
    curves = {
        "greedy": np.array([[float(row["greedy"])] for row in rows]) * flat,
        "average": np.array([[float(np.mean(row["correct"]))] for row in rows]) * flat,
    }
    for name, column in selectors.items():
        curves[name] = selection_curve(correct, [row[column] for row in rows], ns)
    curves["oracle"] = selection_curve(correct, correct, ns)
    return curves


def expected_consensus(
    values: Sequence[float], votes: Sequence[Hashable], weights: Sequence[int], ns: Sequence[int]
) -> list[float]:
    """Mean of the value picked by the heaviest consensus, over all subsets of each size in `ns`: (ns,).

    values, votes, weights: (samples,). In a subset a sample scores its weight times the number of samples there with
    the same vote and weight: weights of 1 (0 for a sample without output) make `selectors.majority_vote`, the number of
    passed tests makes `selectors.dual_agreement`. Such scores change with the subset, which `expected_best` cannot
    count. Here subsets are counted by how many samples they take from each group (a multivariate hypergeometric
    distribution); equal scores share the pick evenly. Raises SelectionError unless 1 <= n <= samples for every n, and
    each sample has a vote and a weight of 0 or more.
    """
    total, groups = len(values), defaultdict(list)
    if {len(votes), len(weights)} != {total} or not all(1 <= n <= total for n in ns) or min(weights, default=0) < 0:
        raise SelectionError(f"Cannot pick by consensus among {list(ns)} of {total} samples with {len(votes)} votes "
                             f"and {len(weights)} weights; give one of each per sample, no weight below 0, and "
                             "sample at least n programs.")
    for value, vote, weight in zip(values, votes, weights):
        groups[vote, weight].append(value)
    found = np.zeros(total + 1)
    for level in {weight * taken for (_, weight), group in groups.items() for taken in range(1, len(group) + 1)}:
        # ways[d, t]: ways to draw d samples, t of them scoring `level`, none more; sums[d, t]: the values of those t.
        ways, sums = np.zeros((2, total + 1, total + 1))
        ways[0, 0] = 1.0
        for (_, weight), group in groups.items():
            before_ways, before_sums, mean = ways.copy(), sums.copy(), fmean(group)
            for taken in range(1, len(group) + 1):
                if weight * taken > level:
                    break
                tied, count = taken if weight * taken == level else 0, math.comb(len(group), taken)
                here, there = np.s_[taken:, tied:], np.s_[: total + 1 - taken, : total + 1 - tied]
                ways[here] += count * before_ways[there]
                sums[here] += count * (before_sums[there] + tied * mean * before_ways[there])
        found += (sums[:, 1:] / np.arange(1, total + 1)).sum(axis=1)
    return [float(found[n]) / math.comb(total, n) for n in ns]


def consensus_curve(
    values: Sequence[Sequence[float]], votes: Sequence[Sequence[Hashable]], weights: Sequence[Sequence[int]],
    ns: Sequence[int],
) -> np.ndarray:
    """`expected_consensus` of every question and every n: (questions, ns)."""
    return np.array([expected_consensus(*one, ns) for one in zip(values, votes, weights, strict=True)])


def bands(curve: np.ndarray, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Mean over questions with a 95% bootstrap interval over questions: rows mean, low, high; (3, ns).

    Given the difference of two curves of the same questions, this is the paired comparison.
    """
    return np.array([bootstrap_mean(column, draws, seed) for column in curve.T]).T
