"""Programs known to be right must pass, the same programs with a twist must not (public data beside the repository)."""

import pytest
from reference_programs import DATA, humaneval, mbpp, twisted

from acelib.judge import Judge, Limits

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="HumanEval and MBPP are not in ../shared/data")
LIMITS = Limits(cpu_seconds=2.0, wall_seconds=60, total_cpu_seconds=8)


@pytest.mark.parametrize("load, at_least", [(humaneval, 164), (mbpp, 971)])
def test_references_pass_and_twisted_ones_fail(load, at_least):
    submissions = list(load().values())
    with Judge(workers=2, limits=LIMITS) as judge:
        reports = judge.run(submissions + [twisted(s) for s in submissions])
    straight, twists = reports[: len(submissions)], reports[len(submissions) :]
    assert sum(r.passed for r in straight) >= at_least
    assert not any(r.passed for r in twists)
