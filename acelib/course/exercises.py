"""The line under every exercise: says what is wrong with an answer, and never stops the notebook."""

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class _NotSolved(Exception):
    """An exercise still returns nothing."""


@contextmanager
def check(answer: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Try a reader's function in the body of a `with` and print one line: right, not right yet and why, not solved yet.

    The body gets `answer`, holds what it returns by `assert ..., "what is wrong"`, and ends at the first that does not
    hold. An answer that returns None is not solved yet. Nothing is raised, so that a notebook with open exercises runs.
    """

    @functools.wraps(answer)
    def tried(*args: Any, **kwargs: Any) -> Any:
        found = answer(*args, **kwargs)
        if found is None:
            raise _NotSolved
        return found

    name = answer.__name__
    try:
        yield tried
    except _NotSolved:
        print(f"Not solved yet: `{name}` returns nothing. Write it in the cell above, run that cell, then this one.")
    except AssertionError as wrong:
        print(f"Not right yet: {wrong}")
    except Exception as error:
        lines = traceback.extract_tb(error.__traceback__)
        own = [line for line in lines if line.filename == answer.__code__.co_filename] or lines
        print(f"Not right yet: {type(error).__name__}: {error} (in `{own[-1].name}`: {own[-1].line})")
    else:
        print(f"Right: `{name}`.")
