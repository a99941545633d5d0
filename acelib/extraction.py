"""From a model's reply to the program in it.

A reply may be a fenced block, several of them, bare code, code between chat, or a base model's rambling. Whatever it
is, `extract_program` returns source text or None; None is a normal answer and becomes a verdict, not an exception.

One principle: the answer is what comes after the thoughts; in it, the last piece that compiles and defines the entry
point, fenced pieces before bare ones; with the pieces that define names it lacks; without a line of chat. Where there
is none, the same is tried without each of the disguises that programs come in: prompts, line numbers, entities, JSON.
"""

import ast
import builtins
import html
import json
import re
import symtable
import warnings
from itertools import islice

from acelib.core import CourseError
from acelib.schema import parse

# A fence with its language, the code, and the fence that closes it, where that does not open the next block.
_BLOCK = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.#-]*)[^\n`]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|(?=^[ \t]*\1)|\Z)", re.M | re.S
)
_LONG_STRING = re.compile(r"\"{3}|'{3}")
_PYTHON = re.compile(r"(?:python|py)[\d.]*|", re.I)
_THOUGHT = r"(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)"
_THOUGHTS = re.compile(rf"<{_THOUGHT}>.*?(</{_THOUGHT}>|\Z)", re.S | re.I)
_BEFORE_ANSWER = re.compile(rf"\A.*</{_THOUGHT}>", re.S | re.I)
_MARKER = re.compile(r"(?:<\|[^|<>\n]{1,40}\|>|</?s>|\[/?(?:CODE|INST|PYTHON|ANSWER)\])[ \t]*$", re.M)
_STARTS = r"(?:async )?def \w|class \w|import \w|from [\w.]+ import |@\w|\w+(?:: ?[\w\[\], ]+)? = "
_CODE_START = re.compile(rf"^(?:{_STARTS})", re.M)
_GLUED_END = re.compile(r"^([ \t]*[^`~\s\n][^`\n]*?)[ \t]*```[ \t]*$", re.M)  # `return x```` in one line
_GLUED_START = re.compile(rf"^([ \t]*(?:`{{3,}}|~{{3,}})[ \t]*[\w+.#-]*)[ \t]+(?={_STARTS})", re.M)
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))
_SIGNS = dict(zip(map(ord, "\xa0\u3000\u2028\u2029\x85“”‘’：，（）"), "  \n\n\n\"\"'':,()"))
_JSON_STRING = re.compile(r'"(?:[^"\\\n]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"')
_INDENT = re.compile(r"^[ \t]+(?=(?:async )?def \w|class \w|import \w|from \w|@\w)", re.M)
_ATTEMPTS = 50  # to compile: a model in a loop writes thousands of beginnings
_DISGUISES = (
    lambda text: text.translate(_SIGNS),
    lambda text: re.sub(
        r"^[ \t]*(?:>>>|\.{3}:?|In \[\d+\]:|>|\d+[ \t]*[|:.)]|\d+(?=[ \t]))[ \t]?", "", text, flags=re.M
    ),
    lambda text: re.sub(r"^(?:(?:-|@@|\+\+\+).*\n|[+ ])", "", text, flags=re.M),  # a diff
    lambda text: html.unescape(re.sub(r"</?(?:pre|code|p|br|div|span)\b[^<>]*>", "\n", text)),
    lambda text: "\n".join(json.loads(part, strict=False).removesuffix("\n") for part in _JSON_STRING.findall(text)),
    lambda text: re.sub(r"\\([nt_\"])", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text),
    lambda text: re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"\n\1\n", text),
    lambda text: re.sub(r"^.*?[.:!,][ \t]+(?=def \w+\(.*:[ \t]*$)", "", text, flags=re.M),  # Sure! def f(x):
    lambda text: re.sub(r"^[ \t]*[!%$].*$", "", text, flags=re.M),  # lines for a notebook or a shell
    lambda text: re.sub(r"(?<=[^`\s])[ \t]*```.*$", "", text, flags=re.M),  # return x``` Hope this helps!
    lambda text: re.sub(r"\x1b\[[\d;]*m|[\x01-\x08\x0b-\x1f\x7f]|</?s>|<\|[^|<>\n]{1,40}\|>", "", text),
    lambda text: re.sub(rf"^{(_INDENT.search(text) or [''])[0]}", "", text, flags=re.M),
)


