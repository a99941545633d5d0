"""The kinds of faults that reports from users of judges name, each with several inputs of its own."""

import pytest

from acelib.judge import LLM_PRELUDE, STATUSES, Judge, Limits, Submission, why_invalid
from acelib.judge.stability import depends_on_chance

NEXT = "def f(x):\n    return x + 1\n"
WRONG = "def f(x):\n    return None\n"


@pytest.fixture(scope="module")
def judge():
    with Judge(workers=2, limits=Limits(cpu_seconds=0.5, wall_seconds=5, memory_mb=512)) as judge:
        yield judge


def status(judge, program, test, **options):
    return judge.run([Submission(program, [test], prelude=LLM_PRELUDE, **options)])[0].verdicts[0].status


def outcomes(judge, program, tests):
    return {t: r.verdicts[0] for t, r in zip(tests, judge.run([Submission(program, [t]) for t in tests]), strict=True)}


TESTED = [  # all of these hold for NEXT, and none for WRONG
    "def test_it():\n    assert f(1) == 2",
    "def test_it():\n    assert f(1) == 2\ntest_it()",
    "async def test_it():\n    assert f(1) == 2",
    "def all_of_it():\n    assert f(1) == 2",
    "class TestF:\n    def setup_method(self):\n        self.x = 1\n"
    "    def test_it(self):\n        assert f(self.x) == 2",
    "import unittest\nclass T(unittest.TestCase):\n    def setUp(self):\n        self.x = 1\n"
    "    def test_it(self):\n        self.assertEqual(f(self.x), 2)\nif __name__ == '__main__':\n    unittest.main()",
    "import pytest\n@pytest.mark.parametrize('x, y', [(1, 2), (5, 6)])\ndef test_it(x, y):\n    assert f(x) == y",
    "import pytest\n@pytest.fixture\ndef one():\n    return 1\ndef test_it(one):\n    assert f(one) == 2",
    "from solution import f\ndef test_it():\n    assert f(1) == 2",
    "def check(candidate):\n    assert candidate(1) == 2",
    "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)",
    "if f(1) != 2:\n    raise ValueError",
    "import pytest\nassert f(0.2) == pytest.approx(1.2)",
    "import numpy as np\nnp.testing.assert_allclose(f(1), 2)",
    "import pytest\npytest.raises(TypeError, f, 'a')",
    "try:\n    f('a')\n    assert False\nexcept TypeError:\n    pass",
    "import sys\nif f(1) != 2:\n    sys.exit(1)",
    "import pytest\ndef test_it():\n    if f(1) != 2:\n        pytest.fail('no')",
    "N = {}\ndef check(candidate):\n    for i in range(3):\n        assert candidate(i) == i + 1",
    "import pytest\n@pytest.fixture\ndef a():\n    return 1\n@pytest.fixture\ndef b(a):\n    yield a + 1\n"
    "def test_it(b):\n    assert f(b) == 3",
    "import pytest\n@pytest.fixture(params=[1, 2])\ndef n(request):\n    return request.param\n"
    "def test_it(n):\n    assert f(n) == n + 1",
    "import pytest\n@pytest.mark.parametrize(('x', 'y'), [(1, 2)])\nclass TestF:\n"
    "    @pytest.fixture(autouse=True)\n    def make(self):\n        self.n = 1\n"
    "    @classmethod\n    def setup_class(cls):\n        cls.m = 1\n"
    "    def test_it(self, x, y):\n        assert f(x) == y and f(self.n) == f(self.m)",
    "def setup_module(module):\n    global n\n    n = 1\n"
    "def setup_function():\n    global m\n    m = 2\ndef test_it():\n    assert f(n) == m",
    "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n    async def test_it(self):\n"
    "        for x in (1, 2):\n            with self.subTest(x=x):\n                self.assertEqual(f(x), x + 1)",
    "class TestF:\n    cases = [(1, 2)]\n    skipped = True\n    def test_it(self):\n"
    "        for x, y in self.cases:\n            assert f(x) == y",
    "class TestOuter:\n    class TestInner:\n        def test_it(self):\n            assert f(1) == 2",
    "import pytest\n@pytest.mark.parametrize(argnames='x, y', argvalues=[(1, 2)])\n"
    "def test_it(x, y):\n    assert f(x) == y",
    "import pytest\nwith pytest.raises(expected_exception=TypeError):\n    f('a')",
    "from solution import f as g\nassert g(1) == 2",
    "import solution as s\ndef test_it():\n    from solution import f\n    assert f(1) == s.f(1) == 2",
    "match [f(1), 3]:\n    case [2 as two, *rest]:\n        assert two == 2 and rest == [3]\n"
    "    case _:\n        assert False",
    "def test_it():\n    assert f(1) == 2\nif __name__ == '__main__':\n    import pytest\n    pytest.main([__file__])",
    "caught = False\ntry:\n    f('a')\nexcept TypeError:\n    caught = True\nassert caught",
    "good = True\nfor x in range(3):\n    if f(x) != x + 1:\n        good = False\nassert good",
    "def results():\n    return [f(x) for x in range(2)]\nfound = results()\nassert found == [1, 2]",
    "found = []\ndef run():\n    found.append(f(1))\nrun()\nassert found == [2]",
    "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
    "    assert list(pool.map(f, range(9))) == list(range(1, 10))",
    "assert f(1) == 2\nexit()",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
    "        with self.assertRaises(TypeError) as caught:\n"
    "            f('a')\n        str(caught.exception)",
    "import pytest\n@pytest.fixture\ndef one():\n    yield 1\n    assert f(1) == 2\n"
    "def test_it(one):\n    assert one + f(1)",
    "class TestF:\n    def teardown_method(self):\n        assert f(1) == 2\n    "
    "def test_it(self):\n        assert f(0) != 0",
    "import threading\ndef run():\n    assert f(1) == 2\nthread = threading.Thread(target=run)\nthread.start()\n"
    "thread.join()",
    "for expected in (3, 2):\n    try:\n        assert f(1) == expected\n        break\n"
    "    except AssertionError:\n        pass\nelse:\n    raise ValueError",
    "held = 0\nfor expected in (3, 2):\n    try:\n        assert f(1) == expected\n        held += 1\n"
    "    except AssertionError:\n        pass\nassert held == 1",
    "try:\n    assert f(1) == 3\nexcept AssertionError:\n    assert f(1) == 2",
    "try:\n    f('a')\n    raise Exception('no error')\n"
    "except Exception as error:\n    assert isinstance(error, TypeError)",
]
UNTESTED = [
    *("f(1) == 2", "f(1)", "assert True\nf(1)", "assert (f(1) == 2, 'message')", "assert f", "assert [f(1) == 3]"),
    *(
        "def test():\n    return f(1) == 2",
        "assert (f(x) == 3 for x in range(3))",
        "for x in []:\n    assert f(x) == 3",
    ),
    *(
        "if False:\n    assert f(1) == 3",
        "assert f(1) == 3 or True",
        "assert 1 + 1 == 2\nf(1)",
        "import math\nassert math.pi\nf(1)",
    ),
    *("def test_it(unknown):\n    assert f(1) == 3", "import pytest\npytest.skip('no')\nassert f(1) == 3"),
    *(
        "class T:\n    def run(self):\n        assert f(1) == 3",
        "def f(x):\n    return 2\nassert f(1) == 2",
        "assert f(1 == 2",
    ),
    "import unittest\nclass T(unittest.TestCase):\n    @unittest.skip('no')\n"
    "    def test(self):\n        self.assertTrue(f(1))",
    "import unittest\nclass T(unittest.TestCase):\n    @unittest.expectedFailure\n"
    "    def test(self):\n        self.assertEqual(f(1), 5)",
    "import pytest\n@pytest.mark.skip(reason='no')\nclass TestF:\n    def test(self):\n        assert f(1) == 3",
    "def test_it(tmp_path):\n    assert f(1) == 3",
    "assert f(1) == 3 if False else True",
    "expected = 3\nassert expected == 3\nf(1)",
    "def test_it():\n    x = [5]\n    assert len(x) == 1\n    f(1)",
    "assert all(f(x) == 3 for x in [])",
    "assert f is not None",
    "assert not (f(1) == 3 and False)",
    "assert f is f and f",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertTrue(True)\n        f(1)",
    "import pytest\n@pytest.mark.parametrize('x', [])\ndef test_it(x):\n    assert f(x) == 3",
    "assert [f(x) == 3 for x in range(3)]",
    "f(1)\nassert map(lambda x: f(x) == 3, [1])",
    "assert True if f(1) == 3 else True",
    "assert (pair := (f(1) == 3, 'message'))",
    "f(1)\nif 1 + 1 != 2:\n    raise ValueError",
    "try:\n    if f(1) != 3:\n        raise ValueError\nexcept Exception as error:\n    print(error)",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
    "        f(1)\n        self.assertRaises(ValueError)",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
    "        with self.assertNoLogs():\n            f(1)",
]


