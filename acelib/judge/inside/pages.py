"""Fewer pages to copy: what a child writes of the memory it shares with its zygote is copied page by page.

That, and not the work, is most of what a short program costs. So the zygote runs a job of its own before the first
fork (the interpreter adapts its code and fills its caches while it runs, and children find that done), and uses up the
gaps in its heap, so that what a child allocates lies together on new pages instead of in old ones here and there.
"""

import os
import sys

import candidate
import wire

_PROGRAM = '''
from typing import List

def f(numbers: List[int], text: str, pair) -> List[int]:
    """ What programs do. """
    found, seen = [], {}
    for i, x in enumerate(numbers):
        if x % 2 == 0 and x not in seen or i > 3:
            found.append(sorted(set(numbers), key=lambda y: -y)[0] + len(text))
            seen[x] = text[i:].upper().split() + [str(x)]
    while len(found) < 3:
        found += [sum(y for y in numbers), max(numbers), round(1.5 * i), int(text.strip("abc") or "1")]
    return tuple(found), seen, text.join(c for c in "abc" if c.isalpha()), None, True, 0.5, {1, 2}
'''
_CALL = ["f", [["l", 1, 2, 3, 4], "abc", ["t", 1.5, ["d", "a", 1]]], {}]
_JOB = {"prelude": "", "program": _PROGRAM, "setup_after": "", "calls": [_CALL] * 3}
_POOL_BYTES, _FIRST_BLOCK = 16384, 48  # of CPython's small-object allocator; elsewhere the limit below ends the search
_GAPS_BYTES = 1 << 19  # per size, at most
_kept = []


def rehearse() -> None:
    """Run a job of our own, often enough that nothing is left to adapt."""
    main = sys.modules["__main__"]
    for _ in range(20):
        fd = os.memfd_create("rehearsal")
        os.write(fd, wire.dumps(_JOB))
        candidate.run_job(fd)
        os.close(fd)
    sys.modules["__main__"] = main
    del sys.modules["program"]


def fill_gaps() -> None:
    """Allocate blocks of every size until one comes from fresh memory, and keep those before it."""
    header = sys.getsizeof(b"")
    small = [(16, object), (32, lambda: float("1.5"))]
    small += [(size, lambda size=size: bytes(size - header)) for size in range(48, 513, 16)]
    for size, make in small:
        _fill(size, make, lambda address: address % _POOL_BYTES == _FIRST_BLOCK)
    top = id(bytes(100_000))  # larger than any gap, so it lies above them
    for size in (65536, 32768, 16384, 8192, 4096, 2048, 1024, 640):
        _fill(size, lambda size=size: bytes(size), lambda address: address > top)


def _fill(size, make, is_fresh) -> None:
    for _ in range(_GAPS_BYTES // size):
        block = make()
        if is_fresh(id(block)):
            return
        _kept.append(block)
