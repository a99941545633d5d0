"""From a model's reply to the program in it.

A reply may be a fenced block, several of them, bare code, code between chat, or a base model's rambling. Whatever it
is, `extract_program` returns source text or None; None is a normal answer and becomes a verdict, not an exception.

One principle: the answer is what comes after the thoughts; in it, the last piece that parses and defines the entry
point, fenced pieces before bare ones; with the pieces that define names it lacks; without a line of chat. Where there
is none, the same is tried without each of the disguises that programs come in: prompts, line numbers, entities, JSON.
"""

from __future__ import annotations

import ast
import builtins
import html
import json
import re
import textwrap
import warnings
from itertools import islice
from typing import NamedTuple

from acelib.core import CourseError

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([\w+.#-]*)[ \t]*([^\n`]*)$")
_PYTHON = re.compile(r"(?:python|py)[\d.]*|", re.I)
_THOUGHT = r"(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)"
_THOUGHTS = re.compile(rf"<{_THOUGHT}>.*?(</{_THOUGHT}>|\Z)", re.S | re.I)
_BEFORE_ANSWER = re.compile(rf"\A.*</{_THOUGHT}>", re.S | re.I)
_MARKER = re.compile(r"(?:<\|[^|<>\n]{1,40}\|>|</?s>|\[/?(?:CODE|INST|PYTHON|ANSWER)\])[ \t]*$", re.M)
_GLUED_FENCE = re.compile(r"^([ \t]*[^`~\s\n][^`\n]*?)[ \t]*```[ \t]*$", re.M)  # `return x```` in one line
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))
_CODE_START = re.compile(r"(?:async )?def \w|class \w|import \w|from [\w.]+ import |@\w|\w+(?:: ?[\w\[\], ]+)? = ")
_ATTEMPTS = 50
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
_SIGNS = dict(zip(map(ord, "\xa0\u3000\u2028\u2029\x85“”‘’：，（）"), "  \n\n\n\"\"'':,()"))
_JSON_STRING = re.compile(r'"(?:[^"\\\n]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"')
_INDENT = re.compile(r"^[ \t]+(?=(?:async )?def \w|class \w|import \w|from \w|@\w)", re.M)


def extract_program(reply: str, entry_point: str | None = None) -> str | None:
    """The program in a reply, or None when there is none.

    Fenced blocks win over bare text. Among several the last one that parses and defines `entry_point` is taken (models
    revise themselves downwards), together with blocks that define what it uses and lacks; without such a block, the
    first that parses and defines anything. A block or bare text that breaks off, or turns into prose, is cut back to
    its longest beginning that parses; lines of prose that happen to parse are left out.
    Raises CourseError when `reply` is not a string.
    """
    if not isinstance(reply, str):
        raise CourseError(f"extract_program needs the reply as a string, not {type(reply).__name__}.")
    program = _program_in(text := answer_of(reply), entry_point)
    if program is not None and (entry_point is None or entry_point in _definitions(program)):
        return program
    found = (_program_in(undo(text), entry_point) for undo in _DISGUISES)
    wanted = (
        one for one in found if one is not None and (names := _definitions(one)) and entry_point in {None, *names}
    )
    return next(wanted, program)


def _program_in(text: str, entry_point: str | None) -> str | None:
    if _syntax_error(text) is None and (names := _definitions(text)) and entry_point in {None, *names}:
        return _without_chat(text)  # its fences, if any, stand inside strings
    blocks, around = _blocks(text)
    fenced = _programs([block.code for block in blocks if _PYTHON.fullmatch(block.tag)])
    if entry_point is not None:
        others = [block.code for block in blocks if not _PYTHON.fullmatch(block.tag)]
        inner = [block.code for code in others for block in _blocks(code)[0]]  # a whole reply inside a fence
        bare = (lambda: _bare_programs(around), lambda: _bare_programs([text]) if blocks else [])
        for find in (lambda: fenced, *bare, lambda: _programs(inner + others)):
            pieces = find()
            wanted = [place for place, program in enumerate(pieces) if entry_point in _definitions(program)]
            if wanted:
                done = [place for place in wanted if not _is_stub(pieces[place], entry_point)]
                return _with_what_it_lacks(pieces, (done or wanted)[-1], fenced)
    programs = fenced or _bare_programs(around) or _programs([block.code for block in blocks])
    defining = [p for p in programs if _definitions(p)]
    return (defining or programs or [None])[0]


