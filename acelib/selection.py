"""Best-of-N: which of N sampled programs to hand in, and how good that choice is (paper, Table 3).

From S samples per question (S >= N) the expectation over all subsets of size N is computed exactly, as pass@k is: no
subset is drawn, so a curve over N has no noise of its own and all selectors see the same samples.
"""

import math
from collections.abc import Sequence

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


def bands(curve: np.ndarray, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Mean over questions with a 95% bootstrap interval over questions: rows mean, low, high; (3, ns).

    Given the difference of two curves of the same questions, this is the paired comparison.
    """
    return np.array([bootstrap_mean(column, draws, seed) for column in curve.T]).T
