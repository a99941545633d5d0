"""The program as the referee sees it: a process to ask, and stand-ins for the objects that live there.

Data arrives by value. Everything else is a stand-in that knows a number and asks over there: a `Proxy`; for an object
of a subclass of str, int, tuple and the like a *shadow*, which holds the builtin value as well; for an exception class
a class of the same name and bases. Comparisons with data are decided here, from data. What libraries ask an object in
order to read memory, or to take its word for something (array and buffer protocols, `__index__`, pickling), a stand-in
never has: such an attribute would be the program's invention.
"""

import builtins
import sys
from _thread import RLock
from collections import Counter, deque

import wire
from channel import Closed

MAIN = "__main__"  # the module that a test takes itself to be
MAX_SHARED = 512  # lists and the like whose identity is kept, the latest; half of them may be inside others
MAX_INSIDE = 64  # inside one of them
# Items of one that is watched for changes, items looked at in all; and the same for larger ones.
MAX_WATCHED_ITEMS, MAX_WATCHING = (2000, 200_000), (2_000_000, 1_000_000)
_PLAIN_DUNDERS = frozenset(
    [
        "__name__",
        "__qualname__",
        "__doc__",
        "__module__",
        "__dict__",
        "__annotations__",
        "__wrapped__",
        "__slots__",
        "__members__",
        "__match_args__",
        "__dataclass_fields__",
        "__version__",
        "__cause__",
        "__context__",
        "__notes__",
        "__func__",
        "__self__",
        "__defaults__",
    ]
)
_VALUES = (int, str, float, tuple, frozenset, bytes, complex)
_WITH_CONTENT = tuple(base for base, _ in wire.BASES if base not in _VALUES)


_OF_EVERYTHING = ("bool", "hash", "type", "seed", "setstate", "capture")  # tells nothing


_OF_SETS = ["issubset", "issuperset", "isdisjoint", "difference", "intersection", "union", "symmetric_difference"]
_COMPARISONS = {  # methods that compare: what the object is decides, not what its class says
    **dict.fromkeys((set, frozenset), _OF_SETS),
    **dict.fromkeys((str, bytes, bytearray), ["startswith", "endswith", "find"]),
    **dict.fromkeys((list, deque), ["count", "index"]),
}


class Gone(BaseException):
    """The program's process ended, or what it sent is no message."""


class Refused(BaseException):
    """What the judge does not do by design; no error of the program: not what `pytest.raises(TypeError)` expects."""


class Ended(Exception):
    """The program raised, out of a call or a comparison, what would end a loop or a task of the test."""


ENDINGS = ("StopIteration", "StopAsyncIteration", "GeneratorExit", "CancelledError")


