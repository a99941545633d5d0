"""The candidate's side: run one program, make the calls it is asked for, write what comes back as data.

Nothing here is trusted by the supervisor: once the program has run, every byte this process writes may be a lie. That
is harmless, because the process has never seen an expected value; a lie has to be the right answer to pass.
"""

import builtins
import operator
import os
import sys
import types

import wire
from channel import Channel, Closed

RESULT_BYTES = 1_000_000
RESULTS_BYTES = 8_000_000
CONTINUE = 77


def run_job(fd: int, referee: int | None = None) -> None:
    """Read a job from the memory file `fd` and run it.

    Appends one line for the program and one per call to `fd`; with a `referee` socket it serves that one instead.
    """
    job = wire.loads(os.pread(fd, os.lseek(fd, 0, os.SEEK_END), 0))
    namespace, failure = load_program(job)
    if referee is not None:
        channel = Channel(referee)
        channel.send(failure or "ok")
        if not failure:
            Server(channel, namespace).serve()
        return
    written = _write(fd, wire.dumps(failure or "ok"))
    for name, args, kwargs in () if failure else job["calls"]:
        line = _call(namespace, name, args, kwargs)
        if written + len(line) > RESULTS_BYTES:
            os._exit(CONTINUE)
        written += _write(fd, line)


def load_program(job):
    """Execute prelude, program and set-up in one fresh module. Returns (namespace, None) or (None, failure node)."""
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    namespace = module.__dict__
    for part in ("prelude", "program", "setup_after"):
        if not job[part]:
            continue
        try:
            code = compile(job[part], f"<{part}>", "exec", dont_inherit=True)
        except MemoryError:
            return None, ["x", "memory", "out of memory while compiling"]
        except BaseException as error:
            return None, ["x", "syntax_error", describe(error)]
        try:
            exec(code, namespace)
        except BaseException as error:
            return None, failure_of(error)
    return namespace, None


def _call(namespace, name, args, kwargs) -> bytes:
    try:
        if name not in namespace:
            return wire.dumps(["x", "error", f"NameError: the program does not define {name!r}"])
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

    def __iter__(self):
        return self._server.ask("iter", self._index, (), {})

    def __next__(self):
        return self._server.ask("next", self._index, (), {})

    def __getattr__(self, name):
        return self._server.ask("getattr", self._index, (name,), {})

    def __setattr__(self, name, value):
        self._server.ask("setattr", self._index, (name, value), {})


class Server:
    """Serves the referee's requests on objects of the program. Objects that are not data travel as handles."""

    def __init__(self, channel, namespace):
        self.channel, self.namespace, self.objects = channel, namespace, []

    def encode(self, value):
        return wire.encode(value, self._handle)

    def decode(self, node):
        return wire.decode(node, self._resolve)

    def _handle(self, value):
        if type(value) is Remote:
            return ["h", "referee", value._index]
        self.objects.append(value)
        bases = [c.__name__ for c in value.__mro__] if isinstance(value, type) else []
        return ["h", "program", len(self.objects) - 1, type(value).__name__, bases]

    def _resolve(self, payload):
        owner, index = payload[:2]
        return self.objects[index] if owner == "program" else Remote(self, index)

    def serve(self) -> None:
        try:
            while True:
                self.channel.send(self._answer(self.channel.receive()))
        except Closed:
            pass

    def ask(self, what, index, args, kwargs):
        """Ask the referee about one of its objects; while it answers, it may have requests of its own."""
        self.channel.send(["ask", what, index, [self.encode(a) for a in args], self._named(kwargs)])
        while True:
            message = self.channel.receive()
            if message[0] == "v":
                return self.decode(message[1])
            if message[0] == "x":
                kind = getattr(builtins, message[1], Exception)
                raise kind(*[self.decode(a) for a in message[2]])
            self.channel.send(self._answer(message))

    def _named(self, kwargs):
        return [[key, self.encode(value)] for key, value in kwargs.items()]

    def _answer(self, message):
        try:
            what, target, args, kwargs = message
            values = [self.decode(a) for a in args]
            named = {key: self.decode(a) for key, a in kwargs}
            result = self._perform(what, target, values, named)
            changed = []
            for i, value in enumerate(values):
                if type(value) in (list, dict, set, bytearray) and (now := self.encode(value)) != args[i]:
                    changed.append([i, now])
            return ["v", self.encode(result), changed]
        except Closed:
            raise
        except BaseException as error:
            return self._error(error)

    def _perform(self, what, target, values, named):
        if what == "name":
            if target not in self.namespace:
                raise NameError(f"the program does not define {target!r}")
            return self.namespace[target]
        value = self.objects[target]
        if what == "call":
            return value(*values, **named)
        if what == "isinstance":
            return isinstance(values[0], value)
        function = _OPERATIONS.get(what) or getattr(operator, what)
        return function(value, *values)

    def _error(self, error):
        kind = type(error)
        try:
            args = [wire.encode(a) for a in error.args]
        except BaseException:
            args = []
        self.objects.append(kind)
        return ["x", len(self.objects) - 1, [c.__name__ for c in kind.__mro__], args, describe(error)]


_OPERATIONS = {f.__name__: f for f in (len, str, repr, bool, hash, int, float, iter, next, getattr, setattr, round)}
_OPERATIONS["format"] = format
