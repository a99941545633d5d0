import math

import pytest

from acelib.filtering import FilterError, auc, filter_problems, filter_tests, precision_recall
from acelib.schema import Problem

TESTS = [f"assert f({i}) == {i}" for i in range(6)]


def test_failing_tests_go_and_the_order_stays():
    assert filter_tests(TESTS, [True, False, True, True, True, True]) == tuple(TESTS[:1] + TESTS[2:])


@pytest.mark.parametrize(
    ("surviving", "min_tests", "kept"), [(4, 5, False), (5, 5, True), (4, 4, True), (0, 5, False)]
)
def test_a_question_with_too_few_tests_goes(surviving, min_tests, kept):
    passed = [index < surviving for index in range(6)]
    assert (filter_tests(TESTS, passed, min_tests) is not None) == kept


def test_verdicts_must_match_the_tests():
    with pytest.raises(FilterError, match="6 tests have 5 verdicts"):
        filter_tests(TESTS, [True] * 5)


def test_problems_keep_everything_but_their_tests():
    problems = [Problem("a", "qa", "f", tuple(TESTS), "evol"), Problem("b", "qb", "f", tuple(TESTS))]
    kept = filter_problems(problems, [[False] + [True] * 5, [False] * 6])
    assert kept == [Problem("a", "qa", "f", tuple(TESTS[1:]), "evol")]
    assert filter_problems([Problem("c", "q", "f", ())], [[]]) == []


def test_precision_and_recall_by_hand():
    assert precision_recall([True, True, True, False], [True, False, True, True]) == (2 / 3, 2 / 3)
    precision, recall = precision_recall([True], [False])
    assert math.isnan(precision) and recall == 0.0
    assert math.isnan(precision_recall([False], [True])[1])


def test_auc_by_hand():
    assert auc([1.0, 0.5, 0.2], [True, False, False]) == 1.0
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert auc([0.2, 0.5, 0.2], [True, False, False]) == 0.25
    assert math.isnan(auc([1.0], [True]))
