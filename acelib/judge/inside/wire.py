"""The only language that crosses the sandbox wall: plain data as tagged JSON.

None, booleans, strings, floats and integers below 2**63 are JSON's own. Everything else is a JSON array that starts
with a tag: list, tuple, set, frozenset, dict (a flat row of keys and values), bytes, big integers, complex numbers,
decimals, fractions, dates, numpy scalars, and, by name from a fixed table, builtin types and functions. Subclasses of
builtins are reduced to the builtin value with the *base class's* methods, so nothing a program defines takes part;
any other object becomes `Opaque`, which equals nothing. Decoding builds such values only: no import, no attribute
access, no code.
"""

import datetime
import json
import sys
from decimal import Decimal
from fractions import Fraction
from json.encoder import c_make_encoder, encode_basestring_ascii

BIG = 1 << 63
MAX_DEPTH = 150
MAX_EXACT_CHARS = 1000  # decimals and fractions beyond this are opaque: their arithmetic may be quadratic


class WireError(Exception):
    """The bytes are not something `encode` would have written."""


class Opaque:
    """An object of the program that is not data: known by name and truth value only, equal to nothing."""

    __slots__ = ("name", "truth")

    def __init__(self, name: str, truth: bool = True):
        self.name, self.truth = name, truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.name} object>"


def encode(value, handle=None, depth=0):
    """Turn a value into the JSON form. `handle(value)` may claim objects that are not data (else they are opaque)."""
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if -BIG < value < BIG else ["i", hex(value)]
    if depth > MAX_DEPTH:
        return ["o", "nested too deeply", True]
    depth += 1
    if kind is list:
        return ["l", *[encode(v, handle, depth) for v in value]]
    if kind is tuple:
        return ["t", *[encode(v, handle, depth) for v in value]]
    if kind is dict:
        return ["d", *[encode(v, handle, depth) for pair in value.items() for v in pair]]
    if kind is set or kind is _KEYS or kind is _ITEMS:
        return ["s", *[encode(v, handle, depth) for v in value]]
    if kind is frozenset:
        return ["f", *[encode(v, handle, depth) for v in value]]
    if kind is bytes:
        return ["b", value.decode("latin-1")]
    if kind is complex:
        return ["c", value.real, value.imag]
    return _encode_unusual(value, kind, handle, depth)


_KEYS, _ITEMS = type({}.keys()), type({}.items())
_BASES = (  # the base class's own methods, so that an override in a subclass is never asked
    (int, lambda v: int.__add__(v, 0)),
    (str, lambda v: str.__getitem__(v, slice(None))),
    (float, lambda v: float.__add__(v, 0.0) if float.__ne__(v, 0.0) else float.fromhex(float.hex(v))),
    (list, lambda v: list(list.__iter__(v))),
    (tuple, lambda v: tuple(tuple.__iter__(v))),
    (dict, lambda v: dict(dict.items(v))),
    (set, lambda v: set(set.__iter__(v))),
    (frozenset, lambda v: frozenset(frozenset.__iter__(v))),
    (bytes, lambda v: bytes.__getitem__(v, slice(None))),
    (complex, lambda v: complex.__add__(v, 0)),
)


def _encode_unusual(value, kind, handle, depth):
    if kind in _NAMED_KINDS and value in _NAMED_BACK:
        return ["n", _NAMED_BACK[value]]
    if kind in _DATES:
        return ["T", kind.__name__, *_DATES[kind](value)] if getattr(value, "tzinfo", None) is None else _opaque(value)
    if kind is bytearray:
        return ["B", bytes(value).decode("latin-1")]
    if kind is Decimal:
        text = str(value)
        return ["D", text] if len(text) <= MAX_EXACT_CHARS else ["o", "Decimal", True]
    if kind is Fraction:
        text = f"{value.numerator:x}/{value.denominator:x}"
        return ["F", text] if len(text) <= MAX_EXACT_CHARS else ["o", "Fraction", True]
    numpy = sys.modules.get("numpy")
    if numpy is not None and (isinstance(value, numpy.generic) or (kind is numpy.ndarray and value.ndim == 0)):
        item = value.item()
        if type(item) in (bool, int, float, complex, str, bytes):
            return ["y", encode(item)]
    for base, reduce in _BASES:
        if issubclass(kind, base):
            exact = reduce(value)
            return encode(exact, handle, depth) if type(exact) is base else ["o", base.__name__, True]
    if handle is not None:
        return handle(value)
    return _opaque(value)


