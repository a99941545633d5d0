"""The zygote: a lean Python that enters the sandbox once and then forks one child per program.

It is started by `exec` with a cleared environment, so the memory of the process that holds the tests is not in it. It
never reads a program or a result either: a job is a memory file that it hands to a fresh child unread, because what
the zygote had once read, a later child could find in its own memory.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time

import candidate
import referee
import sandbox
from packages import PackageFinder

TICK = 0.05  # seconds between two looks at a child that takes long
IDLE_LOOKS = 40  # looks in a row without any CPU used: the child waits for something that never comes
PREWARM = (
    "abc", "array", "base64", "bisect", "calendar", "cmath", "collections", "collections.abc", "contextlib", "copy",
    "csv", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "io",
    "itertools", "json", "locale", "math", "numbers", "operator", "queue", "random", "re", "secrets", "statistics",
    "string", "struct", "textwrap", "threading", "time", "traceback", "types", "typing", "unicodedata", "uuid",
    "weakref",
)
EVERYTHING_ELSE = (
    "argparse", "ast", "asyncio", "concurrent.futures", "difflib", "doctest", "graphlib", "html", "inspect",
    "ipaddress", "keyword", "logging", "pathlib", "pprint", "shlex", "tempfile", "timeit", "unittest", "urllib.parse",
    "zlib", "zoneinfo",
)
OWN_MODULES = ("candidate", "channel", "names", "namespaces", "packages", "referee", "sandbox", "seccomp", "wire")


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    setup = json.loads(sys.argv[2])
    sys.argv = ["zygote"]
    sys.path[:] = [p for p in sys.path if p != os.path.dirname(os.path.abspath(__file__))]
    sys.meta_path.append(PackageFinder(setup["packages"]))
    for name in PREWARM + (EVERYTHING_ELSE if setup["level"] == "seccomp" else ()):
        __import__(name)
    try:
        box = sandbox.Sandbox(setup["level"], setup)
    except sandbox.Unavailable as error:
        control.send(json.dumps({"unavailable": str(error)}).encode())
        return
    for name in OWN_MODULES:
        sys.modules.pop(name, None)
    control.send(json.dumps({"ready": setup["level"]}).encode())
    gc.collect()
    gc.freeze()
    serve(control, box)


def serve(control: socket.socket, box) -> None:
    """One order after the other, until the supervisor hangs up."""
    while True:
        message, fds, _, _ = socket.recv_fds(control, 65536, 8)
        if not message:
            return
        order = json.loads(message)
        for name in order["warm"]:
            if name not in sys.modules:
                _warm(name)
        reply = _run_order(control, box, order["limits"], fds)
        for fd in fds:
            os.close(fd)
        reply["clean"] = box.sweep()
        control.send(json.dumps(reply).encode())


def _warm(name: str) -> None:
    try:
        __import__(name)
    except ImportError:
        return
    gc.freeze()


def _run_order(control, box, limits, fds):
    """One memory file: the program alone. Two: the program and, in a process of its own, the referee."""
    if len(fds) == 1:
        pids = [_fork(box, limits, candidate.run_job, fds[0])]
    else:
        ours, theirs = (end.detach() for end in socket.socketpair())
        pids = [
            _fork(box, limits, candidate.run_job, fds[0], theirs),
            _fork(box, limits, referee.run_job, fds[1], ours),
        ]
        os.close(ours)
        os.close(theirs)
    return watch(control, pids, fds[-1], limits)


def _fork(box, limits, run, *fds) -> int:
    """Fork a child that holds nothing but its own files."""
    pid = os.fork()
    if pid == 0:
        try:
            low = 3
            for fd in sorted(fds):
                os.closerange(low, fd)
                low = fd + 1
            os.closerange(low, 1024)
            box.confine(limits)
            run(*fds)
        finally:
            os._exit(0)
    return pid


def watch(control, pids, fd, limits):
    """Wait for the children; kill them when a limit is passed. CPU clocks decide, wall time only backstops."""
    pidfd = os.pidfd_open(pids[-1])
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(control, select.POLLHUP)
    start = time.monotonic()
    position = last_cpu = test_start = idle = 0
    killed = None
    try:
        while True:
            events = poller.poll(min(TICK, limits["cpu"]) * 1000)
            if any(which == control.fileno() for which, _ in events):
                os._exit(0)  # the supervisor is gone; in a pid namespace this ends every process in it
            if events:
                break
            cpu = sum(_cpu_clock(pid) for pid in pids)
            here = os.lseek(fd, 0, os.SEEK_CUR)
            if here != position:
                position, test_start = here, last_cpu
            idle = idle + 1 if cpu == last_cpu else 0
            last_cpu = cpu
            if cpu - test_start >= limits["cpu"]:
                killed = "cpu"
            elif cpu >= limits["total_cpu"]:
                killed = "total_cpu"
            elif idle >= IDLE_LOOKS:
                killed = "idle"
            elif time.monotonic() - start >= limits["wall"]:
                killed = "wall"
            if killed:
                break
    finally:
        os.close(pidfd)
    used = code = 0
    for pid in pids:
        if killed or pid != pids[-1]:
            _kill(pid)
        _, status, usage = os.wait4(pid, 0)
        used += usage.ru_utime + usage.ru_stime
        code = os.waitstatus_to_exitcode(status)
    return {"killed": killed, "code": code, "cpu": used}


def _cpu_clock(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's id of another process's CPU clock
    except OSError:
        return 0.0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
