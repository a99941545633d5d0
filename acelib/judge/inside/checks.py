"""What counts as a check: a test in which nothing was checked has not been passed.

`may_check` says of a test's text whether it can ever assert anything. `instrument` changes the test's syntax tree so
that a `Checks` object hears of every assertion that is evaluated while the test runs.
"""

import ast
import builtins
import sys

CHECKS = "__checks__"
_WIDE = ("AssertionError", "Exception", "BaseException")
_LAZY = ("map", "filter", "zip", "enumerate")  # objects that are true, whatever they would give
TYPE_OF, BETWEEN = "__type_of__", "__between__"
PYTHONS_OWN = frozenset(("math", "np", "numpy", "collections", "itertools", "random", "datetime", "pytest", "re"))
_CHECKING_NAMES = ("assert", "raises", "fail", "approx")


def always_true(node, names=frozenset(), truth=True) -> bool:
    """Whether an expression is true (or not `truth`) for every program: `assert (f(1) == 2, "message")`, `assert f`."""
    if isinstance(node, ast.Constant):
        return bool(node.value) == truth
    if isinstance(node, ast.BoolOp):
        one_is_enough = isinstance(node.op, ast.Or) == truth
        return (any if one_is_enough else all)(always_true(value, names, truth) for value in node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return always_true(node.operand, names, not truth)
    if not truth:
        return False
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return bool(node.elts)
    if isinstance(node, ast.Dict):
        return bool(node.keys)
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.NamedExpr):
        return always_true(node.value, names)
    if isinstance(node, ast.IfExp):
        branches = [node.body, node.orelse]
        if isinstance(node.test, ast.Constant):
            branches.pop(bool(node.test.value))
        return all(always_true(branch, names) for branch in branches)
    if isinstance(node, (ast.ListComp, ast.SetComp)):  # of truths, where `all(...)` was meant
        return isinstance(node.elt, (ast.Compare, ast.BoolOp)) and not any(one.ifs for one in node.generators)
    if isinstance(node, ast.Call):
        return called_name(node) in _LAZY and isinstance(node.func, ast.Name) and node.func.id not in names
    return isinstance(node, (ast.GeneratorExp, ast.Lambda, ast.JoinedStr))


def says_nothing(node, names, reached) -> bool:
    """Whether an assert of this expression says nothing of the program: it always holds, or is about Python and what
    the test itself has made."""
    return always_true(node, names) or (not isinstance(node, ast.Constant) and not _used(node) & reached)


def reached_by(tree: ast.AST, names) -> set[str]:
    """Names in a test that may have to do with the program: its own, and all that stand in one statement with those."""
    reached = {*names}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            reached.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            reached |= {(one.asname or one.name).split(".")[0] for one in node.names} - PYTHONS_OWN
    if all(_used(checked) & reached for checked in _checked(tree)):
        return reached
    statements, before = list(_statements(getattr(tree, "body", []))), None
    while before != len(reached):
        before = len(reached)
        for used, owners in statements:
            if used & reached:
                reached |= owners | {one for one in used if not hasattr(builtins, one) and one not in PYTHONS_OWN}
    return reached


def _checked(tree):
    """What the test asserts, with `assert`, a library's function or an `if` that fails."""
    for node in ast.walk(tree):
        fails = isinstance(node, ast.If) and any(_fails(n) for n in (*node.body, *node.orelse))
        if fails or isinstance(node, ast.Assert):
            yield node.test
        elif isinstance(node, ast.Call) and called_name(node).startswith("assert"):
            yield ast.Tuple(node.args, ast.Load())


def _statements(body, owners=frozenset()):
    """(names in a statement, names of the definitions that it stands in); what branches, loops, tries or opens counts
    as one statement with all that is in it."""
    for statement in body:
        if isinstance(statement, _DEFINITIONS):
            yield from _statements(statement.body, owners | {statement.name})
        else:
            defined = {node.name for node in ast.walk(statement) if isinstance(node, _DEFINITIONS)}
            yield _used(statement) | defined, owners


def _used(node) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def may_check(tree: ast.AST, names, reached=None) -> bool:
    """Whether anything in the test could fail: an assert that says something, a raise, or a library's check."""
    reached = reached_by(tree, names) if reached is None else reached
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and not says_nothing(node.test, names, reached):
            return True
        if _fails(node):
            return True
        if isinstance(node, ast.Call) and called_name(node).startswith(_CHECKING_NAMES):
            return True
    return False


