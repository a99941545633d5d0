"""The judge: runs untrusted programs against tests. Nowhere else in this project does model-written code run.

    from acelib.judge import Judge, Limits, Submission

    with Judge(workers=2, limits=Limits(cpu_seconds=1.0, wall_seconds=10.0, memory_mb=512)) as judge:
        reports = judge.run([Submission("def f(x):\\n    return x + 1\\n", ["assert f(1) == 2"])])
    reports[0].verdicts[0].passed, reports[0].pass_rate

How it stands
-------------
The expected value never enters the process of the program. A test is taken apart: the call goes to the program's
process, the comparison stays here, and what comes back is plain data (`inside/wire.py`). A test that is more than a
comparison of data is run by the *referee*, a second sandboxed process that reaches the program's objects by message
only (`inside/referee.py`). Each program gets a fresh process, forked from a lean *zygote* (`inside/zygote.py`) that was
started by exec, with a cleared environment, and has never read a program, a test or a result.

What each level covers (`Judge.level` says which one runs; the strongest that the machine allows is taken)
---------------------------------------------------------------------------------------------------------
All levels: address space, CPU time, file size and open files are limited, core dumps off, no new privileges, no
capabilities, children not dumpable, the environment cleared; a program ends with its process.

    namespaces+seccomp  Own process tree, network (none), mounts, IPC. Of the file system only Python's standard library
                        and numpy are there, read-only, and an empty /tmp of 16 MB. System calls by allow-list: no exec,
                        fork, sockets, signals to others, debugging. As root the program runs as nobody (in the same
                        user namespace, without capabilities), as an ordinary user in a user namespace of its own.
    landlock+seccomp    The same allow-list, opens read-only, and Landlock lets only Python's files be opened. The
                        process tree is shared, but no process in it can be signalled, traced or read. No writable /tmp.
    seccomp             The same allow-list, and no file can be opened at all; what a program imports by name from the
                        standard library is loaded beforehand, hidden or indirect imports fail.
    rlimits             Resource limits only. Never chosen automatically: Judge(isolation="rlimits") accepts the risk.
                        Expected values are still out of reach of the program's own process, but not of its files.

What is not covered
-------------------
A hole in the kernel or in CPython's `json`; timing and other side channels between programs; load on the machine while
a program runs (CPU seconds x workers is the bound). Below "namespaces" the existence and size of files can be seen.
A test that nearly everything passes (`assert f(1) != 2`) passes nearly everything here, too. In a test about the
program's own objects (`assert Point(1) == Point(1)`) their methods decide, as they should; they never equal data.
Differences from plain Python, by design: `time.sleep` returns at once; `range`, generators and other objects equal no
data (convert them: `list(f(3)) == ...`); arithmetic between an object of the program and data of the test is refused;
what the program returns is a copy, so changing it does not change the program's state; a test cannot subclass a class
of the program. aarch64's system-call table is written down but has only been tried on x86-64.
"""

from .api import LLM_PRELUDE, STATUSES, JudgeError, Limits, Report, Submission, Verdict
from .asserts import why_invalid
from .judge import Judge

__all__ = ["LLM_PRELUDE", "STATUSES", "Judge", "JudgeError", "Limits", "Report", "Submission", "Verdict", "why_invalid"]
