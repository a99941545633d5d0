"""The life of one submission: which jobs it needs, and what their outcome means. No processes here, only decisions."""

from __future__ import annotations

import ast
import json
import re
import sys
from dataclasses import dataclass

from .api import Limits, Report, Submission, Verdict
from .asserts import Assertion, NeedsReferee, compile_test, judge_lines
from .inside import wire

MAX_PROGRAM_CHARS = 1_000_000
RESULTS_BYTES = 8_000_000  # what one job may write
MAX_TIMEOUTS = 3
IDLE_SECONDS = 1.0  # asleep for so long within one test: it waits for something that never comes
SECOND_CHANCE = 0.25  # of a test's time, for each test after one that ran out of it: most such programs only loop
MAX_CRASHES = 16
MAX_CONTINUED = 200
CONTINUE = 77  # exit code of a child whose result file is full
# What a zygote may import for its programs: all of the standard library that has no side effects, and numpy.
MODULES = {name for name in sys.stdlib_module_names if not name.startswith("_")} | {"numpy", "numpy.random"}
MODULES -= {"antigravity", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "turtledemo", "ensurepip", "venv"}
MODULES -= {"readline", "rlcompleter", "site", "pty", "tty", "curses", "webbrowser", "cgitb", "nntplib", "telnetlib"}
_NAME = re.compile(r"\w+")
_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]+([\w., \t]+)", re.M)
_LATE = {
    "async": "asyncio",
    "Isolated": "unittest.async_case",
    "testing": "numpy.testing",
    "futures": "concurrent.futures",
}
_LATE |= {"ThreadPool": "concurrent.futures.thread"}  # what a word in a test leads to, and no import at its top


@dataclass(frozen=True)
class Outcome:
    """How a job's process ended: the limit that killed it (or None), its exit code, its CPU seconds, what it wrote.

    over: CPU seconds of a killed test beyond its limit; how many depends on load, so they do not count as spent.
    """

    killed: str | None
    code: int
    cpu: float
    data: bytes
    over: float = 0.0


@dataclass(frozen=True)
class Job:
    """One process's worth of work. `parts` are the contents of its memory files: candidate, then referee if any."""

    role: str
    tests: list[int]
    parts: tuple[bytes, ...]
    limits: dict
    warm: tuple[str, ...]