class Checks:
    """Hears of the assertions of one test. As a context manager it is around what swallows their failures."""

    def __init__(self, asked):
        """`asked()` is the number of questions that the program has answered."""
        self.seen, self.held, self._asked, self._before = 0, True, asked, asked()
        self._swallowing, self.lost = 0, None

    def __enter__(self):
        self._swallowing += 1

    def __exit__(self, *_):
        self._swallowing -= 1

    def note(self, value) -> bool:
        """The truth of an assertion, which is hereby evaluated; it counts once the program was asked something."""
        truth = bool(value)
        self.seen += not truth or self._asked() > self._before
        self.held = truth and (self.held or not self._swallowing)  # the next of a loop makes no failure good
        return truth

    def branch(self, value):
        """The condition of an `if` that raises, unless what it raises is swallowed."""
        if not self._swallowing:
            self.note(True)
        return value

    def caught(self, *lines) -> None:
        """An expected exception was raised, unless what was caught is the test's own `assert False`, or a `raise` in
        one of these lines."""
        error = sys.exc_info()[1]
        trace = error.__traceback__
        if trace.tb_next is None and trace.tb_lineno in lines and not hasattr(error, "from_program"):
            self.note(False)
        elif not isinstance(error, AssertionError) or getattr(error, "from_program", False):
            self.note(True)

    def counting(self, function):
        """`function`, a check of a library that raises when it does not hold."""

        def counted(*args, **kwargs):
            try:
                result = function(*args, **kwargs)
            except AssertionError:
                self.note(False)
                raise
            if hasattr(type(result), "__exit__"):  # `with self.assertRaises(ValueError):` checks at its end
                return _Counting(result, self)
            self.note(True)
            return result

        counted.original = function
        return counted

    def uncounted(self, function):
        """`function`, a check of a library, here about nothing of the program."""

        def call(*args, **kwargs):
            seen = self.seen
            function(*args, **kwargs)
            self.seen = seen

        return call

    def lose(self, thread) -> None:
        """An exception that ended a thread of the test, and nobody saw."""
        self.lost = self.lost or thread.exc_type.__name__

    def verdict(self):
        """True, or the failure node of a test that ended without an exception."""
        if self.lost:
            return ["x", "failed", f"{self.lost} in a thread of the test"]
        if not self.seen:
            return ["x", "invalid", "no assertion was evaluated"]
        return True if self.held else ["x", "failed", "an assertion did not hold, and the test went on"]


class _Counting:
    """The context manager of a library's check: counts when its block is over."""

    def __init__(self, inner, checks):
        self._inner, self._checks = inner, checks

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __enter__(self):
        return self._inner.__enter__()

    def __exit__(self, kind, *rest):
        try:
            ended = self._inner.__exit__(kind, *rest)
        except AssertionError:
            self._checks.note(False)
            raise
        if kind is None or ended:
            self._checks.note(True)
        return ended


class _Instrument(ast.NodeTransformer):
    def __init__(self, tree, names, reached):
        self._names, self._reached, self._made = names, reached, _made_names(tree, names)
        self._measured = {id(part) for node in ast.walk(tree) for part in _measured(node, names)}

    def _is_made(self, node) -> bool:
        return is_made(node, self._names, self._made)

    def _call(self, method, *args):
        return ast.Call(ast.Attribute(ast.Name(CHECKS, ast.Load()), method, ast.Load()), list(args), [])

    def visit_Assert(self, node):
        trivial = says_nothing(node.test, self._names, self._reached)
        self.generic_visit(node)
        if not trivial:
            node.test = self._call("note", node.test)
        return node

    def visit_If(self, node):
        reached = self._is_reached(node.test)
        self.generic_visit(node)
        if reached and any(_fails(n) for n in (*node.body, *node.orelse)):
            node.test = self._call("branch", node.test)
        return node

    def visit_Try(self, node):
        must_not_end = any(_fails(n) for n in (*node.body, *node.orelse))
        lines = [ast.Constant(n.lineno) for n in node.body if isinstance(n, ast.Raise)]
        swallows = any(map(_swallows, node.handlers)) and not any(isinstance(n, ast.Break) for n in ast.walk(node))
        self.generic_visit(node)
        if must_not_end:
            for handler in node.handlers:
                handler.body.insert(0, ast.Expr(self._call("caught", *lines)))
        return ast.With([ast.withitem(ast.Name(CHECKS, ast.Load()))], [node]) if swallows else node

    def visit_Expr(self, node):
        args = node.value.args if isinstance(node.value, ast.Call) else ()
        nothing = args and called_name(node.value).startswith("assert") and not any(map(self._is_reached, args))
        self.generic_visit(node)
        if nothing:  # self.assertTrue(True)
            node.value.func = self._call("uncounted", node.value.func)
        return node

    def _is_reached(self, node) -> bool:
        return bool(_used(node) & self._reached)

    def visit_BinOp(self, node):
        mixed = self._is_made(node.left) != self._is_made(node.right) and id(node) not in self._measured
        self.generic_visit(node)
        return self._between(f"__{_OPERATORS[type(node.op)]}__", node.left, node.right) if mixed else node

    def visit_AugAssign(self, node):
        mixed = self._is_made(node.target) and not self._is_made(node.value)
        self.generic_visit(node)
        if not mixed:
            return node
        name = f"__i{_OPERATORS[type(node.op)]}__"
        return ast.Assign([node.target], self._between(name, ast.Name(node.target.id, ast.Load()), node.value))

    def _between(self, name, left, right):
        return ast.Call(ast.Name(BETWEEN, ast.Load()), [ast.Constant(name), left, right], [])

    def visit_Call(self, node):
        self.generic_visit(node)
        if getattr(node.func, "id", "") == "map":
            node.args = [ast.Name(TYPE_OF, ast.Load()) if _is_type(one) else one for one in node.args]
        if isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 1 and not node.keywords:
            node.func = ast.Name(TYPE_OF, ast.Load())
        return node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if node.attr == "__class__" and isinstance(node.ctx, ast.Load):
            return ast.Call(ast.Name(TYPE_OF, ast.Load()), [node.value], [])
        return node


