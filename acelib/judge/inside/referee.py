"""The referee: runs tests that are more than a comparison of plain data.

It is a second sandboxed process. It holds the test, the program's process holds the program, and between them travel
only messages: plain data by value, everything else as a stand-in (`program.py`). No object of the program is ever in
this process, so an object that claims to equal everything is, here, a stand-in that equals no data.

A test passes when an assertion was evaluated (`checks.py`) and none failed. Functions and classes that a test runner
would run are run: test functions, coroutines, `unittest.TestCase`, HumanEval's `check(candidate)`.
"""

import ast
import builtins
import importlib
import itertools
import os
import sys
import types
import warnings

import chance
import checks as checking
import wire
from channel import Channel, Closed
from names import KNOWN, MODULES, checked_by_name, program_names, without_imports
from program import ENDINGS, MAIN, Gone, Program
from stand_ins import BUILTINS, Skipped, ask_over_there, make_pytest, mirror_seeds


def run_job(fd: int, candidate: int) -> None:
    """Read tests from the memory file `fd`, run each against the program behind `candidate`, append one line each."""
    job = wire.loads(os.pread(fd, os.lseek(fd, 0, os.SEEK_END), 0))
    if job["chance"]:
        chance.change(job["chance"])  # a test that looks at the clock sees that of the program
    program = Program(Channel(candidate))
    try:
        status = program.channel.receive()
    except (Closed, wire.WireError):
        return
    os.write(fd, wire.dumps(status) + b"\n")
    loaded = status == "ok" or (type(status) is list and status[:1] == ["ok"])
    for text, own, also in job["tests"] if loaded else ():
        try:
            verdict = _run_test(text, own, also, program)
        except Gone:
            return
        if program.gone:  # and the test has caught it
            return
        if program.refused:
            verdict = ["x", "error", program.refused]
        os.write(fd, wire.dumps(verdict) + b"\n")


def _run_test(text: str, own: str, also: list, program):
    checks = checking.Checks(lambda: program.asked)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _Test(text, own, also, program, checks).run()
    except MemoryError:
        return ["x", "memory", "MemoryError"]
    except AssertionError as error:
        if not hasattr(error, "from_program"):
            return ["x", "failed", f"the assertion does not hold{_said(error)}"]
        return ["x", "error", f"AssertionError in the program{_said(error)}"]
    except Gone:
        raise
    except Skipped as error:
        return ["x", "invalid", f"the test skips itself{_said(error)}"]
    except BaseException as error:
        return ["x", "error", f"{type(error).__name__}{_said(error)}"]
    return checks.verdict()


def _said(error) -> str:
    text = str(error)[:160].encode("ascii", "backslashreplace").decode("ascii")
    return f": {text}" if text else ""


