"""What notebook 09 and appendix A6 teach and nothing else has: tests at a wanted validity, trusted sets of samples."""

import numpy as np
import pytest
from in_notebooks import notebook_function

from acelib.best_of_n import dual_agreement
from acelib.core import DataError

RNG = np.random.default_rng(0)


def test_a_subsample_has_the_wanted_share_on_average_and_no_test_twice():
    subsample, valid = notebook_function("09", "subsample"), np.array([True] * 6 + [False] * 7)
    drawn = [subsample(valid, 0.9, 5, RNG) for _ in range(2000)]
    assert all(len(set(places)) == 5 for places in drawn)
    assert {int(valid[places].sum()) for places in drawn} == {4, 5}
    assert np.mean([valid[places].mean() for places in drawn]) == pytest.approx(0.9, abs=0.01)
    with pytest.raises(DataError, match="6 valid and 7 invalid tests are too few for 20 at 50%"):
        subsample(valid, 0.5, 20, RNG)


def test_the_set_that_agreement_trusts_is_the_one_that_codet_scores_best():
    trusted_tests, agreement = (notebook_function("A6", name) for name in ("trusted_tests", "agreement"))
    for results in RNG.random((50, 8, 5)) < 0.6:
        scores = np.array(dual_agreement(results.tolist()))
        best = results[scores == scores.max()].any(axis=0)
        assert (trusted_tests(results, agreement(1)) == best).all()


def test_b4_prefers_the_set_whose_failed_tests_nobody_else_passes():
    b4, log_beta = (notebook_function("A6", name) for name in ("b4", "log_beta"))
    b4.__globals__["log_beta"] = log_beta
    assert log_beta(2, 3) == pytest.approx(np.log(1 / 12))
    mine, score = np.array([True, True, False, False]), b4(10, 100)
    lonely = np.array([mine, mine, [False, True, False, False]])
    rivalled = np.array([mine, mine, [False, True, True, False]])
    assert score(mine, 2, lonely) > score(mine, 2, rivalled)


def test_break_even_is_where_right_and_wrong_proxies_cancel():
    break_even = notebook_function("09", "break_even")
    up, down = RNG.random(20), -RNG.random(20)
    share = break_even(up, down)
    assert share * up + (1 - share) * down == pytest.approx(0)
    assert break_even(0.3, 0.1) == 0 and break_even(-0.1, -0.2) == 1