def extract_program(reply: str, entry_point: str | None = None) -> str | None:
    """The program in a reply, or None when there is none.

    Fenced blocks win over bare text. Among several the last one that compiles and defines `entry_point` is taken
    (models revise themselves downwards), together with blocks that define what it uses and lacks; without such a
    block, the first that compiles and defines anything. A block or bare text that breaks off, or turns into prose, is
    cut back to its longest beginning that compiles; lines of prose that happen to do so are left out.
    Raises CourseError when `reply` is not a string.
    """
    if not isinstance(reply, str):
        raise CourseError(f"extract_program needs the reply as a string, not {type(reply).__name__}.")
    program = _program_in(text := answer_of(reply), entry_point)
    if program is not None and (entry_point is None or entry_point in _defined(program)):
        return program
    found = (_program_in(undo(text), entry_point) for undo in _DISGUISES)
    wanted = (one for one in found if one is not None and (names := _defined(one)) and entry_point in {None, *names})
    return next(wanted, program)


def _program_in(text: str, entry_point: str | None) -> str | None:
    quoted = _LONG_STRING.search(text) and _BLOCK.search(text)  # fences may stand inside strings
    if quoted and syntax_error(text) is None and (names := _defined(text)) and entry_point in {None, *names}:
        return _without_chat(text)
    fenced, bare, others = _programs(text)
    found: list[str] = []
    for read in (
        lambda: fenced,
        lambda: bare,
        lambda: _bare_programs(text) if quoted else [],
        lambda: [program for one in others for programs in _programs(one)[:2] for program in programs],
    ):
        programs = read()
        if wanted := [one for one in programs if entry_point in _defined(one)]:
            done = [one for one in wanted if not _is_stub(one, entry_point)]
            return _with_what_it_lacks((done or wanted)[-1], programs + fenced)
        found = found or programs
        if found and entry_point is None:
            break
    return next((one for one in found if _defined(one)), next(iter(found), None))


def answer_of(reply: str) -> str:
    """The reply without thoughts, invisible characters and the markers that end a turn; fences stand alone."""
    text = reply.replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE)
    text = _BEFORE_ANSWER.sub("", _THOUGHTS.sub("", text))
    return _GLUED_START.sub(r"\1\n", _GLUED_END.sub(r"\1\n```", _MARKER.sub("", text)))


def first_block(reply: str, entry_point: str | None = None) -> str | None:
    """The first fenced block as it stands, whether or not it parses or defines `entry_point`; None without one."""
    return next(iter(python_blocks(reply)), None)


def whole_reply(reply: str, entry_point: str | None = None) -> str | None:
    """The reply as it is; None when it is empty."""
    return reply if reply.strip() else None


EXTRACTIONS = {"extract_program": extract_program, "first_block": first_block, "whole_reply": whole_reply}


def python_blocks(text: str) -> list[str]:
    """Fenced blocks that are marked as Python or not marked at all, as they stand (whether or not they parse)."""
    return [_dedented(code) for _, language, code in _BLOCK.findall(text) if _PYTHON.fullmatch(language)]


def _dedented(text: str) -> str:
    """The text without the indentation of its first line of code."""
    indent = re.match(r"(?:[ \t]*\n)*([ \t]*)", text)[1]
    return re.sub(rf"^(?:[ \t]+$|{indent})", "", text, flags=re.M)


