"""Estimates with their intervals: the bootstrap over questions, paired or not, and the area under a ROC curve."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from acelib.core import DataError


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """(ratio, low, high) of the two sums, with a 95% percentile bootstrap over questions; nan when undefined.

    One entry per question: the tests, programs or pairs of a question are not independent, questions are.
    """
    top, bottom = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if not bottom.sum():
        return (math.nan,) * 3
    picks = np.random.default_rng(seed).integers(len(top), size=(draws, len(top)))
    with np.errstate(invalid="ignore"):
        ratios = top[picks].sum(axis=1) / bottom[picks].sum(axis=1)
    low, high = np.nanpercentile(ratios, [2.5, 97.5])
    return float(top.sum() / bottom.sum()), float(low), float(high)


def bootstrap_mean(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) over questions, as `bootstrap_ratio`; nan values are left out."""
    known = [value for value in values if not math.isnan(value)]
    return bootstrap_ratio(known, [1] * len(known), draws, seed)


def paired_bootstrap(
    after: Sequence[float], before: Sequence[float], draws: int = 2000, seed: int = 0, relative: bool = False
) -> Interval:
    """mean(after) - mean(before), or with `relative` mean(after) / mean(before) - 1, over the same questions.

    One value per question in both; questions are resampled in pairs, so what makes a question easy or hard for both
    cancels. Percentile interval of 95%. Raises DataError when the two do not belong together, or when a
    relative change has nothing to start from.
    """
    after, before = np.asarray(after, dtype=float), np.asarray(before, dtype=float)
    if after.shape != before.shape or after.ndim != 1 or not len(after):
        raise DataError(
            f"A paired comparison needs one value per question on both sides, got {after.shape} and "
            f"{before.shape}; evaluate both on the same questions."
        )
    if relative and not before.any():
        raise DataError(
            "The starting point solves no question, so a relative gain has no meaning; compare "
            "differences, or begin from a stronger model."
        )
    picks = np.random.default_rng(seed).integers(len(after), size=(draws, len(after)))
    ends, starts = (np.r_[x.mean(), x[picks].mean(axis=1)] for x in (after, before))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = ends / starts - 1 if relative else ends - starts
    low, high = np.percentile(found[1:][np.isfinite(found[1:])], [2.5, 97.5])
    return Interval(float(found[0]), float(low), float(high))


def auc(scores: Sequence[float], correct: Sequence[bool]) -> float:
    """Probability that a correct program scores above an incorrect one, ties counting half; nan without both kinds."""
    good = [s for s, c in zip(scores, correct, strict=True) if c]
    bad = [s for s, c in zip(scores, correct, strict=True) if not c]
    if not good or not bad:
        return float("nan")
    return sum((g > b) + 0.5 * (g == b) for g, b in product(good, bad)) / (len(good) * len(bad))