def test_what_is_meant_to_be_run_is_run(judge):
    assert {t: v.status for t, v in outcomes(judge, NEXT, TESTED).items() if not v.passed} == {}
    assert {t: v for t, v in outcomes(judge, WRONG, TESTED).items() if v.status not in ("failed", "error")} == {}


def test_a_test_that_checks_nothing_is_invalid_for_every_program(judge):
    assert "invalid" in STATUSES
    for program in (NEXT, WRONG):
        assert {t: v for t, v in outcomes(judge, program, UNTESTED).items() if v.status != "invalid"} == {}


def test_what_can_be_told_from_the_text_is_told_without_a_program():
    assert "asserts nothing" in why_invalid("f(1) == 2") and "does not parse" in why_invalid("assert f(")
    assert "calls nothing" in why_invalid("assert True") and why_invalid("assert f(1) == 2") == ""
    assert why_invalid("def check(candidate):\n    assert candidate(1) == 2", "f") == ""


def test_a_check_that_fails_and_is_swallowed_has_failed(judge):
    for handler in ("except AssertionError:\n    pass", "except Exception:\n    print('no')", "except:\n    pass"):
        assert status(judge, NEXT, f"try:\n    assert f(1) == 3\n{handler}") == "failed"
        assert status(judge, NEXT, f"try:\n    f(1)\n    assert False\n{handler}") == "failed"
        loop = "for x, y in [(1, 3), (2, 3)]:\n    try:\n        assert f(x) == y\n    "
        assert status(judge, NEXT, loop + handler.replace("\n", "\n    ")) == "failed"
    assert status(judge, NEXT, "try:\n    f(1)\n    raise Exception('no')\nexcept Exception:\n    pass") == "failed"


