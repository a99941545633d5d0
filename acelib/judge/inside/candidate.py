"""The candidate's side: run one program, make the calls it is asked for, write what comes back as data.

Nothing here is trusted by the supervisor: once the program has run, every byte this process writes may be a lie. That is
harmless, because the process has never seen an expected value; a lie has to be the right answer to pass.
"""

import os
import random
import sys
import types

import wire

RESULT_BYTES = 1_000_000


def run_job(fd: int, serve=None) -> None:
    """Read a job from the memory file `fd`, run it, append one line per call. `serve(namespace)` answers a referee."""
    job = wire.loads(os.read(fd, os.fstat(fd).st_size))
    namespace, failure = load_program(job)
    _write(fd, wire.dumps(failure or "ok"))
    if failure:
        return
    if serve is not None:
        serve(namespace)
        return
    for name, args, kwargs in job["calls"]:
        _write(fd, _call(namespace, name, args, kwargs))


def load_program(job):
    """Execute prelude, program and set-up in one fresh module. Returns (namespace, None) or (None, failure node)."""
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    sys.argv = ["program"]
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
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


def _write(fd: int, line: bytes) -> None:
    os.write(fd, line + b"\n")
