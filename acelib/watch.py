"""Watching one notebook's process: its time, the memory of all its processes, and one progress line."""

import ctypes
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass
class Measured:
    seconds: float = 0.0
    peak_mb: float = 0.0
    memory: str = "PSS"  # or RSS, which counts shared pages once per process


class Watch(threading.Thread):
    """Samples the memory of a process tree once a second and keeps the progress line fresh."""

    def __init__(self, pid: int, line: "Line", progress: Path):
        super().__init__(daemon=True)
        self.tree, self.line, self.progress = psutil.Process(pid), line, progress
        self.measured, self.start_time, self.stop = Measured(), time.monotonic(), threading.Event()

    def run(self) -> None:
        while not self.stop.wait(1.0):
            self.measured.peak_mb = max(self.measured.peak_mb, self._memory() / 2**20)
            try:
                stage = json.loads(self.progress.read_text())
            except (OSError, ValueError):
                stage = None
            self.line.show(time.monotonic() - self.start_time, stage)

    def _memory(self) -> int:
        total = 0
        try:
            processes = [self.tree, *self.tree.children(recursive=True)]
        except psutil.Error:
            return 0
        for process in processes:
            try:
                total += process.memory_full_info().pss
            except (AttributeError, psutil.AccessDenied):
                self.measured.memory = "RSS"
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    pass
            except psutil.Error:
                pass
        return total

    def finish(self) -> Measured:
        self.stop.set()
        self.join()
        self.measured.seconds = time.monotonic() - self.start_time
        return self.measured


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Line:
    """One progress line per notebook; on something that is not a terminal, a plain line now and then."""

    def __init__(self, out: TextIO, head: str, expected: float | None):
        self.out, self.head, self.expected = out, head, expected
        self.live = out.isatty()
        self.next_plain = 60.0

    def show(self, seconds: float, stage: dict[str, Any] | None) -> None:
        if not self.live and seconds < self.next_plain:
            return
        self.next_plain = seconds + 60.0
        where = f"  {stage['label']} {stage['done']}/{stage['total']}" if stage else ""
        expected = f" of about {clock(self.expected)}" if self.expected else ""
        self._write(f"{self.head}{where}  {clock(seconds)}{expected}")

    def end(self, text: str) -> None:
        self._write(f"{self.head}  {text}")
        if self.live:
            self.out.write("\n")
            self.out.flush()

    def _write(self, text: str) -> None:
        if self.live:
            width = shutil.get_terminal_size().columns
            self.out.write("\r\x1b[2K" + text[: width - 1])
        else:
            self.out.write(text + "\n")
        self.out.flush()


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