def _programs(text: str) -> tuple[list[str], list[str], list[str]]:
    """The programs in blocks of Python, those in the text around blocks, and the texts in blocks of other languages."""
    fenced, bare, others, end = [], [], [], 0
    for block in islice(_BLOCK.finditer(text), _ATTEMPTS):
        bare += _bare_programs(text[end : block.start()])
        end = block.end()
        if not _PYTHON.fullmatch(block[2]):
            others.append(block[3])
        elif program := _longest_program(_dedented(text[block.start(3) :])):  # a docstring may hold fences of its own
            fenced.append(_without_chat(program))
    return fenced, bare + _bare_programs(text[end:]), others


def _bare_programs(text: str) -> list[str]:
    """Pieces of unfenced code, each from a line that looks like code as far as it compiles."""
    found, end = [], 0
    for _ in range(_ATTEMPTS):
        if (start := _CODE_START.search(text, end)) is None:
            break
        program, end = _longest_program(text[start.start() :]), start.end()
        if program:
            end = start.start() + len(program) - 1
            found.append(program)
    return list(map(_without_chat, found))


def _longest_program(text: str) -> str | None:
    """The longest beginning of `text`, in whole lines, that compiles and holds a statement that is not a bare word."""
    lines = text.rstrip().split("\n")
    for _ in range(_ATTEMPTS):
        source = "\n".join(lines) + "\n"
        if (error := syntax_error(source)) is None:
            words = [isinstance(one, ast.Expr) and not isinstance(one.value, ast.Call) for one in parse(source).body]
            return None if all(words) else source
        del lines[min(len(lines), error.lineno or 1) - 1 :]
        while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("@")):
            lines.pop()
    return None


def syntax_error(source: str) -> SyntaxError | None:
    """Why a text is no program, and where; at its first line if Python cannot read it at all. None when it is one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's escape sequences
            compile(source, "reply", "exec")
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:
        return SyntaxError(str(error), ("reply", 1, 1, ""))
    return None


def _without_chat(source: str) -> str:
    """The program without top-level lines that are words rather than code: `Done`, `no, wrong`, `Note: correct`."""
    code = (ast.Call, ast.Await, ast.Constant, ast.ListComp, ast.NamedExpr)
    lines = source.split("\n")
    for node in parse(source).body:
        expression = isinstance(node, ast.Expr) and not isinstance(node.value, code)
        if expression or isinstance(node, ast.AnnAssign) and node.value is None:
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    kept = "\n".join(lines).rstrip() + "\n"
    return kept if kept.strip() and syntax_error(kept) is None else source


def _with_what_it_lacks(program: str, rest: list[str]) -> str:
    """The program after those of the `rest` that bind names which it uses and nobody else does."""
    rest = [one for one in rest if one != program]
    while True:
        lacked = _free_names(program)
        helper = next((one for one in reversed(rest) if lacked & _names(one, "is_assigned", "is_imported")), None)
        if helper is None:
            return program
        rest.remove(helper)
        program = f"{helper}\n{program}"


def _names(source: str, *kinds: str) -> set[str]:
    """Names of the program's top level of which a method of `symtable.Symbol` is true."""
    symbols = symtable.symtable(source, "reply", "exec").get_symbols()
    return {one.get_name() for one in symbols if any(getattr(one, kind)() for kind in kinds)}


def _defined(source: str) -> set[str]:
    return _names(source, "is_assigned")


def _free_names(source: str) -> set[str]:
    """Names that the program uses, at any depth, and neither it nor Python binds."""
    tables = [symtable.symtable(source, "reply", "exec")]
    for table in tables:
        tables += table.get_children()
    symbols = (one for table in tables for one in table.get_symbols())
    used = {one.get_name() for one in symbols if one.is_global() and one.is_referenced()}
    return used - _names(source, "is_assigned", "is_imported") - vars(builtins).keys()


def _is_stub(program: str, name: str) -> bool:
    """Whether all that the program defines under the name is a function that does nothing yet."""
    found = [one for one in parse(program).body if isinstance(one, ast.FunctionDef) and one.name == name]
    body = [part for one in found for part in one.body if not isinstance(part, ast.Pass)]
    return bool(found) and all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in body)
