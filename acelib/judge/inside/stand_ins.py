"""What a test finds in place of pytest and of a few builtins: they perform the check, or say that they cannot."""

import builtins
import io
import operator
import re
import sys
import types
from collections import namedtuple
from importlib import import_module

from program import ask, content, is_stand_in, stand_in_number


class Skipped(Exception):
    """The test asks not to be run."""


def make_pytest(checks) -> types.ModuleType:
    """A module `pytest` with raises, approx, fail, skip, mark and fixture; anything else is an AttributeError."""
    module = types.ModuleType("pytest")

    class Raises:
        def __init__(self, expected, match):
            self.expected, self.pattern, self.value, self.type, self.tb = expected, match, None, None, None

        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            if kind is None:
                checks.note(False)
                raise AssertionError(f"no {self.expected} was raised")
            if not issubclass(kind, self.expected):
                return False
            self.value, self.type, self.tb = error, kind, trace
            if self.pattern is not None:
                self.match(self.pattern)
            checks.note(True)
            return True

        def match(self, pattern):
            if not re.search(pattern, str(self.value)):
                checks.note(False)
                raise AssertionError(f"{str(self.value)!r} does not match {pattern!r}")
            return True

    def raises(expected_exception, *args, match=None, **kwargs):
        if not args:
            if kwargs:
                raise TypeError(f"pytest.raises in the judge does not know {', '.join(kwargs)}")
            return Raises(expected_exception, match)
        with Raises(expected_exception, match) as caught:
            args[0](*args[1:], **kwargs)
        return caught

    def fail(reason="", pytrace=True):
        checks.note(False)
        raise AssertionError(reason)

    def skip(reason="", **_):
        raise Skipped(reason)

    def importorskip(name, *_, **__):
        try:
            return __import__(name)
        except ImportError:
            raise Skipped(name) from None

    def fixture(function=None, params=(), autouse=False, name=None, **_):
        def mark(function):
            module.fixtures[name or function.__name__] = function
            module.autouse += [name or function.__name__] * bool(autouse)
            function.__params__ = params
            return function

        return mark if function is None else mark(function)

    def missing(name):
        raise AttributeError(f"the judge has no pytest.{name}; it knows raises, approx, fail, skip, mark and fixture")

    module.fixtures, module.autouse = {"capsys": capsys}, []
    module.raises, module.fail, module.skip, module.importorskip = raises, fail, skip, importorskip
    module.fixture, module.approx, module.mark, module.main = fixture, Approx, Mark(), lambda *_, **__: 0
    module.param = lambda *values, **_: values if len(values) != 1 else values[0]
    module.RaisesExc, module.ExceptionInfo, module.__getattr__ = Raises, Raises, missing
    return module


def capsys():
    """pytest's fixture: what is printed from now on, also by the program."""
    sys.stdout = out = io.StringIO()

    def readouterr():
        text = out.getvalue()
        out.seek(0)
        out.truncate()
        return Captured(text, "")

    return types.SimpleNamespace(readouterr=readouterr)


Captured = namedtuple("Captured", "out err")


class Mark:
    """`pytest.mark`: parametrize and skip mean something here, other marks nothing."""

    def __getattr__(self, name):
        def mark(*args, argnames=None, argvalues=None, **_):
            def add(function):
                if name == "parametrize":
                    names, cases, *_ = *args, *(one for one in (argnames, argvalues) if one is not None)
                    function.__cases__ = [*getattr(function, "__cases__", ()), (names, cases)]
                elif name in ("skip", "skipif", "xfail"):
                    function.__skipped__ = name == "skip" or any(args[:1]) or name == "xfail"
                return function

            bare = len(args) == 1 and isinstance(args[0], (types.FunctionType, type)) and name != "parametrize"
            return add(args[0]) if bare else add

        return mark


