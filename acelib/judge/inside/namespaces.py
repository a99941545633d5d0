"""The kernel's tools, reached through ctypes: namespaces with a tiny read-only root, Landlock, capabilities."""

import ctypes
import os
import select
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MS_RELATIME, ST_RELATIME, MNT_DETACH = 1 << 21, 4096, 2
_KEEP_FLAGS = 2 | 4 | 8 | 1024 | 2048  # nosuid, nodev, noexec, noatime, nodiratime: same bits in statvfs and mount
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def enter(readable, hidden, supervisor: int) -> None:
    """Move into new namespaces. Returns in a new process, which is pid 1 of its namespace; the old one watches over it.

    Raises OSError naming the step that the machine refuses.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS | NEWCGROUP
    if uid != 0 or _libc.unshare(flags) != 0:
        _check(_libc.unshare(flags | NEWUSER), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as f:
                f.write(text)
    guard = os.pidfd_open(supervisor)
    _build_root(readable, hidden)
    pid = os.fork()
    if pid:
        _watch_over(pid, guard)
    os.close(guard)


def _watch_over(pid: int, guard: int) -> None:
    """Live as long as both the zygote and the supervisor do. Killing the zygote ends everything in its namespace."""
    os.closerange(3, guard)
    os.closerange(guard + 1, 1024)
    poller = select.poll()
    for fd in (guard, os.pidfd_open(pid)):
        poller.register(fd, select.POLLIN)
    poller.poll()
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        os._exit(0)


def _mount(source, target: str, kind, flags: int, data: str | None = None) -> None:
    def as_bytes(text):
        return None if text is None else text.encode()

    result = _libc.mount(as_bytes(source), target.encode(), as_bytes(kind), ctypes.c_ulong(flags), as_bytes(data))
    _check(result, f"mount {target}")


def _build_root(readable, hidden) -> None:
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    base = next(b for b in ("/mnt", "/tmp", "/var/tmp", "/media", "/srv", "/home") if _usable(b, readable))
    _mount("root", base, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir(base + "/tmp")
    _mount("tmp", base + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,nr_inodes=1000,mode=1777")
    outer = [p for p in readable if not any(p != q and p.startswith(q + "/") for q in readable)]
    for path in outer:
        _bind(path, base)
    for path in hidden:
        if os.path.isdir(base + path):
            _mount("hidden", base + path, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    for path in readable:
        if any(path.startswith(h + "/") for h in hidden) and path not in outer:
            _bind(path, base)
    for path in hidden:
        if os.path.isdir(base + path):
            _mount(None, base + path, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    for path in outer:  # a Python that lives in /tmp: the folders above it are no place to leave things in
        while (path := os.path.dirname(path)).startswith("/tmp/"):
            os.chmod(base + path, 0o555)
    _mount(None, base, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.chdir(base)
    _check(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/tmp")


def _usable(base: str, readable) -> bool:
    return os.path.isdir(base) and not any(p == base or p.startswith(base + "/") for p in readable)


def _bind(path: str, base: str) -> None:
    target = base + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, target, None, MS_BIND | MS_REC)
    found = os.statvfs(target).f_flag
    flags = (found & _KEEP_FLAGS) | (MS_RELATIME if found & ST_RELATIME else 0)
    no_devices = MS_NODEV if os.path.isdir(path) else 0
    _mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | no_devices | flags)


_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many file rights each version knows


def landlock(readable, hidden) -> int:
    """A rule set: the given files and folders may be read, except what is hidden, and nothing else.

    Returns its file descriptor, for `restrict`. Raises OSError.
    """
    abi = _check(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1), "landlock")
    rights = (1 << _RIGHTS_BY_ABI.get(abi, 16)) - 1
    attributes = struct.pack("QQQ", rights, 3, 3)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    size = ctypes.c_size_t(len(attributes))
    ruleset = _check(_libc.syscall(_CREATE_RULESET, attributes, size, 0), "landlock ruleset")
    for path in readable:
        if os.path.isdir(path):
            _allow(ruleset, path, _READ_DIR)  # names only; Python's importer lists folders
        for part in _without(path, hidden, readable):
            _allow(ruleset, part, _READ_FILE | (_READ_DIR if os.path.isdir(part) else 0))
    return ruleset


def restrict(ruleset: int) -> None:
    """Put a Landlock rule set on this process, for good. Raises OSError."""
    _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")


def _without(path: str, hidden, readable) -> list[str]:
    """`path`, or the parts of it that are left when what is hidden is taken out."""
    if path in hidden:
        return []
    if not any(h.startswith(path + "/") for h in hidden):
        return [path]
    return [part for name in os.listdir(path) for part in _without(os.path.join(path, name), hidden, readable)]


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = struct.pack("=Qi", rights, fd)
        _check(_libc.syscall(_ADD_RULE, ruleset, 1, rule, 0), f"landlock rule for {path}")
    finally:
        os.close(fd)


def drop_capabilities() -> None:
    """Give up every capability of this process. Raises OSError."""
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capset")