def test_stand_ins_carry_out_the_check_or_say_that_they_cannot(judge):
    program = "def f(x):\n    raise ValueError('out of memory')\ndef g(x):\n    return [x * 0.1, {'a': x / 3}]\n"
    expected = {
        "import pytest\nwith pytest.raises(ValueError, match='memory'):\n    f(1)": "passed",
        "import pytest\nwith pytest.raises(ValueError, match='negative'):\n    f(1)": "failed",
        "from pytest import raises\nwith raises((TypeError, ValueError)) as e:\n    f(1)\n"
        "assert 'out' in str(e.value)": "passed",
        "import pytest\nwith pytest.raises(TypeError):\n    f(1)": "error",
        "import pytest\nwith pytest.raises(ValueError):\n    g(1)": "failed",
        "import pytest\nassert g(3) == [pytest.approx(0.3), {'a': 1}]": "passed",
        "import pytest\nassert g(3)[0] == pytest.approx(0.31)": "failed",
        "import pytest\nassert g(3)[0] == pytest.approx(0.31, abs=0.1)": "passed",
        "import pytest\nassert pytest.warns(UserWarning, g, 1)": "error",
        "import pytest\npytest.fail('no')\nf(1)": "failed",
    }
    found = outcomes(judge, program, expected)
    assert {test: verdict.status for test, verdict in found.items()} == expected


