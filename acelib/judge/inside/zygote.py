"""The zygote: a lean Python that enters the sandbox once and then forks one child per program.

It is started by `exec` with a cleared environment, so the memory of the process that holds the tests is not in it. It
never reads a program or a result either: a job is a memory file that it hands to a fresh child unread, because what
the zygote had once read, a later child could find in its own memory.
"""

import builtins
import ctypes
import gc
import json
import os
import random
import resource
import socket
import sys

import candidate
import orders
import pages
import referee
import sandbox
from packages import PackageFinder
from watch import Watcher

# The C library's fork, with the interpreter lock held. What os.fork does for other threads, of which there are none
# here, would touch 150 more pages in every child and double the cost of an empty one.
_python = ctypes.PyDLL(None)
PREWARM = (
    "bisect",
    "collections",
    "copy",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "random",
    "re",
    "string",
    "typing",
)
OWN_MODULES = (
    "candidate",
    "chance",
    "channel",
    "checks",
    "names",
    "namespaces",
    "orders",
    "packages",
    "pages",
    "program",
    "referee",
    "sandbox",
    "seccomp",
    "stand_ins",
    "watch",
    "wire",
)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    setup = json.loads(sys.argv[2])
    sys.argv = ["program"]
    sys.path[:] = [p for p in sys.path if p != os.path.dirname(os.path.abspath(__file__))]
    sys.meta_path.append(PackageFinder(setup["packages"]))
    for name in PREWARM:
        __import__(name)
    builtins.exit = builtins.quit = sys.exit  # as Python's `site` has them, which is not loaded here
    watcher = Watcher(control)
    try:
        box = sandbox.Sandbox(setup["level"], setup)
    except sandbox.Unavailable as error:
        control.send(json.dumps({"unavailable": str(error)}).encode())
        return
    pages.rehearse()
    for name in OWN_MODULES:
        sys.modules.pop(name, None)
    control.send(json.dumps({"ready": setup["level"]}).encode())
    os.dup2(1, 2)  # from here on nobody reads error messages
    _seed()
    gc.collect()
    pages.fill_gaps()
    gc.freeze()
    serve(control, box, watcher)


def serve(control: socket.socket, box, watcher) -> None:
    """One order after the other, until the supervisor hangs up."""
    while True:
        message, rights, _, _ = control.recvmsg(orders.MESSAGE_BYTES, orders.RIGHTS_BYTES)
        if not message:
            return
        fds = orders.unpack_rights(rights)
        limits, warm = orders.unpack_order(message)
        for name in warm:
            if name not in sys.modules:
                _warm(name)
        outcome = _run_order(box, watcher, limits, fds)
        for fd in fds:
            os.close(fd)
        control.send(orders.pack_reply(*outcome, box.sweep()))


def _warm(name: str) -> None:
    """Import a module that programs ask for, so that later ones find it loaded. The names come from a fixed table."""
    try:
        __import__(name)
    except Exception:
        sys.modules.setdefault(name, None)  # not here: do not try again, and let the program see an ImportError
    _seed()
    gc.freeze()


def _seed() -> None:
    """Every child starts from this state: nobody here draws from it."""
    random.seed(0)
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed(0)


def _run_order(box, watcher, limits, fds):
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
    return watcher.wait(pids, fds[-1], limits)


def _fork(box, limits, run, *fds) -> int:
    """Fork a child that holds nothing but its own files."""
    pid = _python.fork()
    if pid == 0:
        try:
            box.confine(limits)
            low = 3
            for fd in sorted(fds):
                os.closerange(low, fd)
                low = fd + 1
            os.closerange(low, 1024)
            run(*fds)
        finally:
            os._exit(0)
    return pid


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
