"""A seccomp allow-list, assembled by hand as classic BPF (no system package needed).

What is not listed fails with EPERM, so an honest program that tries it sees PermissionError and a hostile one nothing
else. Sleeping returns at once: waiting changes no result, and a program that sleeps costs nothing.
"""

import ctypes
import errno
import os
import struct

_X86_64 = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap":
    9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "ioctl": 16, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23,
    "sched_yield": 24, "mremap": 25, "msync": 26, "mincore": 27, "madvise": 28,
    "dup": 32, "dup2": 33, "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "sendfile": 40,
    "sendto": 44, "recvfrom": 45, "shutdown": 48, "socketpair": 53, "clone": 56, "exit": 60, "uname": 63, "fcntl": 72,
    "flock": 73, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "getdents": 78, "getcwd": 79, "chdir": 80,
    "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "unlink": 87, "readlink": 89, "umask": 95,
    "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104,
    "geteuid": 107, "getegid": 108, "getppid": 110, "getpgrp": 111, "getgroups": 115, "rt_sigpending": 127,
    "rt_sigtimedwait": 128, "sigaltstack": 131, "statfs": 137, "fstatfs": 138, "prctl": 157, "gettid": 186,
    "time": 201, "futex": 202, "sched_getaffinity": 204, "getdents64": 217, "fadvise64": 221, "clock_gettime": 228,
    "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233, "openat": 257,
    "mkdirat": 258, "newfstatat": 262, "unlinkat": 263, "renameat": 264, "readlinkat": 267, "faccessat": 269,
    "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "utimensat": 280, "epoll_pwait": 281, "eventfd2": 290,
    "epoll_create1": 291, "dup3": 292, "pipe2": 293, "prlimit64": 302, "getcpu": 309, "renameat2": 316,
    "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334, "clone3": 435, "close_range": 436,
    "faccessat2": 439,
}  # fmt: skip
_AARCH64 = {
    "getcwd": 17, "eventfd2": 19, "epoll_create1": 20, "epoll_ctl": 21, "epoll_pwait": 22, "dup": 23, "dup3": 24,
    "fcntl": 25, "ioctl": 29, "flock": 32, "mkdirat": 34, "unlinkat": 35, "renameat": 38, "statfs": 43, "fstatfs": 44,
    "ftruncate": 46, "faccessat": 48, "chdir": 49, "openat": 56, "close": 57, "pipe2": 59, "getdents64": 61,
    "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pwrite64": 68, "sendfile": 71,
    "pselect6": 72, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "fsync": 82, "fdatasync": 83,
    "utimensat": 88, "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99, "nanosleep": 101,
    "getitimer": 102, "setitimer": 103, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
    "sched_getaffinity": 123, "sched_yield": 124, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
    "rt_sigpending": 136, "rt_sigtimedwait": 137, "rt_sigreturn": 139, "times": 153, "getgroups": 158, "uname": 160,
    "getrusage": 165, "umask": 166, "prctl": 167, "getcpu": 168, "gettimeofday": 169, "getpid": 172, "getppid": 173,
    "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "socketpair": 199,
    "sendto": 206, "recvfrom": 207, "shutdown": 210, "brk": 214, "munmap": 215, "mremap": 216, "clone": 220,
    "mmap": 222, "fadvise64": 223, "mprotect": 226, "msync": 227, "mincore": 232, "madvise": 233, "prlimit64": 261,
    "renameat2": 276, "getrandom": 278, "membarrier": 283, "statx": 291, "rseq": 293, "clone3": 435,
    "close_range": 436, "faccessat2": 439,
}  # fmt: skip
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4
_X32 = 0x40000000  # numbers of the x32 calling convention start here
_CLONE_THREAD, _AF_UNIX = 0x10000, 1
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # terminal queries, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # duplicate; get and set descriptor and status flags
_PRCTLS = (15, 16)  # thread names
_RETURN_ALLOW = (_RETURN, 0, 0, _ALLOW)
_CHANGING = ("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "creat", "utimensat")


class Filter:
    """An assembled filter. files: "write" (the file system is walled off), "read" (read-only opens) or "none"."""

    def __init__(self, files: str):
        machine = os.uname().machine
        if machine not in _MACHINES:
            raise OSError(errno.ENOSYS, f"no syscall table for {machine}")
        arch, numbers = _MACHINES[machine]
        verdicts = dict.fromkeys(numbers.values(), [_RETURN_ALLOW])
        if files != "write":
            verdicts |= {numbers[name]: [_refuse(errno.EPERM)] for name in _CHANGING if name in numbers}
        verdicts |= {numbers[name]: body for name, body in _special_cases(files).items() if name in numbers}
        code = [(_LOAD, 0, 0, _ARCH), (_JEQ, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
        code += _search(_ranges(verdicts))
        packed = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
        self._code = ctypes.create_string_buffer(packed, len(packed))
        self._program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(self._code)))
        self._arguments = (22, 2, ctypes.c_void_p(ctypes.addressof(self._program)), 0, 0)

    def install(self, libc) -> int:
        """Put the filter on the calling process, for good. Returns 0 or -1 (errno set)."""
        return libc.prctl(*self._arguments)


def _ranges(verdicts: dict):
    """[(first system call, code)]: what holds from that number on, up to the next one in the list."""
    refuse = [_refuse(errno.EPERM)]
    found = [(0, refuse)]
    for number in range(max(verdicts) + 2):
        if (code := verdicts.get(number, refuse)) != found[-1][1]:
            found.append((number, code))
    return [*found, (_X32, [(_RETURN, 0, 0, _KILL)])]


def _search(ranges):
    """A binary search: each child installs the filter, and the kernel then tries it with every number there is."""
    if len(ranges) == 1:
        return ranges[0][1]
    half = len(ranges) // 2
    below = _search(ranges[:half])
    return [(_JGE, len(below), 0, ranges[half][0]), *below, *_search(ranges[half:])]


def _argument(index: int, high: bool = False):
    return (_LOAD, 0, 0, 16 + 8 * index + 4 * high)


def _refuse(error: int):
    return (_RETURN, 0, 0, _ERRNO | error)


def _one_of(index: int, values):
    code = [_argument(index)]
    for i, value in enumerate(values):
        code.append((_JEQ, len(values) - i, 0, value))
    return [*code, _refuse(errno.EPERM), _RETURN_ALLOW]


def _special_cases(files: str) -> dict:
    no_wait = [_refuse(0)]
    cases = {
        "nanosleep": no_wait,
        "clock_nanosleep": no_wait,
        "clone": [_argument(0), (_JSET, 0, 1, _CLONE_THREAD), _RETURN_ALLOW, _refuse(errno.EPERM)],
        "clone3": [_refuse(errno.ENOSYS)],  # glibc then uses clone, whose flags can be looked at
        "socketpair": _one_of(0, (_AF_UNIX,)),
        "ioctl": _one_of(1, _IOCTLS),
        "fcntl": _one_of(1, _FCNTLS),
        "prctl": _one_of(0, _PRCTLS),
        "prlimit64": [  # reading only
            _argument(2), (_JEQ, 0, 3, 0), _argument(2, high=True), (_JEQ, 0, 1, 0), _RETURN_ALLOW,
            _refuse(errno.EPERM),
        ],
    }  # fmt: skip
    if files == "read":
        for name, index in (("open", 1), ("openat", 2)):
            cases[name] = [_argument(index), (_JSET, 0, 1, _WRITING), _refuse(errno.EACCES), _RETURN_ALLOW]
    elif files == "none":
        cases["open"] = cases["openat"] = [_refuse(errno.EACCES)]
    return cases
