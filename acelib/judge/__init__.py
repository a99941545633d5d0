"""Judge: the only place where model-written code runs."""

from .api import LLM_PRELUDE, JudgeError, Limits, Report, Submission, Verdict
from .judge import Judge

__all__ = ["LLM_PRELUDE", "Judge", "JudgeError", "Limits", "Report", "Submission", "Verdict"]
