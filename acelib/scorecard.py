"""The paper's claims (`scorecard.yaml`) against what was measured."""

from dataclasses import dataclass
from pathlib import Path

import yaml

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


CLAIMS = tuple(Claim(**row) for row in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))


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
    shown = ("key", "claim", "measure", "paper", "must_hold")
    rows = []
    for claim in CLAIMS:
        here = evidence.get(claim.key)
        found = {"here": here and here._asdict(), "verdict": verdict(claim, here, reproduced)}
        rows.append({name: getattr(claim, name) for name in shown} | found)
    return rows