class Shared:
    """Mutable values that both sides know by number: one object stays one object, and what changes here or there
    changes there or here with the next message. So do those inside a small one: `f(grid)[0] is grid[0]`."""

    def __init__(self, sign: int):
        self._sign, self._next, self._values, self._numbers, self._nodes = sign, 1, {}, {}, {}
        self._watching, self._let_go, self._borrowed = [*MAX_WATCHING], {}, Counter()
        self._sizes: dict = {}
        self._inside: set | None = None  # ids of those that are being written down, where what is inside has numbers
        self._by_name = False  # what is inside and has a number is not looked at

    def encode(self, value, encode):
        plain, mutable = encode(value), is_mutable(value)
        if not _holds_some(plain) or not self._has_room(value):
            return self._told(value, plain) if mutable else plain
        self._inside = set()
        try:
            return self._written(value, encode) if mutable else encode(value)
        except BaseException:
            self._nodes.clear()  # the other side may never hear of them: all is to be told anew
            raise
        finally:
            self._inside = None

    def inner(self, value, encode):
        """A node for a mutable value inside the one that is being written down; None where that has no number."""
        if self._by_name:
            number = self._number(value)
            return None if number is None else ["h", "=", number]
        if self._inside is None:
            return None
        return ["o", "inside itself", True] if id(value) in self._inside else ["h", *self._written(value, encode)]

    def _written(self, value, encode):
        self._inside.add(id(value))
        node = encode(value)
        self._inside.discard(id(value))
        return self._told(value, node)

    def _told(self, value, node):
        """["=", number], with what the value holds if the other side does not know that yet."""
        number = self._number(value)
        if number is None:
            number, self._next = self._sign * self._next, self._next + 1
            self._keep(number, value)
        settled, news = _settled(node)
        if self._nodes.get(number) == settled and not news:
            return ["=", number]
        self._know(number, settled)
        return ["=", number, node]

    def _has_room(self, value) -> bool:
        """Whether what is inside it has numbers, or may have."""
        return len(self._values) < MAX_SHARED // 2 or bool(_numbers_in(self._nodes.get(self._number(value))))

    def _number(self, value) -> int | None:
        number = self._numbers.get(id(value))
        return number if self._values.get(number) is value else None

    def decode(self, node, decode):
        if type(node) is not list or not node or node[0] != "=":
            return decode(node)
        number = node[1]
        self._take_back(number)
        if len(node) == 2:
            return self._values[number]
        value = decode(node[2])
        if type(known := self._values.get(number)) is type(value) and replace_content(known, value):
            value = known
        else:
            self._keep(number, value)
        self._know(number, _settled(node[2])[0])
        return value

    def _know(self, number, node):
        self._nodes[number], self._sizes[number] = node, _size(node)

    def changed(self, encode) -> list:
        """Nodes of the values that are no longer what the other side knows. One that nobody here holds is looked at
        once more only."""
        found = []
        for number in [one for one in self._let_go if self._is_held(one)]:
            self._take_back(number)
        for number in [one for one in self._values if one not in self._let_go]:
            size = self._sizes.get(number, 1)
            large = size > MAX_WATCHED_ITEMS[0]
            if number not in self._values or size > min(MAX_WATCHED_ITEMS[large], self._watching[large]):
                continue
            self._watching[large] -= size
            value = self._values[number]
            if self._names(value, encode) != self._nodes.get(number) and len(node := self.encode(value, encode)) > 2:
                found.append(node)
            del value
            if number in self._values and not self._is_held(number):
                self._let_go[number] = _numbers_in(self._nodes.get(number))
                self._borrowed.update(self._let_go[number])
        return found

    def _is_held(self, number) -> bool:
        """Whether anything refers to it beside this object and values that nothing refers to."""
        return sys.getrefcount(self._values[number]) > 2 + self._borrowed[number]

    def _names(self, value, encode):
        self._by_name = True
        try:
            return encode(value)
        finally:
            self._by_name = False

    def _take_back(self, number):
        """Somebody holds it, and so all that is inside it."""
        for inner in self._let_go.pop(number, ()):
            self._borrowed[inner] -= 1
            self._take_back(inner)

    def _keep(self, number, value):
        self._values[number], self._numbers[id(value)] = value, number
        if len(self._values) > MAX_SHARED:
            old = next(iter(self._values))
            self._take_back(old)
            self._numbers.pop(id(self._values.pop(old)), None)
            self._nodes.pop(old, None)
            self._sizes.pop(old, None)


def is_mutable(value) -> bool:
    return type(value) in wire.MUTABLE or type(value).__name__ in ("ndarray", "array")


def _size(node) -> int:
    return 1 + sum(map(_size, node)) if type(node) is list else 1


_MUTABLE_TAGS = frozenset("ldsBOCGqN")


def _holds_some(node) -> bool:
    """Whether a value holds mutable ones, and few enough for each to have a number."""
    inside, waiting = 0, [one for one in node if type(one) is list] if type(node) is list else []
    while waiting and inside <= MAX_INSIDE:
        node = waiting.pop()
        inside += bool(node) and type(node[0]) is str and node[0] in _MUTABLE_TAGS
        waiting += [one for one in node if type(one) is list]
    return 0 < inside <= MAX_INSIDE


def _settled(node):
    """(the node of a value whose insides both sides know: by their numbers only, whether it tells of any)"""
    if type(node) is not list:
        return node, False
    if node[:2] == ["h", "="]:
        return node[:3], len(node) > 3
    parts = [_settled(one) for one in node]
    return [part for part, _ in parts], any(news for _, news in parts)


def _numbers_in(node) -> list:
    if type(node) is not list:
        return []
    return [node[2]] if node[:2] == ["h", "="] else [number for one in node for number in _numbers_in(one)]


