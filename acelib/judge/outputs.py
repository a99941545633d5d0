"""What programs return, where no expected value is known yet."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace

from .api import JudgeError, Submission, Verdict
from .asserts import GOT
from .judge import Judge

_NEVER = repr("no program returns this: " + "\0")  # a comparison that fails, and says with what


def outputs(judge: Judge, submissions: Iterable[Submission]) -> list[list[str | None]]:
    """What each call returned, as a Python literal: one list per submission, one text or None per call.

    The `tests` of these submissions are calls, such as "f([1, 2])". None stands where a call raised, ran out of time or
    memory, returned something that is no literal (an object, a NaN), or one too long to quote in a verdict (160
    characters). Each program runs once, under one seed: whether its answer depends on chance shows when `Judge.run`
    holds it against the value. Raises JudgeError for a test that is not a call.
    """
    asked = list(submissions)
    for call in {call for one in asked for call in one.tests}:
        if not _is_call(call):
            raise JudgeError(f"outputs() takes calls such as 'f([1, 2])' where Judge.run takes tests, not {call!r}.")
    reports = judge.run([replace(one, tests=[f"assert {call} == {_NEVER}" for call in one.tests]) for one in asked])
    return [[_value(verdict) for verdict in report.verdicts] for report in reports]


def _is_call(text: str) -> bool:
    try:
        return isinstance(ast.parse(text, mode="eval").body, ast.Call)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _value(verdict: Verdict) -> str | None:
    text = verdict.reason.removeprefix(GOT)
    if verdict.status != "failed" or text == verdict.reason:
        return None
    try:
        ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return text
