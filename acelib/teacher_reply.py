"""Reading what a teacher meant as JSON: one object with a question and a list of tests.

Real teachers write asserts without quotes, pairs of input and output, single quotes, bad escapes, remarks, and loops
that fill the rest of the reply. `read_leniently` finds the question and every test that is complete; a pair becomes an
assert where it is unambiguous which call it means. Nothing is executed: texts are read as syntax trees.
"""

import ast
import builtins
import inspect
import json
import re
from collections import Counter
from typing import Any

from acelib.extraction import answer_of, python_blocks, statements
from acelib.interface import named_functions, signatures
from acelib.schema import called_functions, parse

_QUESTION_KEYS = ("question", "problem", "problem_statement", "description", "instruction", "prompt", "task")
_TEST_KEYS = ("tests", "test_cases", "testcases", "test", "asserts", "assertions", "unit_tests", "examples", "cases")
_QUESTION = re.compile(rf"[\"']?\b(?:{'|'.join(_QUESTION_KEYS)})[\"']?\s*[:=]\s*(\"\"\"|[\"'])", re.I)
_TESTS = re.compile(rf"[\"']?\b(?:{'|'.join(_TEST_KEYS)})[\"']?\s*[:=]", re.I)
_LISTED = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+([`\"']?)(assert\b.*?)\1[ \t]*$", re.M)
_TAG = re.compile(
    rf"</?(?:{'|'.join(_QUESTION_KEYS + _TEST_KEYS)})>|^[ \t]*[`~]{{3,}}(?:ya?ml|toml|xml)\b.*\n", re.M | re.I
)
_UNITTEST = {"assertEqual": "{} == {}", "assertEquals": "{} == {}", "assertTrue": "{}", "assertFalse": "not {}"}
_RESULT = re.compile(r"(?:>>>\s*)?(\w+\(.*\))\s*(?:[-=]+>|→|returns?\b|should (?:return|be|equal)|\n)\s*(.+)")
_INPUT_KEYS = ("input", "inputs", "args", "arguments", "parameters", "params", "given", "in", "call")
_SPREAD_KEYS = ("args", "arguments", "parameters", "params", "inputs")
_OUTPUT_KEYS = (
    "expected",
    "output",
    "outputs",
    "result",
    "expected_output",
    "expected_result",
    "return",
    "want",
    "out",
)
_ASSERT_KEYS = ("assert", "assertion", "test", "code", "statement", "test_case", "testcase")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[\"'\\/bfnrt])")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ITEM = re.compile(r"\bassert\b(?=[\s(\\])|\{")
_NO_NAMES = {"o", "O", "s", "i", "e", "function", "method", "integer", "string", "array", "element"}  # O(n), string(s)
_HEAD = re.compile(
    r"^def (?P<name>[^\W\d]\w*\([^\n]*\)(?: *->[^\n]*)?) *:\s*[rR]?(?P<quote>\"{3}|'{3})(?P<said>.*?)(?P=quote)",
    re.M | re.S,
)
_BUILTINS = frozenset(vars(builtins))
MAX_ITEM_CHARS, MAX_ITEMS, MAX_ARITY = 4000, 2000, 6
FALLBACK_NAME = "solution"
FEWEST_WORDS = 6  # before a signature with a docstring: fewer are no question but its announcement


def merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which a key that is repeated keeps all of its tests (`object_pairs_hook`)."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and key in (*_TEST_KEYS, *_ASSERT_KEYS):
            value = [one for part in (found[key], value) for one in (part if isinstance(part, list) else [part])]
        found[key] = value
    return found


def usual_keys(found: dict[str, Any]) -> dict[str, Any]:
    """The object with its keys in lower case and its question, whatever that was called, as a text under `question`."""
    found = {re.sub(r"\W+", "_", key.strip("\u200b ").lower()): value for key, value in found.items()}
    if not found.keys() & set(_QUESTION_KEYS):
        return found
    asked = next((found[key] for key in _QUESTION_KEYS if found.get(key)), "")
    parts = asked.values() if isinstance(asked, dict) else asked if isinstance(asked, list) else [asked]
    return found | {"question": "\n".join(part for part in parts if isinstance(part, str))}


def tests_of(found: dict[str, Any]) -> list[Any]:
    """The tests of an object, under whatever key they stand."""
    for key in _TEST_KEYS:
        if found.get(key) is not None:
            return found[key] if isinstance(found[key], list) else [found[key]]
    return [found] if {"inputs", "outputs"} <= found.keys() else []