class Program:
    """The program's process, seen from here."""

    def __init__(self, channel):
        self.channel, self.before_asking, self.asked, self.may_end = channel, None, 0, False
        self.gone, self.refused = False, ""
        self.local, self.raised, self.stand_ins, self.shared = [], [], {}, Shared(-1)
        self._coroutines, self._local_numbers, self._one_at_a_time = {}, {}, RLock()

    def name(self, name: str):
        return self.request("name", name)

    def request(self, what, target, args=(), kwargs=None):
        """Ask the program's process to do something; returns data or a stand-in, raises what the program raised."""
        with self._one_at_a_time:
            if self.before_asking is not None:
                self.before_asking()
            self.asked += what not in ("name", *_OF_EVERYTHING)
            answer = self._request(what, target, args, kwargs or {})
            self.asked += what == "name" and type(answer) is not Proxy
            return answer

    def _request(self, what, target, args, kwargs):
        try:
            changed = self.shared.changed(self._encode_plain)
            nodes = [self._encode(a) for a in args]
            named = [[key, self._encode(value)] for key, value in kwargs.items()]
            self.channel.send([what, target, nodes, named, changed])
            while (message := self.channel.receive())[0] == "ask":
                self.channel.send(self._answer(*message[1:]))
            kind, answer, changed, *printed = message
            for node in changed:
                self.shared.decode(node, self._decode)
            for text in printed:
                sys.stdout.write(text)
            if kind == "x":
                error = self._exception(*answer)
                kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ != MAIN]
                ends = not {*ENDINGS}.isdisjoint(kinds) and what not in ("next", "anext")
                if ends and not self.may_end:  # out of a call or a comparison it would end the test's own `map`
                    raise Ended(f"the program raised {type(error).__name__}") from error
                raise error
            return self.shared.decode(answer, self._decode)
        except (Closed, wire.WireError, IndexError, TypeError, KeyError, AttributeError, ValueError) as error:
            if hasattr(error, "from_program"):
                raise
            self.gone = True  # whatever the test catches: this process has no more to say
            raise Gone from None

    def _encode(self, value):
        return self.shared.encode(value, self._encode_plain)

    def _encode_plain(self, value):
        return wire.encode(value, self._handle)

    def _handle(self, value):
        if type(value) in wire.MUTABLE:
            return self.shared.inner(value, self._encode_plain)
        number = stand_in_number(value)
        if number is None and id(value) in self._coroutines:
            number = self._coroutines[id(value)][1]
        if number is not None:
            return ["h", "program", number]
        base, exact = wire.reduce(value)
        if base is not None and type(exact) is not type(value):
            return None  # of a class of the test that is derived from a builtin: passed on as the builtin value
        if id(value) not in self._local_numbers:
            self.local.append(value)
            self._local_numbers[id(value)] = len(self.local) - 1
        return ["h", "referee", self._local_numbers[id(value)]]

    def _decode(self, node):
        return wire.decode(node, self._resolve)

    def _resolve(self, payload):
        if payload[0] == "=":
            return self.shared.decode(payload, self._decode)
        if payload[0] == "referee":
            return self.local[payload[1]]
        _, index, name, kind, *rest = payload
        if index not in self.stand_ins:
            made = self._stand_in(index, str(name)[:80], kind, *rest)
            if kind == "coroutine":
                return made
            self.stand_ins[index] = made
        return self.stand_ins[index]

    def _stand_in(self, index, name, kind, *rest):
        if kind == "exception":
            return self._exception_class(index, name, *rest)
        if kind == "coroutine":
            made = self._await(index)
            self._coroutines[id(made)] = made, index
            return made
        if kind == "value":
            content = self._decode(rest[1])
            base = next(b for b in _VALUES if b.__name__ == rest[0] and type(content) is b)
            made = base.__new__(_SHADOWS[base], content)
            for slot, value in (("_program", self), ("_index", index), ("_own_eq", rest[2] is True)):
                base.__setattr__(made, slot, value)
            return made
        return Proxy(self, index, name, _known_base(rest[0] if rest else None))

    async def _await(self, index):
        return self.request("await", index)

    def _exception_class(self, index, name, module, bases):
        known = _exception_of_python(str(module), name)
        if _is_exception(known):
            return known
        found = tuple(base for node in bases if _is_exception(base := self._decode(node))) or (Exception,)
        try:
            made = type(name, found, {"__getattr__": _of_error, "__str__": _text_of_error, "__module__": MAIN})
        except TypeError:
            made = type(name, found[:1], {"__module__": MAIN})
        made._program_index = index
        return made

    def _exception(self, node, args, text, attributes, index, token=None, cause=None):
        if token is not None:
            error = self.raised[token]  # the test's own, on its way back through the program
            error.from_program = True
            return error
        kind = self._decode(node)
        try:
            if not _is_exception(kind):
                raise TypeError
            error = _made(kind, [self._decode(a) for a in args])
        except Exception:
            error = RuntimeError(str(text)[:200])
        for name, value in attributes:
            if name.isidentifier() and not name.startswith("__"):
                error.__dict__[name] = self._decode(value)
        error.__dict__.update(from_program=self, program_text=str(text), program_number=index)
        if cause is not None:
            error.__cause__ = self._exception(*cause)
        return error

    def _answer(self, what, index, args, kwargs):
        """The program asks about an object of the test that was passed to it: call it, iterate it, read its data."""
        try:
            value = self.local[index]
            args = [self.shared.decode(a, self._decode) for a in args]
            if what == "call":
                result = value(*args, **{key: self.shared.decode(node, self._decode) for key, node in kwargs})
            elif what in ("bool", "iter", "next"):
                result = {"bool": bool, "iter": iter, "next": next}[what](value)
            elif what == "setattr" and type(value).__module__ == "unittest.mock":
                raise AttributeError("a mock keeps what the test has made it")
            elif what in ("getattr", "setattr") and _is_plain_attribute(value, args[0]):
                result = (getattr if what == "getattr" else setattr)(value, *args)
            elif what.startswith("__") and _defined_by_test(value, what):
                result = getattr(type(value), what)(value, *args)
            else:
                raise AttributeError("not visible to the program")
            return ["v", self._encode(result)]
        except Exception as error:
            self.raised.append(error)
            name = next(c.__name__ for c in type(error).__mro__ if hasattr(builtins, c.__name__))
            number = getattr(error, "program_number", None)
            return ["x", name, [str(error)[:200]], len(self.raised) - 1, number]


