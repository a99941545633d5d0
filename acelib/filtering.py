"""A stronger model's program decides which imagined tests survive (section 2.2 of the paper)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acelib.core import DataError, Progress
from acelib.judge import Report
from acelib.models import SamplingParams
from acelib.sampling import sample_programs
from acelib.schema import Problem, Program


def proxy_programs(
    proxy: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    params: SamplingParams,
    *,
    prompt: str,
    log: Path,
    progress: Progress | None = None,
) -> list[Program]:
    """One greedy program of the proxy per problem, in order."""
    return sample_programs(proxy, tokenizer, problems, params.greedy(), prompt=prompt, log=log, progress=progress)


def filter_tests(tests: Sequence[str], passed: Sequence[bool], min_tests: int = 5) -> tuple[str, ...] | None:
    """The tests that the proxy's program passed, or None when fewer than `min_tests` are left.

    Section 2.2 of the paper (its public code drops a question with three surviving tests or fewer: `min_tests=4`).
    Raises DataError when tests and verdicts differ in number.
    """
    if len(tests) != len(passed):
        raise DataError(f"{len(tests)} tests have {len(passed)} verdicts; judge the program on exactly these tests.")
    kept = tuple(test for test, good in zip(tests, passed, strict=True) if good)
    return kept if len(kept) >= min_tests else None


def filter_problems(problems: Sequence[Problem], passed: Sequence[Sequence[bool]], min_tests: int = 5) -> list[Problem]:
    """The problems that keep enough tests, with those tests; `passed` holds one row of verdicts per problem.

    Raises DataError when no problem is left.
    """
    kept = [(p, filter_tests(p.tests, row, min_tests)) for p, row in zip(problems, passed, strict=True)]
    filtered = [replace(problem, tests=tests) for problem, tests in kept if tests is not None]
    if not filtered:
        raise DataError(
            f"None of {len(problems)} questions keeps {min_tests} tests; use a stronger proxy, let the teacher imagine "
            "more tests, or lower filtering.min_tests in the profile."
        )
    return filtered


def passed_tests(reports: Sequence[Report]) -> list[list[bool]]:
    """Verdicts as booleans, reports x tests."""
    return [[bool(verdict.passed) for verdict in report.verdicts] for report in reports]
