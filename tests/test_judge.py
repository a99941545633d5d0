"""The judge as its callers see it: verdicts, agreement with plain Python, bad input, order, recovery."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from acelib.core import CourseError
from acelib.judge import LLM_PRELUDE, Judge, JudgeError, Limits, Submission
from acelib.judge.judge import LEVELS
from acelib.judge.trial import Outcome, Trial

ADD = "def f(x):\n    return x + 1\n"


@pytest.fixture(scope="module")
def judge():
    with Judge(workers=2, limits=Limits(cpu_seconds=0.5, wall_seconds=5, memory_mb=512)) as judge:
        yield judge


def verdicts(judge, program, *tests, **kwargs):
    return judge.run([Submission(program, list(tests), **kwargs)])[0].verdicts


def statuses(judge, program, *tests, **kwargs):
    return [v.status for v in verdicts(judge, program, *tests, **kwargs)]


def test_each_status(judge):
    program = textwrap.dedent("""
        def f(x):
            if x == 0: return 1 / x
            if x == 1: return [0] * 10**9
            while x == 2: pass
            return x
    """)
    tests = [f"assert f({i}) == 3" for i in range(5)]
    assert statuses(judge, program, *tests) == ["error", "memory", "timeout", "passed", "failed"]
    assert statuses(judge, "def f(:", tests[0]) == ["syntax_error"]


def test_report(judge):
    report = judge.run([Submission(ADD, ["assert f(1) == 2", "assert f(1) == 3"])])[0]
    assert report.pass_rate == 0.5 and not report.passed and report.cpu_seconds > 0
    assert "got 2" in report.verdicts[1].reason
    assert judge.run([Submission(ADD, [])])[0].pass_rate == 0.0
    assert judge.run([]) == []


def test_three_timeouts_end_a_program(judge):
    loop = "def f(x):\n    while True: pass\n"
    with Judge(limits=Limits(cpu_seconds=0.05)) as quick:
        assert statuses(quick, loop, *[f"assert f({i}) == 1" for i in range(6)]) == ["timeout"] * 3 + ["not_run"] * 3


@pytest.mark.parametrize("body", ["while True: pass", "threading.Event().wait()"])
def test_further_timeouts_cost_a_quarter_of_the_first(body):
    program = f"import threading\ndef f(x):\n    if x:\n        {body}\n    return 0\n"
    jobs = []
    trial = Trial(Submission(program, [f"assert f({i}) == 0" for i in (0, 1, 1, 0)]), Limits(cpu_seconds=0.4))
    with Judge(workers=1, limits=Limits(cpu_seconds=0.4)) as judge:
        found = [verdict.status for verdict in judge.run([trial.submission])[0].verdicts]
    assert found == ["passed", "timeout", "timeout", "passed"]
    while (job := trial.next_job()) is not None and len(jobs) < 2:
        jobs.append(job.limits)
        trial.absorb(job, Outcome("cpu", -9, 0.4, b'"ok"\n'))
    assert [(one["cpu"], one["idle"]) for one in jobs] == [(0.4, 1.0), (0.1, 0.25)]


def test_a_program_that_dies_in_one_test_is_run_again_for_the_others(judge):
    program = "import os\ndef f(x):\n    if x == 1: os._exit(0)\n    return x\n"
    assert statuses(judge, program, *[f"assert f({i}) == {i}" for i in range(4)]) == [
        "passed",
        "error",
        "passed",
        "passed",
    ]


POINT = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
PAIR = "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)"
DATE = "import datetime\ndef f(): return datetime.date(2020, 1, 2)"
STRICT = "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x"
CLOSURE = """
def f():
    n = 0
    def g():
        nonlocal n
        n += 1
        return n
    return g
