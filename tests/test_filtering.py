import math

import pytest
from in_notebooks import notebook_function

from acelib.core import DataError
from acelib.filtering import filter_problems, filter_tests
from acelib.schema import Problem
from acelib.stats import auc

filter_quality = notebook_function("02", "filter_quality")
TESTS = [f"assert f({i}) == {i}" for i in range(6)]


def test_failing_tests_go_and_the_order_stays():
    assert filter_tests(TESTS, [True, False, True, True, True, True]) == tuple(TESTS[:1] + TESTS[2:])


@pytest.mark.parametrize(("surviving", "min_tests", "kept"), [(4, 5, False), (5, 5, True), (4, 4, True), (0, 5, False)])
def test_a_question_with_too_few_tests_goes(surviving, min_tests, kept):
    passed = [index < surviving for index in range(6)]
    assert (filter_tests(TESTS, passed, min_tests) is not None) == kept


def test_verdicts_must_match_the_tests():
    with pytest.raises(DataError, match="6 tests have 5 verdicts"):
        filter_tests(TESTS, [True] * 5)


def test_problems_keep_everything_but_their_tests():
    problems = [Problem("a", "qa", "f", tuple(TESTS), "evol"), Problem("b", "qb", "f", tuple(TESTS))]
    kept = filter_problems(problems, [[False] + [True] * 5, [False] * 6])
    assert kept == [Problem("a", "qa", "f", tuple(TESTS[1:]), "evol")]


def test_a_filter_that_leaves_nothing_says_so():
    with pytest.raises(DataError, match="None of 1 questions keeps 5 tests"):
        filter_problems([Problem("c", "q", "f", ())], [[]])


def test_auc_by_hand():
    assert auc([1.0, 0.5, 0.2], [True, False, False]) == 1.0
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert auc([0.2, 0.5, 0.2], [True, False, False]) == 0.25
    assert math.isnan(auc([1.0], [True]))


def test_quality_of_a_filter_by_hand():
    results = [[True, True, True], [True, False, True], [False, True, False]]
    quality = filter_quality([True, True, False], [True, False, True], results, [1.0, 0.5, 0.0], min_tests=2)
    assert (quality["kept"], quality["valid_kept"], quality["survives"]) == (2, 1, 1)
    # Scores are 1, 1/2, 1/2: the first is chosen over both others.
    assert (quality["pairs"], quality["pairs_better"], quality["pairs_both_wrong"]) == (2, 2, 0)
    assert (quality["auc"], quality["best"], quality["random"]) == (1.0, 1.0, 1 / 3)


def test_a_filter_that_deletes_the_telling_tests_is_precise_and_useless():
    results = [[True, True, True], [True, True, False]]
    truth = [1.0, 0.5]
    everything = filter_quality([True] * 3, [True] * 3, results, truth, min_tests=2)
    misled = filter_quality([True, True, False], [True] * 3, results, truth, min_tests=2)
    assert everything["auc"] == 1.0 and misled["auc"] == 0.5
    assert misled["valid_kept"] == misled["kept"] == 2


def test_a_question_with_too_few_tests_counts_nothing():
    quality = filter_quality([True, False], [True, True], [[True, True]], [1.0], min_tests=2)
    assert quality["survives"] == quality["kept"] == quality["pairs"] == 0
    assert math.isnan(quality["auc"]) and math.isnan(quality["best"])
