"""The interface is part of the question: the name of what is to be written, and its arguments.

A test calls a function by its name and its arguments' places. A question that keeps them to itself cannot be answered:
every program fails, whatever it computes. `state_interface` adds the sentence that is missing, read off the tests.
Nothing is executed: texts are read as syntax trees.
"""

import ast
import builtins
import inspect
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from acelib.schema import parse

# Of a name in prose: in quotes or before a bracket it is code; else `count` or `sort` are verbs.
_SIGNATURE = re.compile(r"(?<![\w.])([^\W\d]\w*)\((?:[^()]|\([^()]{0,200}\)){0,400}\)")
_FUNCTION = re.compile(
    r"\b(?:function|method|def)(?:[ :]+(?:called|named|name))?[ :]+(?:[`'\"]([^\W\d]\w*)|([^\W\d]\w*)\()", re.I
)
_PLURAL = ("s", "es", "ies")  # as in word(s)
_KINDS = {
    bool: "a boolean",
    bytes: "a bytes object",
    complex: "a complex number",
    dict: "a dictionary",
    float: "a float",
    int: "an integer",
    list: "a list",
    set: "a set",
    str: "a string",
    tuple: "a tuple",
    type(None): "None",
}


def signatures(text: str) -> list[tuple[str, inspect.Signature]]:
    """Every `name(argument, ...)` in a text that could be the head of a function, in order; `name()` is none."""
    found = []
    for match in _SIGNATURE.finditer(unicodedata.normalize("NFKC", text)):
        tree = parse(f"def {match.group()}: pass")
        plural = match.group()[len(match[1]) + 1 : -1] in _PLURAL and match.string[match.start() - 1 :][:1] != "`"
        if tree and not plural and (one := _signature(tree.body[0])).parameters:
            found.append((match[1], one))
    return found


def heads_of(program: str) -> list[str]:
    """`name(arguments)` of every function at the top of a program, without types."""
    tops = (parse(program) or ast.Module([], [])).body
    return [f"{one.name}({_arguments(one)})" for one in tops if isinstance(one, ast.FunctionDef)]


def named_functions(question: str) -> set[str]:
    """What the question itself calls a function: "function `f`", "def f(x)"; Python's own do not count."""
    names = _FUNCTION.findall(unicodedata.normalize("NFKC", question))
    return {quoted or plain for quoted, plain in names} - vars(builtins).keys()


def calls_of(name: str, test: str) -> list[ast.Call]:
    """The calls of the function in a test, without those whose arguments are unpacked from something."""
    calls = [node for node in ast.walk(parse(test) or ast.Module([], [])) if isinstance(node, ast.Call)]
    calls = [one for one in calls if isinstance(one.func, ast.Name) and one.func.id == name]
    return [
        one
        for one in calls
        if not any(isinstance(part, ast.Starred) for part in one.args) and all(key.arg for key in one.keywords)
    ]


def fits(signature: inspect.Signature, calls: Iterable[ast.Call]) -> bool:
    """Whether a function of that signature can be called so."""
    try:
        for call in calls:
            signature.bind(*call.args, **{one.arg: one for one in call.keywords})
    except TypeError:
        return False
    return True


def state_interface(question: str, name: str, tests: Sequence[str], program: str = "") -> str:
    """The question; with one sentence more where it leaves open what the tests call: `name`, and its arguments.

    It needs none when a signature in it fits the tests, or when it names the function and that has one argument or
    none. Arguments are named as the function `name` in `program`, the seed, has them, if the tests fit that; else they
    are told by number and by the types of the tests' values.
    """
    calls = [call for test in tests for call in calls_of(name, test)]
    if any(other == name and fits(signature, calls) for other, signature in signatures(question)):
        return question
    if _mentions(question, name) and all(len(one.args) <= 1 and not one.keywords for one in calls):
        return question
    if f"to write is `{name}" in question:  # by us, from tests of which some may have gone
        return question
    asked = question.rstrip()
    end, gap = "" if asked[-1:] in ".!?:`" else ".", "\n\n" if "\n" in asked else " "
    return f"{asked}{end}{gap}{_sentence(name, tests, calls, program)}"


