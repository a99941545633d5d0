"""The candidate's side: run one program, make the calls it is asked for, write what comes back as data.

Nothing here is trusted by the supervisor: once the program has run, every byte this process writes may be a lie. That
is harmless, because the process has never seen an expected value; a lie has to be the right answer to pass.
"""

import __future__

import ast
import builtins
import copy
import io
import operator
import os
import random
import sys
import types
from importlib import import_module

import chance
import wire
from channel import Channel, Closed
from program import Shared

RESULT_BYTES = 1_000_000
RESULTS_BYTES = 8_000_000
CONTINUE = 77
MAX_CAUSES = 3
MAX_PRINTED = 100_000  # characters between two answers
MAX_FAILING = 100  # statements of a program that may fail beside its functions


def run_job(fd: int, referee: int | None = None) -> None:
    """Read a job from the memory file `fd` and run it.

    Appends one line for the program and one per call to `fd`; with a `referee` socket it serves that one instead. The
    program's line is "ok", ["ok", what failed beside its functions], or a failure.
    """
    job = wire.loads(os.pread(fd, os.lseek(fd, 0, os.SEEK_END), 0))
    if job.get("chance"):
        chance.change(job["chance"])
    namespace, note, failure = load_program(job)
    status = failure or (["ok", note[2]] if note else "ok")
    if referee is not None:
        channel = Channel(referee)
        channel.send(status)
        if not failure:
            Server(channel, namespace, note).serve()
        return
    written = _write(fd, wire.dumps(status))
    for name, args, kwargs in () if failure else job["calls"]:
        line = _call(namespace, note, name, args, kwargs)
        if written + len(line) > RESULTS_BYTES:
            os._exit(CONTINUE)
        written += _write(fd, line)


def load_program(job):
    """Execute prelude, program and set-up in one fresh module.

    Returns (namespace, note, failure). A statement of the program that fails does not decide about its functions: what
    follows is executed, and `note` is the failure node of the first. In prelude and set-up a failure is final.
    """
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    namespace, note = module.__dict__, None
    for part in ("prelude", "program", "setup_after"):
        if not job[part]:
            continue
        try:
            if part == "program" and job.get("definitions_only"):
                job[part] = _definitions_only(job[part])
            code = compile(job[part], f"<{part}>", "exec", dont_inherit=True)
        except MemoryError:
            return None, None, ["x", "memory", "out of memory while compiling"]
        except BaseException as error:
            return None, None, ["x", "syntax_error", describe(error)]
        try:
            exec(code, namespace)
        except BaseException as error:
            if part != "program":
                return None, None, failure_of(error)
            note = failure_of(error)
            _go_on(job[part], _line_of(error), namespace)
    return namespace, note, None


def _line_of(error) -> int:
    trace = error.__traceback__.tb_next  # the first frame is ours
    return trace.tb_lineno if trace else 1 << 30


def _go_on(source: str, line: int, namespace) -> None:
    """Execute what follows the top-level statement that failed in `line`, statement by statement where those fail.

    A function or class that failed itself is tried again without looking at its annotations, which may name a module
    that is not here.
    """
    body, tried = ast.parse(source).body, set()
    for _ in range(MAX_FAILING):
        at = next((place for place, node in enumerate(body) if node.end_lineno >= line), len(body))
        at += at == len(body) or not _defines(body[at]) or at in tried
        if at >= len(body):
            return
        tried.add(at)
        try:
            flags = __future__.annotations.compiler_flag
            exec(compile(ast.Module(body[at:], []), "<program>", "exec", flags, dont_inherit=True), namespace)
            return
        except BaseException as error:
            line = max(_line_of(error), body[at].lineno)


def _defines(node) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def _definitions_only(source: str) -> str:
    """The program without what it does when it is loaded, apart from imports and simple assignments."""
    body = ast.parse(source).body
    own = {node.name for node in body if _defines(node)}

    def harmless(node):
        if _defines(node) or isinstance(node, (ast.Import, ast.ImportFrom, ast.Try)):
            return True
        assigns = isinstance(node, (ast.Assign, ast.AnnAssign))
        return assigns and not any(isinstance(n, ast.Name) and n.id in own for n in ast.walk(node))

    return ast.unparse(ast.Module([node for node in body if harmless(node)], []))


def _undefined(name: str, note):
    """The failure node for a name that the program does not define, with the reason if there is one."""
    if note is None:
        return ["x", "error", f"NameError: the program does not define {name!r}"]
    return ["x", note[1], f"{note[2]}, so the program does not define {name!r}"]


