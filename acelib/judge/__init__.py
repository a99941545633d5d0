"""The judge: runs untrusted programs against tests. Nowhere else in this project does model-written code run.

    from acelib.judge import Judge, Limits, Submission

    with Judge(workers=2, limits=Limits(cpu_seconds=1.0, wall_seconds=10.0, memory_mb=512)) as judge:
        reports = judge.run([Submission("def f(x):\\n    return x + 1\\n", ["assert f(1) == 2"])])
    reports[0].verdicts[0].passed, reports[0].pass_rate

README.md in this folder says how it stands, what a verdict means, which ways to a wrong verdict are covered, what each
isolation level covers, and what it does not.
"""

from .api import LLM_PRELUDE, STATUSES, JudgeError, Limits, Report, Submission, Verdict
from .asserts import why_invalid
from .judge import LEVELS, Judge
from .outputs import outputs

__all__ = [
    "LEVELS",
    "LLM_PRELUDE",
    "STATUSES",
    "Judge",
    "JudgeError",
    "Limits",
    "Report",
    "Submission",
    "Verdict",
    "outputs",
    "why_invalid",
]
