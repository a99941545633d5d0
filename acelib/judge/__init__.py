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

What a verdict means
--------------------
    passed        an assertion was evaluated, and none failed
    failed        an assertion failed, also one whose failure the test swallows
    error         the program or the test raised, or the program does not define what the test calls
    timeout, memory, syntax_error, not_run    as the words say
    invalid       nothing was checked: no assert, one that always holds, one that was never reached. Test functions,
                  coroutines, `unittest.TestCase`, what pytest runs with its set-ups, `parametrize` and the test's own
                  fixtures, and HumanEval's `check(candidate)` are run first. `why_invalid` tells what the text alone
                  gives away.
    unstable      passed, but not under another hash seed, random seed or clock; such a program has pass rate 0

What users of judges have reported, and what happens here
---------------------------------------------------------
    nothing checked     invalid, see above; of pytest, `raises`, `approx`, `fail`, `skip`, `mark` and `fixture` are
                        carried out, any other name is an error that says so, and a test that needs pytest's own
                        fixtures (`tmp_path`, `capsys`) is invalid
    objects             Objects of the program are compared as Python does, inside containers as well. With data on the
                        other side the builtin value of a subclass decides, read with the base class's methods, here;
                        an object that is no builtin's equals no data. Counter, deque, OrderedDict, defaultdict, range,
                        dates with their zone, paths, arrays, UUIDs, Decimal and Fraction are data. A list that comes
                        back is the list that went in, and what is changed in it on one side changes on the other
                        (`root.children.append(...)`). What `dataclasses` and `inspect` say of an object they say in its
                        process.
    exceptions          keep class, bases, attributes, methods and cause
    numpy               arrays, also structured ones, scalars and dtypes are data, copied. What numpy and other
                        libraries would take an object's word for (`__array_interface__`, buffers, `__index__`,
                        pickling) the program is never asked.
    beside a function   an import that is missing, a demo, `input()`, `sys.exit()`, an endless loop: the rest of the
                        program is executed, its functions decide, and `Report.remark` says what failed
    order and names     `and`, `or`, branches and chains make the calls that Python makes; `Submission.entry_point` is
                        the program's even if Python has one of that name, and so is a `count` or `gcd` that the program
                        defines where that cannot help it to pass (`count(Node(1)) == 1`, but not `isclose(f(1), 0.5)`
                        or `f(5) == factorial(5)`); coroutines run in the program's process; `random.seed` in a test
                        seeds both sides
    chance              see `stability.py`: what may depend on it is run under two other conditions

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
A test without `entry_point` that calls only functions of Python's own takes the innermost that the program defines.
A set that crosses is built anew: where hashes collide its order may differ, and NaN is another NaN than the one sent.
Chance that comes up alike three times goes unseen, and so does chance that the program's text does not show.
Differences from plain Python, by design: `time.sleep` returns at once; generators and other objects equal no data
(convert them: `list(f(3)) == ...`); arithmetic between an object of the program and data of the test is refused, unless
the object is a number, text or tuple itself; a list inside another that the program returns is a copy; a test cannot
subclass a class of the program; what a test draws from `random` the program sees, not the other way
round. aarch64's system-call table is written down but has only been tried on x86-64.
"""

from .api import LLM_PRELUDE, STATUSES, JudgeError, Limits, Report, Submission, Verdict
from .asserts import why_invalid
from .judge import LEVELS, Judge

__all__ = [
    "LEVELS",
    "LLM_PRELUDE",
    "STATUSES",
    "Judge",
    "JudgeError",
    "Limits",
    "Report",
    "Submission",
    "Verdict",
    "why_invalid",
]