def read_leniently(reply: str) -> tuple[dict[str, Any], bool] | None:
    """({"question", "tests"}, whether the reply breaks off) of a reply that is not JSON, or None when it holds no
    question with tests."""
    text = answer_of(reply)
    open_fence = len(re.findall(r"^[ \t]*(?:`{3,}|~{3,})", text, re.M)) % 2 == 1
    text = _LISTED.sub(r"\2", _TAG.sub("\n", text))
    text = re.sub(r"(?<!`)`(assert\b[^`\n]+)`(?!`)", r"\1", text)
    if "“question”" in text.lower():
        text = text.translate(dict.fromkeys(map(ord, "“”"), '"'))
    if re.search(r'\{\s*\\"', text):  # JSON inside a JSON string
        text = re.sub(r"\\(.)", r"\1", text)
    start = _QUESTION.search(text)
    if start is None:
        found = _outside_json(text)
        return found and (found, open_fence)
    question, rest = _string(text, start.end(), start.group(1))
    if question is None:
        return None
    after = _TESTS.search(text, rest)
    items, end = _items(text, after.end() if after else rest)
    ended = re.match(r"[\s\"']*,?\s*(?:(?:#|//)[^\n]*\s*)*[\])]\s*(?:,|\}|`|$)|[\s\"']*\}\s*(?:`|$)", text[end:])
    return {"question": question, "tests": items}, ended is None


def _outside_json(text: str) -> dict[str, Any] | None:
    """A question in prose, or as a signature with a docstring, and asserts in a code block or without one."""
    first = re.search(r"^[ \t]*(?:`{3,}|~{3,}|assert\b|def\b)", text, re.M)
    if first is None:
        return None
    blocks = [block for block in python_blocks(text) if re.search(r"^\s*(?:assert|def)\b", block, re.M)]
    code = "\n".join(blocks or [text[first.start() :]]) + "\n"
    tests = [one for one in _items(code, 0)[0] if isinstance(one, str)]
    words = re.sub(r"^[\s#*]*(?:question|problem|task)?\s*[:*#]*\s*", "", text[: first.start()], flags=re.I)
    words = re.sub(r"\s*[#*]*\s*(?:tests?|test cases|asserts?)\s*:?[*\s]*$", "", words, flags=re.I).strip()
    head = _HEAD.search(code)
    if head and len(words.split()) < FEWEST_WORDS:
        words = f"Write the function `{head['name']}`.\n\n{inspect.cleandoc(head['said'])}"
    return {"question": words, "tests": tests, "prose": True} if tests else None


def _string(text: str, start: int, quote: str) -> tuple[str | None, int]:
    """The string that begins at `start`, and where it ends: at a quote after which JSON could go on."""
    after = r"\s*(?:,?\s*[\"']\w+[\"']\s*:|[,\n]\s*\w+\s*[:=]|,?\s*\}|,?\s*$)"
    end = re.compile(rf"(?<!\\){re.escape(quote)}(?={after})").search(text, start)
    if end is None:
        return None, len(text)
    return _unescaped(text[start : end.start()]), end.end()


def _unescaped(text: str) -> str:
    """JSON's escapes resolved; other backslashes stay as they are, so `\\d` keeps its own."""

    def one(match):
        code = match.group(1)
        return chr(int(code[1:], 16)) if code[0] == "u" and len(code) == 5 else _ESCAPES.get(code, code)

    return _ESCAPE.sub(one, text)


def _items(text: str, start: int) -> tuple[list[Any], int]:
    """Asserts and objects from `start` on, in order, and where the last of them ends."""
    found, position, last = [], start, start
    while len(found) < MAX_ITEMS and (match := _ITEM.search(text, position)):
        at = match.start()
        item, end = _object(text, at) if match.group() == "{" else _assertion(text, at)
        if item is None:
            position = at + 1
            found.append(None)  # counted as a test that cannot be read
        else:
            found.append(item)
            position = last = end
    return found, last


def _assertion(text: str, at: int) -> tuple[str | None, int]:
    """The assert that begins at `at`, quoted or not, up to where it parses; a last one that breaks off is none."""
    before = text[:at].rstrip()[-1:] if at else ""
    quote = before if before in ("'", '"') and text[at - 1] == before else ""
    following = _ITEM.search(text, at + 6)
    limit = min(len(text), at + MAX_ITEM_CHARS)
    if quote:
        for end in re.finditer(rf"(?<!\\){quote}(?=\s*(?:[,\]}}):]|$|\n|//|#|[\"']assert\b))", text[at:limit]):
            content = text[at : at + end.start()]
            for candidate in (_unescaped(content), content):
                if _is_assert(candidate):
                    return candidate, at + end.end()
            if following and at + end.end() > following.start():
                break
    if following and following.group() == "assert":
        limit = min(limit, following.start())
    ends = [at + m.start() for m in re.finditer(r",|\n|\]", text[at:limit])]
    for end in reversed(ends) if not quote else ends:
        candidate = text[at:end].strip().rstrip(",").rstrip()
        candidate = re.sub(r"\s*//.*$", "", candidate)
        if _is_assert(candidate):
            return candidate, end
    return None, at


