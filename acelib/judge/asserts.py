"""Tests as data: an assert is taken apart into calls of the program and a comparison that stays with the supervisor.

`assert f(3) == [1, 2]` becomes the call `f(3)`, which is sent to the program's process, and the comparison of whatever
data comes back with `[1, 2]`, which is evaluated here by a small interpreter over the syntax tree (never by `eval`).
What that interpreter does not know (classes, expected exceptions, several statements) is left to the referee, a second
sandboxed process.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache

from .inside import wire
from .inside.checks import may_check
from .inside.names import called_builtins, checked_by_name, is_real, program_names, replaceable, without_imports

MAX_TEST_CHARS = 1_000_000
MAX_LOCAL_BYTES = 32_768  # more data than this is compared in the referee, where CPU and memory are limited
MAX_SIZE = 1_000_000
GOT = "got "  # how the reason of a comparison that fails begins, before what the program returned


class NeedsReferee(Exception):
    """The comparison is not one over plain data."""


@dataclass(frozen=True)
class Slot:
    """Stands in the syntax tree for the result of call number `index`."""

    index: int


@dataclass(frozen=True)
class Assertion:
    """One parsed test. kind: "data" (compared here), "referee", "bad" (see `reason`), or "open": the test calls only
    functions of Python's own, of which the program may define one of `candidates`, or is a `check(candidate)`. In tests
    of other kinds the `candidates` that the program defines are its own."""

    kind: str
    calls: tuple[str, ...] = ()  # JSON of [name, args, kwargs]
    expression: ast.expr | None = None
    expected: bytes | None = None  # for the common case `f(...) == literal`: the line an equal result arrives as
    identity: bool = False
    reason: str = ""
    own: str = ""
    also: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    simple: bool = False  # `slot == constant` or `slot != constant`


def why_invalid(test: str, entry_point: str = "") -> str:
    """Why the test can check nothing, whatever the program does; "" for a test that can."""
    assertion = compile_test(test, entry_point)
    return assertion.reason if assertion.kind == "bad" else ""


@lru_cache(maxsize=4096)
def compile_test(text: str, own: str = "", also: tuple[str, ...] = ()) -> Assertion:
    """Parse one test of the function `own` (if known); a broken one gives kind "bad", never an exception. Names in
    `also` are the program's although Python has them."""
    if len(text) > MAX_TEST_CHARS:
        return Assertion("bad", reason=f"the test is longer than {MAX_TEST_CHARS:,} characters")
    try:
        tree = _parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Assertion("bad", reason=f"the test does not parse: {type(error).__name__}: {error}"[:200])
    if (common := _common_form(tree, own)) is not None:
        return common
    tree, foreign = without_imports(tree)
    names = program_names(tree, own, also, foreign)
    if not names:
        by_name = checked_by_name(tree)
        if (candidates := called_builtins(tree)) or by_name:
            return Assertion("open", candidates=() if by_name else tuple(candidates))
        return Assertion("bad", reason="the test calls nothing of the program")
    if not may_check(tree, names):
        return Assertion("bad", reason="the test asserts nothing")
    candidates = () if also else tuple(sorted(replaceable(tree, names)))
    referee = Assertion("referee", own=own, also=also, candidates=candidates)
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Assert) or _calls_on_condition(tree.body[0].test, names):
        return referee
    extract = _Extract(names)
    try:
        expression = extract.visit(tree.body[0].test)
        if not extract.calls:
            return referee
        expected, identity = _expected_line(expression)
    except (NeedsReferee, RecursionError):
        return referee
    simple = _is_simple(expression)
    return Assertion("data", tuple(extract.calls), expression, expected, identity, "", own, also, candidates, simple)


def _calls_on_condition(expression, names) -> bool:
    """Whether Python may leave out a call of the program: after `and` or `or`, in a branch, or later in a chain."""
    for node in ast.walk(expression):
        later = []
        if isinstance(node, ast.BoolOp):
            later = node.values[1:]
        elif isinstance(node, ast.IfExp):
            later = [node.body, node.orelse]
        elif isinstance(node, ast.Compare):
            later = node.comparators[1:]
        if any(isinstance(n, ast.Name) and n.id in names for part in later for n in ast.walk(part)):
            return True
    return False


def _is_simple(node) -> bool:
    """`slot == constant` or `!=`, either way round: what an object of the program equals is then known, nothing."""
    return (
        isinstance(node, ast.Compare)
        and [type(op) in (ast.Eq, ast.NotEq) for op in node.ops] == [True]
        and any(_is_slot(side) for side in (node.left, node.comparators[0]))
        and sum(_is_slot(n) for n in ast.walk(node)) == 1
    )