OBJECTS = """
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
import array, datetime, pathlib, uuid
import numpy as np
@dataclass(order=True)
class P:
    x: int
def f(): return {'a': [P(1), (P(2),)]}
Pt = namedtuple('Pt', 'x count')
class Colour(str, Enum):
    RED = 'r'
class Plain(Enum):
    RED = 1
class I(IntEnum):
    ONE = 1
class Box(dict):
    def __missing__(self, key): return 7
class Row(list):
    def second(self): return self[1]
class Euro(int):
    def double(self): return self * 2
def o(d): return OrderedDict(d)
def when(): return datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
_kept = [1]
def kept(): return _kept
def same(x): return x
def nan(): return float('nan')
def numbers():
    yield 1
class Node:
    def __init__(self, v): self.v, self.children = v, []
def depth(n): return 1 + max(map(depth, n.children), default=0)
def push(xs, x):
    xs.append(x)
    raise ValueError
def named(value, what, target=None, name=None): return [value, what, target, name]
class Vector:
    def __init__(self, *xs): self.xs = list(xs)
    def __mul__(self, k): return Vector(*[x * k for x in self.xs])
    def __rsub__(self, k): return Vector(*[k - x for x in self.xs])
    def __iadd__(self, k): self.xs = [x + k for x in self.xs]; return self
    def __eq__(self, other): return isinstance(other, Vector) and self.xs == other.xs
class Metres(int):
    def __add__(self, other): return Metres(int(self) + int(other))
class Day(datetime.date):
    def weekend(self): return self.weekday() >= 5
class Money(Decimal): pass
def wrapped():
    from collections import ChainMap, UserDict, UserList
    from types import MappingProxyType
    return [UserDict(a=1), ChainMap({'a': 1}, {'a': 2}), MappingProxyType({'a': 1}), UserList([1]), memoryview(b'x')]
def space():
    from types import SimpleNamespace
    return SimpleNamespace(a=1, b=[P(1)])
def keys(x=None): return list(x) if x is not None else {'b': 1, 'a': 2}.keys()
def draw(generator): return generator.random()
def read(file): return file.read()
def say(x): print('got', x)
"""
HOLDS = [
    "assert f() == {'a': [P(1), (P(2),)]}",
    "assert P(1) in f()['a'] and P(2) not in f()['a']",
    "assert sorted([P(2), P(1)])[0] == P(1) and max([P(1), P(2)]) == P(2)",
    "assert type(P(1)) is P and P(1).__class__.__name__ == 'P' and isinstance(P(1), P)",
    "assert Pt(1, 2) == (1, 2) and Pt(1, 2).count == 2 and isinstance(Pt(1, 2), tuple)",
    "assert Colour.RED == 'r' and Colour.RED.value == 'r' and Colour.RED is Colour('r')",
    "assert Plain.RED is Plain.RED and Plain.RED != 1 and [Plain.RED] == list(Plain)",
    "assert I.ONE + 1 == 2 and isinstance(I.ONE, int) and type(I.ONE) is not int",
    "assert Box(a=1) == {'a': 1} and Box()['b'] == 7 and isinstance(Box(), dict)",
    "assert Row([1, 2]) == [1, 2] and [1, 2] == Row([1, 2]) and Row([1, 2]).second() == 2",
    "assert Row([1]) + [2] == [1, 2] and [Row([1])] == [[1]]",
    "assert Euro(2) == 2 and Euro(2).double() == 4 and Euro(2) < 3",
    "assert same(Counter('aab'))['z'] == 0 and same(Counter('a')) == {'a': 1}",
    "d = same(defaultdict(list))\nd['a'].append(1)\nassert d == {'a': [1]}",
    "from collections import OrderedDict\nassert o({'b': 1, 'a': 2}) != OrderedDict([('a', 2), ('b', 1)])",
    "assert o({'b': 1, 'a': 2}) == {'a': 2, 'b': 1}",
    "assert same(deque([1], 2)) == deque([1]) and same(deque([1], 2)).maxlen == 2 and same(deque([1])) != [1]",
    "import datetime\nassert when() == datetime.datetime(2020, 1, 1, 10, tzinfo=datetime.timezone.utc)",
    "import pathlib, uuid\nassert same(pathlib.Path('a') / 'b') == pathlib.Path('a/b') "
    "and same(uuid.UUID(int=1)).int == 1",
    "from array import array\nassert same(array('i', [1])) == array('i', [1])",
    "from decimal import Decimal\nassert same(Decimal('1.10')) == Decimal('1.1')",
    "assert kept() is kept() and P(1) is not P(1)",
    "xs = [1]\nassert same(xs) is xs and same([1]) is not xs",
    "import numpy as np\nassert not isinstance(same(np.int64(3)), int) and isinstance(same(np.float64(3)), float)",
    "import numpy as np\na = same(np.array([[1, 2], [3, 4]]))\n"
    "assert a.shape == (2, 2) and (a.sum(axis=0) == [4, 6]).all()",
    "import numpy as np\nassert np.array_equal(same(np.array(['a', 'b'])), ['a', 'b']) "
    "and same(np.float32(0.1)) == 0.1",
    "import numpy as np\na = np.array([(1, 2.5)], dtype=[('a', 'i4'), ('b', 'f8')])\n"
    "assert np.array_equal(same(a), a) and same(a)['b'][0] == 2.5 and same(a.dtype) == a.dtype == a.dtype.descr",
    "assert [nan()] != [nan()]",
    "import datetime\nassert same(datetime.datetime(2020, 10, 25, 1, 30, fold=1)).fold == 1",
    "from dataclasses import asdict, replace, fields\n"
    "assert asdict(P(1)) == {'x': 1} and replace(P(1), x=2) == P(2) and [f.name for f in fields(P)] == ['x']",
    "import inspect, types\nassert inspect.isgenerator(numbers()) and isinstance(numbers(), types.GeneratorType)",
    "import inspect\nassert list(inspect.signature(depth).parameters) == ['n'] and depth.__doc__ is None",
    "x = named(value=1, what=2, target=3, name=4)\nassert x == [1, 2, 3, 4]",
    "r = Node(1)\nr.children.append(Node(2))\nr.children[0].children.append(Node(3))\nassert depth(r) == 3",
    "r = Node(1)\nheld = r.children\nheld += [Node(2)]\nassert r.children is held and depth(r) == 2",
    "xs = [1]\ntry:\n    push(xs, 2)\nexcept ValueError:\n    pass\nassert xs == [1, 2]",
    "assert Vector(1, 2) * 3 == Vector(3, 6) and 5 - Vector(1) == Vector(4)",
    "v = Vector(1)\nv += 2\nw = v * 2\nassert v.xs == [3] and (w * 2).xs == [12]",
    "assert isinstance(Metres(1) + 2, Metres) and Metres(1) + 2 == 3",
    "r = Row([1])\nr += [2]\nassert r.second() == 2 and r == [1, 2]",
    "import datetime\nassert Day(2020, 1, 4).weekend() and Day(2020, 1, 4) - datetime.date(2020, 1, 1) "
    "== datetime.timedelta(3)",
    "from decimal import Decimal\nassert Money('1.5') == Decimal('1.5') and 1 + Money('1.5') == 2.5",
    "assert wrapped() == [{'a': 1}, {'a': 1}, {'a': 1}, [1], b'x']",
    "from collections import UserDict, UserList\nw = wrapped()\nassert w[0] == UserDict(a=1) and w[3] == UserList([1])",
    "from types import SimpleNamespace\ns = space()\ns.a = 2\nassert s == SimpleNamespace(a=2, b=[P(1)])",
    "assert list(keys()) == ['b', 'a'] == keys({'b': 1, 'a': 2}.keys()) and keys() == {'a', 'b'}",
    "assert keys({'b': 1, 'a': 2}.items()) == [('b', 1), ('a', 2)] and keys({'b': 1}.values()) == [1]",
    "assert issubclass(Row, list) and not issubclass(Row, P) and list(map(type, [P(1), 2])) == [P, int]",
    "import random\nassert draw(random.Random(3)) == random.Random(3).random()",
    "import io\nassert read(io.StringIO('abc')) == 'abc'",
    "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n    say(3)\n"
    "assert out.getvalue() == 'got 3\\n'",
    "def test_it(capsys):\n    say(3)\n    assert capsys.readouterr().out == 'got 3\\n'",
    "import numpy as np\nassert [3] == same(np.int64(3)) and same(np.int64(3)) == [3]",
    "many = [same([i]) for i in range(300)]\nmany[-1].append(1)\nassert many[0] == [0] and many[-1] == [299, 1]",
]
FAILS = [
    "assert f() != {'a': [P(1), (P(2),)]}",
    "assert same(P(1)) == 1",
    "from collections import OrderedDict\nassert o({'b': 1, 'a': 2}) == OrderedDict([('a', 2), ('b', 1)])",
    "import numpy as np\nassert isinstance(same(np.int64(3)), int)",
    "assert same(True) is not True",
    "xs = [1]\nassert same(xs) is not xs",
    "assert kept() is not kept()",
    "assert type(Box()) == dict",
    "assert type(same(Counter())) == dict",
    "import numpy as np\nassert np.allclose(same(np.array([1.0])), [2.0])",
    "import datetime\nassert when() == datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.timezone.utc)",
    "assert callable(P(1))",
    "assert Plain.RED == 1",
    "assert [nan()] == [nan()]",
    "r = Node(1)\nr.children.append(Node(2))\nassert depth(r) == 1",
    "assert Vector(1, 2) * 3 == Vector(3, 7)",
    "assert wrapped()[0] == {'a': 2} or wrapped()[3] == (1,) or wrapped()[4] == 'x'",
    "assert space() == {'a': 1}",
    "from collections import OrderedDict\nfrom types import MappingProxyType\n"
    "assert same(MappingProxyType(OrderedDict(a=1, b=2))) == OrderedDict(b=2, a=1)",
    "import numpy as np\nassert same(np.int64(3)) != [3]",
]