def answer_of(reply: str) -> str:
    """The reply without thoughts, invisible characters and the markers that end a turn."""
    text = reply.replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE)
    text = _BEFORE_ANSWER.sub("", _THOUGHTS.sub("", text))
    return _GLUED_FENCE.sub(r"\1\n```", _MARKER.sub("", text))


def first_block(reply: str, entry_point: str | None = None) -> str | None:
    """The first fenced block as it stands, whether or not it parses or defines `entry_point`; None without one."""
    return next(iter(python_blocks(reply)), None)


def whole_reply(reply: str, entry_point: str | None = None) -> str | None:
    """The reply as it is; None when it is empty."""
    return reply if reply.strip() else None


EXTRACTIONS = {"extract_program": extract_program, "first_block": first_block, "whole_reply": whole_reply}


def python_blocks(text: str) -> list[str]:
    """Fenced blocks that are marked as Python or not marked at all, as they stand (whether or not they parse)."""
    return [block.code for block in _blocks(text)[0] if _PYTHON.fullmatch(block.tag)]


class _Block(NamedTuple):
    tag: str
    code: str


def _blocks(text: str) -> tuple[list[_Block], list[str]]:
    """The fenced blocks of a text, and the texts around them.

    A block ends at the first fence after which it parses (a docstring may hold fences of its own), else at the first.
    """
    lines = text.split("\n")
    fences = [match for line in lines if (match := _FENCE.match(line))] if "```" in text or "~~~" in text else []
    fences = fences[: 2 * _ATTEMPTS]  # a model in a loop writes thousands
    places = [place for place, line in enumerate(lines) if _FENCE.match(line)] if fences else []
    blocks, around, position, number = [], [], 0, 0
    while number < len(fences):
        start, opening = places[number], fences[number]
        closers = [n for n in range(number + 1, len(fences)) if _closes(fences[n], opening)]
        ends = [places[n] for n in closers] or [len(lines)]
        attempts = max(3, _ATTEMPTS // (number + 1))
        codes = ((end, _content(opening, lines[start + 1 : end])) for end in islice(ends, attempts))
        end, code = next(
            ((end, code) for end, code in codes if code.strip() and _syntax_error(code) is None), (None, "")
        )
        if end is None:
            end, code = ends[0], _content(opening, lines[start + 1 : ends[0]])
        around.append("\n".join(lines[position:start]))
        blocks.append(_Block(opening.group(2), code))
        reopened = (
            end < len(lines) and _FENCE.match(lines[end]).group(2) and _FENCE.match(lines[end]).group(2).isascii()
        )
        position = end if reopened else end + 1
        number = next((n for n in range(number + 1, len(fences)) if places[n] >= position), len(fences))
    return blocks, [*around, "\n".join(lines[position:])]


def _closes(fence, opening) -> bool:
    """Whether a fence may end the block: of the same sign, and bare, or the start of the next block."""
    same = fence.group(1)[0] == opening.group(1)[0] and len(fence.group(1)) >= len(opening.group(1))
    return same and (not fence.group(3) or bool(fence.group(2)))


def _content(opening, lines: list[str]) -> str:
    """The code of a block; what follows the language tag in its first line belongs to it if it looks like code."""
    glued = opening.group(3)
    first = [glued] if _CODE_START.match(glued) else []
    return textwrap.dedent("\n".join([*lines, ""])) if not first else "\n".join([*first, *lines, ""])


def _programs(codes: list[str]) -> list[str]:
    return [program for code in codes if (program := _longest_program(code)) is not None]


def _bare_programs(texts: list[str]) -> list[str]:
    """Pieces of unfenced code, each from a line that looks like code as far as it parses."""
    return [program for text in texts[:_ATTEMPTS] for program in _bare_pieces(text)]


def _bare_pieces(text: str) -> list[str]:
    found, lines, position, attempts = [], text.split("\n"), 0, 0
    while position < len(lines) and attempts < _ATTEMPTS:  # a model in a loop writes thousands
        if not _CODE_START.match(lines[position]):
            position += 1
            continue
        attempts += 1
        program = _longest_program("\n".join(lines[position:]), clean=False)
        if program is None:
            position += 1
            continue
        position += program.count("\n")
        if (cleaned := _without_chat(program)) is not None:
            found.append(cleaned)
    return found


def _with_what_it_lacks(pieces: list[str], place: int, fenced: list[str]) -> str:
    """The chosen piece after those of its neighbours that define names which it uses and nobody else does."""
    program, rest = pieces[place], [p for n, p in enumerate(pieces) if n != place]
    rest += [p for p in fenced if fenced is not pieces]
    for _ in rest:
        missing = _used(program) - _bound(program) - vars(builtins).keys()
        helper = next((p for p in reversed(rest) if (_definitions(p) | _imports(p)) & missing), None)
        if helper is None:
            break
        rest.remove(helper)
        program = f"{helper}\n{program}"
    return program


def _longest_program(text: str, clean: bool = True) -> str | None:
    """The longest beginning of `text`, in whole lines, that parses and holds a statement that is not a bare word."""
    lines = text.rstrip().split("\n")
    for _ in range(_ATTEMPTS):
        if not lines:
            return None
        source = "\n".join(lines) + "\n"
        error = _syntax_error(source)
        if error is None:
            return (_without_chat(source) if clean else source) if _definitions(source) or _acts(source) else None
        cut = min(len(lines) - 1, (error.lineno or len(lines)) - 1)
        lines = lines[: max(cut, 0)]
        while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("@")):
            lines.pop()
    return None


