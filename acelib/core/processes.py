"""Processes of this machine: how they end, and the memory they take."""

import ctypes
import math
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_tree(process: subprocess.Popen) -> None:
    """End a process and all its descendants: kernels and sandboxes live in sessions of their own."""
    with suppress(psutil.NoSuchProcess):
        _end([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])
    process.wait()


def end_descendants() -> None:
    """End every process that descends from this one."""
    _end(psutil.Process().children(recursive=True))


def _end(processes: Sequence[psutil.Process]) -> None:
    """SIGTERM, and SIGKILL for those that are still there after five seconds."""
    for one in processes:
        with suppress(psutil.Error):
            one.terminate()
    for one in psutil.wait_procs(processes, timeout=5)[1]:
        with suppress(psutil.Error):
            one.kill()


def end_with_parent() -> None:
    """In a new process: SIGTERM is what it gets when the thread that started it ends.

    So a killed notebook leaves no process behind that holds a GPU. Linux only; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Child:
    """A program in a session of its own, its output in files. It ends, with all that it started, by `close()`, with
    this object, and with the thread that started it. Raises OSError when it cannot be started."""

    def __init__(self, command: Sequence[str], log: Path, out: Path | None = None, **options: Any):
        """`log` gets what it says on stderr, and on stdout unless that has a file `out`; `options` are Popen's."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("wb") as said, out.open("wb") if out else nullcontext(said) as printed:
            streams = {"stdin": subprocess.DEVNULL, "stdout": printed, "stderr": said}
            self.popen = subprocess.Popen(
                command, **streams, **options, start_new_session=True, preexec_fn=end_with_parent
            )
        self.close = weakref.finalize(self, end_tree, self.popen)  # also at the interpreter's exit

    def status(self, seconds: float = 0) -> int | None:
        """Its exit status, as soon as it has ended within `seconds`; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.popen.wait(seconds)

    def lines(self) -> list[str]:
        """What stands in its log, without empty lines."""
        return [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]


@contextmanager
def stoppable() -> Iterator[None]:
    """A wanted stop raises KeyboardInterrupt in this block, then ends what the block started, and exits with 128 plus
    the number of the signal.

    Wanted are SIGINT (Ctrl-C), SIGTERM and SIGHUP, each unless it was ignored from the start: under `nohup` a run
    outlives its terminal, and with `&` in a script a Ctrl-C is meant for others.
    """
    number, last = int(signal.SIGINT), -math.inf

    def stop(got: int, frame: object) -> None:
        nonlocal number, last
        again, last = time.monotonic() - last < 5, time.monotonic()
        if not again:  # make and the shell may both send it, while the first one is being obeyed
            number = got
            raise KeyboardInterrupt

    wanted = [one for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]
    before = {one: signal.signal(one, stop) for one in wanted}
    try:
        yield
    except KeyboardInterrupt:
        end_descendants()
        with suppress(OSError):  # its terminal may be gone
            print("\nInterrupted; what was finished is kept.", file=sys.stderr)
        raise SystemExit(128 + number) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def peak_memory_mb(who: int = resource.RUSAGE_SELF) -> int:
    """Highest resident memory of this process (or of its largest ended child, RUSAGE_CHILDREN) so far, MiB."""
    return resource.getrusage(who).ru_maxrss // 1024


class GpuMemory:
    """Highest memory in use on any GPU of this machine, by whatever process, as nvidia-smi tells every two seconds.

    A job on several devices or a server holds memory that the caller's torch does not know of.
    """

    def __init__(self) -> None:
        self._folder, self._smi = TemporaryDirectory(prefix="acelib-"), None
        if smi := shutil.which("nvidia-smi"):
            ask = [smi, "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--loop=2"]
            self._smi = Child(ask, Path(self._folder.name) / "memory.csv")

    @property
    def gib(self) -> float | None:
        """So far; None where no GPU was seen."""
        used = [int(line) for line in self._smi.lines() if line.isdigit()] if self._smi else []
        return max(used) / 1024 if used else None
