"""What commands share: --profile, and --set for single values of it; an error as one sentence and an exit status."""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import yaml

from acelib.core import CourseError, ProfileError

# For `parents=` of a command's parser.
PROFILE, PROFILE_AND_SET = (argparse.ArgumentParser(add_help=False) for _ in range(2))
for parser in (PROFILE, PROFILE_AND_SET):
    parser.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
PROFILE_AND_SET.add_argument(
    "--set",
    dest="overrides",
    metavar="KEY=VALUE",
    action="append",
    default=[],
    help="replace a value of the profile, as in reinforce.steps=2",
)


def explained(command: Callable[..., int | None]) -> Callable[..., int]:
    """The command with an exit status: what it returns (None is 0), or 1 after a CourseError, which is printed."""

    @functools.wraps(command)
    def run(*args) -> int:
        try:
            return command(*args) or 0
        except CourseError as error:
            print(f"\n{error}", file=sys.stderr)
            return 1

    return run


def set_values(texts: list[str]) -> dict[str, Any]:
    """Values of `--set`, by their dotted keys. Raises ProfileError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ProfileError(
                f"{text!r} is not key=value, as in reinforce.steps=2; leave no blanks beside the `=`, "
                "and none in a value of make's SET=."
            )
        try:
            found[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise ProfileError(
                f"The value of {text!r} is not YAML; put text with special signs into quotes, as in "
                f"--set '{key}=\"...\"', and leave no blanks in a value of make's SET=."
            ) from None
    return found
