"""Which names in a test belong to the program, and which the test may count on being the real thing."""

import ast
import builtins

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


def is_real(name: str) -> bool:
    """Whether a name that a test calls is Python's own, whatever the program defines."""
    return name in KNOWN or hasattr(builtins, name)


def program_names(tree: ast.AST) -> frozenset:
    """Names that the test takes from the program.

    A name is the program's when the test neither defines nor imports it and it is no builtin, module or well-known
    name of the standard library: those are always the real ones, or a program could redefine `abs` in its favour.
    Programs do define functions called `sum` or `gcd`, so if nothing else is left, the leftmost name that is called
    counts, one that is no builtin first.
    """
    bound, used, called, bases = set(), set(), [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            bases.add(node.value.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.append((node.lineno, node.col_offset, node.func.id))
    real = {n for n in used if is_real(n) or (n in bases and n in MODULES)}
    free = used - bound - real
    if not free:
        rest = sorted((hasattr(builtins, name), *place, name) for *place, name in called if name not in bound)
        free = {name for *_, name in rest[:1]}
    return frozenset(free)
