"""The attack corpus: no false pass, no harm, at every isolation level this machine allows."""

import os
import random
import signal
import site
import socket
from pathlib import Path

import pytest
from attacks import ATTACKS, SLOW

from acelib.judge import Judge, JudgeError, Limits, Submission
from acelib.judge.asserts import NeedsReferee, compile_test, judge_lines
from acelib.judge.judge import LEVELS

LIMITS = Limits(cpu_seconds=0.1, wall_seconds=4, memory_mb=256, total_cpu_seconds=0.3)
HONEST = Submission("def f(x):\n    return x * 2\n", ["assert f(21) == 42", "y = f(2)\nassert y == 4"])


def expectations(answer: int, slow: bool) -> list[str]:
    tests = [f"assert f(1) == {answer}", f"result = f(1)\nassert result == {answer}"]
    if slow:
        return tests[:1]
    return tests + [
        f"assert {answer} == f(1)",
        f"assert abs(f(1) - {answer}) < 1e-6",
        f"assert f(1) in ({answer}, 'x')",
        f"assert {answer} in f(1)",
        f"assert sorted(f(1)) == [{answer}]",
        f"assert set(f(1)) == {{{answer}}}",
        f"assert str(f(1)) == '{answer}'",
        f"import math\nassert math.isclose(f(1), {answer})",
        f"assert math.isclose(f(1), {answer})",
        f"assert isclose(f(1), {answer}) == True",
        f"d = f(1) - {answer}\nassert floor(d) == 0",
        f"assert Counter([f(1)]) == Counter([{answer}])",
        f"assert f(1)[0] == {answer}",
        f"for value in f(1):\n    assert value == {answer}\nassert f(1) == {answer}",
        f"import numpy as np\nassert np.allclose(f(1), {answer}) and np.size(f(1))",
        f"import numpy as np\nassert (np.asarray(f(1)) == {answer}).all() and np.asarray(f(1)).size",
        f"import numpy as np\nnp.testing.assert_array_equal(f(1), np.array([{answer}]))",
        f"import pytest\nassert f(1) == pytest.approx({answer})",
        f"with f(1) as value:\n    assert value == {answer}",
        f"class T(__import__('unittest').TestCase):\n    def test(self): self.assertAlmostEqual(f(1), {answer})",
        f"def test_f():\n    for value in f(1):\n        assert value == {answer}",
        f"value = f(1)\nvalue -= {answer}\nassert value == 0",
        f"from collections import UserList\nassert f(1) == UserList([{answer}])",
        f"from types import SimpleNamespace\nassert f(1) == SimpleNamespace(x={answer}) or f(1).x == {answer}",
        f"assert set() == f(1) - {{{answer}}} and len(f(1)) == 1",
        f"import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n    f(1)\n"
        f"assert out.getvalue().strip() == '{answer}'",
    ]


@pytest.fixture(scope="module", params=LEVELS)
def judge(request):
    with Judge(workers=2, limits=LIMITS, isolation=request.param) as judge:
        try:
            assert judge.run([HONEST])[0].passed
        except JudgeError as error:
            pytest.skip(f"this machine does not allow {request.param}: {error}")
        yield judge


