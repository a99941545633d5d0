"""The judge itself: settings, isolation level, and the order of things."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .api import JudgeError, Limits, Report, Submission, Verdict
from .pool import Pool, Unavailable, Worker
from .stability import depends_on_chance
from .trial import Trial

LEVELS = ("namespaces+seccomp", "landlock+seccomp", "seccomp")
PACKAGES = ("numpy",)
MAX_STARTS = 5
OTHER_SEEDS = (1, 2)  # what passes under seed 0 and may depend on chance is run under each of these
PATIENCE = 4  # times the limit, under other seeds; load alone makes a program twice as slow at most
log = logging.getLogger(__name__)


class Judge:
    """Runs untrusted programs against tests.

    workers    sandbox processes, one program each at a time
    limits     what one program may use
    isolation  "auto" takes the strongest level this machine allows; a level's name insists on that one.
               "rlimits" (no wall but resource limits) is never chosen automatically.

    Use it as a context manager, or call `close()`. Raises JudgeError for settings that cannot work.
    """

    def __init__(self, workers: int = 1, limits: Limits | None = None, isolation: str = "auto"):
        if sys.platform != "linux":
            raise JudgeError(
                "The judge needs Linux (namespaces, seccomp). On macOS run the course in a Linux container, "
                "on Windows in WSL2."
            )
        if not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= 1024:
            raise JudgeError(f"workers must be a whole number from 1 to 1024, not {workers!r}.")
        if limits is not None and not isinstance(limits, Limits):
            raise JudgeError(f"limits must be a Limits(...), not {type(limits).__name__}.")
        if isolation not in ("auto", *LEVELS, "rlimits"):
            names = ", ".join(map(repr, ("auto", *LEVELS, "rlimits")))
            raise JudgeError(f"isolation must be one of {names}, not {isolation!r}.")
        self.workers, self.limits = workers, limits or Limits()
        self._packages = _package_folders()
        self._isolation = isolation
        self.level: str | None = None
        self._pool = Pool(workers, self._start_worker)
        few = -(-workers // 8)  # a program in fifty is run again
        self._again = {seed: Pool(few, partial(self._restart_worker, seed)) for seed in OTHER_SEEDS}
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _close, (self._pool, *self._again.values()), self._owner)

    @classmethod
    def from_settings(cls, settings: Any, workers: int | None = None) -> Judge:
        """As a profile's `judge` section says (`profile.judge`); `workers` overrides its number of sandboxes."""
        limits = Limits(settings.cpu_seconds, settings.wall_seconds, settings.memory_mb)
        return cls(workers or settings.workers, limits)

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End every sandbox process. The judge may be used again; it then starts new ones."""
        _close((self._pool, *self._again.values()), self._owner)

    def run(self, submissions: Iterable[Submission], progress: bool = False) -> list[Report]:
        """Judge every submission; reports come in the order of the submissions.

        Never raises for what a program does. Identical submissions within one call are executed once. Raises
        JudgeError for anything that is not a Submission.
        """
        if os.getpid() != self._owner:
            raise JudgeError("This Judge was made in another process; make a new one after a fork.")
        submissions = list(submissions)
        for s in submissions:
            if not isinstance(s, Submission):
                raise JudgeError(f"Judge.run takes Submission objects, but one is a {type(s).__name__}.")
        reports: list[Report | None] = [None] * len(submissions)
        first, copies = _deduplicate(submissions)
        bar = _progress_bar(len(first)) if progress else None

        def done(number: int, report: Report) -> None:
            reports[first[number]] = report
            if bar is not None:
                bar.update()

        try:
            self._execute([submissions[i] for i in first], done)
        except BaseException:
            self.close()
            raise
        finally:
            if bar is not None:
                bar.close()
        for i, original in copies:
            reports[i] = reports[original]
        return reports

    def _execute(self, submissions: list[Submission], done: Callable[[int, Report], None]) -> None:
        """Judge them all; `done(index, report)` comes in any order."""
        doubtful: dict[int, Report] = {}

        def first_run(number: int, report: Report) -> None:
            if any(v.passed for v in report.verdicts) and depends_on_chance(submissions[number].program):
                doubtful[number] = report
            else:
                done(number, report)

        self._pool.run(((n, Trial(one, self.limits)) for n, one in enumerate(submissions)), first_run)
        limits = _generous(self.limits)
        for seed, pool in self._again.items():
            trials = []
            for n, report in doubtful.items():
                passed = [t for t, v in zip(submissions[n].tests, report.verdicts) if v.passed]
                trials += [(n, Trial(replace(submissions[n], tests=passed), limits, seed))] if passed else []
            if trials:  # else no second zygote need start
                pool.run(iter(trials), lambda n, again: doubtful.update({n: _unsettled(doubtful[n], again)}))
        for number, report in doubtful.items():
            done(number, report)

    def _start_worker(self) -> Worker:
        if self.level is not None:
            return self._restart_worker()
        refused = []
        for level in LEVELS if self._isolation == "auto" else (self._isolation,):
            try:
                worker = _ready(level, self._packages)
            except Unavailable as error:
                refused.append(f"{level}: {error}")
                continue
            self.level = level
            log.info("judge isolation: %s", level)
            if level != "namespaces+seccomp":  # the process tree is shared: nobody may look into this process
                ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
            return worker
        raise JudgeError(
            "This machine does not allow the isolation the judge needs (" + "; ".join(refused) + "). Allow user "
            "namespaces or seccomp (seccomp is enough), take a virtual machine or another provider, or, where "
            "nothing is to be lost, accept the risk by name with Judge(isolation='rlimits')."
        )

    def _restart_worker(self, hash_seed: int = 0) -> Worker:
        for attempt in range(MAX_STARTS):
            try:
                return _ready(self.level, self._packages, hash_seed)
            except Unavailable as error:  # it worked before: somebody killed it, or the machine is out of memory
                log.warning("a sandbox did not start (attempt %d): %s", attempt + 1, error)
                reason = error
        raise JudgeError(f"No sandbox starts any more ({reason}). Free some memory and processes, then run again.")


def _ready(level: str, packages, hash_seed: int = 0) -> Worker:
    worker = Worker(level, packages, hash_seed)
    worker.wait_ready()
    return worker


def _generous(limits: Limits) -> Limits:
    """For a second run: what passed within `limits` and now takes more than this loops by chance, not by load."""
    cpu, wall, total = (PATIENCE * one for one in (limits.cpu_seconds, limits.wall_seconds, limits.total))
    return Limits(cpu, wall, 2 * limits.memory_mb, total)


def _close(pools: Iterable[Pool], owner: int) -> None:
    if os.getpid() == owner:
        for pool in pools:
            pool.close()


def _unsettled(report: Report, again: Report) -> Report:
    """`report`, with the passed tests that failed when they were run again marked as unstable."""
    outcomes, verdicts = iter(again.verdicts), []
    for verdict in report.verdicts:
        if verdict.passed and (other := next(outcomes)).status in ("failed", "error", "timeout", "memory"):
            verdict = Verdict("unstable", f"passes or not by hash seed, random seed or clock ({other.reason})"[:300])
        verdicts.append(verdict)
    return replace(report, verdicts=tuple(verdicts), cpu_seconds=report.cpu_seconds + again.cpu_seconds)


def _deduplicate(submissions):
    """(indices of the first of each kind, [(index of a copy, index of its original)])."""
    seen: dict[bytes, int] = {}
    first, copies = [], []
    for i, s in enumerate(submissions):
        parts = ("", *s.tests) if s.program is None else (s.program, s.prelude, s.setup_after, s.entry_point, *s.tests)
        digest = hashlib.sha256(repr((s.program is None, parts)).encode("utf-8", "surrogatepass")).digest()
        original = seen.setdefault(digest, i)
        if original == i:
            first.append(i)
        else:
            copies.append((i, original))
    return first, copies


def _package_folders() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            found[name] = str(Path(spec.origin).parent)
    return found


def _progress_bar(total: int):
    from tqdm import tqdm

    return tqdm(total=total, unit="program", desc="judge")