def _exception_of_python(module: str, name: str):
    """The exception class of that name if it belongs to the standard library or numpy; None for others.

    Nothing is imported on the program's word: `unittest.__main__` would run what the program has left in a file. And
    none of unittest's, which tell it to skip the rest of a test.
    """
    root = module.partition(".")[0]
    if root not in sys.stdlib_module_names | {"numpy"} or root == "unittest":
        return None
    kind = vars(sys.modules.get(module) or builtins).get(name)  # not getattr, for which some modules import others
    return kind if getattr(kind, "__module__", "") == module else None  # numpy.testing has unittest's SkipTest, too


def _known_base(name):
    """The builtin class of a name, for `isinstance`; None for others."""
    kind = next((c for c in _WITH_CONTENT if c.__name__ == name), getattr(builtins, str(name), None))
    return kind if kind in _WITH_CONTENT or _is_exception(kind) else None


def _made(kind, args):
    try:
        return kind(*args)
    except TypeError:  # its initialiser takes something else than what the exception keeps
        error = kind.__new__(kind, *args)
        error.args = tuple(args)
        return error


def _is_exception(kind) -> bool:
    return type(kind) is type and issubclass(kind, BaseException)


def _is_plain_attribute(value, name) -> bool:
    """Data attributes of objects whose class the test defined, and what a function or class is called; never the way
    into frames, globals or classes."""
    if not isinstance(name, str):
        return False
    if hasattr(value, "__name__") and name in ("__name__", "__qualname__", "__doc__", "__module__"):
        return isinstance(getattr(value, name), str)
    of_test = type(value).__module__ == MAIN or (isinstance(value, type) and value.__module__ == MAIN)
    if type(value).__module__ == "unittest.mock":
        return not name.startswith("_") and name not in _OF_MOCKS
    return (of_test or type(value).__name__ in _ARGUMENTS) and not name.startswith("_")


_ARGUMENTS = ("Random", "Generator", "RandomState", "StringIO", "BytesIO", "Pattern", "Match")  # all methods harmless
_OF_MOCKS = ("configure_mock", "reset_mock", "attach_mock", "mock_add_spec")  # change what the mock has recorded


def _defined_by_test(value, name) -> bool:
    owner = next((kind for kind in type(value).__mro__ if name in vars(kind)), object)
    return owner.__module__ == MAIN and not isinstance(value, type)


def replace_content(old, new) -> bool:
    """Make `old` equal to `new`, which is of its type, in place; False where that cannot be."""
    if isinstance(old, (list, bytearray)) or (type(old).__name__ == "array" and old.typecode == new.typecode):
        old[:] = new
    elif isinstance(old, (dict, set)):
        old.clear()
        old.update(new)
    elif isinstance(old, deque):
        old.clear()
        old.extend(new)
    elif type(old).__name__ == "SimpleNamespace":
        vars(old).clear()
        vars(old).update(vars(new))
    elif type(old).__name__ == "ndarray" and old.shape == new.shape and old.dtype == new.dtype:
        old[...] = new
    else:
        return False
    return True


