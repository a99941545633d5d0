"""Whether a program's answers may depend on chance: the order of a set, a clock, an unseeded generator, an address.

A program that passes and may depend on chance is run a second time, under another hash seed, other random seeds and a
shifted clock; what passes only once is "unstable". The question here is which programs to run again: reading the syntax
tree costs a tenth of a run, and few honest programs let the order of a set reach their answer.
"""

from __future__ import annotations

import ast
import re
import warnings

_WORTH_A_LOOK = re.compile(
    r"set\(|hash\(|\bid\(|\{[^{}:\n]*[^{}:\s][^{}:\n]*\}|random|import.*time|from.*time|secrets|uuid|urandom|getpid|SystemRandom|\.(?:keys|items)\(\)\s*[-&|^]"
)
_CHANCE = {"random", "secrets", "uuid", "time", "hash", "id", "urandom", "getpid", "SystemRandom", "default_rng"}
_CLOCKS = {"now", "today", "utcnow", "time", "time_ns", "perf_counter", "monotonic", "localtime", "gmtime", "ctime"}
_SET_METHODS = {"union", "intersection", "difference", "symmetric_difference", "copy"}
_IN_ORDER = {"list", "tuple", "enumerate", "iter", "next", "zip", "map", "filter", "str", "repr", "deque", "dict"}
_WITHOUT_ORDER = {"sorted", "len", "sum", "set", "frozenset", "min", "max", "any", "all"}
_WITH_KEY = {"sorted", "max", "min"}


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
    sets, settled = _set_names(tree), _settled(tree)
    return any(_draws(node) or (id(node) not in settled and _orders(node, sets)) for node in ast.walk(tree))


def _settled(tree) -> set[int]:
    """Ids of expressions whose order nobody sees: `sorted(list(s))`, `len(tuple(s))`."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and not n.keywords]
    return {id(arg) for call in calls if call.func.id in _WITHOUT_ORDER for arg in call.args}


def _draws(node) -> bool:
    """A call into a generator or clock, `hash` or `id`."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id in (_CHANCE | _CLOCKS) - {"now", "today"} or node.func.id.startswith(("rand", "uuid"))
    root = node.func
    while isinstance(root, ast.Attribute):
        if root.attr in _CHANCE | _CLOCKS or root.attr.startswith(("rand", "uuid")):
            return True
        root = root.value
    return isinstance(root, ast.Name) and root.id in {"random", "secrets", "uuid"}


def _set_names(tree) -> set[str]:
    """Names (and attributes) that are somewhere assigned or annotated as a set."""
    names: set[str] = set()
    for _ in range(2):  # a set made from another may come first
        for node in ast.walk(tree):
            if isinstance(node, (ast.Assign, ast.AugAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if _is_set(node.value, names):
                    names |= {_name(target) for target in targets}
            elif _annotated_as_set(node):
                names.add(node.arg if isinstance(node, ast.arg) else _name(node.target))
    return names - {""}


def _annotated_as_set(node) -> bool:
    annotated = isinstance(node, (ast.AnnAssign, ast.arg)) and node.annotation is not None
    return annotated and "set" in ast.unparse(node.annotation).lower()


def _name(node) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def _is_set(node, names) -> bool:
    if isinstance(node, (ast.Set, ast.SetComp)):
        return True
    if isinstance(node, (ast.Name, ast.Attribute)):
        return _name(node) in names
    if isinstance(node, ast.BinOp):
        operators = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
        return isinstance(node.op, operators) and (_is_set(node.left, names) or _is_set(node.right, names))
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in (
                "keys",
                "items",
            ):  # of which only a difference, union and so on is a set without order
                return False
            return node.func.attr in _SET_METHODS and _is_set(node.func.value, names)
        return _name(node.func) in ("set", "frozenset")
    return False


def _orders(node, sets) -> bool:
    """Something that sees the order of a set."""
    if isinstance(node, ast.For):
        return _is_set(node.iter, sets)
    if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.DictComp)):
        return not isinstance(node, ast.GeneratorExp) and any(_is_set(part.iter, sets) for part in node.generators)
    if isinstance(node, ast.Starred):
        return _is_set(node.value, sets)
    if isinstance(node, ast.FormattedValue):
        return _is_set(node.value, sets)
    if not isinstance(node, ast.Call):
        return False
    name, over = _name(node.func), [arg for arg in node.args if _is_set(arg, sets) or _over_set(arg, sets)]
    if isinstance(node.func, ast.Attribute):
        popped = name == "pop" and not node.args and _is_set(node.func.value, sets)
        return popped or (name in ("join", "extend", "fromkeys", "array", "chain") and bool(over))
    if name in _WITH_KEY and any(keyword.arg == "key" for keyword in node.keywords):
        return bool(over)
    return name in _IN_ORDER and bool(over)


def _over_set(node, sets) -> bool:
    return isinstance(node, ast.GeneratorExp) and any(_is_set(part.iter, sets) for part in node.generators)
