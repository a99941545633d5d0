import math

import pytest
from in_notebooks import notebook_function

from acelib.core import DataError
from acelib.filtering import filter_problems, filter_tests
from acelib.schema import Problem
from acelib.stats import auc

question_auc, kept_tests = (notebook_function("02", *names) for names in (("question_auc", "scores"), ("kept_tests",)))
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


def test_auc_of_a_question_by_hand():
    row = {"results": [[True, True, True], [True, False, True], [False, True, False]], "truth": [1.0, 0.5, 0.0]}
    assert question_auc([True, True, False], row) == 1.0  # scores are 1, 1/2, 1/2
    assert math.isnan(question_auc([True] * 3, row | {"truth": [1.0] * 3}))  # nothing to tell apart


def test_a_filter_that_deletes_the_telling_tests_is_precise_and_useless():
    row = {"results": [[True, True, True], [True, True, False]], "truth": [1.0, 0.5]}
    assert (question_auc([True] * 3, row), question_auc([True, True, False], row)) == (1.0, 0.5)


def test_a_question_with_too_few_tests_counts_nothing():
    kept_tests.__globals__["minimum"] = 2
    assert kept_tests(lambda row: row["kept"], {"kept": [1, 1, 0]}) == [True, True, False]
    none = kept_tests(lambda row: row["kept"], {"kept": [True, False]})
    assert none == [False, False] and math.isnan(question_auc(none, {"results": [[True, True]], "truth": [1.0]}))