def _of_error(error, name):
    """Attributes of an exception of the program that did not come with it."""
    program = error.__dict__.get("from_program")
    if program is None or not _may_ask(name):
        raise AttributeError(f"{type(error).__name__!r} object has no attribute {name!r}")
    return program.request("getattr", error.__dict__["program_number"], (name,))


def _text_of_error(error):
    text = error.__dict__.get("program_text")
    return super(type(error), error).__str__() if text is None else text


def _may_ask(name: str) -> bool:
    """Whether the program is asked for an attribute: not for what libraries believe unseen, and not by numpy, whose
    functions would take the program's word for a size or a result."""
    if sys._getframe(2).f_globals.get("__name__", "").partition(".")[0] == "numpy":
        return False
    return name in _PLAIN_DUNDERS or not (name.startswith("__") or name == "_as_parameter_")


def refuse(value, why: str):
    """Raise Refused; a test that catches it has not been passed either."""
    object.__getattribute__(value, "_program").refused = why
    raise Refused(why)


def stand_in_number(value):
    """The number of the program's object behind a stand-in; None for anything else."""
    kind = type(value)
    if kind is Proxy or kind in _SHADOW_CLASSES:
        return object.__getattribute__(value, "_index")
    if isinstance(value, type):
        return vars(value).get("_program_index")
    return value.__dict__.get("program_number") if isinstance(value, BaseException) else None


def is_stand_in(value) -> bool:
    return type(value) is Proxy or type(value) in _SHADOW_CLASSES


def ask(value, what, /, *args, **kwargs):
    """Ask the program about the object behind a Proxy or a shadow."""
    get = object.__getattribute__
    return get(value, "_program").request(what, get(value, "_index"), args, kwargs)


def content(value):
    """`value`, or the builtin value of a Proxy for a list, dict and the like, read with the builtin's own methods."""
    if type(value) is Proxy and object.__getattribute__(value, "_base") in _WITH_CONTENT:
        found = ask(value, "content")
        return found if stand_in_number(found) is None else value
    return value


class Proxy:
    """An object of the program that is not data. It equals no data, unless it is a list, dict or the like itself."""

    __slots__ = ("_program", "_index", "_name", "_base")

    def __init__(self, program, index, name, base=None):
        for slot, value in (("_program", program), ("_index", index), ("_name", name), ("_base", base)):
            object.__setattr__(self, slot, value)

    @property
    def __class__(self):
        return object.__getattribute__(self, "_base") or Proxy

    def __call__(self, /, *args, **kwargs):
        return ask(self, "call", *args, **kwargs)

    def __getattr__(self, name):
        if not _may_ask(name):
            raise AttributeError(f"{name} of an object of the program is not asked for")
        if name in _COMPARISONS.get(self.__class__, ()) and (own := content(self)) is not self:
            return getattr(own, name)
        return ask(self, "getattr", name)

    def __setattr__(self, name, value):
        ask(self, "setattr", name, value)

    def __delattr__(self, name):
        ask(self, "delattr", name)

    def __eq__(self, other):
        if is_stand_in(other):
            return bool(ask(self, "eq", other))
        return (mine := content(self)) is not self and bool(mine == other)

    def __ne__(self, other):
        if is_stand_in(other):
            return bool(ask(self, "ne", other))
        return (mine := content(self)) is self or bool(mine != other)

    def __contains__(self, item):
        if is_stand_in(item):
            return bool(ask(self, "contains", item))
        if (mine := content(self)) is not self:
            return item in mine
        return any(item is other or item == other for other in self)

    def __instancecheck__(self, instance):
        return stand_in_number(instance) is not None and bool(ask(self, "isinstance", instance))

    def __subclasscheck__(self, kind):
        return stand_in_number(kind) is not None and bool(ask(self, "issubclass", kind))

    def __enter__(self):
        return ask(self, "enter")

    def __exit__(self, kind, error, traceback):
        if kind is None or stand_in_number(error) is not None:
            return bool(ask(self, "exit", *([error] if error else [])))
        if not issubclass(kind, Exception) or issubclass(kind, AssertionError):
            return bool(ask(self, "exit")) and False
        return bool(ask(self, "exit", kind))  # a test's own error: its class is all that the program needs to know

    async def __aenter__(self):
        return ask(self, "aenter")

    async def __aexit__(self, kind, error, traceback):
        return bool(ask(self, "aexit"))

    def __aiter__(self):
        return ask(self, "aiter")

    async def __anext__(self):
        return ask(self, "anext")

    def __copy__(self):
        return ask(self, "copy")

    def __deepcopy__(self, memo):
        return ask(self, "deepcopy")

    def __reduce_ex__(self, protocol):
        refuse(self, "an object of the program cannot be pickled by the test")

    def __mro_entries__(self, bases):
        refuse(self, "in the judge a test cannot derive a class from a class of the program")

    def __dir__(self):
        return ask(self, "dir")


