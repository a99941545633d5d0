"""Waiting for children, and killing them when a limit is passed.

Load must not change a verdict, so clocks that load cannot move decide: CPU time for work, and for programs that block
the time they were neither running nor waiting for a processor (wall time minus CPU time minus run-queue time).
"""

import os
import select
import signal
import time

TICK = 0.05  # seconds between two looks at a child that takes long
IDLE_LOOKS = 30  # where the kernel does not tell run-queue times: so many looks in a row without any CPU used


class Watcher:
    """Watches the children of this process. Must be made before the file system is walled off: it needs /proc."""

    def __init__(self, control):
        self._poller = select.poll()
        self._poller.register(control, select.POLLHUP)
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def wait(self, pids, fd: int, limits: dict) -> dict:
        """Wait for the last of `pids`, then end them all. `fd` is the result file: its position tells which test runs.

        Returns (limit that was passed or None, exit code of the last, CPU seconds of all, how many of them a test used
        beyond its limit before it was looked at).
        """
        start = time.monotonic()
        meter = killed = None
        pidfd = os.pidfd_open(pids[-1])
        self._poller.register(pidfd, select.POLLIN)
        tick = 1000 * min(TICK, limits["cpu"] / 4)
        while killed is None and not (events := self._poller.poll(tick)):
            meter = meter or _Meter(self._queue_seconds, pids, limits, start)
            killed = meter.look(os.lseek(fd, 0, os.SEEK_CUR))
        self._poller.unregister(pidfd)
        os.close(pidfd)
        if killed is None and [which for which, _ in events] != [pidfd]:
            os._exit(0)  # the supervisor is gone; in a pid namespace this ends every process in it
        used = code = 0
        for pid in pids:
            if killed or pid != pids[-1]:
                os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still this child's
            _, status, usage = os.wait4(pid, 0)
            used += usage.ru_utime + usage.ru_stime
            code = os.waitstatus_to_exitcode(status)
        return killed, code, used, meter.over(used) if killed == "cpu" else 0.0

    def _queue_seconds(self) -> float | None:
        """Seconds that all threads of all children have waited for a processor; None if the kernel does not say."""
        try:
            me = os.readlink("self", dir_fd=self._proc)  # our number in the namespace of this /proc
            total = 0
            for pid in self._read(f"{me}/task/{me}/children").split():
                tasks = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._proc)
                try:
                    names = os.listdir(tasks)
                finally:
                    os.close(tasks)
                total += sum(int(self._read(f"{pid}/task/{name}/schedstat").split()[1]) for name in names)
            return total / 1e9
        except (OSError, ValueError, IndexError):
            return None

    def _read(self, path: str) -> str:
        with open(os.open(path, os.O_RDONLY, dir_fd=self._proc)) as f:
            return f.read()


class _Meter:
    """What a group of processes has used so far, in all and within the test that runs."""

    def __init__(self, queue_seconds, pids, limits, start):
        self._queue_seconds, self._pids, self._limits = queue_seconds, pids, limits
        self._start = start
        self._position = self._cpu = self._test_cpu = self._asleep = self._test_asleep = self._still = 0

    def look(self, position: int) -> str | None:
        """The name of the limit that is passed, if any."""
        cpu = sum(_cpu_clock(pid) for pid in self._pids)
        queue = self._queue_seconds()
        wall = time.monotonic() - self._start - (queue or 0)
        if position != self._position:
            self._position, self._test_cpu, self._test_asleep = position, self._cpu, self._asleep
        self._still = self._still + 1 if cpu == self._cpu else 0
        self._cpu, self._asleep = cpu, wall - cpu
        if cpu - self._test_cpu >= self._limits["cpu"]:
            return "cpu"
        if cpu >= self._limits["total_cpu"]:
            return "total_cpu"
        asleep = self._asleep - self._test_asleep
        if self._still >= IDLE_LOOKS or (queue is not None and asleep >= self._limits["idle"]):
            return "idle"
        return "wall" if wall >= self._limits["wall"] else None

    def over(self, used: float) -> float:
        """Of `used` CPU seconds, those that the running test used beyond its limit."""
        return max(0.0, used - self._test_cpu - self._limits["cpu"])


def _cpu_clock(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's id of another process's CPU clock
    except OSError:
        return 0.0
