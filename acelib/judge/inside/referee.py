"""The referee: runs tests that are more than a comparison of plain data.

It is a second sandboxed process. It holds the test, the program's process holds the program, and between them travel
only messages: plain data by value, everything else as a proxy. No object of the program is ever in this process, so
an object that claims to equal everything is, here, a proxy that equals no data.
"""

import ast
import builtins
import importlib
import os
import sys
import warnings

import wire
from channel import Channel, Closed
from names import KNOWN, MODULES, program_names


class Gone(BaseException):
    """The program's process ended."""


def run_job(fd: int, candidate: int) -> None:
    """Read tests from the memory file `fd`, run each against the program behind `candidate`, append one line each."""
    sys.modules["pytest"] = Pytest
    tests = wire.loads(os.pread(fd, os.lseek(fd, 0, os.SEEK_END), 0))["tests"]
    program = Program(Channel(candidate))
    try:
        status = program.channel.receive()
    except (Closed, wire.WireError):
        return
    os.write(fd, wire.dumps(status) + b"\n")
    for test in tests if status == "ok" else ():
        try:
            verdict = _run_test(test, program)
        except Gone:
            return
        os.write(fd, wire.dumps(verdict) + b"\n")


def _run_test(test: str, program):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(test)
        code = compile(tree, "<test>", "exec")
    try:
        namespace = {"__name__": "test"}
        names = program_names(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in names and not hasattr(builtins, node.id):
                _bind_real(node.id, namespace)
        for name in names:
            namespace[name] = program.name(name)
        exec(code, namespace)
    except MemoryError:
        return ["x", "memory", "MemoryError"]
    except AssertionError as error:
        if not getattr(error, "from_program", False):
            return ["x", "failed", f"the assertion does not hold{_said(error)}"]
        return ["x", "error", f"AssertionError in the program{_said(error)}"]
    except Gone:
        raise
    except BaseException as error:
        return ["x", "error", f"{type(error).__name__}{_said(error)}"]
    return True


def _said(error) -> str:
    text = str(error)[:160].encode("ascii", "backslashreplace").decode("ascii")
    return f": {text}" if text else ""


def _bind_real(name: str, namespace: dict) -> None:
    if name in KNOWN:
        namespace[name] = getattr(importlib.import_module(KNOWN[name]), name)
    elif name == "pytest":
        namespace[name] = Pytest
    elif name in MODULES:
        namespace[name] = importlib.import_module("numpy" if name == "np" else name)


class Pytest:
    """Stands in for the one thing of pytest that tests in data sets use."""

    class raises:
        def __init__(self, expected, match=None):
            self.expected, self.match = expected, match

        def __enter__(self):
            return self

        def __exit__(self, kind, error, _):
            if kind is None:
                raise AssertionError(f"no {self.expected} was raised")
            self.value = error
            return issubclass(kind, self.expected)


class Program:
    """The program's process, seen from here."""

    def __init__(self, channel):
        self.channel, self.local, self.exceptions = channel, [], {}

    def name(self, name: str):
        return self.request("name", name)

    def request(self, what, target, args=(), kwargs=None):
        """Ask the program's process to do something; returns data or a Proxy, raises what the program raised."""
        try:
            self.channel.send([what, target, [self._encode(a) for a in args], self._named(kwargs or {})])
            while (message := self.channel.receive())[0] == "ask":
                self.channel.send(self._answer(*message[1:]))
            if message[0] == "x":
                raise self._exception(*message[1:])
            for index, node in message[2]:
                _replace_content(args[index], self._decode(node))
            return self._decode(message[1])
        except (Closed, wire.WireError, IndexError, TypeError, KeyError) as error:
            if getattr(error, "from_program", False):
                raise
            raise Gone from None

    def _named(self, kwargs):
        return [[key, self._encode(value)] for key, value in kwargs.items()]

    def _encode(self, value):
        return wire.encode(value, self._handle)

    def _handle(self, value):
        if type(value) is Proxy:
            return ["h", "program", _index(value)]
        if isinstance(value, type) and value in self.exceptions.values():
            return ["h", "program", next(i for i, kind in self.exceptions.items() if kind is value)]
        self.local.append(value)
        return ["h", "referee", len(self.local) - 1]

    def _decode(self, node):
        return wire.decode(node, self._resolve)

    def _resolve(self, payload):
        if payload[0] == "referee":
            return self.local[payload[1]]
        _, index, name, bases = payload
        if "BaseException" in bases:
            return self._exception_class(index, bases)
        return Proxy(self, index, str(name)[:80])

    def _exception_class(self, index, bases):
        base = next(b for name in bases if _is_exception(b := getattr(builtins, str(name), None)))
        if base.__name__ == bases[0]:
            return base
        if index not in self.exceptions:
            known = next((c for c in self.exceptions.values() if c.__name__ == bases[0]), None)
            self.exceptions[index] = known or type(str(bases[0]), (base,), {})
        return self.exceptions[index]

    def _exception(self, index, bases, args, text):
        kind = self._exception_class(index, bases)
        try:
            error = kind(*[self._decode(a) for a in args])
        except Exception:
            error = RuntimeError(str(text)[:200])
        error.from_program = True
        return error

    def _answer(self, what, index, args, kwargs):
        """The program asks about an object of the test that was passed to it: call it, iterate it, read its data."""
        try:
            value = self.local[index]
            args = [self._decode(a) for a in args]
            if what == "call":
                result = value(*args, **{key: self._decode(node) for key, node in kwargs})
            elif what in ("iter", "next"):
                result = (iter if what == "iter" else next)(value)
            elif what in ("getattr", "setattr") and _is_plain_attribute(value, args[0]):
                result = (getattr if what == "getattr" else setattr)(value, *args)
            else:
                raise AttributeError("not visible to the program")
            return ["v", self._encode(result)]
        except Exception as error:
            name = next(c.__name__ for c in type(error).__mro__ if hasattr(builtins, c.__name__))
            return ["x", name, [str(error)[:200]]]


def _is_exception(kind) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _is_plain_attribute(value, name) -> bool:
    """Data attributes of objects whose class the test defined; never the way into frames, globals or classes."""
    return type(value).__module__ == "test" and isinstance(name, str) and not name.startswith("_")


def _replace_content(old, new) -> None:
    """Carry a change that the program made to an argument over to the test's own object."""
    if isinstance(old, (list, bytearray)):
        old[:] = new
    elif isinstance(old, (dict, set)):
        old.clear()
        old.update(new)


def _index(proxy) -> int:
    return object.__getattribute__(proxy, "_index")


def _ask(proxy, what, *args):
    return object.__getattribute__(proxy, "_program").request(what, _index(proxy), args)


class Proxy:
    """An object of the program that is not data. It equals no data; other questions are asked over there."""

    __slots__ = ("_program", "_index", "_name")

    def __init__(self, program, index, name):
        for slot, value in (("_program", program), ("_index", index), ("_name", name)):
            object.__setattr__(self, slot, value)

    def __call__(self, *args, **kwargs):
        return object.__getattribute__(self, "_program").request("call", _index(self), args, kwargs)

    def __getattr__(self, name):
        return _ask(self, "getattr", name)

    def __setattr__(self, name, value):
        _ask(self, "setattr", name, value)

    def __eq__(self, other):
        return type(other) is Proxy and bool(_ask(self, "eq", other))

    def __ne__(self, other):
        return type(other) is not Proxy or bool(_ask(self, "ne", other))

    def __contains__(self, item):
        return any(item is other or item == other for other in self)

    def __instancecheck__(self, instance):
        return type(instance) is Proxy and bool(_ask(self, "isinstance", instance))

    def __enter__(self):
        return _ask(self, "getattr", "__enter__")()

    def __exit__(self, kind, error, traceback):
        return _ask(self, "getattr", "__exit__")(None, None, None)


def _forward(name, operation):
    def method(self, *args):
        return _ask(self, operation, *args)

    method.__name__ = name
    setattr(Proxy, name, method)


def _forward_between(name, operation, finish=lambda result: result):
    """Operators whose other side may be the expected value: asked over there only if that side is the program's too."""

    def method(self, other):
        return finish(_ask(self, operation, other)) if type(other) is Proxy else NotImplemented

    setattr(Proxy, name, method)


for _name in ("len", "str", "repr", "bool", "hash", "int", "float", "iter", "next", "round", "format"):
    _forward(f"__{_name}__", _name)
for _name in ("neg", "pos", "abs", "invert", "getitem", "setitem", "delitem"):
    _forward(f"__{_name}__", _name)
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    _forward_between(f"__{_name}__", _name)
for _name in ("lt", "le", "gt", "ge"):
    _forward_between(f"__{_name}__", _name, bool)
