"""Generated tests over generated programs: the judge accepts what plain Python accepts.

A thousand cases here; ACELIB_GENERATED=100000 runs as many as it says.
"""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acelib.judge import Judge, Limits, Submission

BATCH = 100
CASES = int(os.environ.get("ACELIB_GENERATED", "1000"))
IMPORTS = """
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
"""
CLASSES = """
P = namedtuple('P', 'a b')
@dataclass
class D:
    a: object
class I(IntEnum):
    ONE = 1
class E(Enum):
    ONE = 1
class L(list): pass
class M(dict): pass
class S(str): pass
class C(Counter): pass
class F(float): pass
class N(int):
    def __add__(self, other): return N(int(self) + other)
class Error(ValueError): pass
class Worse(Error):
    def __init__(self, x): super().__init__(x); self.x = x
def fail(x): raise Error(x)
def worse(x): raise Worse(x)
class Box:
    def __init__(self, x): self.x = [x]
    def put(self, y): self.x.append(y); return self
    def __eq__(self, other): return isinstance(other, Box) and self.x == other.x
    def __len__(self): return len(self.x)
    def __iter__(self): return iter(self.x)
    def __getitem__(self, i): return self.x[i]
    def __repr__(self): return f'Box({self.x})'
"""
NUMPY = [
    *("np.array(x)", "np.array([x, x])", "np.array([[x, 1], [2, 3]])", "np.int64(x)", "np.float32(x)", "np.zeros(x)"),
    *(
        "np.sort(x)",
        "np.array(x).sum()",
        "np.mean(x)",
        "{'k': np.array([x])}",
        "np.bool_(x)",
        "np.arange(x)",
        "np.str_(x)",
    ),
    *(
        "np.array([x]) + 1",
        "np.array([x, 2.5])",
        "np.array([x]) == 1",
        "np.unique(x)",
        "list(np.array(x))",
        "np.array(x)[0]",
    ),
]
NUMPY_TESTS = [
    *("assert np.array_equal(f({v}), {same})", "assert np.allclose(f({v}), {w})", "assert (f({v}) == ({same})).all()"),
    *(
        "assert np.all(f({v}) == {w})",
        "np.testing.assert_array_equal(f({v}), {same})",
        "assert f({v}).dtype == np.int64",
    ),
    *("assert f({v}).shape == ({n},)", "assert f({v}).tolist() == {w}", "assert f({v}).sum() == np.sum({v})"),
    *(
        "assert f(np.array({v})) == {w}",
        "assert isinstance(f({v}), np.ndarray)",
        "assert isinstance(f({v}), (int, float))",
    ),
    *("assert np.isclose(f({v}), {w})", "np.testing.assert_allclose(f({v}), {w})", "assert f({v})[0] == {w}"),
]
EXPRESSIONS = [
    *(
        "x",
        "[x]",
        "(x, x)",
        "{'k': x}",
        "[x, [x, (x,)]]",
        "x + x",
        "x * 2",
        "-x",
        "not x",
        "x == 1",
        "str(x)",
        "repr(x)",
    ),
    *(
        "len(x)",
        "x[0]",
        "x[::-1]",
        "sorted(x)",
        "list(x)",
        "tuple(x)",
        "set(x)",
        "frozenset(x)",
        "Counter(x)",
        "bool(x)",
    ),
    *(
        "OrderedDict(x)",
        "dict(x)",
        "deque(x)",
        "deque(x, 2)",
        "sum(x)",
        "max(x)",
        "min(x)",
        "P(x, 1)",
        "[P(x, 1)]",
        "L(x)",
    ),
    *(
        "M(x)",
        "S(x)",
        "D(x)",
        "[D(x)]",
        "{'d': D(x)}",
        "I.ONE",
        "[I.ONE, x]",
        "E.ONE",
        "(E.ONE, x)",
        "range(x)",
        "int(x)",
    ),
    *(
        "float(x)",
        "complex(x)",
        "Decimal(x)",
        "Fraction(x)",
        "fail(x)",
        "1 / x",
        "x / 3",
        "x // 2",
        "x % 3",
        "abs(x)",
        "None",
    ),
    *(
        "list(reversed(x))",
        "list(enumerate(x))",
        "[y for y in x]",
        "{y: y for y in x}",
        "x.upper()",
        "x.split()",
        "hash(x)",
    ),
    *(
        "C(x)",
        "F(x)",
        "[F(x)]",
        "N(x) + 1",
        "{N(x): 1}",
        "Box(x)",
        "[Box(x)]",
        "Box(x).x",
        "worse(x)",
        "dict.fromkeys([1], x)",
    ),
]
TESTS = [
    *("assert f({v}) == {w}", "assert f({v}) != {w}", "assert {w} == f({v})", "assert f({v}) == ({same})"),
    *(
        "assert ({same}) == f({v})",
        "assert f({v}) != ({same})",
        "assert [f({v})] == [({same})]",
        "assert f({v}) in [{w}, {v}]",
    ),
    *("x = f({v})\nassert x == ({same})", "x = f({v})\nassert x == {w}", "assert not f({v})", "assert f({v})"),
    *(
        "assert f({v}) is None",
        "assert f({v}) is not None",
        "assert isinstance(f({v}), {kind})",
        "assert type(f({v})) == {kind}",
    ),
    *("assert type(f({v})) is {kind}", "assert len(f({v})) == {n}", "assert f({v}) == {w} or f({w}) == ({same})"),
    *("assert f({v}) == ({same}) and f({w}) == {v}", "assert f({v}) < {w}", "assert {w} <= f({v}) <= {w}"),
    *(
        "assert str(f({v})) == str({same})",
        "assert sorted(f({v})) == sorted({same})",
        "assert f({v})[0] == ({same})[0]",
    ),
    *(
        "try:\n    f({v})\n    assert False\nexcept {error}:\n    pass",
        "assert f({v}) == f({v})",
        "assert {v} in f({v})",
    ),
    *(
        "for y in f({v}):\n    assert y == {w}\nassert f({v}) != 1",
        "assert list(f({v})) == list({same})",
        "assert f(x={v}) == {w}",
    ),
    *("assert (f({v}) if f({w}) else 3) == ({same})", "def test():\n    assert f({v}) == ({same})\ntest()"),
    "b = Box({v})\nb.put({w})\nassert b.x == [{v}, {w}] and len(b) == {n}",
    "assert Box({v}).put({w}) == Box({w}) or list(Box({v})) == [{w}]",
    "try:\n    f({v})\nexcept {error} as e:\n    assert e.args == ({w},)\nelse:\n    assert f({v}) == {w}",
    "got = None\ntry:\n    f({v})\nexcept Error as e:\n    got = e\nassert isinstance(got, Worse) and got.x == {w}",
    "x = {v}\ny = f(x)\nassert x == {v} and y == ({same})",
    "x, y = f({v}), f({w})\nassert x == y",
    "assert all(f(y) == ({same}) for y in [{v}, {w}])",
    "assert {{'r': f({v})}} == {{'r': ({same})}}",
    "got = [f({v})]\ngot.append(f({w}))\nassert {w} in got and len(got) == 2",
    "def helper(y):\n    return f(y) == ({same})\nassert helper({v})",
    "assert max(f({v}), f({w}), key=str) == {w}",
    "if f({v}) != {w}:\n    raise ValueError('no')",
]
KINDS = [
    "int",
    "bool",
    "str",
    "float",
    "list",
    "tuple",
    "dict",
    "set",
    "frozenset",
    "object",
    "bytes",
    "Counter",
    "deque",
    "L",
    "Box",
]
ERRORS = ["ValueError", "TypeError", "ZeroDivisionError", "Exception", "LookupError", "ArithmeticError"]