def _is_assert(text: str) -> bool:
    tree = parse(text)
    return tree is not None and bool(tree.body) and all(isinstance(node, ast.Assert) for node in tree.body)


def _object(text: str, at: int) -> tuple[dict | None, int]:
    """The complete object that begins at `at`, in JSON or as a Python dictionary, with remarks left out."""
    end = _balanced(text, at)
    if end is None:
        return None, at
    body = text[at:end]
    for source in (body, re.sub(r"(?m)(?<![:\"'])\s*(?://|#)[^\n\"']*$", "", body)):
        try:
            found = json.loads(source, strict=False, object_pairs_hook=merged)
        except (ValueError, RecursionError):
            found = _literal(source)
        if isinstance(found, dict):
            return found, end
    return None, at


def _literal(source: str) -> Any:
    words = {"null": "None", "true": "True", "false": "False"}
    parts = re.split(r"(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')", source)
    source = "".join(
        part if number % 2 else re.sub(r"\b(null|true|false)\b", lambda m: words[m.group()], part)
        for number, part in enumerate(parts)
    )
    if (tree := parse(source.strip())) is None:
        return None
    try:
        return ast.literal_eval(tree.body[0].value)
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError, MemoryError, SyntaxError):
        return None


def _balanced(text: str, at: int) -> int | None:
    depth, quote, position = 0, "", at
    while position < min(len(text), at + MAX_ITEM_CHARS):
        char = text[position]
        if quote:
            if char == "\\":
                position += 1
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char in "{[(":
            depth += 1
        elif char in "}])":
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return None


def as_asserts(raw: list[Any], question: str, entry_point: str | None, counts: Counter) -> list[str | None]:
    """The tests as texts, None where one cannot be read.

    Pairs of input and output become asserts that call the function the other tests call, the question names, or
    `entry_point`; where nobody names one, FALLBACK_NAME. Pairs of which it is unclear what call they mean are counted
    and left out.
    """
    texts: list[str | None] = []
    pairs: list[tuple[str, Any, Any]] = []
    for item in (part for one in raw for part in _parts(one)):
        if isinstance(item, dict) and (pair := _pair(item)) is not None:
            pairs.append(pair)
            continue
        texts += _texts(item)
    called = Counter(name for text in texts if text for name in called_functions(text))
    named, arity = _named_function(question)
    name = max(called, key=called.get) if called else named or entry_point or FALLBACK_NAME
    for test in _calls(pairs, name, arity if name == named else None):
        if test is None:
            counts["tests: input and output, unclear which call"] += 1
        else:
            texts.append(test)
    return texts


def _parts(item: Any) -> list[Any]:
    """What stands for several pairs as pairs: `{"inputs": [...], "outputs": [...]}`, `{"f(1)": 2}`, `["f(1)", "2"]`."""
    match item:
        case {"inputs": [*given], "outputs": [*wanted]} if len(given) == len(wanted):
            key = "args" if all(isinstance(one, list) for one in given) else "input"
            return [{key: one, "output": other} for one, other in zip(given, wanted, strict=True)]
        case {"call": str(), **rest} if len(rest) == 1 and (pair := _pair(item)) and _is_call(pair[1]):
            return [f"assert {pair[1]} == {_in_code(pair[2])}"]
        case {} if item and all(isinstance(key, str) and _is_call(key) for key in item):
            return [f"assert {key} == {_in_code(value)}" for key, value in item.items()]
        case [str() as given, wanted] if _is_call(given):
            return [f"assert {given} == {_in_code(wanted)}"]
        case [given, wanted] if not any(re.search("assert|==", one) for one in (given, wanted) if isinstance(one, str)):
            return [{"input": given, "output": wanted}]
    return [item]


def _in_code(value: Any) -> str:
    return value if isinstance(value, str) and _literal(value) is not None else repr(value)


def _is_call(text: str) -> bool:
    tree = parse(text.strip())
    return tree is not None and len(tree.body) == 1 and isinstance(getattr(tree.body[0], "value", None), ast.Call)


def _texts(item: Any) -> list[str | None]:
    if isinstance(item, dict):
        values = [value for key, value in item.items() if str(key).lower() in _ASSERT_KEYS]
        values = values or [value for value in item.values() if isinstance(value, str) and "assert" in value]
        item = values or [None]
    if isinstance(item, list):
        return [text for value in item for text in (_texts(value) if isinstance(value, str) else [None])]
    if not isinstance(item, str):
        return [None]
    if (said := _said_otherwise(item)) != [item]:
        return [text for one in said for text in _texts(one)]
    text = re.sub(r"^\s*```\w*\n|\n?```\s*$", "", item)
    tree = parse(text)
    if tree is not None and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        if isinstance(tree.body[0].value, ast.Compare):
            text = f"assert {ast.unparse(tree.body[0])}"  # the comparison is the test; alone it would check nothing
    elif tree is not None and len(tree.body) > 1 and all(isinstance(node, ast.Assert) for node in tree.body):
        return [ast.unparse(node) for node in tree.body]
    return [text]


