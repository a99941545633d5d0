"""The system-call filter, run by a small interpreter of its byte code."""

import os
import struct
from types import SimpleNamespace

import pytest

from acelib.judge.inside import seccomp

ALLOW, KILL, REFUSE = seccomp._ALLOW, seccomp._KILL, seccomp._ERRNO
FILES = ("write", "read", "none")
MACHINES = sorted(seccomp._MACHINES)


def answer(code, arch: int, number: int, arguments=(0,) * 6) -> int:
    data, at, value = struct.pack("IIQ6Q", number, arch, 0, *arguments), 0, 0
    while True:
        operation, yes, no, operand = code[at]
        at += 1
        if operation == seccomp._RETURN:
            return operand
        if operation == seccomp._LOAD:
            (value,) = struct.unpack_from("I", data, operand)
        else:
            tests = {seccomp._JEQ: value == operand, seccomp._JGE: value >= operand, seccomp._JSET: value & operand}
            at += yes if tests[operation] else no


@pytest.fixture(params=[(machine, files) for machine in MACHINES for files in FILES], ids="-".join)
def filter_of(request, monkeypatch):
    machine, files = request.param
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    code = list(struct.iter_unpack("HBBI", seccomp.Filter(files)._code.raw))
    return code, *seccomp._MACHINES[machine], files


def test_the_filter_allows_what_is_listed_and_nothing_else(filter_of):
    code, arch, numbers, files = filter_of
    special = seccomp._special_cases(files)
    refused = set(seccomp._CHANGING) - special.keys() if files != "write" else set()
    plain = {number for name, number in numbers.items() if name not in special.keys() | refused}
    judged = {numbers[name] for name in special if name in numbers}
    for number in set(range(1000)) - judged:
        expected = ALLOW if number in plain else REFUSE | 1
        assert answer(code, arch, number) == expected, number
    assert answer(code, arch ^ 1, min(plain)) == KILL
    assert answer(code, arch, 0x40000000 | min(plain)) == answer(code, arch, 0xFFFFFFFF) == KILL


def test_arguments_decide_where_they_must(filter_of):
    code, arch, numbers, files = filter_of

    def ask(name, *arguments):
        return answer(code, arch, numbers[name], (*arguments, *(0,) * (6 - len(arguments))))

    thread = 0x3D0F00
    assert ask("clone", thread) == ALLOW and ask("clone", 17) == REFUSE | 1  # a thread, a process
    assert ask("clone3") == REFUSE | 38 and ask("clock_nanosleep") == REFUSE
    assert ask("socketpair", 1) == ALLOW and ask("socketpair", 2) == REFUSE | 1
    assert ask("prctl", 15) == ALLOW and ask("prctl", 22) == REFUSE | 1
    assert ask("prlimit64", 0, 0, 0) == ALLOW
    assert ask("prlimit64", 0, 0, 4096) == ask("prlimit64", 0, 0, 1 << 40) == REFUSE | 1
    reading, writing = ask("openat", 0, 0, os.O_RDONLY), ask("openat", 0, 0, os.O_WRONLY | os.O_CREAT)
    expected = {"write": (ALLOW, ALLOW), "read": (ALLOW, REFUSE | 13), "none": (REFUSE | 13, REFUSE | 13)}
    assert (reading, writing) == expected[files]
