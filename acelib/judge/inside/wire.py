"""The only language that crosses the sandbox wall: plain data as tagged JSON.

None, booleans, strings, floats and integers below 2**63 are JSON's own. Everything else is a JSON array that starts
with a tag: list, tuple, set, frozenset, dict (a flat row of keys and values), the containers of `collections`, bytes,
big integers, complex numbers, decimals, fractions, ranges, dates, paths, arrays (also numpy's), and, by name from a
fixed table, builtin types and functions. An object of a program's own subclass of a builtin is reduced to the builtin
value with the *base class's* methods, so nothing a program defines takes part, and marked as reduced; any other object
becomes `Opaque`, which equals nothing. Decoding builds such values only: no import beyond numpy and modules of value
types, no attribute access, no code.
"""

import builtins
import datetime
import json
import re
import sys
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from json.encoder import c_make_encoder, encode_basestring_ascii
from operator import is_
from types import MappingProxyType, SimpleNamespace

BIG = 1 << 63
MAX_DEPTH = 150
MAX_EXACT_CHARS = 1000  # decimals and fractions beyond this are opaque: their arithmetic may be quadratic
MAX_RANGE = 1_000_000  # longer ranges are opaque where no limits hold
MAX_TEXT = 10_000  # of a path
MAX_ITEMS = 1 << 24  # of an array


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
    """Turn a value into the JSON form.

    `handle(value)` may claim what is not exactly data, objects of subclasses included; where it returns None, or there
    is none, such an object is reduced to its builtin base or opaque.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if -BIG < value < BIG else ["i", hex(value)]
    if depth > MAX_DEPTH:
        return ["o", "nested too deeply", True]
    if depth and handle is not None and kind in MUTABLE and (node := handle(value)) is not None:
        return node  # known to both sides by number
    depth += 1
    if kind is list:
        return ["l", *[encode(v, handle, depth) for v in value]]
    if kind is tuple:
        return ["t", *[encode(v, handle, depth) for v in value]]
    if kind is dict:
        return ["d", *[encode(v, handle, depth) for pair in value.items() for v in pair]]
    if kind is set:
        return ["s", *[encode(v, handle, depth) for v in value]]
    if kind is frozenset:
        return ["f", *[encode(v, handle, depth) for v in value]]
    if kind is bytes:
        return ["b", value.decode("latin-1")]
    if kind is complex:
        return ["c", value.real, value.imag]
    return _encode_unusual(value, kind, handle, depth)


_VIEWS = {type(getattr({}, name)()): name for name in ("keys", "values", "items")}


def _encode_unusual(value, kind, handle, depth):
    if kind in _NAMED_KINDS and value in _NAMED_BACK:
        return ["n", _NAMED_BACK[value]]
    if kind in _COLLECTIONS:
        return _encode_collection(value, kind, handle, depth)
    if kind in _VIEWS and (handle is not None or _VIEWS[kind] != "values"):
        nodes = [encode(v, handle, depth) for v in value]
        return ["u", kind.__name__, ["s", *nodes]] if handle is None else ["V", _VIEWS[kind], *nodes]
    if kind in _DATES:
        zone = _zone(getattr(value, "tzinfo", None), handle)
        if zone is not None:
            return ["T", kind.__name__, *_DATES[kind](value), *zone]
    elif kind is datetime.timezone:
        return _zone(value, handle)[0]
    elif kind is range:
        if handle is not None or value[:MAX_RANGE] == value:
            return ["r", *[encode(part) for part in (value.start, value.stop, value.step)]]
    elif kind is bytearray:
        return ["B", bytes(value).decode("latin-1")]
    elif kind is Decimal:
        text = str(value)
        return ["D", text] if len(text) <= MAX_EXACT_CHARS else ["o", "Decimal", True]
    elif kind is Fraction:
        text = f"{value.numerator:x}/{value.denominator:x}"
        return ["F", text] if len(text) <= MAX_EXACT_CHARS else ["o", "Fraction", True]
    elif (node := _encode_loaded(value, kind, handle, depth)) is not None:
        return node
    if handle is not None and (node := handle(value)) is not None:
        return node
    base, exact = reduce(value)
    if base is None:
        return _opaque(value)
    if type(exact) is kind:
        return _opaque(value)
    node = encode(exact, handle, depth)
    return node if handle is not None else ["u", str(kind.__name__)[:80], node]


def _encode_collection(value, kind, handle, depth):
    mapping = vars(value) if kind is SimpleNamespace else value
    items = value if kind is deque else [part for pair in mapping.items() for part in pair]
    nodes = [encode(item, handle, depth) for item in items]
    if kind is defaultdict:
        factory = value.default_factory
        if handle is None and factory is not None and not _is_named(factory):
            return ["u", "defaultdict", ["d", *nodes]]
        return ["G", encode(factory, handle, depth), *nodes]
    return [_COLLECTIONS[kind], value.maxlen, *nodes] if kind is deque else [_COLLECTIONS[kind], *nodes]


def _is_named(value) -> bool:
    return type(value) in _NAMED_KINDS and value in _NAMED_BACK


def _zone(zone, handle):
    """Nodes for a time zone: none for None, None where it is not data."""
    if zone is None:
        return []
    if type(zone).__name__ == "ZoneInfo" and handle is not None:  # a file, which is only read where limits hold
        return [["Z", zone.key]]
    if type(zone) is not datetime.timezone:
        return None
    offset, name = zone.utcoffset(None), zone.tzname(None)
    return [["z", offset.days, offset.seconds, offset.microseconds, name]]


def _encode_loaded(value, kind, handle, depth):
    """Values of modules that are only looked at where the program has loaded them; None for others."""
    name = kind.__name__
    if name == "array" and (module := sys.modules.get("array")) and kind is module.array:
        return ["A", value.typecode, *[encode(item) for item in value]]
    if name in BY_TEXT and (module := sys.modules.get(BY_TEXT[name])) and kind is getattr(module, name, None):
        return ["P", name, str(value)]
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "generic"):
        return None
    if kind is numpy.ndarray:
        if value.dtype.hasobject and value.dtype.kind == "O":
            return ["a", "|O", list(value.shape), *[encode(item, handle, depth) for item in value.ravel().tolist()]]
        if (dtype := _dtype_node(value.dtype)) is not None:
            return ["a", dtype, list(value.shape), value.tobytes().hex()]
    elif isinstance(value, numpy.dtype):
        return None if (dtype := _dtype_node(value)) is None else ["a", dtype, "dtype"]
    elif isinstance(value, numpy.generic) and kind in numpy.sctypeDict.values() and DTYPE.fullmatch(value.dtype.str):
        if type(item := value.item()) in (bool, int, float, str) and not (
            type(item) is float and kind.__name__ != "float64"
        ):
            return ["y", encode(item), value.dtype.str]
        return ["a", value.dtype.str, None, value.tobytes().hex()]
    return None


def _dtype_node(dtype):
    """The name of a plain dtype, or the fields of a structured one; None for others."""
    fields = [list(field) for field in dtype.descr]
    plain = all(len(field) == 2 and type(field[1]) is str and DTYPE.fullmatch(field[1]) for field in fields)
    return (fields if dtype.names else dtype.str) if plain else None


BASES = (  # the base class's own methods, so that an override in a subclass is never asked
    (int, lambda v: int.__add__(v, 0)),
    (str, lambda v: str.__getitem__(v, slice(None))),
    (float, lambda v: float.__add__(v, 0.0) if float.__ne__(v, 0.0) else float.fromhex(float.hex(v))),
    (list, lambda v: list(list.__iter__(v))),
    (tuple, lambda v: tuple(tuple.__iter__(v))),
    (OrderedDict, lambda v: OrderedDict(OrderedDict.items(v))),
    (Counter, lambda v: Counter(dict(dict.items(v)))),
    (defaultdict, lambda v: defaultdict(None, dict.items(v))),
    (dict, lambda v: dict(dict.items(v))),
    (set, lambda v: set(set.__iter__(v))),
    (frozenset, lambda v: frozenset(frozenset.__iter__(v))),
    (bytes, lambda v: bytes.__getitem__(v, slice(None))),
    (bytearray, lambda v: bytearray(bytes(bytearray.__getitem__(v, slice(None))))),
    (deque, lambda v: deque(deque.__iter__(v), deque.maxlen.__get__(v))),
    (complex, lambda v: complex.__add__(v, 0)),
    (Decimal, Decimal),
    (Fraction, lambda v: Fraction(v._numerator, v._denominator)),
    *((kind, lambda v, kind=kind: kind(*kind.__reduce__(v)[1])) for kind in (datetime.datetime, datetime.date)),
    *((kind, lambda v, kind=kind: kind(*kind.__reduce__(v)[1])) for kind in (datetime.time, datetime.timedelta)),
    *((kind, lambda v: v.data.copy()) for kind in (UserDict, UserList)),
    (UserString, lambda v: v.data),
    (ChainMap, dict),
    (MappingProxyType, lambda v: v.copy()),
    (memoryview, lambda v: v.tobytes() if v.format == "B" and v.ndim == 1 else v),
)


def reduce(value):
    """(base class, value that equals what it does) of an object of a subclass of a builtin or a value type, or of a
    wrapper of one; (None, None) for others."""
    for base, exact in BASES:
        if issubclass(type(value), base):
            return base, exact(value)
    return None, None


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
        if tag == "q":
            return deque([decode(v, handle, depth) for v in node[2:]], node[1])
        if tag in _MAPPINGS:
            first = 2 if tag == "G" else 1
            flat = [decode(v, handle, depth) for v in node[first:]]
            mapping = dict(zip(flat[::2], flat[1::2], strict=True))
            return _MAPPINGS[tag](mapping) if tag != "G" else defaultdict(decode(node[1], handle, depth), mapping)
        if tag == "r":
            return _range([decode(v) for v in node[1:]], handle)
        if tag == "V":
            return _view(node[1], [decode(v, handle, depth) for v in node[2:]])
        if tag == "Z" and handle is not None:
            return import_module("zoneinfo").ZoneInfo(node[1])
        if tag == "y":
            return decode(node[1]) if handle is None else _numpy_scalar(node[2], decode(node[1]))
        if tag == "a":
            return _array(node[1], node[2], node[3:], handle, depth)
        if tag == "u":
            return decode(node[2], handle, depth)
        if tag == "T":
            numbers = [part for part in node[2:] if type(part) is int]
            zone = [decode(part, handle) for part in node[2:] if type(part) is list]
            fold = {"fold": numbers.pop()} if node[1] in ("time", "datetime") else {}
            return _DATES_BY_NAME[node[1]](*numbers, *zone, **fold)
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


def _range(parts, handle):
    value = range(*parts)
    if handle is None and len(value) > MAX_RANGE:
        raise WireError("range too long")
    return value


def _view(name, items):
    """A dictionary's keys, values or items, in their order."""
    if name == "values":
        return dict(enumerate(items)).values()
    return dict(items).items() if name == "items" else dict.fromkeys(items).keys()