def _call(namespace, note, name, args, kwargs) -> bytes:
    try:
        if name not in namespace:
            return wire.dumps(_undefined(name, note))
        values = [wire.decode(a) for a in args]
        named = {key: wire.decode(a) for key, a in kwargs.items()}
        line = wire.dumps(wire.encode(namespace[name](*values, **named)))
    except BaseException as error:
        return wire.dumps(failure_of(error))
    if len(line) > RESULT_BYTES:
        return wire.dumps(["x", "error", f"the result is larger than {RESULT_BYTES:,} bytes"])
    return line


def failure_of(error):
    if isinstance(error, MemoryError):
        return ["x", "memory", "MemoryError"]
    return ["x", "error", describe(error)]


def describe(error) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = type(error).__name__
    return text.encode("ascii", "backslashreplace").decode("ascii")[:200]


def _write(fd: int, line: bytes) -> int:
    return os.write(fd, line + b"\n")


class Remote:
    """A callable, iterator or test-defined object that lives in the referee; the program sees only this."""

    __slots__ = ("_server", "_index")

    def __init__(self, server, index):
        object.__setattr__(self, "_server", server)
        object.__setattr__(self, "_index", index)

    def __call__(self, *args, **kwargs):
        return self._server.ask("call", self._index, args, kwargs)

    def __bool__(self):
        return self._server.ask("bool", self._index, (), {})

    def __iter__(self):
        return self._server.ask("iter", self._index, (), {})

    def __next__(self):
        return self._server.ask("next", self._index, (), {})

    def __getattr__(self, name):
        return self._server.ask("getattr", self._index, (name,), {})

    def __setattr__(self, name, value):
        self._server.ask("setattr", self._index, (name, value), {})


def _remote_operator(name):
    """An operator of an object of the test; where its class does not define it, what every object does."""
    default = getattr(object, name, None)

    def method(self, *args):
        try:
            return self._server.ask(name, self._index, args, {})
        except AttributeError:
            if default is None:
                raise TypeError(f"the object has no {name}") from None
            return default(self, *args)

    return method


for _name in ("len", "getitem", "setitem", "contains", "eq", "ne", "lt", "le", "gt", "ge", "str", "repr", "hash"):
    setattr(Remote, f"__{_name}__", _remote_operator(f"__{_name}__"))
for _name in ("add", "radd", "sub", "mul", "rmul", "neg", "enter", "exit"):
    setattr(Remote, f"__{_name}__", _remote_operator(f"__{_name}__"))


