"""What a check finds, how checks are written, and how their findings are reported."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from acelib.core import CourseError


@dataclass(frozen=True)
class Finding:
    """`prevents` is the symptom a reader would otherwise meet; `remedy` is empty when all is well."""

    check: str
    ok: bool
    found: str
    prevents: str
    remedy: str = ""
    required: bool = True


def failure(check: str, error: Exception, prevents: str) -> Finding:
    """A failed check, from an error whose message reads `what is wrong; remedy.`"""
    found, _, remedy = str(error).rstrip(".").partition("; ")
    return Finding(check, False, found, prevents, remedy)


def check(text: str) -> Callable[[Callable[..., tuple]], Callable[..., Finding]]:
    """Turns a function that returns (is it well?, what was found[, required]) into one that returns a Finding.

    `text` is `title: what it prevents; remedy` and may name the function's arguments in braces; of a path the last part
    is shown. A CourseError that the function raises is a failed check with a remedy of its own.
    """

    def decorate(look: Callable[..., tuple]) -> Callable[..., Finding]:
        @functools.wraps(look)
        def run(*args, **kwargs) -> Finding:
            given = inspect.signature(look).bind(*args, **kwargs)
            given.apply_defaults()
            words = {k: v.rpartition("/")[2] if isinstance(v, str) else v for k, v in given.arguments.items()}
            title, _, rest = text.format_map(words).partition(": ")
            prevents, _, remedy = rest.partition("; ")
            try:
                ok, found, *must = look(*args, **kwargs)
            except CourseError as error:
                return failure(title, error, prevents)
            return Finding(title, ok, found, prevents, "" if ok else remedy, *must)

        return run

    return decorate


def report(findings: list[Finding]) -> str:
    """One line per finding; failures with what they would lead to and the remedy."""
    lines = []
    for one in findings:
        lines.append(f"{'ok  ' if one.ok else 'FAIL' if one.required else 'note'}  {one.check}: {one.found}")
        if not one.ok:
            lines.append(f"      would lead to {one.prevents}; {one.remedy}")
    return "\n".join(lines)


def require(findings: list[Finding]) -> None:
    """Raise CourseError when a required check failed."""
    if failed := [one for one in findings if not one.ok and one.required]:
        raise CourseError(
            f"{len(failed)} preflight check(s) failed. First: {failed[0].check}: {failed[0].found}; {failed[0].remedy}."
        )