def _by_text(name, text):
    if name not in BY_TEXT or type(text) is not str or len(text) > MAX_TEXT:
        raise WireError("not a path, an address or an id")
    return getattr(import_module(BY_TEXT[name]), name)(text)


def _typed_array(typecode, *items):
    return import_module("array").array(typecode, [decode(item) for item in items])


def _numpy_scalar(dtype, value):
    numpy = import_module("numpy")
    if not DTYPE.fullmatch(dtype) or type(value) not in (bool, int, float, str):
        raise WireError("not a number")
    return numpy.dtype(dtype).type(value)


def _array(dtype, shape, rest, handle, depth):
    """An array, copied out of the message; never anything that its sender's memory holds."""
    if handle is None:  # only a process with limits builds arrays
        raise WireError("an array")
    numpy = import_module("numpy")
    sizes = shape if type(shape) is list else []
    if not all(type(n) is int and 0 <= n <= MAX_ITEMS for n in sizes):
        raise WireError("not a shape")
    if dtype == "|O":
        made = numpy.empty(len(rest), dtype=object)
        for i, node in enumerate(rest):
            made[i] = decode(node, handle, depth)
        return made.reshape(sizes)
    fields = dtype if type(dtype) is list else [["", dtype]]
    if not all(type(name) is str and DTYPE.fullmatch(one) for name, one in fields):
        raise WireError("not a dtype")
    dtype = numpy.dtype([(name, one) for name, one in fields] if fields is dtype else dtype)
    if shape == "dtype":
        return dtype
    made = numpy.frombuffer(bytes.fromhex(rest[0]), dtype=dtype).copy()
    return made.reshape(sizes) if shape is not None else made[0]


