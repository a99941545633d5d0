"""Watching one notebook's process: its time, the memory of all its processes, and one progress line."""

import json
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil


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
