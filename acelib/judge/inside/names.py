"""Which names in a test belong to the program, and which the test may count on being the real thing."""

import ast
import builtins
import sys

MODULES = frozenset(
    (
        "math",
        "np",
        "numpy",
        "collections",
        "itertools",
        "functools",
        "re",
        "random",
        "datetime",
        "pytest",
        "string",
        "copy",
        "heapq",
        "operator",
        "decimal",
        "fractions",
        "statistics",
        "cmath",
        "json",
        "typing",
        "time",
        "bisect",
    )
)
KNOWN = {
    name: module
    for module, names in {
        "collections": "Counter OrderedDict defaultdict deque namedtuple ChainMap",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "math": "isclose sqrt pi inf nan floor ceil gcd factorial comb",
        "itertools": "permutations combinations product chain accumulate islice count cycle repeat",
        "functools": "reduce partial lru_cache cmp_to_key",
        "datetime": "date timedelta timezone",
        "typing": "List Dict Tuple Set Optional Any Union Callable",
    }.items()
    for name in names.split()
}

OF_A_MODULE = ("__name__", "__file__", "__doc__")
PROGRAMS = ("solution", "main", "program", "submission", "answer", "your_module", "module")  # as tests call it


def is_real(name: str) -> bool:
    """Whether a name that a test calls is Python's own, whatever the program defines."""
    return name in KNOWN or hasattr(builtins, name)


def without_imports(tree: ast.Module) -> tuple[ast.Module, frozenset]:
    """(the test without its imports from the program, the names that it imported so).

    What is imported are names like others: `solution.f` becomes `f`, and `from solution import f as g` says `g = f`.
    """
    imports = _Imports()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.modules |= {one.asname or one.name for one in node.names if one.name in PROGRAMS}
        elif isinstance(node, ast.ImportFrom) and _is_foreign(node):
            imports.names |= {one.name for one in node.names}
    if imports.modules or imports.names:
        tree = ast.fix_missing_locations(imports.visit(tree))
    return tree, frozenset(imports.names)


class _Imports(ast.NodeTransformer):
    def __init__(self):
        self.modules, self.names = set(), set()

    def visit_Import(self, node):
        node.names = [one for one in node.names if one.name not in PROGRAMS]
        return node if node.names else ast.Pass()

    def visit_ImportFrom(self, node):
        if not _is_foreign(node):
            return node
        renamed = [one for one in node.names if one.asname]
        return [ast.Assign([ast.Name(one.asname, ast.Store())], ast.Name(one.name, ast.Load())) for one in renamed] or (
            ast.Pass()
        )

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if not isinstance(node.value, ast.Name) or node.value.id not in self.modules:
            return node
        self.names.add(node.attr)
        return ast.Name(node.attr, node.ctx)


def _is_foreign(node: ast.ImportFrom) -> bool:
    """`from solution import f`: an import from what can only be the program."""
    root = (node.module or "").partition(".")[0]
    return root not in sys.stdlib_module_names and root not in MODULES


def program_names(tree: ast.AST, own: str = "", also: tuple = (), foreign: frozenset = frozenset()) -> frozenset:
    """Names that the test takes from the program; `own` is the function it is about, where that is known, and
    `foreign` are names that it imports from there.

    A name is the program's when the test neither defines nor imports it and it is no builtin, module or well-known
    name of the standard library: those are always the real ones, or a program could redefine `abs` in its favour.
    Programs do define functions called `sum` or `gcd`: such a name is the program's if it is `own`, or one of `also`.
    """
    bound, used, bases = set(), set(), set()
    methods = {id(n) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for n in node.body}
    for node in ast.walk(tree):
        if id(node) in methods and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue  # `area(Square(3))` is not the method `area` of the test's own class
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound.add(node.rest)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            bases.add(node.value.id)
    real = {n for n in used if is_real(n) or (n in bases and n in MODULES) or n in OF_A_MODULE}
    free = used - (bound - foreign) - real | foreign & used
    if own and own not in bound and (own in used or checked_by_name(tree)):
        free.add(own)
    return frozenset(free.union(also))


def replaceable(tree: ast.AST, names: frozenset) -> frozenset:
    """Well-known names (`count`, `chain`, `gcd`) that are the program's where the program defines them.

    That must not help a program to pass: what it returns is compared with literals, and what it is given holds no
    answer of the program beside a literal. So `count(Node(1)) == 1` may be the program's `count`; in
    `isclose(f(1), 0.5)` and `f(5) == factorial(5)` the names stay Python's.
    """
    known = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)} & KNOWN.keys()
    known -= {(n.asname or n.name).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.alias)}
    if not known - names:
        return frozenset()
    assigned: dict = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assigned.setdefault(node.targets[0].id, node.value)
    harmless: set = set()
    for node in ast.walk(tree):
        sides: list = []
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.Is)):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "assertEqual":
            sides = node.args[:2]
        used: list = [set() for _ in sides]
        if sorted(_origin(side, names | known, assigned, seen) for side, seen in zip(sides, used)) == [1, 2]:
            harmless |= set().union(*used)
    loads = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return frozenset(known - names - {n.id for n in loads if n.id in known and n not in harmless})


_LITERAL, _PROGRAM, _MIXED = 1, 2, 4


def _origin(node, names, assigned, seen) -> int:
    """Which of these a value is; the names that are called on the way are added to `seen`."""
    if isinstance(node, ast.Constant):
        return _LITERAL
    if isinstance(node, ast.Name) and node.id in assigned:
        return _origin(assigned[node.id], names, {k: v for k, v in assigned.items() if k != node.id}, seen)
    parts = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and not node.keywords:
        seen.add(node.func)
        origins = {_origin(part, names, assigned, seen) for part in node.args}
        return _PROGRAM if origins in (set(), {_LITERAL}, {_PROGRAM}) else _MIXED
    if not isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UnaryOp)):
        return _MIXED
    origins = {_origin(part, names, assigned, seen) for part in parts} or {_LITERAL}
    return origins.pop() if len(origins) == 1 else _MIXED


def checked_by_name(tree: ast.Module) -> bool:
    """Whether the test defines HumanEval's `check(candidate)` and leaves the call to whoever runs it."""
    checks = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check" and len(n.args.args) == 1]
    return bool(checks) and not any(isinstance(n, ast.Name) and n.id == "check" for n in ast.walk(tree))


def called_builtins(tree: ast.AST) -> list[str]:
    """Python's own names that the test calls, the innermost call of each line first: one may be the function meant."""
    called = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    called.sort(key=lambda n: (n.lineno, -n.col_offset))
    return list(dict.fromkeys(n.func.id for n in called if is_real(n.func.id)))