def test_objects_compare_as_in_python_in_both_directions(judge):
    assert {t: v for t, v in outcomes(judge, OBJECTS, HOLDS).items() if not v.passed} == {}
    assert {t: v for t, v in outcomes(judge, OBJECTS, FAILS).items() if v.status != "failed"} == {}


ERRORS = """
class A(Exception): pass
class B(A, ValueError):
    def __init__(self, code):
        super().__init__(f'code {code}')
        self.code = code
    def double(self): return 2 * self.code
def f(): raise B(5)
def g():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise A('outer') from error
def call(h):
    try:
        return h()
    except A as error:
        return str(error)
def through(h): return h()
def parse():
    import json
    json.loads('{')
"""


@pytest.mark.parametrize(
    "test",
    [
        "import pytest\nwith pytest.raises(A, match='code 5') as e:\n    f()\n"
        "assert e.value.code == 5 and e.value.double() == 10",
        "import pytest\npytest.raises(ValueError, f)",
        "try:\n    f()\nexcept A as e:\n    kind = type(e)\nassert kind is B and issubclass(B, A)",
        "try:\n    g()\nexcept A as e:\n    cause = e.__cause__\nassert isinstance(cause, ZeroDivisionError)",
        "def mine():\n    f()\nassert call(mine) == 'code 5'",
        "class Mine(Exception):\n    pass\ndef h():\n    raise Mine\ntry:\n    through(h)\n"
        "except Mine:\n    ok = True\nassert ok",
        "import json, pytest\nwith pytest.raises(json.JSONDecodeError):\n    parse()",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertRaises(A, f)",
    ],
)
def test_exceptions_keep_their_relatives_and_attributes(judge, test):
    assert status(judge, ERRORS, test) == "passed"


@pytest.mark.parametrize("where", ["{function}{beside}", "{beside}\n{function}"])
@pytest.mark.parametrize(
    "beside",
    [
        *(
            "assert f(1) == 3",
            "n = int(input('n: '))",
            "import sys\nsys.exit(0)",
            "print(undefined)",
            "x = [0] * 10**12",
        ),
        *("import pandas as pd\ndef g(x: pd.DataFrame): pass", "import os\nos._exit(0)", "while True: pass", "f('a')"),
        *(
            "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 3)\n"
            "unittest.main()",
        ),
        *(
            "import pytest\n@pytest.mark.parametrize('x', [1])\ndef test_f(x): assert f(x) == 3",
            "from typing import Nothing",
        ),
    ],
)
def test_the_function_decides_and_the_rest_is_a_remark(judge, where, beside):
    program = where.format(function=NEXT, beside=beside)
    report = judge.run([Submission(program, ["assert f(1) == 2", "assert f(1) == 3"])])[0]
    assert [v.status for v in report.verdicts] == ["passed", "failed"] and report.remark


def test_what_is_not_defined_says_what_went_wrong(judge):
    report = judge.run([Submission("1 / 0\n", ["assert f(1) == 2"])])[0]
    assert report.verdicts[0].status == "error" and "ZeroDivisionError" in report.verdicts[0].reason
    assert judge.run([Submission(NEXT, ["assert f(1) == 2"])])[0].remark == ""


