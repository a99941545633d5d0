"""From pass rates to training signal: pass@k, preference pairs, mixed outcomes, the hard quarter."""

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from statistics import fmean

import numpy as np

from acelib.core import DataError
from acelib.schema import Pair, Row


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of `k` programs, drawn without replacement from `n`, is among the `c` correct ones.

    The unbiased estimator of Chen et al. 2021 (Eq. 1). Raises DataError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise DataError(
            f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}; draw more samples or lower k."
        )
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def preference_pairs(
    rates: Sequence[float],
    min_gap: float = 0.4,
    min_chosen: float = 0.8,
    min_rejected: float = 0.0,
    strict: bool = True,
) -> list[tuple[int, int]]:
    """Index pairs (better, worse) of one question's programs, by their pass rates (Eq. 3 of the paper).

    `strict` compares as the paper writes it (>); otherwise gap and chosen are compared as its public code does (>=).
    The rejected side must be strictly above `min_rejected` either way: a program that passes nothing often just
    does not parse, and teaches the reward model only that.
    """
    slack = 1e-9 if strict else -1e-9  # 17/20 - 9/20 is 0.4, whatever the last bit says
    return [
        (i, j)
        for i, good in enumerate(rates)
        for j, bad in enumerate(rates)
        if good - bad > min_gap + slack and good > min_chosen + slack and bad > min_rejected
    ]


def mixed_share(outcomes: Sequence[Hashable], n: int) -> float:
    """Probability that `n` of a question's outcomes, drawn without replacement, are not all the same.

    All-equal outcomes have equal advantages within the question, so only mixed ones carry signal about it.
    Raises DataError unless 1 <= n <= len(outcomes).
    """
    if not 1 <= n <= len(outcomes):
        raise DataError(f"Cannot draw {n} of {len(outcomes)} outcomes; sample more programs or lower n.")
    same = sum(math.comb(count, n) for count in Counter(outcomes).values())
    return 1.0 - same / math.comb(len(outcomes), n)


def hard_quarter(rates: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the questions used for RL, in their order: the lower half by mean pass rate, then, of those, the
    upper half by standard deviation of pass rate (section 3.2 of the paper). Halves round down, ties keep the order.
    """
    means = [fmean(question) for question in rates]
    spreads = [float(np.std(question)) for question in rates]
    by_mean = sorted(range(len(rates)), key=lambda index: means[index])
    lower_half = by_mean[: len(by_mean) // 2]
    by_spread = sorted(lower_half, key=lambda index: -spreads[index])
    return sorted(by_spread[: len(by_spread) // 2])


def build_pairs(
    rows: Sequence[Row],
    instruction: Callable[[str], str],
    *,
    min_gap: float,
    min_chosen: float,
    min_rejected: float,
    strict: bool,
    max_pairs_per_question: int | None = None,
    seed: int = 0,
) -> list[Pair]:
    """Preference pairs of all questions, from AceCode-87K rows with inferences.

    `instruction` turns a question into the prompt that the reward model will see. Two programs that read the same
    give one pair, not many. Beyond `max_pairs_per_question` a random choice of that size is kept.
    """
    pairs = []
    for row in rows:
        samples = row["inferences"]
        found = preference_pairs([s["pass_rate"] for s in samples], min_gap, min_chosen, min_rejected, strict)
        distinct = {(samples[i]["completion"], samples[j]["completion"]): (i, j) for i, j in found}
        kept = list(distinct.values())
        if max_pairs_per_question and len(kept) > max_pairs_per_question:
            kept = random.Random(f"{seed}/{row['id']}").sample(kept, max_pairs_per_question)
        asked = str(row["id"]), instruction(row["question"])
        for good, bad in ((samples[i], samples[j]) for i, j in kept):
            rates = good["pass_rate"], bad["pass_rate"]
            pairs.append(Pair(*asked, good["completion"], bad["completion"], *rates))
    return pairs