def _said_otherwise(text: str) -> list[Any]:
    """The asserts that a list in a text, a test function, unittest or an example (`f(1) -> 2`) stand for."""
    text = re.sub(
        r"^\s*(?:[-*•]|(?:(?:test|case|example)\s*)+\d*\s*:|\d+[.)])\s+|^\s*`(?!`)|(?<!`)`\s*$", "", text, flags=re.I
    )
    if text.lstrip().startswith("[") and isinstance(listed := _literal(text), list):
        return listed
    body = statements(text)
    if not body and (example := _RESULT.fullmatch(text.strip())):
        return ["assert {} == {}".format(*example.groups())]
    if len(body) == 1 and isinstance(body[0], ast.FunctionDef):
        inner = [node for node in body[0].body if not isinstance(node, ast.Expr)]
        return list(map(ast.unparse, inner)) if all(isinstance(node, ast.Assert) for node in inner) else [text]
    match body:
        case [ast.Expr(ast.Call(ast.Attribute(attr=name), args))] if _UNITTEST.get(name, "{}" * 9).count("{}") <= len(
            args
        ):
            return ["assert " + _UNITTEST[name].format(*map(ast.unparse, args))]
    return [text]


def _pair(item: dict) -> tuple[str, Any, Any] | None:
    keys = {str(key).lower(): key for key in item}
    given = next((key for key in _INPUT_KEYS if key in keys), None)
    wanted = next((key for key in _OUTPUT_KEYS if key in keys), None)
    return (given, item[keys[given]], item[keys[wanted]]) if given and wanted else None


def _named_function(question: str) -> tuple[str | None, int | None]:
    """The one function that the question names, and its number of parameters where it says."""
    heads = {name: len(head.parameters) for name, head in signatures(question) if name not in _NO_NAMES | _BUILTINS}
    names = set(heads) or named_functions(question)
    return (*names, heads.get(*names)) if len(names) == 1 else (None, None)


def _calls(pairs: list[tuple[str, Any, Any]], name: str, arity: int | None) -> list[str | None]:
    """An assert for each pair, None where it is unclear what the input's parts are: one argument, or several."""
    lengths = {len(given) for _, given, _ in pairs if isinstance(given, (list, tuple))}
    codes = all(isinstance(given, str) and _is_code(given) for _, given, _ in pairs)
    made: list[str | None] = []
    for key, given, wanted in pairs:
        arguments = None
        if isinstance(given, str):
            arguments = _from_text(given, name, codes)
        elif isinstance(given, dict):
            if all(isinstance(part, str) and part.isidentifier() for part in given) and given:
                arguments = ", ".join(f"{part}={value!r}" for part, value in given.items())
        elif isinstance(given, (list, tuple)):
            arguments = _from_list(key, given, lengths, arity)
        else:
            arguments = repr(given)
        said = _in_code(wanted) if isinstance(given, str) and _is_call(given) else repr(wanted)
        made.append(None if arguments is None else f"assert {name}({arguments}) == {said}")
    return made


def _is_code(text: str) -> bool:
    value = _literal(text)
    return value is not None and not isinstance(value, str)


def _from_text(text: str, name: str, codes: bool) -> str | None:
    """A string is an argument, unless it is a call or reads `n = 3, k = 2`; if all are numbers or lists, who knows."""
    tree = parse(text.strip())
    call = tree.body[0].value if tree and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name:
        return ", ".join(ast.unparse(part) for part in (*call.args, *call.keywords))
    tree = parse(f"f({text})") if "=" in text else None
    call = tree.body[0].value if tree and isinstance(tree.body[0], ast.Expr) else None
    if isinstance(call, ast.Call) and call.keywords and not call.args:
        return ", ".join(ast.unparse(part) for part in call.keywords)
    return None if codes else repr(text)


def _from_list(key: str, given: Any, lengths: set[int], arity: int | None) -> str | None:
    one, several = repr(given), ", ".join(map(repr, given))
    if arity is not None and arity == 1:
        return several if key in _SPREAD_KEYS and len(given) == 1 else one
    if arity is not None and lengths == {arity}:
        return several
    if len(lengths) > 1 or len(given) > MAX_ARITY:
        return one
    mixed = len({type(part) for part in given} - {bool}) > 1
    return several if key in _SPREAD_KEYS or mixed else None
