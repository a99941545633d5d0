"""From a model's reply to the program in it.

A reply may be a fenced block, several of them, bare code, code between chat, or a base model's rambling. Whatever it
is, `extract_program` returns source text or None; None is a normal answer and becomes a verdict, not an exception.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from itertools import islice

from acelib.core import CourseError

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.-]*)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.M | re.S)
_PYTHON = {"", "python", "py", "python3", "python2", "Python", "PYTHON"}
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.S)
_CODE_START = re.compile(r"(?:async )?def \w|class \w|import \w|from [\w.]+ import |@\w|\w+(?:: ?\w+)? = ")
_ATTEMPTS = 50


def extract_program(reply: str, entry_point: str | None = None) -> str | None:
    """The program in a reply, or None when there is none.

    Fenced blocks win over bare text. Among several the last one that parses and defines `entry_point` is taken (models
    revise themselves downwards); without such a block, the first that parses and defines anything. A block or bare
    text that breaks off, or turns into prose, is cut back to its longest beginning that parses.
    Raises CourseError when `reply` is not a string.
    """
    if not isinstance(reply, str):
        raise CourseError(f"extract_program needs the reply as a string, not {type(reply).__name__}.")
    text = _THOUGHTS.sub("", reply.replace("\r\n", "\n"))
    blocks = python_blocks(text)
    programs = [p for block in blocks if (p := _longest_program(block)) is not None]
    if not programs and not blocks:
        starts = islice(_code_starts(text), _ATTEMPTS)  # a model in a loop writes thousands
        programs = list(islice((p for at in starts if (p := _longest_program(text[at:])) is not None), 1))
    if entry_point is not None:
        wanted = [p for p in programs if entry_point in _definitions(p)]
        if wanted:
            return wanted[-1]
    defining = [p for p in programs if _definitions(p)]
    return (defining or programs or [None])[0]


def first_block(reply: str, entry_point: str | None = None) -> str | None:
    """The first fenced block as it stands, whether or not it parses or defines `entry_point`; None without one."""
    return next(iter(python_blocks(reply)), None)


def whole_reply(reply: str, entry_point: str | None = None) -> str | None:
    """The reply as it is; None when it is empty."""
    return reply if reply.strip() else None


EXTRACTIONS = {"extract_program": extract_program, "first_block": first_block, "whole_reply": whole_reply}


def python_blocks(text: str) -> list[str]:
    """Fenced blocks that are marked as Python or not marked at all, as they stand (whether or not they parse)."""
    return [textwrap.dedent(m.group(3)) for m in _FENCE.finditer(text) if m.group(2) in _PYTHON]


def _code_starts(text: str):
    """Offsets of unindented lines that look like code, first of all the whole text."""
    position = 0
    for line in text.splitlines(keepends=True):
        if _CODE_START.match(line):
            yield position
        position += len(line)


def _longest_program(text: str) -> str | None:
    """The longest beginning of `text`, in whole lines, that parses and holds a statement that is not a bare word."""
    lines = text.rstrip().split("\n")
    for _ in range(_ATTEMPTS):
        if not lines:
            return None
        source = "\n".join(lines) + "\n"
        error = _syntax_error(source)
        if error is None:
            return source if _definitions(source) or _acts(source) else None
        cut = min(len(lines) - 1, (error.lineno or len(lines)) - 1)
        lines = lines[: max(cut, 0)]
        while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("@")):
            lines.pop()
    return None


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _syntax_error(source: str) -> SyntaxError | None:
    try:
        _parse(source)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:
        return SyntaxError(str(error), ("", 1, 0, ""))
    return None


def _definitions(source: str) -> set[str]:
    """Names that the program's top level binds by def, class, assignment or import."""
    names = set()
    for node in _parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return names


def _acts(source: str) -> bool:
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in _parse(source).body)