def _opaque(value):
    try:
        truth = bool(value)
    except Exception:
        truth = True
    return ["o", str(type(value).__name__)[:80], truth]


def decode(node, handle=None, depth=0):
    """Build the value back. Raises WireError for anything malformed; `handle(payload)` resolves handles."""
    kind = type(node)
    if kind is not list:
        if kind is dict:
            raise WireError("a JSON object is not part of the encoding")
        return node
    if not node or type(node[0]) is not str:
        raise WireError("an array without a tag")
    if depth > MAX_DEPTH + 5:
        raise WireError("nested too deeply")
    tag, depth = node[0], depth + 1
    try:
        if tag in _CONTAINERS:
            return _CONTAINERS[tag]([decode(v, handle, depth) for v in node[1:]])
        if tag == "d":
            flat = [decode(v, handle, depth) for v in node[1:]]
            return dict(zip(flat[::2], flat[1::2], strict=True))
        if tag == "y":
            return decode(node[1], handle, depth)
        if tag == "o":
            return Opaque(str(node[1])[:80], node[2] is True)
        if tag == "h" and handle is not None:
            return handle(node[1:])
        return _SCALARS[tag](*node[1:])
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"malformed {tag!r}: {type(error).__name__}") from None


def _fraction(text):
    if len(text) > MAX_EXACT_CHARS:
        raise WireError("fraction too long")
    top, bottom = text.split("/")
    return Fraction(int(top, 16), int(bottom, 16))


def _decimal(text):
    if len(text) > MAX_EXACT_CHARS:
        raise WireError("decimal too long")
    return Decimal(text)


_NAMED = {
    f.__name__: f
    for f in (
        *(bool, bytearray, bytes, complex, dict, float, frozenset, int, list, object, set, str, tuple, type(None)),
        *(abs, all, any, bin, chr, divmod, hex, len, max, min, oct, ord, pow, print, repr, round, sorted, sum),
        *(ArithmeticError, AttributeError, Exception, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError),
    )
}
_NAMED_BACK = {f: name for name, f in _NAMED.items()}
_NAMED_KINDS = (type, type(len))  # their hash and equality are the interpreter's own
_DATES = {
    datetime.date: lambda v: v.timetuple()[:3],
    datetime.time: lambda v: (v.hour, v.minute, v.second, v.microsecond),
    datetime.datetime: lambda v: (*v.timetuple()[:6], v.microsecond),
    datetime.timedelta: lambda v: (v.days, v.seconds, v.microseconds),
}
_DATES_BY_NAME = {kind.__name__: kind for kind in _DATES}
_CONTAINERS = {"l": list, "t": tuple, "s": set, "f": frozenset}
_SCALARS = {
    "i": lambda text: int(text, 16),
    "b": lambda text: text.encode("latin-1"),
    "B": lambda text: bytearray(text.encode("latin-1")),
    "n": lambda name: _NAMED[name],
    "T": lambda name, *numbers: _DATES_BY_NAME[name](*map(int, numbers)),
    "c": lambda real, imag: complex(float(real), float(imag)),
    "D": _decimal,
    "F": _fraction,
}

# What json.dumps and json.loads end in, without the layers of Python above: each child pays for every page it touches.
_chunks = c_make_encoder(None, None, encode_basestring_ascii, None, ":", ",", False, False, True)
_scan = json.JSONDecoder().scan_once


def dumps(node) -> bytes:
    """JSON bytes of an encoded node, on one line, pure ASCII (a lone surrogate survives as an escape)."""
    return "".join(_chunks(node, 0)).encode("ascii")


def loads(data: bytes):
    """Parse bytes from a process that may be hostile. Raises WireError, never anything else."""
    try:
        text = data.decode("ascii")
        node, end = _scan(text, 0)
    except (ValueError, RecursionError, MemoryError, StopIteration) as error:
        raise WireError(f"not JSON: {type(error).__name__}") from None
    if end != len(text):
        raise WireError("not JSON: more than one value")
    return node