"""
NESTED = "[1, (2, {'a': {3}}), None, b'\\x00']"

AGREEMENT = [  # (program, test, does plain Python accept it?)
    (ADD, "assert f(1) == 2", True),
    (ADD, "assert 2 == f(1)", True),
    (ADD, "assert f(x=1) == 2", True),
    (ADD, "assert f(1) != 2", False),
    (ADD, "assert f(0.1) == 1.1", True),
    (ADD, "assert f(True) == 2", True),
    (ADD, "assert f(1) == 2.0", True),
    (ADD, "assert f(1) == True", False),
    (ADD, "assert 0 < f(1) < 3, 'message'", True),
    (ADD, "assert f(1) == 2 and f(2) == 4", False),
    (ADD, "assert f(1) == 3 or not f(2) == 4", True),
    (ADD, "assert isinstance(f(1), int) and f(1) in [1, 2]", True),
    (ADD, "assert f(10**30) == 10**30 + 1", True),
    (ADD, "assert f(-5) == -4", True),
    (ADD, "assert abs(f(0.25) - 1.2500001) < 1e-3", True),
    (ADD, "assert math.isclose(f(0.25), 1.25)", True),
    (ADD, "assert f(float('inf')) == float('inf')", True),
    (ADD, "assert f(float('nan')) == float('nan')", False),
    (ADD, "assert f(f(1)) == 3", True),
    (ADD, "assert callable(f)", True),
    (ADD, "for i in range(5):\n    assert f(i) == i + 1", True),
    (ADD, "def check(g):\n    assert g(1) == 2\ncheck(f)", True),
    (ADD, "def check(g):\n    assert g(1) == 3\ncheck(f)", False),
    (ADD, "assert [f(i) for i in range(3)] == [1, 2, 3]", True),
    (ADD, "assert f('a') == 1", False),
    (ADD, "try:\n    f('a')\n    assert False\nexcept TypeError:\n    pass", True),
    ("def f(x): return None", "assert f(1) is None", True),
    ("def f(x): return 0", "assert f(1) is None", False),
    ("def f(x): return x > 0", "assert f(1) is True", True),
    ("def f(x): return 1", "assert f(1) is True", False),
    ("def f(x): return x", "assert not f(0)", True),
    ("def f(x): return x", "assert f([])", False),
    ("def f(x): return x", f"assert f({NESTED}) == {NESTED}", True),
    ("def f(x): return x", "assert f((1, 2)) == [1, 2]", False),
    ("def f(x): return x", "assert f({1, 2}) == {2, 1}", True),
    ("def f(x): return set(x)", "assert f([1, 2, 2]) == set([1, 2])", True),
    ("def f(): return {'b': 1, 'a': 2}", "assert f() == {'a': 2, 'b': 1}", True),
    ("def f(): return {'b': 1, 'a': 2}", "assert list(f()) == ['b', 'a']", True),
    ("def f(): return frozenset([1])", "assert f() == {1}", True),
    ("def f(): return {'a': 1}.keys()", "assert f() == {'a'}", True),
    ("def f(): return (i * i for i in range(3))", "assert list(f()) == [0, 1, 4]", True),
    ("def f(): return (i * i for i in range(3))", "assert f() == [0, 1, 4]", False),
    ("def f():\n    yield 1\n    yield 2", "g = f()\nassert next(g) == 1 and next(g) == 2", True),
    ("def f(): return range(3)", "assert f() == range(3)", True),
    ("def f(): return range(3)", "assert tuple(f()) == (0, 1, 2) and 2 in f() and len(f()) == 3", True),
    ("def f(): return 'h\\u00e9\\U0001f600\\ud800'", "assert f() == 'h\\u00e9\\U0001f600\\ud800'", True),
    ("def f(s): return s[::-1]", "assert f('\u00e9\u4e16') == '\u4e16\u00e9'", True),
    ("def f(): return 0.1 + 0.2", "assert f() == 0.30000000000000004", True),
    ("def f(): return -0.0", "assert f() == 0.0", True),
    ("def f(): return 2**10000", "assert f() == 2**10000", True),
    ("def f(): return 1 + 2j", "assert f() == 1 + 2j", True),
    ("from decimal import Decimal\ndef f(): return Decimal('1.5')", "assert f() == 1.5", True),
    ("from fractions import Fraction\ndef f(): return Fraction(1, 2)", "assert f() == 0.5", True),
    ("from collections import Counter\ndef f(s): return Counter(s)", "assert f('aab') == {'a': 2, 'b': 1}", True),
    ("from collections import Counter\ndef f(s): return Counter(s)", "assert f('aab') == Counter('aab')", True),
    (PAIR, "assert f() == (1, 2)", True),
    ("from collections import deque\ndef f(): return deque([1])", "assert f() == [1]", False),
    (DATE, "import datetime\nassert f() == datetime.date(2020, 1, 2)", True),
    ("def f(xs): xs.sort()", "xs = [3, 1, 2]\nf(xs)\nassert xs == [1, 2, 3]", True),
    ("def f(d): d['a'] = [1]", "d = {}\nassert f(d) is None and d == {'a': [1]}", True),
    ("def f(g, xs): return [g(x) for x in xs]", "assert f(lambda x: x * 2, [1, 2]) == [2, 4]", True),
    ("def f(g): return g(3)", "assert f(str) == '3' and f(lambda x: [x]) == [3]", True),
    ("def f(kind): return kind is int", "assert f(int)", True),
    ("def f(xs): return sum(xs)", "assert f(i for i in range(4)) == 6", True),
    ("def f(n): return n if n < 2 else f(n - 1) + f(n - 2)", "assert f(15) == 610", True),
    ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "assert f(900) == 900", True),
    (CLOSURE, "g = f()\ng()\nassert g() == 2", True),
    ("def sum(a, b): return a + b", "assert sum(1, 2) == 3", True),
    ("def gcd(a, b): return [b, a]", "assert sorted(gcd(2, 1)) == [1, 2]", True),
    ("class ellipsis: pass\ndef f(): return ellipsis()", "assert f() == ...", False),
    ("def f(x): return [f]", "assert f(...) == [...]", False),
    (STRICT, "try:\n    f(-1)\n    assert 0\nexcept ValueError as e:\n    assert 'neg' in str(e)", True),
    (STRICT, "import pytest\nwith pytest.raises(ValueError, match='neg'):\n    f(-1)", True),
    ("def f(x): return x", "import pytest\nwith pytest.raises(ValueError):\n    f(-1)", False),
    ("class E(LookupError): pass\ndef f(): raise E('x')", "try:\n    f()\nexcept E:\n    ok = True\nassert ok", True),
    ("class E(LookupError): pass\ndef f(): raise E('x')", "try:\n    f()\nexcept ValueError:\n    pass", False),
    ("import functools\n@functools.lru_cache(None)\ndef f(x): return x", "assert f(3) == 3", True),
    ("import asyncio\nasync def g(): return 3\ndef f(): return asyncio.run(g())", "assert f() == 3", True),
    ("import time\ndef f():\n    time.sleep(1000)\n    return 1", "assert f() == 1", True),
    (POINT, "assert P(1) == P(1) and P(2).x == 2", True),
    (POINT, "assert P(1) == P(2)", False),
    (POINT, "assert repr(P(1)) == 'P(x=1)' and isinstance(P(1), P)", True),
    ("x = 3\nif __name__ == '__main__':\n    raise SystemExit\ndef f(): return x", "assert f() == 3", True),
    ("def f(): return [1, 2]", "assert f()[0] == 1 and f()[-1:] == [2]", True),
    ("def f(): return 'ab '", "assert f().strip() == 'ab' and f().upper().startswith('A')", True),
]

STACK = """
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __contains__(self, x): return x in self.items
    def __enter__(self): return self
    def __exit__(self, *_): self.items.clear()
    def __add__(self, other):
        new = Stack(); new.items = self.items + other.items; return new