def _fails(node) -> bool:
    """`assert False`, `raise`, `pytest.fail()`, `self.fail()` or `sys.exit(1)`."""
    if isinstance(node, ast.Assert):
        return isinstance(node.test, ast.Constant) and not node.test.value
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return isinstance(node, ast.Raise)
    name, arguments = called_name(node.value), node.value.args
    ends = name in ("exit", "quit") and arguments and isinstance(arguments[0], ast.Constant) and arguments[0].value
    return name == "fail" or bool(ends)


def _swallows(handler) -> bool:
    """Whether a failed assertion ends in this handler, which says nothing of it."""
    caught = getattr(handler.type, "elts", [handler.type])
    wide = any(one is None or getattr(one, "id", "") in _WIDE for one in caught)
    return wide and not any(_fails(n) or isinstance(n, ast.Assert) for one in handler.body for n in ast.walk(one))


def called_name(call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def instrument(tree: ast.Module, names, reached) -> ast.Module:
    """The same test, reporting its assertions to the object called CHECKS, asking TYPE_OF for types, and BETWEEN for
    operators between an object that it makes with a class of the program and data."""
    return ast.fix_missing_locations(_Instrument(tree, names, reached).visit(tree))


def is_made(node, names, made) -> bool:
    """Whether an expression is an object that the test makes with a class of the program: `Vector(1, 2) * 3`."""
    if isinstance(node, ast.BinOp):
        return is_made(node.left, names, made) or is_made(node.right, names, made)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in names and node.func.id[:1].isupper()
    return isinstance(node, ast.Name) and node.id in made


def _made_names(tree, names) -> set[str]:
    """Variables that are only ever assigned an object so made."""
    made: set[str] = set()
    for _ in range(3 * any(name[:1].isupper() for name in names)):  # a variable that is made of another
        good = {
            id(t)
            for n in ast.walk(tree)
            if isinstance(n, ast.Assign) and is_made(n.value, names, made)
            for t in n.targets
        }
        good |= {id(node.target) for node in ast.walk(tree) if isinstance(node, ast.AugAssign)}
        other = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                (made if id(node) in good else other).add(node.id)
        made -= other
    return made


def _measured(node, names) -> list:
    """Differences that are to be small: of `abs(Price(2) - 1.5) < 0.1` the program must not see the 1.5."""
    parts = []
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) not in names:
        parts = node.args
    elif isinstance(node, ast.Compare) and not all(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops):
        parts = [node.left, *node.comparators]
    return [part for part in parts if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub)]


def _is_type(node) -> bool:
    return isinstance(node, ast.Name) and node.id == "type"


_OPERATORS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv"}
_OPERATORS |= {ast.Mod: "mod", ast.Pow: "pow", ast.MatMult: "matmul", ast.LShift: "lshift", ast.RShift: "rshift"}
_OPERATORS |= {ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor"}


def uncalled(tree: ast.Module) -> list:
    """Functions and classes of the test's top level that nothing in it refers to: what a test runner would run."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in tree.body if isinstance(node, kinds) and (node.name not in used)]


def needed(function) -> list[str]:
    """Names of the parameters that a call has to give."""
    code, given = function.__code__, len(function.__defaults__ or ())
    names = code.co_varnames[hasattr(function, "__self__") : code.co_argcount - given]
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return [*names, *(name for name in keywords if name not in (function.__kwdefaults__ or {}))]