OWN = """
class Node:
    def __init__(self, v): self.v = v
def build(v): return Node(v)
def count(n): return n.v
def gcd(a, b): return a + b
"""
POSITIVE = "def f(x):\n    if x < 0: raise ValueError\n    return x"


@pytest.mark.parametrize(
    ("program", "test", "entry_point", "expected"),
    [
        (POSITIVE, "assert f(1) == 1 or f(-1) == 0", "", "passed"),
        (POSITIVE, "assert f(1) == 2 and f(-1) == 0", "", "failed"),
        (POSITIVE, "assert 5 < f(1) < f(-1)", "", "failed"),
        (POSITIVE, "assert (f(1) if True else f(-1)) == 1", "", "passed"),
        ("def pow(a, b): return a ** b", "assert abs(pow(2, -1) - 0.5) < 1e-9", "", "passed"),
        ("def pow(a, b): return 7", "assert abs(pow(2, -1) - 0.5) < 1e-9", "pow", "failed"),
        ("def filter(xs): return xs", "assert sorted(filter([2, 1])) == [1, 2]", "filter", "passed"),
        ("def abs(x): return 0", "assert abs(pow(2, -1) - 0.5) < 1e-9", "pow", "error"),  # it is asked about pow
        ("def log(g):\n    return lambda *a: (g.__name__, g(*a))", "@log\ndef h(x):\n    return x\n"
        "assert h(1) == ('h', 1)", "", "passed"),
        ("import functools\ndef log(g):\n    @functools.wraps(g)\n    def w(*a): return g(*a)\n    return w",
         "@log\ndef h(x):\n    return x\nassert h.__name__ == 'h' and h(1) == 1", "", "passed"),
        ("async def f(x): return x + 1", "import asyncio\nassert asyncio.run(f(1)) == 2", "", "passed"),
        ("async def f(x): return x + 1", "async def test_f():\n    assert await f(1) == 3", "", "failed"),
        ("async def f():\n    yield 1", "async def test_f():\n    assert [x async for x in f()] == [1]", "", "passed"),
        ("import random\ndef f(): return random.randint(1, 99)",
         "import random\nrandom.seed(3)\na = f()\nrandom.seed(3)\nassert a == random.randint(1, 99)", "", "passed"),
        ("import datetime\ndef f(): return datetime.date.today()",
         "import datetime\nassert f() == datetime.date.today()", "", "passed"),
        (OWN, "assert count(Node(3)) == 3", "", "passed"),
        (OWN, "n = build(3)\nassert count(n) == 3 and gcd(1, 2) == 3", "", "passed"),
        (OWN, "assert count(build(3)) == 3", "build", "passed"),
        (OWN, "from math import gcd\nassert gcd(4, 6) == 2 and build(1).v == 1", "", "passed"),
        (OWN, "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
         "        self.assertEqual(count(build(3)), 3)", "", "passed"),
        ("\ufeffdef f(x): return x", "assert f(1) == 1", "", "passed"),
    ],
)  # fmt: skip
def test_order_names_loops_and_seeds(judge, program, test, entry_point, expected):
    assert status(judge, program, test, entry_point=entry_point) == expected


LIES = """
def isclose(*a, **k): return True
def factorial(n): return 0
def floor(n): return 0
class Counter:
    def __init__(self, *a): pass
    def __eq__(self, other): return True
    __hash__ = None
def f(x): return 0
def g(x): return 0.3
"""


METHODS = """
class S(set):
    def yes(self, *a): return True
    issubset = issuperset = isdisjoint = yes
    def difference(self, *a): return set()
class T(str):
    def startswith(self, *a): return True
    endswith = startswith
class L(list):
    def count(self, x): return 1
def s(): return S([1])
def t(): return T('a')
def xs(): return L([1])
"""


@pytest.mark.parametrize(
    "test",
    [
        *("assert s().issuperset({5})", "assert s().issubset({5})", "assert s().isdisjoint({1})"),
        *("assert not s().difference({5})", "assert t().startswith('b')", "assert t().endswith('b')"),
        *("assert xs().count(5) == 1", "x = s()\nx -= {1}\nassert x == {1}", "assert {5} <= s()"),
    ],
)
def test_methods_that_compare_are_those_of_the_builtin(judge, test):
    assert status(judge, METHODS, test) == "failed"


PRICE = """
class Price:
    def __init__(self, x): pass
    def __sub__(self, other): return 0
    __add__ = __rsub__ = __isub__ = __sub__
    def __eq__(self, other): return True
def f(x): return Price(x)
"""


@pytest.mark.parametrize(
    "test",
    [
        "assert abs(Price(1) - 0.5) < 0.1",
        "assert Price(1) - 0.5 <= 0",
        "import math\nassert math.isclose(Price(1) - 0.5, 0)",
        "assert abs(f(1) - 0.5) < 0.1",
        "x = f(1)\nassert x - 5 == 0",
        "x = f(1)\nx -= 5\nassert x == 0",
        "assert Price(1) == 5",
        "assert f(1) + 5 == f(2)",
    ],
)
def test_no_object_is_told_the_answer_by_arithmetic(judge, test):
    assert status(judge, PRICE, test) in ("failed", "error")