def _parse(text: str) -> ast.Module:
    if "\\" not in text:  # only escape sequences make the parser warn
        return ast.parse(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _common_form(tree: ast.Module, own: str) -> Assertion | None:
    """`assert f(<literals>) == <literal>`, by far the most tests, without the walks that other forms need."""
    match tree.body:
        case [
            ast.Assert(
                test=ast.Compare(
                    left=ast.Call(func=ast.Name(id=name), args=args, keywords=[]), ops=[ast.Eq()], comparators=[right]
                )
            )
        ] if name == own or not is_real(name):
            try:
                values, expected = [ast.literal_eval(a) for a in args], ast.literal_eval(right)
            except (ValueError, TypeError, RecursionError, MemoryError):
                return None
            call, line = wire.dumps([name, [wire.encode(v) for v in values], {}]), wire.dumps(wire.encode(expected))
            if b'["o"' in call + line:  # perhaps an object that is not data (an ellipsis); the slow way finds out
                return None
            expression = ast.Compare(ast.Constant(Slot(0)), [ast.Eq()], [ast.Constant(expected)])
            return Assertion("data", (call.decode(),), expression, line, simple=True)
    return None


class _Extract(ast.NodeTransformer):
    """Replaces each call of the program by a Slot; raises NeedsReferee for what is not plain data."""

    def __init__(self, names):
        self.names, self.calls = names, []

    def visit_Call(self, node):
        if not (isinstance(node.func, ast.Name) and node.func.id in self.names):
            return self.generic_visit(node)
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            raise NeedsReferee
        args = [_encoded(a) for a in node.args]
        kwargs = {k.arg: _encoded(k.value) for k in node.keywords}
        self.calls.append(wire.dumps([node.func.id, args, kwargs]).decode())
        return ast.Constant(Slot(len(self.calls) - 1))

    def visit_Name(self, node):
        if node.id in self.names:
            raise NeedsReferee
        return node


def _encoded(node):
    encoded = wire.encode(_evaluate_literal(node))
    if _holds_opaque(encoded):
        raise NeedsReferee
    return encoded


def _evaluate_literal(node):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        pass
    try:
        return evaluate(node, ())
    except NeedsReferee:
        raise
    except Exception:
        raise NeedsReferee from None


def _holds_opaque(node) -> bool:
    return isinstance(node, list) and (node[0] == "o" or any(_holds_opaque(n) for n in node[1:]))


def _is_slot(node) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, Slot)


def _expected_line(expression):
    """(line, identity) for `slot == constant` and `slot is constant`, else (None, False)."""
    if isinstance(expression, ast.Compare) and len(expression.ops) == 1:
        op, left, right = expression.ops[0], expression.left, expression.comparators[0]
        if _is_slot(right):
            left, right = right, left
        if _is_slot(left) and not any(_is_slot(n) for n in ast.walk(right)):
            identity = isinstance(op, (ast.Is, ast.IsNot))
            value = _evaluate_literal(right) if identity or isinstance(op, ast.Eq) else None
            if identity and not (value is None or type(value) in (bool, int, str)):
                raise NeedsReferee
            encoded = wire.encode(value)
            line = wire.dumps(encoded)
            if identity or (isinstance(op, ast.Eq) and not _holds_opaque(encoded) and b"NaN" not in line):
                return line, identity  # (NaN is not equal to itself, so equal lines would not mean equal values)
    _check(expression)
    return None, False


_REFEREE_ONLY = re.compile(rb'\["a"')  # numpy's values that are no plain numbers
# All that is no number, text or builtin container: to iterate over a network, to round a large Decimal or to format a
# bytearray may take for ever, and here no limits hold. (A tag, never a text.)
_NOT_PLAIN = re.compile(rb'\["[^bcdfilstx]"')


def judge_lines(assertion: Assertion, lines: list[bytes]) -> tuple[str, str]:
    """(status, reason) of a data assertion whose calls came back as `lines`. Raises NeedsReferee."""
    negated = assertion.identity and isinstance(assertion.expression.ops[0], ast.IsNot)
    if assertion.expected is not None and not negated and lines[0] == assertion.expected:
        return "passed", ""
    results = []
    try:
        for line in lines:
            if len(line) > MAX_LOCAL_BYTES:
                raise NeedsReferee
            if b"[" in line and (_REFEREE_ONLY if assertion.simple or assertion.identity else _NOT_PLAIN).search(line):
                raise NeedsReferee
            if line.startswith(b'["y"') and (assertion.expected or b"[").startswith(b"["):
                raise NeedsReferee  # a number of numpy's is compared with each part of a list
            node = wire.loads(line)
            if type(node) is list and node and node[0] == "x":
                _, status, reason = node
                return ("memory" if status == "memory" else "error"), str(reason)[:300]
            results.append(wire.decode(node))
    except (wire.WireError, ValueError, TypeError) as error:
        return "error", f"the program's process sent no data: {error}"[:300]
    if assertion.identity:
        same = lines[0] == assertion.expected
        return ("passed", "") if same != negated else ("failed", _got(results))
    try:
        truth = bool(evaluate(assertion.expression, results))
    except NeedsReferee:
        raise
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"[:300]
    return ("passed", "") if truth else ("failed", _got(results))