class Approx:
    """`pytest.approx`: numbers, and lists, tuples, dicts and arrays of them, within a tolerance; other data exactly."""

    __hash__ = None
    __array_ufunc__ = None  # numpy leaves the comparison to us
    __array_priority__ = 100

    def __init__(self, expected, rel=None, abs=None, nan_ok=False):
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __repr__(self):
        return f"approx({self.expected!r})"

    def __eq__(self, actual):
        return self._equal(actual, self.expected)

    def __ne__(self, actual):
        return not self == actual

    def _equal(self, actual, expected):
        actual, expected = content(actual), content(expected)
        if hasattr(expected, "tolist") and hasattr(expected, "dtype"):
            expected = expected.tolist()
        if hasattr(actual, "dtype") and not is_stand_in(actual):
            actual = actual.tolist()
        if isinstance(expected, dict):
            same = isinstance(actual, dict) and actual.keys() == expected.keys()
            return same and all(self._equal(actual[key], value) for key, value in expected.items())
        if isinstance(expected, (list, tuple)):
            same = isinstance(actual, (list, tuple)) and len(actual) == len(expected)
            return same and all(map(self._equal, actual, expected))
        if any(is_stand_in(one) and not isinstance(one, (int, float, complex)) for one in (actual, expected)):
            return False
        if actual == expected:
            return True
        try:
            return self._near(actual, expected)
        except TypeError:
            return False

    def _near(self, actual, expected):
        if isinstance(expected, bool) or isinstance(actual, (bool, str)) or isinstance(expected, str):
            return False
        if expected != expected:
            return self.nan_ok and actual != actual
        if builtins.abs(expected) == float("inf"):
            return False
        absolute = 1e-12 if self.abs is None else self.abs
        relative = 0 if self.rel is None and self.abs is not None else (1e-6 if self.rel is None else self.rel)
        if not isinstance(expected, (int, float, complex)):  # Decimal and Fraction do not mix with floats
            absolute, relative = type(expected)(str(absolute)), type(expected)(str(relative))
        return builtins.abs(actual - expected) <= max(relative * builtins.abs(expected), absolute)


def isinstance_(value, kinds):
    """`isinstance`, also of the program's objects."""
    return _belongs(builtins.isinstance, value, kinds)


def issubclass_(value, kinds):
    """`issubclass`, also of the program's classes."""
    return _belongs(builtins.issubclass, value, kinds)


def _belongs(test, value, kinds):
    if not is_stand_in(value):
        return test(value, kinds)
    flat = _flat(kinds)
    if any(stand_in_number(kind) is not None and test(value, kind) for kind in flat):
        return True
    named = [kind for kind in flat if builtins.isinstance(kind, type) and stand_in_number(kind) is None]
    what = f"{test.__name__}_of"
    return any(kind is object or ask(value, what, kind.__module__, kind.__qualname__) for kind in named)


def between(name, left, right):
    """An operator between an object that the test has made with a class of the program, and what the test says."""
    if is_stand_in(left) == is_stand_in(right):
        return getattr(operator, name)(left, right)
    return ask(left, name, right) if is_stand_in(left) else ask(right, "reflected", name, left)


def _flat(kinds):
    if type(kinds) is tuple:
        return [one for kind in kinds for one in _flat(kind)]
    return _flat(kinds.__args__) if builtins.isinstance(kinds, types.UnionType) else [kinds]


def callable_(value):
    return bool(ask(value, "callable")) if is_stand_in(value) else builtins.callable(value)


def type_of(value):
    return ask(value, "type") if is_stand_in(value) else type(value)


_OVER_THERE = {  # what these say of an object, its own process has to say
    "dataclasses": "asdict astuple fields is_dataclass replace",
    "inspect": "isabstract isclass iscoroutine iscoroutinefunction isfunction isgenerator isgeneratorfunction ismethod "
    "signature getmembers getdoc",
    "asyncio": "iscoroutinefunction iscoroutine",
    "json": "dumps",
}


def ask_over_there(text: str) -> None:
    """Let functions of the libraries that a test names be called in the program's process, for its objects."""
    for module in (import_module(name) for name in _OVER_THERE if name in text):
        for name in _OVER_THERE[module.__name__].split():
            function = getattr(module, name)
            setattr(module, name, _over_there(module.__name__, name, getattr(function, "original", function)))


def _over_there(module: str, name: str, original):
    def function(value, /, *args, **kwargs):
        if stand_in_number(value) is None:
            return original(value, *args, **kwargs)
        return ask(value, "library", module, name, *args, **kwargs)

    function.original = original
    return function


BUILTINS = {"isinstance": isinstance_, "issubclass": issubclass_, "callable": callable_}
BUILTINS |= {"__type_of__": type_of, "__between__": between}


def mirror_seeds(program) -> None:
    """`random.seed(...)` in the test seeds the program's generator, too, as it would in one process."""
    import random

    found = [("random", random)]
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        found.append(("numpy", numpy_random))
    for name, module in found:
        original = getattr(module.seed, "original", module.seed)

        def seed(*args, _name=name, _original=original):
            _original(*args)
            program.request("seed", 0, (_name, *args))

        seed.original = original
        module.seed = seed
    state = [random.getstate()]

    def push():
        if (now := random.getstate()) != state[0]:  # the test has drawn, and the two share one generator
            state[0] = now
            program.request("setstate", 0, (now,))

    program.before_asking = push