"""
STACK_TESTS = [
    ("s = Stack()\ns.push(1)\ns.push([2])\nassert len(s) == 2 and s.pop() == [2] and s.pop() == 1", True),
    ("s = Stack()\ns.push(1)\nassert s.pop() == 2", False),
    ("s = Stack()\ntry:\n    s.pop()\n    assert False\nexcept IndexError:\n    pass", True),
    ("s = Stack()\ns.push(3)\nassert 3 in s and 4 not in s and list(s) == [3] and s.items == [3]", True),
    ("with Stack() as s:\n    s.push(1)\nassert not s", True),
    ("a, b = Stack(), Stack()\na.push(1)\nb.push(2)\nassert list(a + b) == [1, 2]", True),
    ("s = Stack()\ns.items = [5]\nassert s.pop() == 5", True),
    ("assert Stack().missing == 1", False),
]


def test_agrees_with_plain_python(judge):
    cases = AGREEMENT + [(STACK, test, expected) for test, expected in STACK_TESTS]
    reports = judge.run([Submission(program, [test]) for program, test, _ in cases])
    wrong = [(*case, r.verdicts[0]) for case, r in zip(cases, reports) if r.passed != case[2]]
    assert not wrong


def test_numpy(judge):
    pytest.importorskip("numpy")
    program = "import numpy as np\ndef f(x): return np.int64(x) + 1\ndef g(): return np.True_\n"
    program += "def r(): return np.random.rand()\n"
    tests = ["assert f(1) == 2", "assert g() == True", "assert g() is True", "assert f(1.5) == 2.0"]
    assert statuses(judge, program, *tests) == ["passed", "passed", "failed", "passed"]
    assert len(set(verdicts(judge, program, "assert r() == 7", "assert r() == 7"))) == 2
    first, second = (verdicts(judge, program + f"#{i}", "assert r() == 7")[0].reason for i in range(2))
    assert first == second


def test_conditions_are_deterministic(judge):
    program = "import random\ndef f(): return random.random(), hash('a'), list({'x', 'y', 'z'})\n"
    reasons = {verdicts(judge, f"{program}# {i}", "assert f() == 1")[0].reason for i in range(4)}
    assert len(reasons) == 1


def test_prelude_and_setup(judge):
    program = "def f(xs: List[int]) -> int:\n    return math.prod(xs) + K\n"
    assert statuses(judge, program, "assert f([2, 3]) == 7") == ["error"]
    assert statuses(judge, program, "assert f([2, 3]) == 7", prelude=LLM_PRELUDE, setup_after="K = 1") == ["passed"]
    assert statuses(judge, ADD, "assert f(1) == 2", prelude="import nothing_like_this") == ["error"]


def test_reports_keep_the_order_and_copies_run_once(judge):
    submissions = [Submission(f"def f(x): return x + {i % 7}", ["assert f(1) == 3"]) for i in range(40)]
    reports = judge.run(submissions)
    assert [r.passed for r in reports] == [i % 7 == 2 for i in range(40)]
    assert len({id(r) for r in reports}) == 7
    assert judge.run([Submission(None, ["assert f()"]), Submission("", ["assert f()"])])[1].pass_rate == 0


@pytest.mark.parametrize(
    "program, test, status, reason",
    [
        (None, "assert f(1) == 2", "syntax_error", "no program"),
        ("", "assert f(1) == 2", "syntax_error", "no program"),
        (" \n\t", "assert f(1) == 2", "syntax_error", "no program"),
        ("x = '\0'", "assert f(1) == 2", "syntax_error", "null bytes"),
        ("x = '\ud800'", "assert f(1) == 2", "syntax_error", "surrogates"),
        ("#" * 5_000_000, "assert f(1) == 2", "syntax_error", "longer than"),
        ("def g(): pass", "assert f(1) == 2", "error", "does not define"),
        ("f = 3", "assert f(1) == 2", "error", "not callable"),
        (ADD, "assert f(1) ==", "invalid", "does not parse"),
        (ADD, "assert f(\0) == 1", "invalid", "does not parse"),
        (ADD, "assert True", "invalid", "calls nothing"),
        (ADD, "", "invalid", "calls nothing"),
        (ADD, "x" * 2_000_000, "invalid", "longer than"),
        (ADD, "assert " + "(" * 5000 + "f(1)" + ")" * 5000, "invalid", "does not parse"),
        (ADD, "assert f(1) == '\ud800'", "invalid", "does not parse"),
        ("def f(x):\r\n    return 2\r\n", "assert f(1) == 2", "passed", ""),
    ],
)
def test_odd_input_is_a_verdict_with_a_reason(judge, program, test, status, reason):
    verdict = verdicts(judge, program, test)[0]
    assert verdict.status == status and reason in verdict.reason


def test_ten_thousand_tests(judge):
    assert judge.run([Submission(ADD, [f"assert f({i}) == {i + 1}" for i in range(10_000)])])[0].pass_rate == 1.0


def test_many_large_results(judge):
    tests = [f"assert f({i}) == 'x' * {100_000 + i}" for i in range(120)] + ["assert len(f(1)) == 100_001"]
    assert judge.run([Submission("def f(i): return 'x' * (100_000 + i)", tests)])[0].pass_rate == 1.0


def test_large_unequal_data_is_compared_under_limits(judge):
    program = "def f(): return {i: i for i in range(20_000)}"
    assert statuses(judge, program, "assert f() == {1: 1}", "assert f()[7] == 7") == ["failed", "passed"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limits(cpu_seconds=0),
        lambda: Limits(cpu_seconds=-1),
        lambda: Limits(cpu_seconds=float("nan")),
        lambda: Limits(wall_seconds=float("inf")),
        lambda: Limits(memory_mb="512"),
        lambda: Limits(memory_mb=1),
        lambda: Limits(total_cpu_seconds=0),
        lambda: Submission(3, ["assert f(1)"]),
        lambda: Submission(b"x", ["assert f(1)"]),
        lambda: Submission(ADD, "assert f(1) == 2"),
        lambda: Submission(ADD, [1]),
        lambda: Submission(ADD, None),
        lambda: Submission(ADD, [], prelude=None),
        lambda: Judge(workers=0),
        lambda: Judge(workers=-1),
        lambda: Judge(workers=1.5),
        lambda: Judge(workers=10**6),
        lambda: Judge(limits=3),
        lambda: Judge(isolation="none"),
        lambda: Judge().run(["assert f(1)"]),
    ],
)
def test_bad_settings_raise_one_clear_sentence(make):
    with pytest.raises(JudgeError) as caught:
        make()
    assert isinstance(caught.value, CourseError) and 20 < len(str(caught.value)) < 200


def test_more_workers_than_cores():
    with Judge(workers=2 * os.cpu_count() + 1) as judge:
        assert all(r.passed for r in judge.run([Submission(f"{ADD}# {i}", ["assert f(1) == 2"]) for i in range(30)]))


def test_other_systems_are_told_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(JudgeError, match="container"):
        Judge()


def test_refuses_to_run_without_a_wall(monkeypatch):
    from acelib.judge import judge as module
    from acelib.judge.pool import Unavailable

    def refuse(level, packages):
        raise Unavailable("not on this machine")

    monkeypatch.setattr(module, "_ready", refuse)
    with pytest.raises(JudgeError, match="rlimits"):
        Judge().run([Submission(ADD, ["assert f(1) == 2"])])


def test_every_level_that_runs_agrees():
    cases = AGREEMENT[::5]
    for level in (*LEVELS, "rlimits"):
        with Judge(isolation=level) as judge:
            try:
                reports = judge.run([Submission(p, [t]) for p, t, _ in cases if "sleep" not in p])
            except JudgeError:
                continue
            assert judge.level == level
            assert [r.passed for r in reports] == [expected for p, _, expected in cases if "sleep" not in p]


def test_a_python_that_lives_in_tmp(tmp_path):
    package = tmp_path / "tiny"
    package.mkdir()
    (package / "__init__.py").write_text("value = 7\n")
    program = "import tiny\ndef f(): return tiny.value\ndef g(): open(tiny.__path__[0] + '/../x', 'w')"
    for level in LEVELS:
        with Judge(isolation=level) as judge:
            judge._packages = {"tiny": str(package)}
            try:
                report = judge.run([Submission(program, ["assert f() == 7", "assert g() is None"])])[0]
            except JudgeError:
                continue
            assert [v.passed for v in report.verdicts] == [level != "seccomp", False]
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_killed_zygotes_change_nothing():
    submissions = [Submission(f"def f(x): return x + {i}", [f"assert f(1) == {1 + i % 100}"]) for i in range(400)]
    with Judge(workers=2) as judge:
        expected = [r.verdicts for r in judge.run(submissions)]
        stop = threading.Event()

        def murder():
            for worker in list(judge._pool.workers) + [None] * 4:
                stop.wait(0.2)
                for victim in [worker] if worker else judge._pool.workers[:1]:
                    victim.process.kill()

        thread = threading.Thread(target=murder)
        thread.start()
        try:
            again = [r.verdicts for r in judge.run(submissions)]
        finally:
            stop.set()
            thread.join()
    assert again == expected


SCRIPT = """
import signal, sys, threading, _thread
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored from the start where pytest runs behind nohup
from acelib.judge import Judge, Limits, Submission
judge = Judge(workers=2, limits=Limits(cpu_seconds=20, wall_seconds=60))
judge.run([Submission("def f(): pass", ["assert f() is None"])])
print(*[w.process.pid for w in judge._pool.workers], flush=True)
try:
    judge.run([Submission("while True: pass", ["assert f() is None"])])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupt_and_kill_leave_no_process_behind(number):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    zygotes = [int(pid) for pid in process.stdout.readline().split()]
    assert len(zygotes) == 2
    time.sleep(0.3)
    process.send_signal(number)
    assert ("interrupted" in process.stdout.read()) == (number == signal.SIGINT)
    process.wait()
    for _ in range(200):
        if not any(os.path.exists(f"/proc/{pid}") for pid in zygotes):
            break
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in zygotes)