for _name in ("__doc__", "__module__"):  # which `__getattr__` never hears of
    setattr(Proxy, _name, property(lambda self, _name=_name: ask(self, "getattr", _name)))


def _forward(name, operation):
    def method(self, *args):
        return ask(self, operation, *args)

    method.__name__ = name
    setattr(Proxy, name, method)


def _forward_between(name, operation, finish=lambda result: result):
    """Operators whose other side may be the expected value: asked over there only if that side is the program's too.
    With data on the other side, what a list, dict and the like *is* decides, here."""

    def method(self, other):
        if is_stand_in(other) and operation is not None:
            return finish(ask(self, operation, other))
        own = content(self)
        if own is self and type(other).__module__ != MAIN:  # an object of the test may have an operator for it
            refuse(self, f"in the judge {name} of an object of the program does not see data")
        if own is self or not hasattr(type(own), name):
            return NotImplemented
        return getattr(own, name)(other)

    setattr(Proxy, name, method)


def _in_place(name):
    """`xs += [1]` and `d |= {}` of a list, dict and the like are done where it lives; all else is arithmetic."""

    def method(self, other):
        adds = name in ("__iadd__", "__ior__") and self.__class__ in wire.MUTABLE and type(other) in wire.MUTABLE
        return ask(self, name, other) if adds or is_stand_in(other) else NotImplemented

    return method


_ARITHMETIC = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
)
_ORDER = ("lt", "le", "gt", "ge")
_UNARY = ("neg", "pos", "abs", "invert", "round")
for _name in ("len", "str", "repr", "bool", "hash", "int", "float", "iter", "next", "round", "format", "reversed"):
    _forward(f"__{_name}__", _name)
for _name in ("neg", "pos", "abs", "invert", "getitem", "setitem", "delitem"):
    _forward(f"__{_name}__", _name)
for _name in _ARITHMETIC:
    _forward_between(f"__{_name}__", f"__{_name}__")
    _forward_between(f"__r{_name}__", None)
    setattr(Proxy, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in _ORDER:
    _forward_between(f"__{_name}__", _name, bool)


def _shadow(base):
    """A subclass of `base` for objects of the program's own subclasses of it."""

    def getattribute(self, name):
        if (name.startswith("__") and hasattr(base, name)) or name in _COMPARISONS.get(base, ()):
            return base.__getattribute__(self, name)
        if not _may_ask(name):
            raise AttributeError(name)
        return ask(self, "getattr", name)

    def eq(self, other):
        if is_stand_in(other) and object.__getattribute__(self, "_own_eq"):
            return bool(ask(self, "eq", other))
        return base.__eq__(self, other)

    def ne(self, other):
        return NotImplemented if (same := eq(self, other)) is NotImplemented else not same

    def between(name):
        def method(self, other):
            if is_stand_in(other):
                return ask(self, name, other)
            return getattr(base, name)(self, other) if hasattr(base, name) else NotImplemented

        return method

    def forward(operation):
        return lambda self, *args: ask(self, operation, *args)

    body = {"__getattribute__": getattribute, "__eq__": eq, "__ne__": ne, "__hash__": base.__hash__}
    body |= {f"__{name}__": between(f"__{name}__") for name in _ARITHMETIC}
    body |= {f"__{name}__": forward(name) for name in (*_UNARY, "str", "repr", "format")}
    body |= {"__call__": lambda self, /, *args, **kwargs: ask(self, "call", *args, **kwargs)}
    body |= {"__reduce_ex__": Proxy.__reduce_ex__, "__copy__": lambda self: self, "__deepcopy__": lambda self, _: self}
    return type(base.__name__, (base,), body)


_SHADOWS = {base: _shadow(base) for base in _VALUES}
_SHADOW_CLASSES = frozenset(_SHADOWS.values())