def descendants(pid: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found


@pytest.mark.slow
def test_no_false_pass_and_no_harm(judge, tmp_path, monkeypatch):
    answer = random.SystemRandom().randrange(10**8, 10**9)
    canary = tmp_path / "canary"
    canary.mkdir()
    secret = tmp_path / "secret.txt"
    secret.write_text(f"the answer {answer}")
    monkeypatch.setenv("SECRET", f"answer {answer}")
    signals = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        words = {
            "@CANARY@": str(canary),
            "@SECRET_FILE@": str(secret),
            "@PORT@": str(server.getsockname()[1]),
            "@SUPERVISOR@": str(os.getpid()),
            "@REPO@": str(Path(__file__).parents[1]),
            "@SITE@": site.getsitepackages()[0],
        }
        # A program that knows the answer runs before each attack: nothing of it may be left to find.
        knowing = f"# secret_answer = {answer}\ndef f(x):\n    return {answer}\n"
        submissions, kinds = [], []
        for i, (name, program) in enumerate(ATTACKS.items()):
            for word, value in words.items():
                program = program.replace(word, value)
            submissions += [
                Submission(f"{knowing}# {i}\n", expectations(answer, slow=True)),
                Submission(program, expectations(answer, name in SLOW)),
            ]
            kinds += [None, name]
        reports = judge.run([*submissions, HONEST])
        with pytest.raises(BlockingIOError):
            server.accept()
    signal.signal(signal.SIGTERM, previous)

    fooled = {name: r.verdicts for name, r in zip(kinds, reports) if name and any(v.passed for v in r.verdicts)}
    assert not fooled
    assert all(r.passed for name, r in zip(kinds, reports) if name is None) and reports[-1].passed
    assert list(canary.iterdir()) == [] and secret.exists() and not signals
    assert not list(Path(os.__file__).parent.glob("os.py.attack")) and not Path("file_of_an_attack").exists()
    assert max(r.cpu_seconds for r in reports) < LIMITS.total + 1
    zygotes = {w.process.pid for w in judge._pool.workers}
    innermost = {p for z in zygotes for p in descendants(z) or {z}}
    assert len(innermost) == len(zygotes)  # a zygote, and nothing that it forked, is left


def test_the_corpus_is_large_enough():
    assert len(ATTACKS) >= 85


ENDINGS = {  # right for 0 only; for the rest something that ends a test, or decides it, from the inside
    "a module that runs when it is imported": """
import numpy
class E(Exception): pass
E.__module__ = "unittest.__main__"
try:
    with open("/tmp/test_it.py", "w") as file:
        file.write("import os, sys\\nframe = sys._getframe()\\nwhile frame.f_code.co_name != 'run_job':\\n"
                   "    frame = frame.f_back\\nos.write(frame.f_locals['fd'], b'true\\\\n' * 9)\\nos._exit(0)")
except OSError: pass
def f(x): return [numpy.zeros(1), E] if x else 0
""",
    "a module that exits when it is imported": """
class E(Exception): pass
E.__module__ = "unittest.__main__"
def f(x): return E if x else 0
""",
    "a test that skips itself": "import unittest\ndef f(x):\n    if x: raise unittest.SkipTest\n    return 0",
    "the end of an iteration": "def f(x):\n    if x: raise StopIteration\n    return 0",
    "the end of an iteration, in a comparison": """
class Number:
    def __eq__(self, other): raise StopIteration
def f(x): return Number() if x else 0
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDINGS)
def test_a_program_that_is_right_once_does_not_end_the_test(judge, name):
    tests = [
        "assert f(0) == 0\nassert f(3) == 9",
        "def test_f():\n    assert f(0) == 0\n    assert f(3) == 9",
        "import unittest\nclass T(unittest.TestCase):\n"
        "    def test_a(self):\n        self.assertEqual(f(0), 0)\n        self.assertEqual(f(3), 9)",
        "assert all(map(lambda x: f(x) == x * x, [3, 7]))",
        "for got, want in zip(map(f, [0, 3]), [0, 9]):\n    assert got == want",
        "assert f(3) == 9",
    ]
    (report,) = judge.run([Submission(ENDINGS[name], tests)])
    assert not any(verdict.passed for verdict in report.verdicts)


def test_exceptions_of_the_library_keep_their_class(judge):
    program = "import json\ndef f(x): return json.loads(x)\ndef g(): return next(iter([]))"
    tests = [
        "import json, pytest\nwith pytest.raises(json.JSONDecodeError):\n    f('{')",
        "try:\n    f('{')\n    assert False\nexcept ValueError as error:\n    assert 'line 1' in str(error)",
        "import pytest\nwith pytest.raises(StopIteration):\n    g()",
    ]
    assert judge.run([Submission(program, tests)])[0].passed


EARLY = {  # (program, test): something ends, skips or satisfies the test from the inside, or the judge's own error does
    "a process that ends, where the test catches everything": (
        "import os\ndef f(x):\n    if x: os._exit(0)\n    return 0",
        "assert f(0) == 0\ntry:\n    f(3)\n    assert False\nexcept:\n    pass",
    ),
    "a process that ends, where any exception is expected": (
        "import os\ndef f(x): os._exit(0)",
        "import pytest\nwith pytest.raises(BaseException):\n    f(3)",
    ),
    "unittest's exception by another module's name": (
        "import numpy\nclass A(Exception): pass\nclass B(Exception): pass\n"
        "A.__module__, A.__name__, B.__module__, B.__name__ = 'numpy', 'testing', 'numpy.testing', 'SkipTest'\n"
        "def f(x):\n    if x > 1: raise B\n    return [numpy.zeros(1), A] if x else 0",
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(f(0), 0)\n"
        "        self.assertIsNotNone(f(1))\n        self.assertEqual(f(3), 9)",
    ),
    "the end of an iteration where an error is expected": (
        "def f(x): raise StopIteration",
        "import pytest\nwith pytest.raises(RuntimeError):\n    f(3)",
    ),
    "a task that is cancelled from the inside": (
        "import asyncio\ndef f(x):\n    if x: raise asyncio.CancelledError\n    return 0",
        "import asyncio\nasync def one(x, y):\n    assert f(x) == y\nasync def test_f():\n"
        "    async with asyncio.TaskGroup() as group:\n        group.create_task(one(0, 0))\n"
        "        group.create_task(one(3, 9))",
    ),
    "a thread that ends early": (
        "def f(x):\n    if x: raise SystemExit\n    return 0",
        "import threading\nassert f(0) == 0\ndef run():\n    assert f(3) == 9\n"
        "thread = threading.Thread(target=run)\nthread.start()\nthread.join()",
    ),
    "arithmetic that the judge refuses and the test expects to fail": (
        "class V:\n    def __add__(self, other): return self\ndef f(x): return V()",
        "import pytest\nwith pytest.raises(TypeError):\n    f(3) + 5",
    ),
    "an order that the judge refuses and the test expects to fail": (
        "class V:\n    def __lt__(self, other): return True\ndef f(x): return V()",
        "import pytest\nwith pytest.raises(TypeError):\n    f(3) < 5",
    ),
    "pickling that the judge refuses and the test expects to fail": (
        "class V: pass\ndef f(x): return V()",
        "import pickle, pytest\nwith pytest.raises(TypeError):\n    pickle.dumps(f(3))",
    ),
    "a context manager that swallows what the judge refuses": (
        "class V:\n    def __enter__(self): return self\n    def __exit__(self, *_): return True\n"
        "def f(x): return V() if x else 0",
        "assert f(0) == 0\nwith f(3) as v:\n    assert v + 1 == 10",
    ),
    "a list that hides its items from an approximation": (
        "class L(list):\n    def __len__(self): return 2\n    def __iter__(self): return iter([])\n"
        "def f(x): return L()",
        "import pytest\nassert pytest.approx([2.0, 4.0]) == f(3)",
    ),
    "a list in a list that hides its items": (
        "class L(list):\n    def __len__(self): return 2\n    def __iter__(self): return iter([])\n"
        "def f(x): return [L()]",
        "import pytest\nassert f(3) == pytest.approx([[2.0, 4.0]])",
    ),
}


@pytest.mark.slow
def test_nothing_ends_a_test_early_or_takes_the_place_of_what_it_expects(judge):
    reports = judge.run([Submission(program, [test]) for program, test in EARLY.values()])
    assert [name for name, report in zip(EARLY, reports) if report.passed] == []


SLOW_HERE = {  # results with which a plain comparison takes for ever, or all memory, where no limits hold
    "import ipaddress\ndef f(x): return ipaddress.ip_network('::/0')": "assert sorted(f(1)) == [1, 2]",
    "from decimal import Decimal\ndef f(x): return Decimal('1E+999999999')": "assert int(f(1)) == 5",
    "def f(x): return bytearray(b'%999999999d')": "assert f(1) % 2 == 0",
    "from fractions import Fraction\ndef f(x): return Fraction(10**10)": "assert 2 ** f(1) == 8",
    "def f(x): return -10**9": "assert round(5, f(1)) == 5",
}


@pytest.mark.slow
def test_a_result_does_not_keep_the_supervisor_busy(judge):
    lines = [b'["P","IPv4Network","0.0.0.0/30"]', b'["D","1E+2"]', b'["B","%9d"]', b'["F","3/1"]', b"-10000"]
    for test, line in zip(SLOW_HERE.values(), lines):  # what is compared here and what is not
        with pytest.raises(NeedsReferee):
            judge_lines(compile_test(test), [line])
    reports = judge.run([Submission(program, [test]) for program, test in SLOW_HERE.items()])
    assert {report.verdicts[0].status for report in reports} <= {"timeout", "memory", "error"}