def test_progress_bar(judge, capsys):
    judge.run([Submission(ADD, ["assert f(1) == 2"])], progress=True)
    assert "1/1" in capsys.readouterr().err


def test_a_closed_judge_starts_again_and_a_forked_one_refuses(judge):
    own = Judge()
    assert own.run([Submission(ADD, ["assert f(1) == 2"])])[0].passed
    own.close()
    own.close()
    assert own.run([Submission(ADD, ["assert f(1) == 2"])])[0].passed
    own._owner = -1
    with pytest.raises(JudgeError, match="fork"):
        own.run([])
    own._owner = os.getpid()
    own.close()


def test_import_is_light():
    code = "import sys, acelib.judge; print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


FULL_DISK = """
mount -t tmpfs -o size=4k tmpfs "$TMPDIR" || exit 99
head -c 1000000 /dev/zero > "$TMPDIR/filler" && exit 98
exec "$@"
"""
JUDGE_TWO = """
from acelib.judge import Judge, Submission
keeps = "def f(x):\\n    open('/tmp/x', 'w').write(x)\\n    return open('/tmp/x').read()"
with Judge(workers=1) as judge:
    report = judge.run([Submission(keeps, ["assert f('a') == 'a'"]), Submission(keeps, ["assert f('b') == 'a'"])])
    print(judge.level, [one.passed for one in report])
"""


def test_a_full_temporary_folder_changes_no_verdict(tmp_path):
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", sys.executable, "-c", JUDGE_TWO],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"this machine lets nobody mount a small disk: {done.stderr.strip()}")
    assert done.stdout.split(maxsplit=1)[1:] == ["[True, False]\n"], done.stderr


def test_root_without_other_identities_can_judge():
    """Root of a rootless container: an ordinary user outside, and nobody else to become inside."""
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", JUDGE_TWO],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"this machine lets nobody make a user namespace: {done.stderr.strip()}")
    assert done.stdout.endswith("[True, False]\n"), done.stderr
