"""The laboratory: what is true about a question, where that can be known.

It measures and nothing else. Notebooks use it for figures; no stage that trains, filters or rewards may import it
(`tests/test_pocket.py` holds them to that). In the pocket world a question is parsed back into the composition
that it describes, whoever wrote it, and the composition is the truth. On other profiles there is no laboratory and the
notebooks say "not testable here".
"""

from __future__ import annotations

import ast

from acelib.core import Profile
from acelib.pocket import problems as pocket

TYPES = {"L": list, "S": str, "I": int}


class Laboratory:
    """Truth about pocket questions."""

    @classmethod
    def open(cls, profile: Profile) -> Laboratory | None:
        """The laboratory of a profile, or None when the profile's questions have no known meaning."""
        return cls() if profile.data.laboratory else None

    def composition(self, question: str) -> str | None:
        """Key of the composition that the question describes, or None when it is not a sentence of the pocket world."""
        composition = pocket.understand(question)
        return composition.key if composition else None

    def steps(self, question: str) -> int | None:
        """Number of steps (1 to 3) the question asks for, or None when its meaning is unknown."""
        composition = pocket.understand(question)
        return len(composition.steps) if composition else None

    def expected(self, question: str, test: str) -> tuple[bool, object]:
        """(known, value): what the call in ``assert f(<literal>) == <literal>`` should return."""
        composition, parts = pocket.understand(question), _split(test)
        if composition is None or parts is None:
            return False, None
        argument = parts[0]
        well_typed = type(argument) is TYPES[composition.takes] and (
            composition.takes != "L" or all(type(x) is int for x in argument)
        )
        if not well_typed:
            return False, None
        try:
            pocket.check_range(argument)
            return True, composition(argument)
        except pocket.OutOfRange:
            return False, None

    def test_is_valid(self, question: str, test: str) -> bool | None:
        """Whether the test asserts the true value; None when the question or the call has no known meaning."""
        known, value = self.expected(question, test)
        if not known:
            return None
        claimed = _split(test)[1]
        return type(claimed) is type(value) and claimed == value

    def hidden_tests(self, question: str, n: int, seed: int = 0) -> list[str]:
        """Up to `n` true asserts on inputs wider than the teacher's; empty when the meaning is unknown."""
        composition, opening = pocket.understand(question), pocket.OPENING.match(question.strip())
        return pocket.true_tests(composition, opening["f"], n, seed) if composition else []

    def is_held_out(self, question: str) -> bool:
        """Whether the question describes a composition that is reserved for the benchmark."""
        composition = pocket.understand(question)
        return composition is not None and pocket.split_of(composition) == "benchmark"


def _split(test: str) -> tuple[object, object] | None:
    """The literal argument and the literal claim of ``assert f(<literal>) == <literal>``."""
    try:
        comparison = ast.parse(test).body[-1].test
        (argument,) = comparison.left.args
        (claim,) = comparison.comparators
        return ast.literal_eval(argument), ast.literal_eval(claim)
    except (SyntaxError, ValueError, AttributeError, IndexError, TypeError):
        return None
