"""What goes into the judge and what comes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from acelib.core import JudgeError

STATUSES = ("passed", "failed", "error", "timeout", "memory", "syntax_error", "not_run", "invalid", "unstable")

LLM_PRELUDE = """\
import collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import bisect, bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cmp_to_key, lru_cache, reduce
from itertools import accumulate, chain, combinations, permutations, product
from math import ceil, floor, gcd, inf, sqrt
from typing import *
"""
"""Imports that model-written programs take for granted because their prompt had them. Without such a prelude a public
set of ChatGPT programs agrees with its authors' verdicts 57% of the time, with one 98%. Pass it as
`Submission(..., prelude=LLM_PRELUDE)`; it runs before the program, in the same module."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    cpu_seconds        CPU time of one test (and of loading the program); once a test has run out of time, a quarter of
                       it for each further one
    wall_seconds       wall time of the whole program, a backstop for programs that block
    memory_mb          address space of the program's process
    total_cpu_seconds  CPU time of the whole program; None means four times cpu_seconds
    """

    cpu_seconds: float = 1.0
    wall_seconds: float = 10.0
    memory_mb: int = 512
    total_cpu_seconds: float | None = None

    def __post_init__(self):
        for name in ("cpu_seconds", "wall_seconds", "memory_mb", "total_cpu_seconds"):
            value = getattr(self, name)
            if name == "total_cpu_seconds" and value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise JudgeError(f"Limits.{name} must be a positive number, not {value!r}.")
        if self.memory_mb < 64:
            raise JudgeError(f"Limits.memory_mb must be at least 64 (Python needs 40), not {self.memory_mb}.")

    @property
    def total(self) -> float:
        return 4 * self.cpu_seconds if self.total_cpu_seconds is None else self.total_cpu_seconds


@dataclass(frozen=True)
class Submission:
    """One program and the tests it has to face.

    program      source text, or None when none could be extracted (every verdict is then "syntax_error")
    tests        asserts as source text, e.g. "assert f(1) == 2"
    prelude      code that runs before the program in the same module (see `LLM_PRELUDE`)
    setup_after  code that runs after it (MBPP 367 and 927 need theirs there)
    entry_point  the function that the tests are about, where that is known: it is then the program's even if Python
                 has one of that name
    """

    program: str | None
    tests: Sequence[str]
    prelude: str = ""
    setup_after: str = ""
    entry_point: str = ""

    def __post_init__(self):
        if self.program is not None and not isinstance(self.program, str):
            raise JudgeError(f"Submission.program must be a string or None, not {type(self.program).__name__}.")
        if isinstance(self.tests, str) or not isinstance(self.tests, Sequence):
            raise JudgeError("Submission.tests must be a list of strings, one assert each; wrap a single one in [ ].")
        for test in self.tests:
            if not isinstance(test, str):
                raise JudgeError(f"Submission.tests must hold strings, but one is a {type(test).__name__}.")
        for name in ("prelude", "setup_after", "entry_point"):
            if not isinstance(getattr(self, name), str):
                raise JudgeError(f"Submission.{name} must be a string, not {type(getattr(self, name)).__name__}.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one test: `status` is one of `STATUSES`, `reason` says why in a few words.

    "invalid" is a test in which nothing was checked, "unstable" one that passes under one hash seed, random seed or
    clock and not under another. Neither is a pass.
    """

    status: str
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one submission: one verdict per test, in order, and the CPU seconds its processes used.

    remark   what failed in the program beside its functions (an import, a demo at its end), which decides nothing
    """

    verdicts: tuple[Verdict, ...]
    cpu_seconds: float = 0.0
    remark: str = ""

    @property
    def unstable(self) -> bool:
        """True when an outcome depends on chance; such a program is worth nothing."""
        return any(v.status == "unstable" for v in self.verdicts)

    @property
    def pass_rate(self) -> float:
        """Share of tests passed, in [0, 1]; 0.0 when there are no tests, or when the program is unstable."""
        if not self.verdicts or self.unstable:
            return 0.0
        return sum(v.passed for v in self.verdicts) / len(self.verdicts)

    @property
    def passed(self) -> bool:
        """True when there are tests and all of them passed."""
        return bool(self.verdicts) and all(v.passed for v in self.verdicts)
