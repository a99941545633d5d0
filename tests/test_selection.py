from itertools import combinations

import numpy as np
import pytest

from acelib.best_of_n import dual_agreement, expected_best, expected_consensus, selection_curve, selection_curves
from acelib.core import DataError
from acelib.pairs import pass_at_k
from acelib.stats import bands
from tools.rank import majority_vote


def by_enumeration(values, scores, n):
    picks = []
    for subset in combinations(range(len(values)), n):
        best = max(scores[i] for i in subset)
        picks.append(np.mean([values[i] for i in subset if scores[i] == best]))
    return np.mean(picks)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("scores", [[3, 1, 2, 0, 5, 4, 6], [1, 1, 0, 0, 2, 2, 2], [0] * 7, [-1.5, 0, 0, 0, 0, 0, 9]])
def test_every_subset_is_counted_ties_included(scores, n):
    values = [1, 0, 0, 1, 0, 1, 0.5]
    assert expected_best(values, scores, n) == pytest.approx(by_enumeration(values, scores, n))


def test_selecting_by_the_truth_is_pass_at_k_and_one_sample_is_the_average():
    correct = [0, 1, 0, 0, 1, 0, 0, 0]
    for n in range(1, 9):
        assert expected_best(correct, correct, n) == pytest.approx(pass_at_k(8, 2, n))
    assert expected_best(correct, [5, 3, 1, 2, 9, 0, 7, 8], 1) == pytest.approx(2 / 8)


def test_sixty_four_samples_stay_exact():
    values = [0.0] * 63 + [1.0]
    assert expected_best(values, list(range(64)), 64) == 1.0
    assert expected_best(values, list(range(64)), 16) == pytest.approx(16 / 64)


@pytest.mark.parametrize("n, scores", [(0, [1, 2]), (3, [1, 2]), (1, [1]), (1, [1, float("nan")])])
def test_impossible_choices_are_errors(n, scores):
    with pytest.raises(DataError, match="Cannot pick the best"):
        expected_best([0, 1], scores, n)


def test_curves_of_all_selectors():
    rows = [
        {"greedy": True, "correct": [1, 0, 0, 0], "rm": [9.0, 1, 2, 3]},
        {"greedy": False, "correct": [0, 1, 1, 0], "rm": [9.0, 1, 2, 3]},
    ]
    curves = selection_curves(rows, [1, 4], {"reward model": "rm"})
    assert list(curves) == ["greedy", "average", "reward model", "oracle"]
    assert curves["greedy"].tolist() == [[1, 1], [0, 0]]
    assert curves["average"].tolist() == [[0.25, 0.25], [0.5, 0.5]]
    np.testing.assert_allclose(curves["reward model"], [[0.25, 1], [0.5, 0]])
    np.testing.assert_allclose(curves["oracle"], [[0.25, 1], [0.5, 1]])


def test_majority_vote_of_a_subset_by_hand():
    # Two right ("a"), one wrong ("b"). One drawn: 2/3. Two drawn: aa 1, ab 1/2, ab 1/2, so 2/3. All three: a wins.
    assert expected_consensus([1, 1, 0], "aab", [1, 1, 1], [1, 2, 3]) == pytest.approx([2 / 3, 2 / 3, 1], abs=0.03)
    # The scores of all three, kept for subsets, would let "a" win against "b" one to one.
    assert expected_best([1, 1, 0], majority_vote("aab"), 2) == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_in_every_subset_consensus_has_the_scores_of_that_subset(n):
    values = [1, 0, 0, 1, 0, 1, 0.5]
    passed = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]
    outputs = ["a", None, "b", "a", None, "b", "c"]

    def subsets_scored(score, data):
        picks = []
        for subset in map(list, combinations(range(7), n)):
            picks.append(expected_best([values[i] for i in subset], score([data[i] for i in subset]), n))
        return np.mean(picks)

    dual = expected_consensus(values, [tuple(row) for row in passed], [sum(row) for row in passed], [n])
    assert dual == pytest.approx([subsets_scored(dual_agreement, passed)], abs=0.03)
    voted = expected_consensus(values, outputs, [output is not None for output in outputs], [n])
    assert voted == pytest.approx([subsets_scored(majority_vote, outputs)], abs=0.03)


def test_values_may_be_bools():
    assert expected_consensus([True] * 4, "aabc", [1] * 4, [1, 2, 4]) == [1.0, 1.0, 1.0]


def test_consensus_among_sixty_four_samples():
    ns, alike = [1, 16, 64], expected_consensus([1.0] * 32 + [0.0] * 32, [0] * 32 + [1] * 32, [1] * 64, [1, 16, 63])
    assert alike == pytest.approx([0.5] * 3, abs=0.03)
    assert expected_consensus([0.0] * 63 + [1.0], [0] * 63 + [1], [1] * 63 + [100], ns) == pytest.approx(
        [1 / 64, 1 / 4, 1], abs=0.03
    )


@pytest.mark.parametrize(
    "votes, weights, ns",
    [("a", [1, 1], [1]), ("ab", [1], [1]), ("ab", [1, -1], [1]), ("ab", [1, 1], [3]), ("ab", [1, 1], [0])],
)
def test_impossible_consensus_is_an_error(votes, weights, ns):
    with pytest.raises(DataError, match="Cannot pick by consensus"):
        expected_consensus([0, 1], votes, weights, ns)


def test_bands_hold_the_mean_and_shrink_with_questions():
    rng = np.random.default_rng(0)
    few, many = (bands(rng.random((questions, 2))) for questions in (20, 2000))
    assert few.shape == (3, 2)
    assert (few[1] < few[0]).all() and (few[0] < few[2]).all()
    assert (many[2] - many[1] < few[2] - few[1]).all()
    assert selection_curve([[1, 0]], [[0, 1]], [2]).tolist() == [[0.0]]