@pytest.mark.parametrize(
    "test",
    [
        "assert isclose(g(1), 0.5)",
        "assert isclose(g(1), 0.5) == True",
        "d = 0.5\nx = isclose(g(1), d)\nassert x == True",
        "assert [isclose(g(1), 0.5)] == [True]",
        "assert f(5) == factorial(5)",
        "x = f(5)\nassert factorial(5) == x",
        "d = g(2) - 1.41\nassert floor(d) == 0",
        "assert Counter(['a']) == Counter([f(1)])",
    ],
)
def test_no_program_gains_by_a_name_of_pythons_own(judge, test):
    assert status(judge, LIES, test) == "failed"


@pytest.mark.parametrize(
    "body",
    [
        *(
            "return list({'a', 'b', 'c', 'd', x})",
            "return hash(x)",
            "return random.random()",
            "return datetime.now().year",
        ),
        *("return int(time.time()) % 2", "return max({'p', 'q', 'r', 's', x}, key=len)", "return uuid.uuid4().hex"),
        *("return shuffled([*'pqrst', x])[0]", "return random_as.choice('pqrstuvw' + x)", "return strftime('%Y')"),
        *("first, *rest = {'p', 'q', 'r', 's', x}\n    return first", "return list(letters(x))[0]"),
        "d = defaultdict(set)\n    d[1].update('pqrs', x)\n    return list(d[1])[0]",
        "return Counter({'p', 'q', 'r', 's', x}).most_common(1)[0][0]",
        "return sorted(['p', 'q', 'r', 's', x], key=hash)[0]",
        "return reduce(lambda a, b: a, {'p', 'q', 'r', 's', x})",
    ],
)
def test_what_depends_on_chance_is_unstable(judge, body):
    program = (
        "import random, time, uuid\nfrom datetime import datetime\nimport random as random_as\n"
        "from collections import Counter, defaultdict\nfrom functools import reduce\nfrom random import sample\n"
        "from time import strftime\ndef letters(x):\n    return set('pqrs' + x)\n"
        f"def shuffled(xs):\n    return sample(xs, len(xs))\ndef f(x):\n    {body}\n"
    )
    assert depends_on_chance(program)
    lucky = judge.run([Submission(program, ["assert f('x') == 'never'"])])[0].verdicts[0].reason.removeprefix("got ")
    report = judge.run([Submission(program, [f"assert f('x') == {lucky}", "assert f('x') is not None"])])[0]
    assert report.verdicts[0].status in ("unstable", "failed") and not report.passed
    if not any(word in body for word in ("time()", "uuid4")):
        assert report.unstable and report.pass_rate == 0.0 and report.verdicts[1].passed


def test_sets_whose_order_nobody_sees_are_stable(judge):
    for body in (
        "return sorted(list(set(x)))",
        "return len(set(x))",
        "return set(x) == {'a', 'b'}",
        "return 'a' in set(x)",
        "seen = set()\n    return [c for c in x if not (c in seen or seen.add(c))]",
        "graph = {1: {2}}\n    return len(graph[1] | {3}) and sum(1 for c in graph[1]) and set(x)",
        "import random\n    return max(set(x) - {'b'})",
    ):
        assert not depends_on_chance(f"def f(x):\n    {body}\n")
    seeded = "import random\ndef f(x):\n    return random.Random(3).random()\n"
    value = judge.run([Submission(seeded, ["assert f(1) == 0"])])[0].verdicts[0].reason.removeprefix("got ")
    assert judge.run([Submission(seeded, [f"assert f(1) == {value}"])])[0].passed
    dated = "import datetime, time\nclass Day(datetime.date):\n    def last(self): return self.day > 27\ndef f(x):\n"
    dated += "    time.time()\n    return Day(2020, 1, 30).last(), type(datetime.datetime.now()) is datetime.datetime\n"
    assert depends_on_chance(dated) and judge.run([Submission(dated, ["assert f(1) == (True, True)"])])[0].passed