def _without_chat(source: str) -> str | None:
    """The program without top-level lines that are words rather than code: `Done`, `no, wrong`, `Note: correct`."""
    lines = source.split("\n")
    for number, node in enumerate(_parse(source).body):
        if _is_chat(node) and not (number == 0 and isinstance(node.value, ast.Constant)):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    kept = "\n".join(lines)
    if kept != source:
        kept = kept.rstrip() + "\n"
    return kept if kept.strip() and _syntax_error(kept) is None else source


def _is_chat(node) -> bool:
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    harmless = (ast.Call, ast.Await, ast.Constant, ast.ListComp, ast.NamedExpr)
    return isinstance(node, ast.Expr) and not isinstance(node.value, harmless)


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def statements(source: str) -> list[ast.stmt]:
    """The statements of a text; none where it does not parse."""
    return _parse(source).body if _syntax_error(source) is None else []


def _syntax_error(source: str) -> SyntaxError | None:
    try:
        body = _parse(source).body
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:
        return SyntaxError(str(error), ("", 1, 0, ""))
    astray = [
        node for node in body if isinstance(node, (ast.Return, ast.Break, ast.Continue))
    ]  # the parser lets them be
    return SyntaxError("outside of a function", ("", astray[0].lineno, 0, "")) if astray else None


def _definitions(source: str) -> set[str]:
    """Names that the program's top level binds by def, class or assignment, also under `if`, `try` and `with`."""
    names, todo = set(), list(_parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {t.id for t in targets if isinstance(t, ast.Name)}
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            todo += node.body
    return names


def _imports(source: str) -> set[str]:
    imports = [node for node in _parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {(name.asname or name.name).split(".")[0] for node in imports for name in node.names}


def _is_stub(program: str, name: str) -> bool:
    """Whether all that the program defines under the name is a function that does nothing yet."""
    found = [n for n in _parse(program).body if isinstance(n, ast.FunctionDef) and n.name == name]
    idle = (ast.Pass, ast.Expr)
    return bool(found) and all(isinstance(n, idle) and not _calls(n) for function in found for n in function.body)


def _calls(node) -> bool:
    return any(isinstance(part, (ast.Call, ast.Yield, ast.YieldFrom, ast.Await)) for part in ast.walk(node))


def _used(source: str) -> set[str]:
    return {n.id for n in ast.walk(_parse(source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _bound(source: str) -> set[str]:
    names = set()
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return names


def _acts(source: str) -> bool:
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in _parse(source).body)