class Server:
    """Serves the referee's requests on objects of the program. Objects that are not data travel as handles."""

    def __init__(self, channel, namespace, note):
        self.channel, self.namespace, self.note = channel, namespace, note
        self.objects, self.numbers, self.remotes, self.shared = [], {}, {}, Shared(1)
        self.loop = self.printed = None

    def encode(self, value):
        return self.shared.encode(value, self._encode_plain)

    def _encode_plain(self, value):
        return wire.encode(value, self._handle)

    def decode(self, node):
        return self.shared.decode(node, self._decode_plain)

    def _decode_plain(self, node):
        return wire.decode(node, self._resolve)

    def _handle(self, value):
        if type(value) in wire.MUTABLE:
            return self.shared.inner(value, self._encode_plain)
        kind = type(value)
        if kind is Remote:
            return ["h", "referee", value._index]
        if id(value) in self.numbers:
            index = self.numbers[id(value)]
        else:
            self.objects.append(value)
            index = self.numbers[id(value)] = len(self.objects) - 1
        return ["h", "program", index, *self._description(value, kind)]

    def _description(self, value, kind):
        """(name, what kind of stand-in, what else that needs)"""
        name = str(kind.__name__)[:80]
        if isinstance(value, type):
            if not issubclass(value, BaseException):
                return name, "object"
            return value.__name__, "exception", value.__module__, [self._encode_plain(base) for base in value.__bases__]
        if kind is types.CoroutineType:
            return name, "coroutine"
        base, exact = wire.reduce(value)
        if base in _VALUES and type(exact) is base:
            own_eq = kind.__eq__ is not base.__eq__
            return name, "value", base.__name__, self._encode_plain(exact), own_eq
        if base is None and isinstance(value, BaseException):
            base = next(c for c in kind.__mro__ if vars(builtins).get(c.__name__) is c)
        return name, "object", base and base.__name__

    def _resolve(self, payload):
        owner, index = payload[:2]
        if owner == "=":
            return self.shared.decode(payload, self._decode_plain)
        if owner == "program":
            return self.objects[index]
        if index not in self.remotes:
            self.remotes[index] = Remote(self, index)
        return self.remotes[index]

    def serve(self) -> None:
        try:
            while True:
                self.channel.send(self._answer(self.channel.receive()))
        except Closed:
            pass

    def ask(self, what, index, args, kwargs):
        """Ask the referee about one of its objects; while it answers, it may have requests of its own."""
        nodes = [self.encode(a) for a in args]
        named = [[key, self.encode(value)] for key, value in kwargs.items()]
        self.channel.send(["ask", what, index, nodes, named])
        while True:
            message = self.channel.receive()
            if message[0] == "v":
                return self.decode(message[1])
            if message[0] == "x":
                _, name, texts, token, number = message
                if number is not None:
                    raise self.objects[number]
                error = getattr(builtins, name, Exception)(*[self.decode(a) for a in texts])
                error._of_the_test = token
                raise error
            self.channel.send(self._answer(message))

    def _answer(self, message):
        changed = []
        try:
            what, target, args, kwargs, told = message
            for node in told:
                self.decode(node)
            values = [self.decode(a) for a in args]
            named = {key: self.decode(a) for key, a in kwargs}
            result = self._perform(what, target, values, named)
            changed = self._changed()  # before the answer, which may name what is told here
            answer = ["v", self.encode(result)]
        except Closed:
            raise
        except BaseException as error:
            answer, changed = ["x", self._error(error)], changed or self._changed()
        return [*answer, changed, *self._said()]

    def _changed(self) -> list:
        try:
            return self.shared.changed(self._encode_plain)
        except BaseException:
            return []

    def _said(self) -> list[str]:
        """What the program has printed since the last answer, where the test wants to know."""
        if self.printed is None or not (text := self.printed.getvalue()):
            return []
        self.printed.seek(0)
        self.printed.truncate()
        return [text[:MAX_PRINTED]]

    def _perform(self, what, target, values, named):
        if what == "name":
            if target not in self.namespace:
                raise NameError(_undefined(target, self.note)[2].removeprefix("NameError: "))
            return self.namespace[target]
        if what == "seed":
            return chance.seed(*values)
        if what == "setstate":
            return random.setstate(*values)
        if what == "capture":
            self.printed = sys.stdout = io.StringIO()
            return None
        value = self.objects[target]
        if what == "call":
            return value(*values, **named)
        if what in ("await", "anext", "aenter", "aexit"):
            return self._run(value, what)
        function = _OPERATIONS.get(what) or getattr(operator, what)
        return function(value, *values, **named)

    def _run(self, value, what):
        """Wait for a coroutine, in the one event loop of this process."""
        import asyncio

        self.loop = self.loop or asyncio.new_event_loop()
        if what == "aexit":
            value = type(value).__aexit__(value, None, None, None)
        elif what != "await":
            value = getattr(type(value), f"__{what}__")(value)
        return self.loop.run_until_complete(value)

    def _error(self, error, depth=0):
        try:
            args = [self._encode_plain(a) for a in error.args]
            attributes = [[k, self._encode_plain(v)] for k, v in vars(error).items() if isinstance(k, str)]
        except BaseException:
            args, attributes = [], []
        try:
            text = str(error)[:2000].encode("ascii", "backslashreplace").decode()
        except BaseException:
            text = type(error).__name__
        node, index, cause = self._encode_plain(type(error)), self._handle(error)[2], None
        if depth < MAX_CAUSES and isinstance(error.__cause__, BaseException):
            cause = self._error(error.__cause__, depth + 1)
        return [node, args, text, attributes, index, getattr(error, "_of_the_test", None), cause]


def _by_name(test, value, module, name) -> bool:
    """`isinstance` or `issubclass`, with a class that has a name only."""
    kind = sys.modules.get(module)
    for part in name.split("."):
        kind = getattr(kind, part, None)
    if kind is None and module == "builtins":  # generators and the like, which only `types` names
        kind = next((one for one in vars(types).values() if getattr(one, "__name__", "") == name), None)
    return test(value, kind) if isinstance(kind, type) else False


def _leave(value, error=None):
    if isinstance(error, type):
        error = error()
    return type(value).__exit__(value, *((None, None, None) if error is None else (type(error), error, None)))


_VALUES = (int, str, float, tuple, frozenset, bytes, complex)
_OPERATIONS = {f.__name__: f for f in (len, str, repr, bool, hash, int, float, iter, next, getattr, setattr, round)}
_OPERATIONS |= {f.__name__: f for f in (format, type, callable, reversed, dir, delattr)}
_OPERATIONS |= {
    "isinstance": lambda kind, value: isinstance(value, kind),
    "issubclass": lambda kind, other: issubclass(other, kind),
    "isinstance_of": lambda value, *name: _by_name(isinstance, value, *name),
    "issubclass_of": lambda value, *name: _by_name(issubclass, value, *name),
    "reflected": lambda value, name, other: getattr(operator, name)(other, value),
    "content": lambda value: wire.reduce(value)[1],
    "enter": lambda value: type(value).__enter__(value),
    "exit": _leave,
    "aiter": lambda value: type(value).__aiter__(value),
    "library": lambda value, module, name, /, *args, **named: getattr(import_module(module), name)(
        value, *args, **named
    ),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
