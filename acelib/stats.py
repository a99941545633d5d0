"""Estimates with their intervals: bootstraps over questions, and over trainings too; the area under a ROC curve."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from acelib.core import DataError


class Interval(NamedTuple):
    """An estimate with its 95% interval; nan where there is nothing to estimate."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: Sequence[float]) -> "Interval":
        """An estimate between percentiles of its bootstrap replicates; those that are not finite do not count."""
        finite = np.asarray(draws)[np.isfinite(draws)]
        low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (math.nan, math.nan)
        return cls(float(value), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def in_points(self) -> str:
        """Shares in points, a ratio in percent."""
        return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * one for one in self))


def bootstrap(
    statistic: Callable[..., np.ndarray], *columns: Sequence[float], draws: int = 2000, seed: int = 0
) -> Interval:
    """`statistic` of the columns' sums, with its percentile bootstrap interval over questions (Efron 1979).

    columns: (questions,) each, in the same order. Whole questions are drawn with replacement, one draw for all columns:
    the tests, programs or pairs of a question are not independent, questions are.
    """
    columns = [np.asarray(column, dtype=float) for column in columns]
    n = len(columns[0])
    picks = np.random.default_rng(seed).integers(max(n, 1), size=(draws, n))
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = statistic(*(column[picks].sum(axis=1) for column in columns))
        return Interval.of(statistic(*(column.sum() for column in columns)), replicates)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], draws: int = 2000, seed: int = 0
) -> Interval:
    """Ratio of the two sums over questions; nan when the denominators are all 0."""
    return bootstrap(np.divide, numerators, denominators, draws=draws, seed=seed)


def bootstrap_mean(values: Sequence[float], draws: int = 2000, seed: int = 0) -> Interval:
    """Mean over questions; nan values are left out."""
    known = [value for value in values if not math.isnan(value)]
    return bootstrap_ratio(known, [1] * len(known), draws, seed)


def bands(curve: np.ndarray, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """`bootstrap_mean` at every point of a curve (questions, points): rows value, low, high; (3, points).

    Given the difference of two curves of the same questions, this is the paired comparison.
    """
    return np.array([bootstrap_mean(column, draws, seed) for column in curve.T]).T


def paired_bootstrap(
    after: Sequence[float], before: Sequence[float], draws: int = 2000, seed: int = 0, relative: bool = False
) -> Interval:
    """mean(after) - mean(before), or with `relative` mean(after) / mean(before) - 1, over the same questions.

    What makes a question easy or hard for both cancels. Raises DataError when the two do not belong together, or when a
    relative change has nothing to start from.
    """
    if np.ndim(after) != 1 or np.shape(after) != np.shape(before) or not len(after):
        raise DataError(
            f"A paired comparison needs one value per question on both sides, got {np.shape(after)} and "
            f"{np.shape(before)}; evaluate both on the same questions."
        )
    if relative and not np.any(before):
        raise DataError(
            "The starting point solves no question, so a relative gain has no meaning; compare "
            "differences, or begin from a stronger model."
        )
    n = len(after)
    gain = (lambda a, b: (a / n) / (b / n) - 1) if relative else (lambda a, b: a / n - b / n)
    return bootstrap(gain, after, before, draws=draws, seed=seed)


def crossed_bootstrap(
    after: np.ndarray, before: np.ndarray | float = 0, draws: int = 2000, seed: int = 0, relative: bool = False
) -> Interval:
    """`paired_bootstrap` for several trainings, (trainings, questions) each: both are drawn with replacement, each on
    its own, as every training meets every question (Owen 2007, the pigeonhole bootstrap)."""
    rng, (trainings, n) = np.random.default_rng(seed), np.shape(after)
    pairs = np.stack([after, np.broadcast_to(before, (trainings, n))], axis=1)

    def gain(drawn):
        mine, other = drawn.mean(axis=(0, 2))
        return mine / other - 1 if relative else mine - other

    chosen = ((rng.integers(trainings, size=trainings), rng.integers(n, size=n)) for _ in range(draws))
    return Interval.of(gain(pairs), [gain(pairs[some][:, :, questions]) for some, questions in chosen])


def auc(scores: Sequence[float], correct: Sequence[bool]) -> float:
    """Probability that a correct program scores above an incorrect one, ties counting half; nan without both kinds."""
    good = [s for s, c in zip(scores, correct, strict=True) if c]
    bad = [s for s, c in zip(scores, correct, strict=True) if not c]
    if not good or not bad:
        return math.nan
    return sum((g > b) + 0.5 * (g == b) for g, b in product(good, bad)) / (len(good) * len(bad))
