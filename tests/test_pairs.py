import math
from itertools import combinations
from statistics import fmean

import pytest

from acelib.core import DataError
from acelib.pairs import build_pairs, hard_quarter, mixed_share, pass_at_k, preference_pairs
from acelib.stats import bootstrap_mean, bootstrap_ratio, paired_bootstrap


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_is_the_average_over_all_subsets(n):
    for c in range(n + 1):
        outcomes = [1] * c + [0] * (n - c)
        for k in range(1, n + 1):
            brute = fmean(max(subset) for subset in combinations(outcomes, k))
            assert pass_at_k(n, c, k) == pytest.approx(brute)


@pytest.mark.parametrize("arguments", [(4, 5, 1), (4, 2, 5), (4, 2, 0), (4, -1, 1)])
def test_pass_at_k_refuses_impossible_counts(arguments):
    with pytest.raises(DataError, match="pass@k needs"):
        pass_at_k(*arguments)


def test_pairs_follow_equation_3():
    assert preference_pairs([1.0, 0.5, 0.0, 0.9]) == [(0, 1)]
    assert preference_pairs([]) == preference_pairs([1.0]) == preference_pairs([0.5, 0.5]) == []


def test_thresholds_are_strict_in_the_paper_and_inclusive_in_its_code():
    assert preference_pairs([1.0, 0.6]) == []
    assert preference_pairs([1.0, 0.6], strict=False) == [(0, 1)]
    assert preference_pairs([0.8, 0.2]) == []
    assert preference_pairs([0.8, 0.2], strict=False) == [(0, 1)]
    assert preference_pairs([1.0, 0.0], strict=False) == []


@pytest.mark.parametrize(("good", "bad"), [(13 / 15, 7 / 15), (0.9, 0.5), (1.0, 0.6), (0.85, 0.45)])
def test_a_gap_of_exactly_the_threshold_is_no_strict_pair_whatever_the_rounding(good, bad):
    assert preference_pairs([good, bad]) == []
    assert preference_pairs([good, bad], strict=False) == [(0, 1)]


def test_mixed_share_is_the_average_over_all_subsets():
    outcomes = ["a", "b", "a", "c", "a"]
    for n in range(1, 6):
        brute = fmean(len(set(subset)) > 1 for subset in combinations(outcomes, n))
        assert mixed_share(outcomes, n) == pytest.approx(brute)
    with pytest.raises(DataError, match="Cannot draw 6"):
        mixed_share(outcomes, 6)


def test_hard_quarter_is_low_and_spread():
    rates = [[0, 0], [0.1, 0.3], [1, 1], [0, 0.9], [0.9, 1.0], [1, 1], [0.2, 0.2], [0.9, 0.9]]
    assert hard_quarter(rates) == [1, 3]
    assert hard_quarter([]) == hard_quarter([[0.5]]) == []


def test_bootstrap_mean_brackets_the_mean_and_repeats():
    values = [0, 1] * 50
    mean, low, high = bootstrap_mean(values)
    assert (mean, low, high) == bootstrap_mean(values)
    assert 0.38 < low < mean == 0.5 < high < 0.62
    assert all(math.isnan(value) for value in bootstrap_mean([math.nan]))
    assert bootstrap_mean([0.5, math.nan, 0.5]) == (0.5, 0.5, 0.5)


def test_bootstrap_ratio_divides_sums():
    ratio, low, high = bootstrap_ratio([1, 9] * 20, [10, 10] * 20)
    assert ratio == 0.5 and 0.3 < low < 0.5 < high < 0.7
    assert all(math.isnan(value) for value in bootstrap_ratio([0, 0], [0, 0]))


def test_the_random_draws_stay_those_behind_the_published_figures():
    """Values of the four bootstraps that stood here before they became one."""
    v, w = [(7 * i * i) % 23 / 22 for i in range(41)], [(5 * i * i + i) % 19 / 20 for i in range(41)]
    assert bootstrap_mean(v, seed=3) == pytest.approx((0.644124168514, 0.553187361419, 0.725055432373))
    ratio = bootstrap_ratio([3 * one for one in v], [4 - one for one in w], 500)
    assert ratio == pytest.approx((0.534056439011, 0.468690717325, 0.606215674433))
    assert paired_bootstrap(v, w) == pytest.approx((0.262416851441, 0.143348115299, 0.378849778271))
    gain = paired_bootstrap(v, w, 400, 7, relative=True)
    assert gain == pytest.approx((0.687481847226, 0.347937763627, 1.172907437449))


def _row(*samples):
    inferences = [{"completion": text, "pass_rate": rate} for text, rate in samples]
    return {"id": "p", "question": "q", "inferences": inferences}


def test_build_pairs_counts_equal_programs_once_and_caps():
    row = _row(("good", 1.0), ("good", 1.0), ("bad", 0.2), ("worse", 0.1))
    options = dict(min_gap=0.4, min_chosen=0.8, min_rejected=0.0, strict=True)
    pairs = build_pairs([row], "ask {}".format, **options)
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("good", "bad"), ("good", "worse")}
    assert pairs[0].instruction == "ask q"
    capped = build_pairs([row], str, max_pairs_per_question=1, **options)
    assert len(capped) == 1 and capped == build_pairs([row], str, max_pairs_per_question=1, **options)