ALIASES = """
import copy
def shallow(x): return copy.copy(x)
def deep(x): return copy.deepcopy(x)
def same(x): return x
def first(xs): return xs[0]
def grid(n, own): return [[0] * n for _ in range(n)] if own else [[0] * n] * n
def push(xs): xs[0].append(3)
def both(x, y): return (x, {'y': [y]})
class Graph:
    def __init__(self, edges): self.edges = dict(edges)
    def get(self, key): return self.edges[key]
    def all(self): return dict(self.edges)
"""


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("a = [[1], [2]]\nb = shallow(a)\nb[0].append(9)\nassert a[0] == [1]", "failed"),
        ("a = [[1], [2]]\nb = deep(a)\nb[0].append(9)\nassert a[0] == [1] and b == [[1, 9], [2]]", "passed"),
        ("a = {'k': {'x': [1]}}\nb = shallow(a)\nb['k']['x'].append(2)\nassert a == {'k': {'x': [1]}}", "failed"),
        ("a = {'k': {'x': [1]}}\nb = deep(a)\nb['k']['x'].append(2)\nassert a == {'k': {'x': [1]}}", "passed"),
        ("a = [(1, [2])]\nassert shallow(a)[0][1] is not a[0][1]", "failed"),
        ("a = [(1, [2])]\nassert deep(a)[0][1] is not a[0][1] and same(a)[0][1] is a[0][1]", "passed"),
        ("g = grid(2, False)\ng[0][0] = 1\nassert g == [[1, 0], [0, 0]]", "failed"),
        ("g = grid(2, True)\ng[0][0] = 1\nassert g == [[1, 0], [0, 0]] and same(g) is g", "passed"),
        ("a = [[1], [2]]\nfirst(a).append(5)\nassert a == [[1, 5], [2]]", "passed"),
        ("row = [1]\na = [row, row]\npush(a)\nassert row == [1, 3] and a == [[1, 3], [1, 3]]", "passed"),
        ("a = [[1]]\nt = both(a, a[0])\nt[1]['y'][0].append(2)\nassert t[0] is a and a == [[1, 2]]", "passed"),
        ("g = Graph({1: [2]})\ng.all()[1].append(3)\nassert g.get(1) == [2]", "failed"),
        ("e = {1: [2]}\ng = Graph(e)\ne[1].append(3)\ne[4] = []\nassert g.all() == {1: [2, 3]}", "passed"),
        ("a = []\nsame(a)\nrow = [1]\na.append(row)\npush(same([row]))\nassert a == [[1, 3]]", "passed"),
        ("many = [same([[i]]) for i in range(300)]\nmany[-1][0].append(1)\nassert many[-1] == [[299, 1]]", "passed"),
        ("a = [1]\na.append(a)\nassert same(3) == 3 and same(a)[0] == 1", "passed"),
    ],
)
def test_what_is_inside_a_list_stays_the_same_object(judge, test, expected):
    assert status(judge, ALIASES, test) == expected


@pytest.mark.parametrize("beside", ["pass", "kept.append([0] * 100_000)", "threading.Event().wait()"])
def test_a_program_that_loops_under_another_seed_is_unstable(judge, beside):
    drawn = "import random, threading\nkept, drawn = [], random.randrange(10**6)\ndef f(x):\n"
    seen = judge.run([Submission(f"{drawn}    return drawn", ["assert f(1) == 'no'"])])[0].verdicts[0].reason
    lucky = f"{drawn}    while drawn != {seen.removeprefix('got ')}: {beside}\n    return x + 1"
    report = judge.run([Submission(lucky, ["assert f(1) == 2", "assert f(1) == 3"])])[0]
    assert [v.status for v in report.verdicts] == ["unstable", "failed"] and report.pass_rate == 0.0


NODES = """
def depth(t): return 1 + max(depth(t.left), depth(t.right)) if t else 0
def area(shape): return shape.area()
def empty(x): return not x
def sort(xs): xs.sort()
def keep(xs): return None
class Service:
    def __init__(self, api): self.api = api
    def ask(self, key): return self.api.get(key)['a']
    def cheat(self): self.api.get.assert_called_once_with = print; return 1
    def forget(self): self.api.reset_mock(); return 1
"""
NODE = "class Node:\n    def __init__(self, left=None, right=None):\n        self.left, self.right = left, right\n"
SQUARE = "class Square:\n    def __init__(self, a): self.a = a\n    def area(self): return self.a ** 2\n"
MOCKED = "from unittest.mock import MagicMock, Mock\napi = Mock()\napi.get.return_value = {'a': [1]}\n"


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (NODE + "assert depth(Node(Node(), Node(None, Node()))) == 3 and depth(None) == 0", "passed"),
        (NODE + "assert depth(Node(Node())) == 3", "failed"),
        ("class Box:\n    def __len__(self):\n        return 0\nassert empty(Box()) and not empty(len)", "passed"),
        ("class No:\n    def __bool__(self):\n        return False\nassert empty(No())", "passed"),
        (SQUARE + "assert area(Square(3)) == 9", "passed"),
        (SQUARE + "assert area(Square(3)) == 10", "failed"),
        ("xs = list(range(5000, 0, -1))\nsort(xs)\nassert xs == list(range(1, 5001))", "passed"),
        ("xs = list(range(5000, 0, -1))\nkeep(xs)\nassert xs == list(range(1, 5001))", "failed"),
        ("xs = [[i] for i in range(3000, 0, -1)]\nsort(xs)\nassert xs == [[i] for i in range(1, 3001)]", "passed"),
        (MOCKED + "assert Service(api).ask('k') == [1]\napi.get.assert_called_once_with('k')", "passed"),
        (MOCKED + "assert Service(api).ask('k') == [1]\napi.get.assert_called_once_with('x')", "failed"),
        (MOCKED + "assert Service(api).cheat() == 1\napi.get.assert_called_once_with('k')", "error"),
        (MOCKED + "api.get('k')\nassert Service(api).forget() == 1 and not api.get.called", "error"),
    ],
)
def test_objects_of_the_test_are_what_they_are_in_the_program(judge, test, expected):
    assert status(judge, NODES, test) == expected