def _mentions(question: str, name: str) -> bool:
    """Whether the question names it as a name: as code, after the word for it, or by letters that no word has."""
    text, one = unicodedata.normalize("NFKC", question), rf"(?<!\w){re.escape(name)}(?!\w)"
    ways = [
        rf"[`'\"]{one}",
        rf"{one}\(",
        rf"(?i:function|method|class|def|called|named)[ :]+{one}",
        rf"(?i:write|implement|define) {one}(?! ?\w)",
        *([one] if re.search(r"[_\d]|.[A-Z]", name) else []),
    ]
    return any(re.search(way, text) for way in ways)


def _sentence(name: str, tests: Sequence[str], calls: list[ast.Call], program: str) -> str:
    if methods := _methods(name, tests):
        return f"The class to write is `{name}`, with {_listed(f'`{one}`' for one in methods)} among its methods."
    heads = [one for one in (parse(program) or ast.Module([], [])).body if isinstance(one, ast.FunctionDef)]
    for head in heads:
        if head.name == name and calls and fits(_signature(head), calls):
            return f"The function to write is `{name}({_arguments(head)})`."
    if not calls:
        return f"The function to write is `{name}`."
    kinds = defaultdict(list)  # of every argument, by place or keyword
    for call in calls:
        for place, part in [*enumerate(call.args), *((one.arg, one.value) for one in call.keywords)]:
            kinds[place].append(_kind(part))
    said = [
        _listed(dict.fromkeys(found), " or ")
        + f" `{place}`" * isinstance(place, str)
        + " (optional)" * (len(found) < len(calls))
        for place, found in kinds.items()
    ]
    number = f"{len(said)} argument{'s' * (len(said) != 1)}" if said else "no arguments"
    return f"The function to write is `{name}`, with {number}{': ' * bool(said)}{_listed(said)}."


def _methods(name: str, tests: Sequence[str]) -> list[str]:
    """The methods that tests call on what `name(...)` gives: then it is a class."""
    nodes = [
        node
        for test in tests
        for node in ast.walk(parse(test) or ast.Module([], []))
        if isinstance(node, ast.Attribute)
    ]
    made = [n for n in nodes if isinstance(n.value, ast.Call) and isinstance(n.value.func, ast.Name)]
    return sorted({node.attr for node in made if node.value.func.id == name and name[:1].isupper()})


def _signature(head: ast.FunctionDef) -> inspect.Signature:
    """Of a function in a syntax tree; defaults are there or not, their values are left out."""
    every, Parameter = head.args, inspect.Parameter
    placed = [(one, Parameter.POSITIONAL_ONLY) for one in every.posonlyargs]
    placed += [(one, Parameter.POSITIONAL_OR_KEYWORD) for one in every.args]
    defaults = [Parameter.empty] * (len(placed) - len(every.defaults)) + [None] * len(every.defaults)
    found = [Parameter(one.arg, kind, default=value) for (one, kind), value in zip(placed, defaults, strict=True)]
    found += [Parameter(every.vararg.arg, Parameter.VAR_POSITIONAL)] if every.vararg else []
    for one, value in zip(every.kwonlyargs, every.kw_defaults, strict=True):
        found.append(Parameter(one.arg, Parameter.KEYWORD_ONLY, default=Parameter.empty if value is None else None))
    found += [Parameter(every.kwarg.arg, Parameter.VAR_KEYWORD)] if every.kwarg else []
    return inspect.Signature(found)


def _arguments(head: ast.FunctionDef) -> str:
    """As written, without types, and with `...` for a default that is no plain value."""
    for one in ast.walk(head.args):
        if isinstance(one, ast.arg):
            one.annotation = None
    defaults = [head.args.defaults, head.args.kw_defaults]
    for values in defaults:
        values[:] = [one if one is None or _kind(one) != "a value" else ast.Constant(...) for one in values]
    return ast.unparse(head.args)


def _kind(part: ast.expr) -> str:
    try:
        return _KINDS.get(type(ast.literal_eval(part)), "a value")
    except (ValueError, TypeError, RecursionError, MemoryError, SyntaxError):
        return "a value"


def _listed(parts: Iterable[str], last: str = " and ") -> str:
    *first, end = list(parts) or [""]
    return ", ".join(first) + (last if first else "") + end
