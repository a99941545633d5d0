"""The encoding: what goes in comes out, whatever the bytes say nothing but WireError comes out of the decoder."""

import datetime
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acelib.judge.asserts import NeedsReferee, compile_test, judge_lines
from acelib.judge.inside import wire

hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()) | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
scalars = hashable | st.floats() | st.complex_numbers() | st.decimals(allow_nan=False) | st.fractions()
scalars |= st.dates() | st.datetimes() | st.timedeltas() | st.sampled_from([int, str, len, ValueError])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
    ),
    max_leaves=20,
)


nearly_right = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from("ltsfdbicDFnTyohaAOCGqrPzu="),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


def through(value):
    return wire.decode(wire.loads(wire.dumps(wire.encode(value))))


def same(a, b) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    return a == b


@settings(max_examples=300, deadline=None)
@given(values)
def test_data_comes_out_as_it_went_in(value):
    assert same(through(value), value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | nearly_right.map(wire.dumps))
def test_hostile_bytes_are_data_or_a_wire_error(data):
    try:
        wire.decode(wire.loads(data))
    except wire.WireError:
        pass
    try:
        status, _ = judge_lines(compile_test("assert f(1) == 'the expected value'"), [data])
    except NeedsReferee:  # what claims to be an array is looked at where limits hold
        assert b'["a"' in data
        return
    assert status in ("failed", "error", "memory")


@settings(max_examples=200, deadline=None)
@given(hashable | st.lists(hashable, max_size=4), hashable | st.lists(hashable, max_size=4))
def test_comparing_data_agrees_with_python(value, expected):
    assertion = compile_test(f"assert f(1) == {expected!r}")
    if assertion.kind != "data":  # a lone surrogate does not survive as source text
        return
    status, _ = judge_lines(assertion, [wire.dumps(wire.encode(value))])
    assert (status == "passed") == (value == expected)
    assert judge_lines(assertion, [wire.dumps(wire.encode(expected))])[0] == "passed"


class Liar(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__

    def __add__(self, other):
        raise RuntimeError


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value, data",
    [
        (Liar(3), 3),
        ([Liar(3)], [3]),
        (Point(1, 2), (1, 2)),
        (type("C", (Counter,), {})("aab"), Counter(a=2, b=1)),
        (type("O", (OrderedDict,), {})(a=1), OrderedDict(a=1)),
        (type("D", (defaultdict,), {})(list, a=[1]), defaultdict(None, a=[1])),
        ({"a": 1}.keys(), {"a"}),
        ({"a": 1}.items(), {("a", 1)}),
        (type("S", (str,), {"__str__": lambda self: "lie"})("truth"), "truth"),
        (type("F", (float,), {})(-0.0), -0.0),
        (bytearray(b"x"), bytearray(b"x")),
    ],
)
def test_subclasses_are_reduced_to_the_builtin(value, data):
    assert same(through(value), data)


def test_other_objects_are_opaque_and_equal_nothing():
    for value in (object(), Liar, iter([]), lambda: 0, {1: 2}.values(), range(10**9)):
        out = through(value)
        assert isinstance(out, wire.Opaque) and out != value and out not in ([0], (1,), {"a"})
    deep = []
    for _ in range(wire.MAX_DEPTH + 50):
        deep = [deep]
    assert through(deep) is not None


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"[", b"[]", b"[1]", b"{}", b'["zz"]', b'["d",1]', b'["s",["l"]]', b'["F","1/0"]', b'["i","zz"]'),
        *(b'["D","x"]', b'["n","eval"]', b'["n","__import__"]', b'["T","date",0,0,0]', b'["c",1]', b'["h",1]'),
        *(b"\xff", b"9" * 5000, b'["l",' * 100_000, b'["F","' + b"f" * 2000 + b'/1"]'),
    ],
)
def test_malformed(data):
    with pytest.raises(wire.WireError):
        wire.decode(wire.loads(data))


def test_numbers_beyond_json():
    for value in (2**63, -(2**63), 10**5000, Decimal("1e400"), Fraction(1, 3), datetime.timedelta(1)):
        assert through(value) == value
    assert isinstance(through(Decimal("1" * 5000)), wire.Opaque)