atoms = st.none() | st.booleans() | st.integers(-3, 3) | st.integers() | st.floats(-3, 3) | st.text("ab 1", max_size=3)
hashable = st.recursive(atoms, lambda inner: st.tuples(inner, inner), max_leaves=3)
values = st.recursive(
    atoms | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=2)
        | st.sets(hashable, max_size=2)
    ),
    max_leaves=5,
)


@st.composite
def cases(draw):
    """(program, test) of one function and one test of it."""
    with_numpy = draw(st.integers(0, 9)) == 0
    expression, v = draw(st.sampled_from(NUMPY if with_numpy else EXPRESSIONS)), repr(draw(values))
    w = draw(st.just(v) | values.map(repr))
    test = draw(st.sampled_from(TESTS + NUMPY_TESTS if with_numpy else TESTS)).format(
        v=v,
        w=w,
        same=f"(lambda x: {expression})({v})",
        kind=draw(st.sampled_from(KINDS)),
        error=draw(st.sampled_from(ERRORS)),
        n=draw(st.integers(0, 3)),
    )
    return f"{IMPORTS}{'import numpy as np' * with_numpy}{CLASSES}def f(x):\n    return {expression}\n", test


def plain_python(made) -> list[bool]:
    """Whether each test runs to its end after its program, all in one process of plain Python."""
    parts = [IMPORTS, "import json", "import numpy as np", "out = []"]
    for program, test in made:
        body = textwrap.indent(f"{program.removeprefix(IMPORTS)}\n{test}\n", "    ")
        parts.append(f"try:\n{body}    out.append(True)\nexcept BaseException:\n    out.append(False)")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join([*parts, "print(json.dumps(out))"])],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def unlike(made, judge) -> list[tuple]:
    reports = judge.run([Submission(program, [test]) for program, test in made])
    judged = [report.verdicts[0] for report in reports]
    accepted = zip(made, judged, plain_python(made), strict=True)
    return [
        (*case, verdict) for case, verdict, good in accepted if verdict.passed != good and not known(*case, verdict)
    ]


def known(program: str, test: str, verdict) -> bool:
    """The differences that `acelib.judge` names: nothing checked, a failed check that the test swallows, and chance."""
    return verdict.status in ("invalid", "unstable") or "the test went on" in verdict.reason


@pytest.mark.slow
def test_generated_tests_agree_with_plain_python():
    with Judge(workers=2, limits=Limits(cpu_seconds=2.0, wall_seconds=20)) as judge:

        @settings(
            max_examples=CASES // BATCH,
            deadline=None,
            database=None,
            derandomize=CASES <= 1000,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(cases(), min_size=BATCH, max_size=BATCH))
        def run(made):
            assert unlike(made, judge) == []

        run()