class Trial:
    """Decides one submission, under other seeds and clocks where `chance` is not 0.

    Take `next_job()`, run it, give the outcome to `absorb`, until there is none left.
    """

    def __init__(self, submission: Submission, limits: Limits, chance: int = 0):
        self.submission, self.limits, self.chance = submission, limits, chance
        self.assertions = [self._compiled(t) for t in submission.tests]
        self.verdicts: list[Verdict | None] = [None] * len(self.assertions)
        self.cpu = self.spent = 0.0
        self.remark, self.definitions_only = "", False
        self.timeouts = self.crashes = self.continued = self.deaths = 0
        problem = self._unusable()
        for i, assertion in enumerate(self.assertions):
            if problem:
                self.verdicts[i] = Verdict("syntax_error", problem)
            elif assertion.kind == "bad":
                self.verdicts[i] = Verdict("invalid", assertion.reason)
        self.referee = {i for i, a in enumerate(self.assertions) if a.kind == "referee"}

    def _compiled(self, test: str) -> Assertion:
        """The test; where it calls functions that Python has, too, the program may have its own."""
        assertion = compile_test(test, self.submission.entry_point)
        if not assertion.candidates and assertion.kind != "open":
            return assertion
        defined = _defined_names(self.submission.program or "")
        if assertion.kind != "open":
            also = tuple(name for name in assertion.candidates if name in defined)
            assertion = compile_test(test, assertion.own, also) if also else assertion
        else:
            fallback = assertion.candidates or (*defined, "f")[-2:]
            own = next((name for name in assertion.candidates if name in defined), fallback[0])
            assertion = compile_test(test, own)
        return assertion

    def _unusable(self) -> str:
        program = self.submission.program
        if program is None or not program.strip():
            return "no program"
        if len(program) > MAX_PROGRAM_CHARS:
            return f"the program is longer than {MAX_PROGRAM_CHARS:,} characters"
        return ""

    def report(self) -> Report:
        return Report(tuple(self.verdicts), self.cpu, self.remark)

    def next_job(self) -> Job | None:
        pending = [i for i, v in enumerate(self.verdicts) if v is None]
        data = [i for i in pending if i not in self.referee]
        s = self.submission
        source = {"prelude": s.prelude, "program": (s.program or "").lstrip("\ufeff"), "setup_after": s.setup_after}
        source |= {"chance": self.chance} if self.chance else {}
        source |= {"definitions_only": True} if self.definitions_only else {}
        if not pending:
            return None
        if data:
            calls = ",".join(call for i in data for call in self.assertions[i].calls)
            body = f'{json.dumps(source)[:-1]},"calls":[{calls}]}}'.encode()
            return self._job("data", data, (body,))
        tests = [(s.tests[i], self.assertions[i].own, self.assertions[i].also) for i in pending]
        return self._job(
            "referee",
            pending,
            (json.dumps(source).encode(), json.dumps({"tests": tests, "chance": self.chance}).encode()),
        )

    def _job(self, role, tests, parts) -> Job:
        share = SECOND_CHANCE if self.timeouts else 1.0
        limits = {
            "cpu": share * self.limits.cpu_seconds,
            "idle": share * IDLE_SECONDS,
            "total_cpu": max(0.01, self.limits.total - self.spent),
            "wall": self.limits.wall_seconds,
            "memory": int(self.limits.memory_mb) << 20,
            "file": max(map(len, parts)) + RESULTS_BYTES + 2_000_000,
        }
        return Job(role, tests, parts, limits, self._imports())

    def _imports(self) -> tuple[str, ...]:
        """Modules of the fixed table that the submission imports, for the zygote to have ready."""
        s = self.submission
        tests = [s.tests[i] for i in self.referee] or s.tests[:1]
        lines = [line for text in (s.prelude, s.program, *tests) for line in _IMPORT.findall(text)]
        names = {part.split()[0].partition(".")[0] for line in lines for part in line.split(",") if part.strip(". \t")}
        if "numpy" in names or any("np." in test for test in tests):
            names |= {"numpy", "numpy.random"}
        late = {module for word, module in _LATE.items() if any(word in test for test in tests)}
        return tuple(sorted((names & MODULES) | late))

    def absorb(self, job: Job, outcome: Outcome) -> None:
        """Turn what a job's process wrote, and how it ended, into verdicts."""
        self.cpu += outcome.cpu
        self.spent += outcome.cpu - outcome.over
        lines = outcome.data.split(b"\n")
        lines.pop()  # what follows the last newline was never finished
        if not lines:
            self._not_loaded(job, _ending(outcome, "while the program was loading"))
            return
        if lines[0] != b'"ok"' and not self._remarked(lines[0]):
            self._settle(job.tests, _failure(lines[0]))
            return
        position, done = 1, 0
        for i in job.tests:
            count = len(self.assertions[i].calls) if job.role == "data" else 1
            if position + count > len(lines):
                break
            self._decide(i, job.role, lines[position : position + count])
            position += count
            done += 1
        if done < len(job.tests):
            self._interrupted(job.tests[done], outcome, bool(done))

    def _not_loaded(self, job: Job, verdict: Verdict) -> None:
        """What the program does beside its functions may take for ever, or end the process: once without it."""
        tested = {name for i in job.tests for name in _NAME.findall(self.submission.tests[i])}
        if (
            self.definitions_only
            or not tested & _defined_names(self.submission.program).keys()
            or self.spent >= self.limits.total
        ):
            self._settle(job.tests, verdict)
            return
        self.definitions_only, self.remark = True, verdict.reason
        self.timeouts += verdict.status == "timeout"

    def _remarked(self, line: bytes) -> bool:
        """Whether the program was loaded, but for something beside its functions."""
        try:
            node = wire.loads(line)
        except wire.WireError:
            return False
        if type(node) is not list or len(node) != 2 or node[0] != "ok":
            return False
        self.remark = self.remark or str(node[1])[:300]
        return True

    def _decide(self, i: int, role: str, lines: list[bytes]) -> None:
        if role == "referee":
            self.verdicts[i] = Verdict("passed") if lines[0] == b"true" else _failure(lines[0])
            return
        try:
            self.verdicts[i] = Verdict(*judge_lines(self.assertions[i], lines))
        except NeedsReferee:
            self.referee.add(i)

    def _interrupted(self, victim: int, outcome: Outcome, progress: bool) -> None:
        """The process ended before it had answered `victim`."""
        if outcome.code == CONTINUE and progress and self.continued < MAX_CONTINUED:
            self.continued += 1
            return
        self.verdicts[victim] = verdict = _ending(outcome, "during this test")
        if verdict.status == "timeout":
            self.timeouts += 1
        else:
            self.crashes += 1
        if outcome.killed in ("total_cpu", "wall") or self.spent >= self.limits.total:
            self._give_up("the program's time is used up")
        elif self.timeouts >= MAX_TIMEOUTS:
            self._give_up(f"{MAX_TIMEOUTS} tests before it timed out")
        elif self.crashes >= MAX_CRASHES:
            self._give_up(f"the process died in {MAX_CRASHES} tests before it")

    def abandon(self, reason: str) -> None:
        """Give every open test an error: the sandbox itself died on this submission again and again."""
        self._settle(range(len(self.verdicts)), Verdict("error", reason))

    def _give_up(self, reason: str) -> None:
        self._settle(range(len(self.verdicts)), Verdict("not_run", reason))

    def _settle(self, tests, verdict: Verdict) -> None:
        for i in tests:
            if self.verdicts[i] is None:
                self.verdicts[i] = verdict


def _defined_names(program: str) -> dict[str, None]:
    """Names that the program's top level defines, in order."""
    try:
        body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, None] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = None
        elif isinstance(node, ast.Assign):
            found |= {target.id: None for target in node.targets if isinstance(target, ast.Name)}
    return found


_KILLED = {
    "cpu": "used more CPU time than a test may",
    "total_cpu": "used more CPU time than a program may",
    "idle": "waits for something that never comes",
    "wall": "passed the wall-time backstop",
}
_SIGXCPU = -24


def _ending(outcome: Outcome, when: str) -> Verdict:
    if outcome.killed or outcome.code == _SIGXCPU:
        return Verdict("timeout", f"{_KILLED[outcome.killed or 'total_cpu']} {when}")
    if outcome.code == -9:
        return Verdict("memory", f"the process was killed {when}, most likely for want of memory")
    how = f"by signal {-outcome.code}" if outcome.code < 0 else f"with exit code {outcome.code}"
    return Verdict("error", f"the process ended {how} {when}")


def _failure(line: bytes) -> Verdict:
    """The verdict in a line like ["x", status, reason]. The process may be hostile, so it is never a pass."""
    try:
        tag, status, reason = wire.loads(line)
        if tag == "x" and status in ("failed", "error", "memory", "syntax_error", "invalid"):
            return Verdict(status, str(reason)[:300])
    except (wire.WireError, ValueError, TypeError):
        pass
    return Verdict("error", "the program's process sent no data")