def _got(results) -> str:
    try:
        text = ", ".join(repr(r) for r in results)
    except Exception as error:
        text = f"a value that cannot be shown ({type(error).__name__})"
    return f"{GOT}{text if len(text) <= 160 else text[:157] + '...'}".encode("ascii", "backslashreplace").decode()


def _bounded_pow(a, b):
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() * abs(b) > 100_000:
        raise NeedsReferee
    return a**b


def _bounded_round(number, digits=None):
    if isinstance(digits, int) and abs(digits) > 1000:
        raise NeedsReferee
    return round(number, digits)


def _bounded_mul(a, b):
    for x, y in ((a, b), (b, a)):
        if hasattr(x, "__len__") and isinstance(y, int) and len(x) * y > MAX_SIZE:
            raise NeedsReferee
    return a * b


def _bounded_range(*args):
    span = range(*args)
    if len(span) > MAX_SIZE:
        raise NeedsReferee
    return span


_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _bounded_mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: lambda a, b: operator.mod(a, b) if not isinstance(a, (str, bytes)) else _refuse(),
    ast.Pow: _bounded_pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY = {ast.Not: operator.not_, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert}
_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_FUNCTIONS = {
    **{f.__name__: f for f in (abs, all, any, bool, complex, dict, float, frozenset, isinstance, len, list, max, min)},
    **{f.__name__: f for f in (round, set, sorted, str, sum, tuple, type, int)},
    "range": _bounded_range,
    "round": _bounded_round,
}
_TYPES = {t.__name__: t for t in (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)}
_MATH = {f.__name__: f for f in (math.isclose, math.sqrt, math.floor, math.ceil, math.fabs, math.isnan, math.isinf)}
_MATH |= {name: getattr(math, name) for name in ("pi", "e", "tau", "inf", "nan")}


def _refuse():
    raise NeedsReferee


def _check(node) -> None:
    """Raise NeedsReferee now if `evaluate` could not handle a node of this expression."""
    for child in ast.walk(node):
        if isinstance(child, ast.expr) and not isinstance(child, _KNOWN):
            raise NeedsReferee
        if isinstance(child, (ast.Is, ast.IsNot)):
            raise NeedsReferee
        if isinstance(child, ast.Call) and _function(child.func) is None:
            raise NeedsReferee


_KNOWN = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare)
_KNOWN += (ast.Call, ast.Name, ast.Attribute, ast.Subscript, ast.Slice)


def _function(node):
    if isinstance(node, ast.Name):
        return _FUNCTIONS.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math":
        found = _MATH.get(node.attr)
        return found if callable(found) else None
    return None


def evaluate(node: ast.expr, results):
    """Value of an expression over plain data. Raises NeedsReferee for what it does not know, or what Python raises."""
    match node:
        case ast.Constant(value=Slot(index=index)):
            return results[index]
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=elts) | ast.List(elts=elts) | ast.Set(elts=elts):
            if any(isinstance(e, ast.Starred) for e in elts):
                raise NeedsReferee
            kind = {ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)]
            return kind(evaluate(e, results) for e in elts)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {evaluate(k, results): evaluate(v, results) for k, v in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=op, operand=operand):
            value = evaluate(operand, results)
            return _UNARY[type(op)](value if isinstance(op, ast.Not) else _data(value))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_data(evaluate(left, results)), _data(evaluate(right, results)))
        case ast.BoolOp(op=op, values=values):
            for value in values:
                truth = evaluate(value, results)
                if bool(truth) != isinstance(op, ast.And):
                    return truth
            return truth
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _compare(evaluate(left, results), ops, comparators, results)
        case ast.Subscript(value=value, slice=index):
            return _data(evaluate(value, results))[evaluate(index, results)]
        case ast.Slice(lower=lower, upper=upper, step=step):
            return slice(*(None if part is None else evaluate(part, results) for part in (lower, upper, step)))
        case ast.Attribute(value=ast.Name(id="math"), attr=attr) if attr in _MATH:
            return _MATH[attr]
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Call(func=func, args=args, keywords=keywords) if (function := _function(func)) is not None:
            values = [_data(evaluate(a, results)) for a in args]
            named = {k.arg: _data(evaluate(k.value, results)) for k in keywords}
            if None in named or set(named) & {"key"}:
                raise NeedsReferee
            return function(*values, **named)
    raise NeedsReferee


def _compare(value, ops, comparators, results) -> bool:
    for op, comparator in zip(ops, comparators, strict=True):
        other = evaluate(comparator, results)
        opaque = isinstance(value, wire.Opaque), isinstance(other, wire.Opaque)
        if any(opaque) and (all(opaque) or not isinstance(op, (ast.Eq, ast.NotEq))):
            raise NeedsReferee
        if not _COMPARE[type(op)](value, other):
            return False
        value = other
    return True


def _data(value):
    if isinstance(value, wire.Opaque):
        raise NeedsReferee
    return value
