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
from contextlib import suppress
from itertools import islice, pairwise
from typing import Any

import json_repair

from acelib.extraction import answer_of, syntax_error
from acelib.interface import named_functions, signatures
from acelib.schema import called_functions, parse

END = "ENDOFREPLY"  # what it ends up in breaks off
_QUESTION_KEYS = ("question", "problem", "problem_statement", "description", "instruction", "prompt", "task")
_TEST_KEYS = ("tests", "test_cases", "testcases", "test", "asserts", "assertions", "unit_tests", "examples", "cases")
_INPUT_KEYS = ("input", "inputs", "args", "arguments", "parameters", "params", "given", "in", "call")
_SPREAD_KEYS = ("args", "arguments", "parameters", "params", "inputs")
_OUTPUT_KEYS = ("expected", "expected_output", "expected_result", "output", "outputs", "out")
_OUTPUT_KEYS += ("result", "return", "want")
_ASSERT_KEYS = ("assert", "assertion", "test", "code", "statement", "test_case", "testcase")
_TAG = re.compile(
    rf"</?(?:{'|'.join(_QUESTION_KEYS + _TEST_KEYS)})>|^[ \t]*[`~]{{3,}}(?:ya?ml|toml|xml)\b.*\n", re.M | re.I
)
_LISTED = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+([`\"']?)(assert\b.*?)\1[ \t]*$", re.M)
_BULLET = re.compile(r"^\s*(?:(?:[-*•]|\d+[.)]|(?:(?:test|case|example)\s*)+\d*\s*:)\s+)?(?:`(?!`))?|(?<!`)`\s*$", re.I)
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})", re.M)
_ASSERT = re.compile(r"(?:(?<!\w)|(?<=\\n))assert\b(?=[\s(\\])")
_CODE = re.compile(r"^[ \t]*(?:`{3,}|~{3,}|assert\b|def\b)|[\"']assert\b", re.M)
_BEFORE_QUESTION = re.compile(r"^[\s#*]*(?:(?:question|problem|task)\s*[:=*#]*\s*\"?)?", re.I)
_AFTER_QUESTION = re.compile(r"[\s#*\"]*(?:\b(?:tests?|test cases|asserts?)\s*[:=]?[*\s\[]*)?$", re.I)
_KEY = re.compile(rf"[\"'](?:{'|'.join(_QUESTION_KEYS)})[\"']\s*:", re.I)
_SWALLOWED = re.compile(rf"^\s*assert\b|{END}", re.M)  # what no question holds
_HEAD = re.compile(
    r"^def (?P<name>[^\W\d]\w*\([^\n]*\)(?: *->[^\n]*)?) *:\s*[rR]?(?P<quote>\"{3}|'{3})(?P<said>.*?)(?P=quote)",
    re.M | re.S,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[\"'\\/bfnrt])")
_UNITTEST = {"assertEqual": "{} == {}", "assertEquals": "{} == {}", "assertTrue": "{}", "assertFalse": "not {}"}
_RESULT = re.compile(r"(?:>>>\s*)?(\w+\(.*\))\s*(?:[-=]+>|→|returns?\b|should (?:return|be|equal)|\n)\s*(.+)")
_NO_NAMES = {"o", "O", "s", "i", "e", "function", "method", "integer", "string", "array", "element"}  # O(n), string(s)
_BUILTINS = frozenset(vars(builtins))
MAX_REPAIRED = 12_000  # characters; json_repair takes time by their square where quotes are missing
MAX_ITEM_CHARS, MAX_ITEMS, MAX_ARITY, MAX_CUTS = 4000, 2000, 6, 20
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
    default = [found] if {"inputs", "outputs"} <= found.keys() else []
    tests = next((found[key] for key in _TEST_KEYS if found.get(key) is not None), default)
    return tests if isinstance(tests, list) else [tests]


def read_leniently(reply: str) -> tuple[dict[str, Any], bool] | None:
    """({"question", "tests"}, whether the reply breaks off) of a reply that is not JSON, or None when it holds no
    question with tests.

    Two readers look for tests, and the one that finds more is believed: json_repair, which mends JSON's quotes, commas
    and brackets, and `_asserts`, which needs nothing but Python's own syntax.
    """
    answer = answer_of(reply)
    text = _LISTED.sub(r"\2", _TAG.sub("\n", answer))
    if re.search(r'\{\s*\\"', text):  # JSON inside a JSON string
        text = re.sub(r"\\(.)", r"\1", text)
    if (found := _repaired(text)) is None:
        prose = None if _KEY.search(text) else _in_prose(text)
        return prose and (prose, len(_FENCE.findall(answer)) % 2 == 1)
    asserts = _asserts(text + END)
    tests = [test for test in tests_of(found) if END not in str(test)]
    readable = sum(isinstance(test, dict) or isinstance(test, str) and parse(test) is not None for test in tests)
    better = tests if readable >= sum(map(bool, asserts)) else asserts
    return {"question": found["question"], "tests": better}, END in str(found) or text.count("{") > text.count("}")


def _repaired(text: str) -> dict[str, Any] | None:
    """The object with a question and most tests, in what json_repair makes of a text; None without a question."""
    with suppress(ValueError, RecursionError):
        found = json_repair.loads(f"{text[:MAX_REPAIRED]}\n{END}", skip_json_loads=True)
        objects = [usual_keys(one) for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]
        objects = [one for one in objects if one.get("question") and not _SWALLOWED.search(one["question"])]
        return max(objects, key=lambda one: len(tests_of(one)), default=None)
    return None


def _in_prose(text: str) -> dict[str, Any] | None:
    """A question in prose, or as a signature with a docstring, before asserts in a code block or without one."""
    if not any(asserts := _asserts(text)):
        return None
    words = text[: (_CODE.search(text) or _ASSERT.search(text)).start()]
    words = _AFTER_QUESTION.sub("", _BEFORE_QUESTION.sub("", words)).strip()
    head = _HEAD.search(text)
    if head and len(words.split()) < FEWEST_WORDS:
        words = f"Write the function `{head['name']}`.\n\n{inspect.cleandoc(head['said'])}"
    return {"question": words, "tests": list(filter(None, asserts)), "prose": True}


def _asserts(text: str) -> list[str | None]:
    """Every assert from the first that parses on, quoted or not; None for one that does not parse."""
    starts = [match.start() for match in _ASSERT.finditer(text)][:MAX_ITEMS]
    found = []
    for start, end in pairwise([*starts, len(text)]):
        piece = text[start : min(end, start + MAX_ITEM_CHARS)]
        quote = re.search(r"[\"']?$|\\n$", text[max(0, start - 2) : start]).group()
        one = quote and (_quoted(piece, quote.replace("\\n", '"')) or _assertion(_unescaped(piece)))
        one = one or _assertion(piece)
        found += [None if one and END in one else one] if one or found else []
    return found


def _quoted(text: str, quote: str) -> str | None:
    """The assert that a text begins with, up to the first such quote with which it is complete."""
    ends = islice(re.finditer(rf"(?<!\\){quote}", text), MAX_CUTS)
    candidates = (_unescaped(text[: end.start()]) for end in ends)
    return next((one for one in candidates if syntax_error(one) is None), None)


def _assertion(text: str) -> str | None:
    """The assert that a text begins with, up to what cannot belong to it: a quote, a bracket, a comma, a new line."""
    for _ in range(MAX_CUTS):
        text = text.rstrip(", \t\n")
        if (error := syntax_error(text)) is None:
            first = parse(text)
            return first and ast.get_source_segment(text, first.body[0])
        before = sum(len(line) + 1 for line in text.split("\n")[: (error.lineno or 1) - 1])
        at = before + (error.offset or 1) - 1
        if at >= len(text) or text[at] in "([{" or not before and text[at] not in "\"'`])},/\\#\n":
            return None
        text = text[:at]
    return None


def _unescaped(text: str) -> str:
    """JSON's escapes resolved, and \\'; other backslashes stay as they are, so `\\d` keeps its own."""
    return _ESCAPE.sub(lambda found: "'" if found[1] == "'" else json.loads(f'"{found[0]}"'), text)


def as_asserts(raw: list[Any], question: str, entry_point: str | None) -> tuple[list[str | None], int]:
    """The tests as texts, None where one cannot be read; and how many were left out, unclear in what they call.

    Pairs of input and output become asserts that call the function the other tests call, the question names, or
    `entry_point`; where nobody names one, FALLBACK_NAME.
    """
    parts = [part for item in raw for part in _parts(item)]
    pairs = [part for part in parts if isinstance(part, tuple)]
    texts = [text for part in parts if not isinstance(part, tuple) for text in _texts(part)]
    called = Counter(name for text in texts if text for name in called_functions(text))
    named, arity = _named_function(question)
    name = max(called, key=called.get) if called else named or entry_point or FALLBACK_NAME
    made = _calls(pairs, name, arity if name == named else None)
    return texts + [test for test in made if test], made.count(None)


def _parts(item: Any) -> list[Any]:
    """A test as (key, input, output) where it is a pair, or several; as an assert where its input is a call."""
    match item:
        case {"inputs": [*given], "outputs": [*wanted]} if len(given) == len(wanted):
            key = "args" if all(isinstance(one, list) for one in given) else "input"
            pairs = [(key, *pair) for pair in zip(given, wanted, strict=True)]
        case {} if item and all(map(_is_call, item)):
            pairs = [("call", *pair) for pair in item.items()]
        case [given, wanted] if not any(isinstance(one, str) and re.search("assert|==", one) for one in item):
            pairs = [("call", given, wanted)]
        case {}:
            found = {str(key).lower(): value for key, value in item.items()}
            given, wanted = (next((key for key in keys if key in found), None) for keys in (_INPUT_KEYS, _OUTPUT_KEYS))
            pairs = [(given, found[given], found[wanted])] if given and wanted else []
        case _:
            pairs = []
    made = [f"assert {one[1]} == {_in_code(one[2])}" if one[0] == "call" and _is_call(one[1]) else one for one in pairs]
    return made or [item]


def _is_call(value: Any) -> bool:
    match isinstance(value, str) and parse(value.strip()):
        case ast.Module([ast.Expr(ast.Call())]):
            return True
    return False


def _in_code(value: Any) -> str:
    """The value in Python; a text that is a value itself counts as that (`"2"`, `"true"`, `"None"`)."""
    known = isinstance(value, str) and (value in ("None", "null") or _literal(value) is not None)
    return repr(_literal(value) if known else value)


def _texts(item: Any) -> list[str | None]:
    """The asserts that a test stands for, however it is told; None where it cannot be read."""
    if isinstance(item, dict):
        values = [value for key, value in item.items() if str(key).lower() in _ASSERT_KEYS]
        item = values or [value for value in item.values() if isinstance(value, str) and "assert" in value] or [None]
    if isinstance(item, list):
        return [text for one in item for text in (_texts(one) if isinstance(one, str) else [None])]
    if not isinstance(item, str):
        return [None]
    text = _BULLET.sub("", re.sub(r"^\s*```\w*\n|\n?```\s*$", "", item))
    if text.lstrip().startswith("[") and isinstance(listed := _literal(text), list):
        return _texts(listed)
    match (parse(text) or ast.Module([], [])).body:
        case [] if example := _RESULT.fullmatch(text.strip()):
            return ["assert {} == {}".format(*example.groups())]
        case [ast.FunctionDef(body=inner)] if inner := [one for one in inner if not isinstance(one, ast.Expr)]:
            return list(map(ast.unparse, inner)) if all(isinstance(one, ast.Assert) for one in inner) else [text]
        case [ast.Expr(ast.Call(ast.Attribute(attr=name), args))] if name in _UNITTEST and len(args) > (
            "Equal" in name
        ):
            return ["assert " + _UNITTEST[name].format(*map(ast.unparse, args))]
        case [ast.Expr(ast.Compare() as comparison)]:  # the comparison is the test; alone it would check nothing
            return [f"assert {ast.unparse(comparison)}"]
        case [ast.Assert(), _, *_] as body if all(isinstance(one, ast.Assert) for one in body):
            return list(map(ast.unparse, body))
    return [text]


def _literal(text: str) -> Any:
    """The value that a text is in Python or JSON; None for any other."""
    for read in (ast.literal_eval, json.loads):
        with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return read(text.strip())
    return None


def _named_function(question: str) -> tuple[str | None, int | None]:
    """The one function that the question names, and its number of parameters where it says."""
    heads = {name: len(head.parameters) for name, head in signatures(question) if name not in _NO_NAMES | _BUILTINS}
    names = set(heads) or named_functions(question)
    return (*names, heads.get(*names)) if len(names) == 1 else (None, None)


def _calls(pairs: list[tuple[str, Any, Any]], name: str, arity: int | None) -> list[str | None]:
    """An assert for each pair, None where it is unclear what the input's parts are: one argument, or several."""
    lengths = {len(given) for _, given, _ in pairs if isinstance(given, list | tuple)}
    codes = all(isinstance(given, str) and not isinstance(_literal(given), (str, type(None))) for _, given, _ in pairs)
    made: list[str | None] = []
    for key, given, wanted in pairs:
        match given:
            case str():
                arguments = _from_text(given, name, codes)
            case dict():
                named = given and all(isinstance(part, str) and part.isidentifier() for part in given)
                arguments = ", ".join(f"{part}={value!r}" for part, value in given.items()) if named else None
            case list() | tuple():
                arguments = _from_list(key, given, lengths, arity)
            case _:
                arguments = repr(given)
        said = _in_code(wanted) if _is_call(given) else repr(wanted)
        made.append(None if arguments is None else f"assert {name}({arguments}) == {said}")
    return made


def _from_text(text: str, name: str, codes: bool) -> str | None:
    """A string is an argument, unless it is a call or reads `n = 3, k = 2`; if all are numbers or lists, who knows."""
    for source in (text.strip(), f"f({text})" if "=" in text else ""):
        match (parse(source) or ast.Module([], [])).body:
            case [ast.Expr(ast.Call(ast.Name(called), args, keywords))] if called == name or keywords and not args:
                return ", ".join(map(ast.unparse, (*args, *keywords)))
    return None if codes else repr(text)


def _from_list(key: str, given: Any, lengths: set[int], arity: int | None) -> str | None:
    one, several = repr(given), ", ".join(map(repr, given))
    if arity == 1:
        return several if key in _SPREAD_KEYS and len(given) == 1 else one
    if lengths == {arity}:
        return several
    if len(lengths) > 1 or len(given) > MAX_ARITY:
        return one
    mixed = len({type(part) for part in given} - {bool}) > 1
    return several if key in _SPREAD_KEYS or mixed else None
