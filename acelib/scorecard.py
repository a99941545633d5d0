"""The paper's claims against what was measured."""

from dataclasses import dataclass

from acelib.core import DataError
from acelib.schema import Row
from acelib.stats import Interval


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and what is measured for it: a number that should be at least `at_least` (and above 0).

    `gain`: it compares something with the untrained policy, which must first reproduce what is published for it.
    """

    key: str
    claim: str
    measure: str
    paper: str
    at_least: float = 0.0
    must_hold: bool = False
    gain: bool = False


CLAIMS = (
    Claim(
        "filter",
        "Filtering by a proxy's program raises the share of valid tests",
        "valid tests, after - before",
        "an audit of 200 surviving tests found 3 invalid",
        must_hold=True,
    ),
    Claim(
        "rm_average",
        "The reward model's pick beats the average sample",
        "correct, RM best-of-N - average",
        "+6.6 points (57.6 vs 51.0, N = 16)",
        must_hold=True,
        gain=True,
    ),
    Claim(
        "rm_greedy",
        "The reward model's pick beats greedy decoding",
        "correct, RM best-of-N - greedy",
        "+2.4 points (57.6 vs 55.2, N = 16)",
        gain=True,
    ),
    Claim(
        "oracle",
        "The oracle stays above the reward model, greedy and the average",
        "correct, oracle - best of the others",
        "+21.1 points (78.9 vs 57.8, N = 64)",
        must_hold=True,
    ),
    Claim(
        "filtered_rm",
        "A reward model from filtered tests beats one from unfiltered tests",
        "correct, best-of-N, filtered - unfiltered",
        "+1.0 points (57.6 vs 56.6, N = 16)",
    ),
    Claim(
        "rule_rl",
        "RL with the rule reward lifts sampled pass@1 by a third or more",
        "relative gain in sampled pass@1",
        "not given; greedy from the base: +18% (44.4 to 52.3)",
        at_least=1 / 3,
        must_hold=True,
        gain=True,
    ),
    Claim(
        "rule_rl_greedy",
        "RL with the rule reward beats the base model, decoded greedily",
        "greedy pass@1, rule RL - base",
        "+7.9 points (44.4 to 52.3)",
        gain=True,
    ),
    Claim(
        "rm_rl",
        "RL with the reward model's score beats the base model",
        "sampled pass@1, RM RL - base",
        "+4.7 points (44.4 to 49.1, greedy)",
        gain=True,
    ),
    Claim(
        "rm_rl_less",
        "RL gains less with the reward model's score than with the rule",
        "sampled pass@1, rule RL - RM RL",
        "+3.2 points (52.3 vs 49.1, greedy)",
    ),
    Claim(
        "few_steps",
        "Most of the gain comes in few steps",
        "held-out pass@1, gain up to half-time - gain after it",
        "80 steps in all; no curve is given",
        gain=True,
    ),
    Claim(
        "backbone",
        "A reward model on a code model's backbone beats one on a general model's",
        "correct, best-of-16",
        "+6.1 points (47.7 vs 41.6)",
    ),
    Claim(
        "general_rm",
        "General-purpose reward models hardly beat greedy decoding",
        "correct, best-of-N - greedy",
        "at most +2.6 points",
    ),
)


def verdict(claim: Claim, here: Interval | None, reproduced: bool | None = None) -> str:
    """`holds` when the estimate reaches what is claimed and its 95% interval lies above 0; no measurement means
    `not testable here`; anything else `does not hold`, an interval that straddles 0 included. A gain over a baseline
    that was not `reproduced` (None: nothing is published for it) is `not claimable`, however large."""
    if here is None:
        return "not testable here"
    if here.value < claim.at_least or here.low <= 0:
        return "does not hold"
    return "not claimable" if claim.gain and reproduced is False else "holds"


def scorecard(evidence: dict[str, Interval | None], reproduced: bool | None = None) -> list[Row]:
    """One row per claim of the paper: key, claim, measure, paper, here ({value, low, high} or None), verdict,
    must_hold. `evidence` has an entry for every claim that could be measured; `reproduced` as in `verdict`. Raises
    DataError on an unknown key.
    """
    known = [claim.key for claim in CLAIMS]
    unknown = evidence.keys() - set(known)
    if unknown:
        raise DataError(f"No claim is called {', '.join(sorted(unknown))}; known: {', '.join(known)}.")
    rows = []
    for claim in CLAIMS:
        here = evidence.get(claim.key)
        rows.append(
            {
                "key": claim.key,
                "claim": claim.claim,
                "measure": claim.measure,
                "paper": claim.paper,
                "here": None if here is None else here._asdict(),
                "verdict": verdict(claim, here, reproduced),
                "must_hold": claim.must_hold,
            }
        )
    return rows
