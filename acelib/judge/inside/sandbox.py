"""The wall around a program, by level. The zygote enters it once; each child adds its limits and its filter.

namespaces+seccomp  own pid, net, mount, ipc (and, for an ordinary user, user) namespace; the file system holds nothing
                    but Python, read-only, and an empty /tmp of 16 MB
landlock+seccomp    the same process tree and network stack, but only Python's files can be opened, read-only
seccomp             no file can be opened at all; what may be imported is loaded beforehand
rlimits             no wall, only resource limits: for those who accept it by name
"""

import ctypes
import os
import resource
import signal
import sys
import sysconfig

import namespaces
import seccomp

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
NOBODY = 65534
_FILES = {"namespaces+seccomp": "write", "landlock+seccomp": "read", "seccomp": "none"}


class Unavailable(Exception):
    """This machine does not allow the level; the message says which step failed."""


class Sandbox:
    """Enters `level` for the calling process. Raises Unavailable when the machine refuses a step."""

    def __init__(self, level: str, setup: dict):
        self.level = level
        self._filter = self._ruleset = None
        readable, hidden = python_files(setup["packages"])
        try:
            if level != "rlimits":
                self._filter = seccomp.Filter(_FILES[level])
            if level == "namespaces+seccomp":
                namespaces.enter(readable, hidden, setup["supervisor"])
            self._give_up_privileges([p for p in readable if os.path.isdir(p)])
            if level == "landlock+seccomp":
                self._ruleset = namespaces.landlock(readable, hidden)
        except OSError as error:
            raise Unavailable(str(error)) from None
        self._tmp = os.listdir("/tmp") if level == "namespaces+seccomp" else []
        if self._filter is not None:
            self._try_out()

    def _give_up_privileges(self, needed) -> None:
        if os.geteuid() == 0 and _nobody_can_read(needed):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        namespaces.drop_capabilities()
        for option, value in (
            (PR_SET_NO_NEW_PRIVS, 1),
            (PR_SET_DUMPABLE, 0),
            (PR_SET_CHILD_SUBREAPER, 1),
            (PR_SET_PDEATHSIG, signal.SIGKILL if self.level == "namespaces+seccomp" else 0),
        ):
            if _libc.prctl(option, value, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"prctl {option}")

    def _try_out(self) -> None:
        """A child must be able to wall itself in and find that the wall holds; an old kernel fails here."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._wall_in()
                try:
                    os.kill(0, 0)
                except PermissionError:
                    code = 0
            finally:
                os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
            raise Unavailable("the kernel takes no Landlock rules or no seccomp filter")

    def _wall_in(self) -> None:
        if self._ruleset is not None:
            namespaces.restrict(self._ruleset)
        if self._filter is None:
            os.setsid()
        elif self._filter.install(_libc) != 0:
            raise OSError(ctypes.get_errno(), "seccomp")

    def confine(self, limits: dict) -> None:
        """Called in a fresh child, before the program's text is read."""
        for which, value in (
            (resource.RLIMIT_AS, limits["memory"]),
            (resource.RLIMIT_FSIZE, limits["file"]),
            (resource.RLIMIT_CPU, int(limits["total_cpu"]) + 2),
            (resource.RLIMIT_NOFILE, 64),
        ):
            resource.setrlimit(which, (value, value))
        if self.level != "namespaces+seccomp":  # where the end of the zygote is the end of its process tree
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._wall_in()

    def sweep(self) -> bool:
        """Leave nothing behind for the next program. False asks for a new zygote."""
        if self.level == "namespaces+seccomp":
            # In its own pid namespace, -1 means every process but this one; 0 means that there was one, dead or alive.
            if os.getpid() == 1 and _libc.kill(-1, signal.SIGKILL) == 0:
                _reap()
            return os.listdir("/tmp") == self._tmp
        if self.level == "rlimits":
            while children := _children():
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                _reap(wait=True)
        return True


def _reap(wait: bool = False) -> None:
    try:
        while os.waitpid(-1, 0 if wait else os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as f:
        return [int(pid) for pid in f.read().split()]


def _nobody_can_read(folders) -> bool:
    """False also where there is no such user: in a container whose root is an ordinary user's only identity."""
    try:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        return all(os.listdir(folder) is not None for folder in folders) and open(os.__file__).close() is None
    except OSError:
        return False
    finally:
        os.seteuid(0)
        os.setegid(0)


def python_files(packages: dict) -> tuple[list[str], list[str]]:
    """(what a program may read, what must stay hidden beneath that)."""
    stdlib = sysconfig.get_path("stdlib")
    readable = {stdlib, sysconfig.get_path("platstdlib")}
    for folder in packages.values():
        readable |= {p for p in (folder, f"{folder}.libs") if os.path.isdir(p)}
    with open("/proc/self/maps") as f:
        libraries = {line.split()[-1] for line in f if ".so" in line}
    readable |= {os.path.dirname(os.path.realpath(path)) for path in libraries if path.startswith("/")}
    readable |= {p for p in ("/usr/share/zoneinfo", "/dev/null") if os.path.exists(p)}
    hidden = {os.path.join(stdlib, name) for name in ("site-packages", "dist-packages")}
    hidden |= {p for p in sys.path if p.endswith(("site-packages", "dist-packages"))}
    version = f"python{sys.version_info[0]}"
    hidden |= {os.path.join(os.path.dirname(stdlib), version, "dist-packages")}
    return sorted(p for p in readable if p != "/"), sorted(p for p in hidden if os.path.isdir(p))