DTYPE = re.compile(r"[<>|=](?:[biufcmM]\d+(?:\[\d*\w+\])?|[SU][1-9]\d{0,6})")
BY_TEXT = dict.fromkeys(("PurePosixPath", "PosixPath", "PureWindowsPath"), "pathlib") | {"UUID": "uuid"}
BY_TEXT |= dict.fromkeys(("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"), "ipaddress")
_FUNCTIONS = (abs, all, any, bin, chr, divmod, hex, len, max, min, oct, ord, pow, print, repr, round, sorted, sum)
_NAMED = {
    **{name: kind for name, kind in vars(builtins).items() if type(kind) is type and kind.__name__ == name},
    **{f.__name__: f for f in (*_FUNCTIONS, type(None), Counter, OrderedDict, defaultdict, deque, Decimal)},
    **{kind.__name__: kind for kind in (datetime.date, datetime.time, datetime.datetime, datetime.timedelta)},
    **{"Ellipsis": Ellipsis, "NotImplemented": NotImplemented},
}
_NAMED_BACK = {f: name for name, f in _NAMED.items()}
_NAMED_KINDS = (type, type(len), type(Ellipsis), type(NotImplemented))  # their hash and equality are the interpreter's
_COLLECTIONS = {OrderedDict: "O", Counter: "C", defaultdict: "G", deque: "q", SimpleNamespace: "N"}
_MAPPINGS = {"O": OrderedDict, "C": Counter, "G": defaultdict, "N": lambda mapping: SimpleNamespace(**mapping)}
MUTABLE = (list, dict, set, bytearray, *_COLLECTIONS)
_DATES = {
    datetime.date: lambda v: v.timetuple()[:3],
    datetime.time: lambda v: (v.hour, v.minute, v.second, v.microsecond, v.fold),
    datetime.datetime: lambda v: (*v.timetuple()[:6], v.microsecond, v.fold),
    datetime.timedelta: lambda v: (v.days, v.seconds, v.microseconds),
}
_DATES_BY_NAME = {kind.__name__: kind for kind in _DATES}


def _in_order(kind, items):
    """A set whose elements come in the order of `items`; where hashes collide, who came first decides."""
    made = kind(items)
    return made if len(made) < 2 or all(map(is_, made, items)) else kind(reversed(items))


_CONTAINERS = {"l": list, "t": tuple, "s": lambda v: _in_order(set, v), "f": lambda v: _in_order(frozenset, v)}
_SCALARS = {
    "i": lambda text: int(text, 16),
    "b": lambda text: text.encode("latin-1"),
    "B": lambda text: bytearray(text.encode("latin-1")),
    "n": lambda name: _NAMED[name],
    "z": lambda days, seconds, micro, name: datetime.timezone(datetime.timedelta(days, seconds, micro), name),
    "P": _by_text,
    "A": _typed_array,
    "c": lambda real, imag: complex(float(real), float(imag)),
    "D": _decimal,
    "F": _fraction,
}

# What json.dumps and json.loads end in, without the layers of Python above: each child pays for every page it touches.
_chunks = c_make_encoder(None, None, encode_basestring_ascii, None, ":", ",", False, False, True)
_scan = json.JSONDecoder(parse_constant=float).scan_once  # each NaN an object of its own, as two calls give


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
