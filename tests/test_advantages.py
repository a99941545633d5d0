"""Every estimator against values worked out by hand; REINFORCE++ itself is examined in test_reinforce.py."""

import math

import pytest
import torch

from acelib.advantages import ALGORITHMS

NAN = math.nan


def advantages(name, rewards, lengths=None, logps=None, n=2, beta=0.0):
    lengths = lengths or [1] * len(rewards)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).double()
    logps = torch.zeros_like(mask) if logps is None else torch.tensor(logps, dtype=torch.float64)
    rewards = torch.tensor(rewards, dtype=torch.float64)
    found = ALGORITHMS[name].advantages(rewards, logps, torch.zeros_like(mask), mask, n=n, beta=beta)
    assert found.shape == mask.shape and not found[mask == 0].any()
    return found


def test_grpo_in_standard_deviations_of_the_question():
    # Rewards 1, 0 about 1/2 with sample deviation 1/sqrt(2): +-1/sqrt(2) each. Equal rewards say nothing.
    found = advantages("grpo", [1, 0, 3, 3], lengths=[2, 1, 1, 1])
    half = math.sqrt(0.5)
    assert found.flatten().tolist() == pytest.approx([half, half, -half, 0, 0, 0, 0, 0], abs=1e-3)


def test_dr_grpo_does_not_divide():
    assert advantages("dr_grpo", [1, 0, 10, 4]).flatten().tolist() == [0.5, -0.5, 3, -3]


def test_rloo_compares_with_the_others():
    # 3 against the mean of 0 and 0; 0 against the mean of 3 and 0.
    assert advantages("rloo", [3, 0, 0], n=3).flatten().tolist() == [3, -1.5, -1.5]


def test_rloo_charges_the_whole_replys_kl_to_every_token():
    # beta 1, log-ratios .5 and -.25 in reply 1: reward 1 - .25; reply 2: 0 - 1.
    found = advantages("rloo", [1, 0], lengths=[2, 1], logps=[[0.5, -0.25], [1, 0]], beta=1.0)
    assert found.tolist() == [[1.75, 1.75], [-1.75, 0]]


def test_reinforce_baseline_takes_the_questions_mean_off_first():
    # Question 1: +-1/2, question 2: +-1, so the easy question's good replies are not pushed for being easy. The mean
    # over the four tokens is 0, the variance (1/4 + 1/4 + 1 + 1) / 4 = 5/8.
    found = advantages("reinforce++-baseline", [11, 10, 1, -1]).flatten()
    assert found.tolist() == pytest.approx([x / math.sqrt(0.625) for x in (0.5, -0.5, 1, -1)])
    plain = advantages("reinforce++", [11, 10, 1, -1]).flatten()
    assert plain[1] > 0 > plain[2]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_could_not_be_judged_is_left_out(name):
    with_nan = advantages(name, [1, NAN, 0, 1, 0, 0], n=3)
    assert with_nan[1] == 0 and with_nan[0] > 0 > with_nan[2] and torch.isfinite(with_nan).all()
    assert not advantages(name, [NAN] * 4).any()
    assert not advantages(name, [NAN, 1.0], n=2)[0].any()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_equal_rewards_give_no_signal(name):
    assert not advantages(name, [2.0] * 4, lengths=[1, 2, 1, 3]).any()


def test_estimators_agree_where_they_must():
    """On a single question with replies of one length all of them rank and sign alike."""
    rewards = [0.1, 0.9, 0.4, 0.4]
    values = {name: advantages(name, rewards, n=4).flatten() for name in ALGORITHMS}
    first = values["dr_grpo"]
    for found in values.values():
        ratio = found[first != 0] / first[first != 0]
        assert ratio.min() > 0 and torch.allclose(ratio, ratio[0].expand_as(ratio), atol=1e-6)
