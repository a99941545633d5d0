"""The paper's claims (`scorecard.yaml`) against what was measured."""

from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from acelib.core import DataError
from acelib.schema import Row
from acelib.stats import Interval


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and what is measured for it: a number that should be at least `at_least` (and above 0).

    `gain`: it compares something with the untrained policy, which must first reproduce what is published for it.
    `recorded_as`: what stands for it in a real model's recorded programs. `at_least` is never the paper's: the `caveat`
    (or `pocket_caveat`) of a claim that has one says so, and it is no promise (`must_hold`).
    """

    key: str
    claim: str
    measure: str
    paper: str
    caveat: str = ""
    pocket_caveat: str = ""
    recorded_as: str = ""
    at_least: float = 0.0
    must_hold: bool = False
    gain: bool = False


Measured = dict[str, Interval | None]  # by the keys of claims
CLAIMS = tuple(Claim(**row) for row in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))


def verdict(claim: Claim, here: Interval | None, reproduced: bool | None = None) -> str:
    """`holds` when the estimate reaches what is claimed and its 95% interval lies above 0; no measurement means
    `not testable here`, an interval that includes 0 `not clear`, anything else `does not hold`. A gain over a baseline
    that was not `reproduced` (None: nothing is published for it) is `not claimable`, however large."""
    if here is None:
        return "not testable here"
    if not (here.low > 0 or here.high < 0):
        return "not clear"
    if here.value < max(0.0, claim.at_least):
        return "does not hold"
    return "not claimable" if claim.gain and reproduced is False else "holds"


def scorecard(
    evidence: Measured, reproduced: bool | None = None, recorded: Measured | None = None, pocket: bool = True
) -> list[Row]:
    """One row per claim of the paper: the fields of `Claim`, here and recorded ({value, low, high} or None), verdict.

    `evidence`: of the claims that this run could measure; `recorded`: of those that a real model's recorded programs
    speak about; `reproduced` as in `verdict`; `pocket`: which caveat. Raises DataError on an unknown key.
    """
    recorded, known = recorded or {}, [claim.key for claim in CLAIMS]
    if unknown := (evidence.keys() | recorded.keys()) - set(known):
        raise DataError(f"No claim is called {', '.join(sorted(unknown))}; known: {', '.join(known)}.")
    rows = []
    for claim in CLAIMS:
        here, there = evidence.get(claim.key), recorded.get(claim.key)
        said = {"caveat": (pocket and claim.pocket_caveat) or claim.caveat, "verdict": verdict(claim, here, reproduced)}
        rows.append(asdict(claim) | {"recorded": there and there._asdict(), "here": here and here._asdict()} | said)
    return rows
