"""Whether a program's answers may depend on chance: the order of a set, a clock, an unseeded generator, an address.

A program that passes and may depend on chance is run again under other hash seeds, random seeds and a shifted clock;
what passes only once is "unstable". The question here is which programs to run again: reading the syntax tree costs a
tenth of a run, and few honest programs let the order of a set reach their answer. In doubt a program is run again.
"""

from __future__ import annotations

import ast
import re
import warnings

_WORTH_A_LOOK = re.compile(
    r"\bset\b|frozenset|\bhash\b|\bid\b|\{[^{}:\n]*[^{}:\s][^{}:\n]*\}|random|import.*time|from.*time|secrets|uuid|getpid"
    r"|get_ident|tempfile|\.(?:keys|items)\(\)\s*[-&|^]"
)
_MODULES = {"random", "secrets", "uuid", "tempfile"}  # what is asked of these is chance
_CLOCKS = {"now", "today", "utcnow", "time", "time_ns", "localtime", "gmtime", "ctime", "strftime", "process_time"}
_CLOCKS |= {"perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time_ns", "thread_time"}
_CHANCE = {"urandom", "getpid", "getppid", "get_ident", "get_native_id", "default_rng", "random"}
_SET_METHODS = {"union", "intersection", "difference", "symmetric_difference", "copy"}
_WITHOUT_ORDER = _SET_METHODS | {"sorted", "len", "sum", "set", "frozenset", "min", "max", "any", "all", "isinstance"}
_WITHOUT_ORDER |= {"bool", "add", "discard", "remove", "clear", "update", "intersection_update", "difference_update"}
_WITHOUT_ORDER |= {"symmetric_difference_update", "issubset", "issuperset", "isdisjoint"}
_ELEMENT = {"get", "setdefault", "pop", "popleft", "values"}  # methods of a container that give what is in it
_SAFE_PARENTS = (ast.Compare, ast.UnaryOp, ast.BoolOp, ast.If, ast.While, ast.IfExp, ast.Assert, ast.Return, ast.Yield)
_SAFE_PARENTS += (ast.Expr, ast.BinOp, ast.AugAssign, ast.AnnAssign, ast.NamedExpr, ast.Lambda, ast.arguments)
_DISPLAYS = (ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def depends_on_chance(program: str) -> bool:
    """Whether a second run under other conditions could answer differently, as far as the text tells."""
    if not _WORTH_A_LOOK.search(program):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    nodes = list(ast.walk(tree))
    return _draws(nodes) or _Sets(nodes).let_their_order_out()


def _draws(nodes) -> bool:
    """Whether a generator or clock, `hash` or `id` is asked, under whatever name it was imported."""
    chance, bound = set(), {"hash", "id"}
    for node in nodes:
        if isinstance(node, ast.Import):
            chance |= {one.asname or one.name.split(".")[0] for one in node.names if _MODULES & {*one.name.split(".")}}
        elif isinstance(node, ast.ImportFrom):
            of_chance = _MODULES & {*(node.module or "").split(".")}
            chance |= {one.asname or one.name for one in node.names if of_chance or one.name in _CHANCE | _CLOCKS}
            if of_chance and node.names[0].name == "*":
                return True
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.discard(node.id)
        elif isinstance(node, ast.arg):
            bound.discard(node.arg)
    chance |= bound
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in chance:
            return True
        if isinstance(node, ast.Attribute) and node.attr in _CHANCE | _CLOCKS:
            return True
        if isinstance(node, ast.Call) and _name(node.func) in ("__import__", "import_module"):
            return True
    return False


def _name(node) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


class _Sets:
    """The sets of a program, by the names that hold them, and what is done with them."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.names: set[str] = set()  # variables, attributes, parameters and functions that are or give a set
        self.containers: set[str] = set()  # those that hold sets
        self.parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
        self.functions = {node.name: node for node in nodes if isinstance(node, _FUNCTIONS)}
        known = -1
        while known < len(self.names) + len(self.containers):
            known = len(self.names) + len(self.containers)
            for node in nodes:
                self._learn(node)

    def let_their_order_out(self) -> bool:
        return any(self._is_set(node) and not self._is_safe(node) for node in self.nodes)

    def _learn(self, node) -> None:
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if self._is_set(node.value):
                self.names |= {_name(one) for one in targets}
                self.containers |= {_name(one.value) for one in targets if isinstance(one, ast.Subscript)}
            elif self._holds_sets(node.value):
                self.containers |= {_name(one) for one in targets}
        elif isinstance(node, _FUNCTIONS):
            given = [*node.args.posonlyargs, *node.args.args]
            for one, default in zip(reversed(given), reversed(node.args.defaults)):
                self.names |= {one.arg} if self._is_set(default) else set()
        elif isinstance(node, ast.Return) and node.value is not None and self._is_set(node.value):
            function = node
            while function in self.parents and not isinstance(function, _FUNCTIONS):
                function = self.parents[function]
            self.names.add(getattr(function, "name", ""))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions:
            given = self.functions[node.func.id].args.args
            self.names |= {one.arg for one, value in zip(given, node.args) if self._is_set(value)}
            self.names |= {one.arg or "" for one in node.keywords if self._is_set(one.value)}
            self.containers |= {one.arg for one, value in zip(given, node.args) if _name(value) in self.containers}
        elif isinstance(node, (ast.For, ast.comprehension)) and _name(node.iter) in self.containers:
            self.names.add(_name(node.target))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and any(map(self._is_set, node.args)):
            if node.func.attr in ("append", "appendleft", "insert", "setdefault", "push"):
                self.containers.add(_name(node.func.value))
        elif isinstance(node, (ast.AnnAssign, ast.arg)) and node.annotation is not None:
            if re.match(r"(?:typing\.)?(?:frozen)?set\b", ast.unparse(node.annotation), re.I):
                self.names.add(node.arg if isinstance(node, ast.arg) else _name(node.target))
        self.names.discard("")
        self.containers.discard("")

    def _holds_sets(self, node) -> bool:
        """`[set(), set()]`, `{1: {2}}`, `defaultdict(set)`, `[set() for ...]`."""
        if isinstance(node, ast.Call):
            return any(_name(one) in ("set", "frozenset") for one in node.args)
        parts = [*getattr(node, "elts", ()), *getattr(node, "values", ()), *filter(None, [getattr(node, "elt", None)])]
        if isinstance(node, ast.DictComp):
            parts = [node.value]
        return isinstance(node, _DISPLAYS) and any(self._is_set(part) for part in parts if isinstance(part, ast.expr))

    def _is_set(self, node) -> bool:
        if isinstance(node, (ast.Set, ast.SetComp)):
            return True
        if isinstance(node, (ast.Name, ast.Attribute)):
            return _name(node) in self.names and isinstance(node.ctx, ast.Load) and not self._is_called(node)
        if isinstance(node, ast.BinOp):
            operators = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
            sides = (node.left, node.right)
            return isinstance(node.op, operators) and any(self._is_set(one) or _is_view(one) for one in sides)
        if isinstance(node, ast.IfExp):
            return self._is_set(node.body) or self._is_set(node.orelse)
        if isinstance(node, ast.Subscript):
            return _name(node.value) in self.containers and isinstance(node.ctx, ast.Load)
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in _ELEMENT:
                return _name(node.func.value) in self.containers
            if node.func.attr in _SET_METHODS:
                return self._is_set(node.func.value)
        return _name(node.func) in ("set", "frozenset") or _name(node.func) in self.names & self.functions.keys()

    def _is_called(self, node) -> bool:
        parent = self.parents.get(node)
        return isinstance(parent, ast.Call) and parent.func is node

    def _is_safe(self, node) -> bool:
        """Whether nobody sees the order of the set where it stands."""
        parent = self.parents.get(node)
        if isinstance(parent, ast.keyword):
            parent = self.parents[parent]
        if isinstance(parent, ast.Assign):
            return not any(isinstance(one, (ast.Tuple, ast.List)) for one in parent.targets)
        if isinstance(parent, ast.Starred):
            return isinstance(self.parents[parent], ast.Set)
        if isinstance(parent, ast.Attribute):
            return parent.attr in _WITHOUT_ORDER
        if isinstance(parent, ast.comprehension):
            owner = self.parents[parent]
            return isinstance(owner, ast.SetComp) or (not isinstance(owner, ast.DictComp) and self._is_settled(owner))
        return isinstance(parent, _SAFE_PARENTS + _DISPLAYS) or self._is_settled(node)

    def _is_settled(self, node) -> bool:
        """`len(s)`, `sorted(list of it)`, `others.update(s)`, or handed to a function of the program."""
        parent = self.parents.get(node)
        if not isinstance(parent, ast.Call):
            return False
        if _name(parent.func) in self.functions:
            return isinstance(parent.func, ast.Name)
        keys = any(one.arg == "key" for one in parent.keywords)
        if _name(parent.func) in ("list", "tuple") and not isinstance(parent.func, ast.Attribute):
            return self._is_settled(parent)
        return _name(parent.func) in _WITHOUT_ORDER and not keys and node is not parent.func


def _is_view(node) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return called and node.func.attr in ("keys", "items") and not node.args