class _Test:
    """One test: its namespace, and what in it is to be run."""

    def __init__(self, text: str, own: str, also: list, program, checks):
        self.own, self.program, self.checks, self.skipped = own, program, checks, None
        self.open: list = []  # fixtures that have something left to do
        self.tree, foreign = without_imports(ast.parse(text))
        names = program_names(self.tree, own, also, foreign)
        self.by_name = checked_by_name(self.tree)
        self.pytest = sys.modules["pytest"] = make_pytest(checks)
        self.namespace = {"__name__": MAIN, "__file__": "test.py", **BUILTINS, checking.CHECKS: checks}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and node.id not in names and not hasattr(builtins, node.id):
                self._bind_real(node.id)
        if "unittest" in text:
            _count_unittest(checks)
        if "testing" in text:
            _count_numpy(checks)
        if "thread" in text:
            importlib.import_module("threading").excepthook = checks.lose
        ask_over_there(text)
        program.before_asking, program.refused = None, ""
        program.may_end = any(word in text for word in (*ENDINGS, "cancel"))
        if "seed" in text:
            mirror_seeds(program)
        if "stdout" in text or "capsys" in text:
            program.request("capture", 0)
        for name in names:
            self.namespace[name] = program.name(name)
        self.uncalled = {node.name for node in checking.uncalled(self.tree)}
        self.defined = [
            n for n in self.tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        ]
        reached = checking.reached_by(self.tree, names)
        self.asserting = {node.name for node in self.defined if checking.may_check(node, names, reached)}
        self.code = compile(checking.instrument(self.tree, names, reached), "<test>", "exec")

    def _bind_real(self, name: str) -> None:
        if name in KNOWN:
            self.namespace[name] = getattr(importlib.import_module(KNOWN[name]), name)
        elif name == "pytest":
            self.namespace[name] = self.pytest
        elif name in MODULES:
            self.namespace[name] = importlib.import_module("numpy" if name == "np" else name)

    def run(self) -> None:
        """What Python runs, then what a test runner would. Raises what a failing test raises."""
        try:
            exec(self.code, self.namespace)
        except SystemExit as error:
            if error.code or hasattr(error, "from_program"):
                raise
        self._set_up(self.namespace.get("setup_module"), None)
        for node in self.defined:
            found = self.namespace.get(node.name)
            if isinstance(node, ast.ClassDef):
                self._run_class(found, node.name in self.uncalled)
            elif self._is_a_test(node.name) and type(found) is type(_said):
                self._set_up(self.namespace.get("setup_function"), found)
                self._run_function(found)
                self._set_up(self.namespace.get("teardown_function"), found)
        self._set_up(self.namespace.get("teardown_module"), None)
        if self.skipped is not None and not self.checks.seen:
            raise self.skipped

    def _is_a_test(self, name: str) -> bool:
        return name in self.uncalled and (name.startswith("test") or name in self.asserting)

    def _run_class(self, found, alone: bool) -> None:
        case = getattr(sys.modules.get("unittest"), "TestCase", None)
        if case is not None and isinstance(found, type) and issubclass(found, case):
            run_case(found)
        elif alone and isinstance(found, type) and found.__name__.startswith("Test") and "__init__" not in vars(found):
            self._set_up(getattr(found, "setup_class", None))
            for name in [n for n in dir(found) if n.startswith("test")]:
                instance = found()
                self._set_up(getattr(instance, "setup_method", None), getattr(instance, name))
                self._run_function(getattr(instance, name), found)
                self._set_up(getattr(instance, "teardown_method", None), getattr(instance, name))
            self._set_up(getattr(found, "teardown_class", None))
            for inner in [one for one in vars(found).values() if isinstance(one, type)]:
                self._run_class(inner, True)

    def _set_up(self, function, *arguments) -> None:
        if function is not None:
            function(*arguments[: len(checking.needed(function))])

    def _run_function(self, function, owner=None) -> None:
        """Run a test function for each of its cases, with the arguments that a test runner would give it."""
        if getattr(function, "__skipped__", False) or getattr(owner, "__skipped__", False):
            return
        instance = {"self": getattr(function, "__self__", None)}
        marks = [
            (names.replace(",", " ").split() if isinstance(names, str) else list(names), list(cases))
            for names, cases in (*getattr(function, "__cases__", ()), *getattr(owner, "__cases__", ()))
        ]
        try:
            for name in checking.needed(function):
                params = getattr(self.pytest.fixtures.get(name), "__params__", None) or ()
                requests = [instance | {"request": types.SimpleNamespace(param=one)} for one in params]
                marks += [([name], [self._made(name, given) for given in requests])] if requests else []
            for case in itertools.product(*(cases for _, cases in marks)):
                given = dict(instance)
                for (names, _), values in zip(marks, case):
                    given.update(zip(names, values if len(names) > 1 else [values]))
                for name in self.pytest.autouse:
                    self._made(name, given)
                result = self._call(function, given)
                if type(result).__name__ == "coroutine":
                    importlib.import_module("asyncio").run(result)
                while self.open:
                    next(self.open.pop(), None)
        except Skipped as error:
            self.skipped = error

    def _call(self, function, given: dict):
        names = checking.needed(function)
        return function(**{name: given[name] if name in given else self._made(name, given) for name in names})

    def _made(self, name: str, given: dict):
        """The argument of that name: the function under test, or what a fixture makes."""
        if self.own and (name in (self.own, "candidate") or self.by_name):
            return self.namespace[self.own]
        if name not in self.pytest.fixtures:
            raise Skipped(f"it needs {name!r}, which the judge does not have")
        made = self._call(self.pytest.fixtures[name], given)
        if type(made).__name__ == "generator":
            self.open.append(made)
            made = next(made)
        given[name] = made
        return made


def _count_unittest(checks) -> None:
    """Let the assertions of unittest report to `checks`, and its `main` leave the running to us."""
    import unittest

    unittest.main = lambda *_, **__: None
    checks_data = [n for n in vars(unittest.TestCase) if not n.endswith("Logs") and "Warns" not in n]
    for name in [n for n in checks_data if n.startswith("assert") or n == "fail"]:  # what is logged stays over there
        function = vars(unittest.TestCase)[name]
        setattr(unittest.TestCase, name, checks.counting(getattr(function, "original", function)))


def _count_numpy(checks) -> None:
    """Let the assertions of numpy.testing report to `checks`."""
    testing = importlib.import_module("numpy.testing")
    for name in [n for n in vars(testing) if n.startswith("assert_") and "warn" not in n]:
        function = vars(testing)[name]
        setattr(testing, name, checks.counting(getattr(function, "original", function)))


def run_case(case) -> None:
    """Run the tests of a unittest.TestCase. Raises what the first that fails has raised."""
    import unittest

    class Result(unittest.TestResult):
        raised = None

        def _keep(self, error):
            self.raised = self.raised or (error and error[1])

        def addError(self, test, error):
            self._keep(error)

        def addFailure(self, test, error):
            self._keep(error)

        def addSubTest(self, test, subtest, error):
            self._keep(error)

    result = Result()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    if result.raised is not None:
        raise result.raised
    if result.expectedFailures or result.unexpectedSuccesses:
        raise Skipped("it is expected to fail")
