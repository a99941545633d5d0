"""What a child may do: resource limits, no new privileges, and (by level) namespaces, Landlock, seccomp."""

import ctypes
import importlib.machinery
import importlib.util
import os
import resource
import signal

LEVELS = ("namespaces+seccomp", "landlock+seccomp", "seccomp", "rlimits")
_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38


class Unavailable(Exception):
    """This machine does not allow the level; the message says which step failed."""


class PackageFinder:
    """Finds the allowed third-party packages, each by its own folder; nothing else of site-packages exists."""

    def __init__(self, packages):
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        folder = self.packages.get(name)
        if folder is None:
            return None
        return importlib.util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )


def enter(level: str, setup: dict) -> None:
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_DUMPABLE, 0)


def confine(limits: dict) -> None:
    """Called in the child, before the program's text is read."""
    for which, value in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_CPU, int(limits["total_cpu"]) + 2),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(which, (value, value))
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def sweep() -> bool:
    """Clean up behind a child. False asks for a new zygote."""
    return True


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise Unavailable(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
