"""Sandbox processes and the one loop that keeps them busy."""

from __future__ import annotations

import array
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from .api import JudgeError, Report
from .inside import orders
from .trial import RESULTS_BYTES, Job, Outcome, Trial

DEPTH = 2  # jobs queued at a zygote: the next one starts while the last one's result is still being compared
MAX_DEATHS = 20  # of the sandbox under one program; far beyond bad luck, so that others killing it change no verdict
START_SECONDS = 60
GRACE_SECONDS = 120
Numbered = tuple[int, Trial]
_ZYGOTE = Path(__file__).parent / "inside" / "zygote.py"


class Unavailable(JudgeError):
    """The machine does not allow the requested isolation level."""


class Worker:
    """One zygote: started by exec with a clean environment, spoken to over one socket."""

    def __init__(self, level: str, packages: dict[str, str], hash_seed: int = 0):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        setup = {"level": level, "packages": packages, "supervisor": os.getpid()}
        environment = {
            "PYTHONHASHSEED": str(hash_seed),
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
        }
        environment["LD_BIND_NOW"] = "1"  # or every child looks up the C functions it calls anew
        environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        with theirs:
            self.process = subprocess.Popen(
                [getattr(sys, "_base_executable", sys.executable), "-s", "-S", str(_ZYGOTE)]
                + [str(theirs.fileno()), json.dumps(setup)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        self.queue: deque[tuple[Numbered, Job, int]] = deque()
        self.deadline = time.monotonic() + START_SECONDS

    def wait_ready(self) -> None:
        """Raise Unavailable when the zygote could not enter its level."""
        self.control.settimeout(START_SECONDS)
        try:
            message = self.control.recv(65536)
        except OSError as error:
            message = b""
            reason = f"no answer ({error})"
        else:
            reason = "it died while starting"
        self.control.settimeout(None)
        answer = json.loads(message) if message else {"unavailable": reason}
        if "ready" not in answer:
            stderr = "" if message else self._last_words()
            self.kill()
            raise Unavailable(f"{answer['unavailable']}{stderr}")

    def _last_words(self) -> str:
        self.process.kill()
        text = self.process.stderr.read().decode(errors="replace").strip()
        return f": {text.splitlines()[-1]}" if text else ""

    def submit(self, trial: Numbered, job: Job) -> None:
        """Hand a job over. Raises OSError when the zygote is gone."""
        files = []
        try:
            for part in job.parts:
                files.append(os.memfd_create("job", os.MFD_CLOEXEC))
                os.write(files[-1], part)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
            self.control.sendmsg([orders.pack_order(job.limits, job.warm)], rights)
        except BaseException:
            for fd in files:
                os.close(fd)
            raise
        for fd in files[:-1]:
            os.close(fd)
        if not self.queue:
            self.deadline = time.monotonic() + job.limits["wall"] + GRACE_SECONDS
        self.queue.append((trial, job, files[-1]))

    def receive(self) -> tuple[Numbered, Job, Outcome, bool]:
        """The oldest job's outcome, and whether the zygote may go on. Raises ConnectionError when it is gone."""
        message = self.control.recv(orders.MESSAGE_BYTES)
        if not message:
            raise ConnectionError("the zygote is gone")
        killed, code, cpu, over, clean = orders.unpack_reply(message)
        trial, job, fd = self.queue.popleft()
        try:
            data = _read_results(fd, len(job.parts[-1]))
        finally:
            os.close(fd)
        if self.queue:
            self.deadline = time.monotonic() + self.queue[0][1].limits["wall"] + GRACE_SECONDS
        return trial, job, Outcome(killed, code, cpu, data, over), clean

    def kill(self) -> list[Numbered]:
        """End the zygote and everything under it; return the trials it had not finished."""
        self.control.close()
        if not self.queue:  # it ends by itself when its supervisor hangs up, and its CPU time is then accounted for
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1.0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        trials = [trial for trial, _, _ in self.queue]
        for _, _, fd in self.queue:
            os.close(fd)
        self.queue.clear()
        return trials


def _read_results(fd: int, start: int) -> bytes:
    chunks, position, end = [], start, start + RESULTS_BYTES + 2_000_000
    while position < end and (chunk := os.pread(fd, end - position, position)):
        chunks.append(chunk)
        position += len(chunk)
    return b"".join(chunks)


class Pool:
    """Keeps `size` zygotes busy. `run` takes numbered trials one at a time, so memory stays constant."""

    def __init__(self, size: int, start: Callable[[], Worker]):
        self.size, self._start = size, start
        self.workers: list[Worker] = []

    def run(self, trials: Iterator[Numbered], done: Callable[[int, Report], None]) -> None:
        waiting: deque[Numbered] = deque()
        exhausted = False
        with selectors.DefaultSelector() as selector:
            while True:
                self._refill(selector)
                for worker in list(self.workers):
                    while worker in self.workers and len(worker.queue) < DEPTH:
                        if waiting:
                            trial = waiting.popleft()
                        elif exhausted or (trial := next(trials, None)) is None:
                            exhausted = True
                            break
                        job = trial[1].next_job()
                        if job is None:
                            done(trial[0], trial[1].report())
                            continue
                        try:
                            worker.submit(trial, job)
                        except OSError:
                            waiting.appendleft(trial)
                            self._replace(worker, selector, waiting)
                if exhausted and not waiting and not any(w.queue for w in self.workers):
                    return
                self._collect(selector, waiting)

    def _refill(self, selector) -> None:
        while len(self.workers) < self.size:
            self.workers.append(self._start())
        for worker in self.workers:
            if worker.control.fileno() not in selector.get_map():
                selector.register(worker.control, selectors.EVENT_READ, worker)

    def _collect(self, selector, waiting) -> None:
        for key, _ in selector.select(timeout=1.0):
            worker = key.data
            try:
                trial, job, outcome, clean = worker.receive()
            except OSError:
                self._replace(worker, selector, waiting)
                continue
            trial[1].absorb(job, outcome)
            waiting.appendleft(trial)
            if not clean:
                self._replace(worker, selector, waiting, blame=False)
        now = time.monotonic()
        for worker in [w for w in self.workers if w.queue and now > w.deadline]:
            self._replace(worker, selector, waiting)

    def _replace(self, worker: Worker, selector, waiting, blame=True) -> None:
        """Drop a zygote; its unfinished trials run again elsewhere. The one it was busy with may be the cause."""
        selector.unregister(worker.control)
        self.workers.remove(worker)
        trials = worker.kill()
        if trials and blame:
            suspect = trials[0][1]
            suspect.deaths += 1
            if suspect.deaths >= MAX_DEATHS:
                suspect.abandon(f"the sandbox died {MAX_DEATHS} times on this program")
        waiting.extend(trials)

    def close(self) -> None:
        while self.workers:
            self.workers.pop().kill()
