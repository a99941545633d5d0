"""Processes of this machine: how they end, and the memory they take."""

import ctypes
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_tree(process: subprocess.Popen) -> None:
    """End a process and all its descendants: kernels and sandboxes live in sessions of their own."""
    try:
        tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for one in tree:
        try:
            one.send_signal(signal.SIGTERM)
        except psutil.Error:
            pass
    for one in psutil.wait_procs(tree, timeout=5)[1]:
        try:
            one.kill()
        except psutil.Error:
            pass
    process.wait()


def end_with_parent() -> None:
    """In a new process, before its program starts: SIGTERM is what it gets when the thread that started it ends.

    So a killed notebook leaves no process behind that holds a GPU. Linux only; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def peak_memory_mb(who: int = resource.RUSAGE_SELF) -> int:
    """Highest resident memory of this process (or of its largest ended child, RUSAGE_CHILDREN) so far, MiB."""
    return resource.getrusage(who).ru_maxrss // (1024 if sys.platform != "darwin" else 1024**2)


class GpuMemory:
    """Highest memory in use on any GPU of this machine, by whatever process, as nvidia-smi tells every two seconds.

    A job on several devices or a server holds memory that the caller's torch does not know of.
    """

    def __init__(self) -> None:
        self.gib: float | None = None  # None until a GPU has been seen
        if smi := shutil.which("nvidia-smi"):
            threading.Thread(target=self._look, args=(smi,), daemon=True).start()

    def _look(self, smi: str) -> None:
        ask = [smi, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while True:
            done = subprocess.run(ask, capture_output=True, text=True)
            used = [int(line) for line in done.stdout.split() if line.isdigit()]
            if done.returncode or not used:
                return
            self.gib = max(self.gib or 0.0, max(used) / 1024)
            time.sleep(2)
