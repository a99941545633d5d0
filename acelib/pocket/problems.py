"""Compositions of primitives: their meaning, their phrasings, the programs that implement them, their splits."""

from __future__ import annotations

import ast
import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from acelib.pocket.primitives import PRIMITIVES, TYPE_NAMES, Primitive

MAX_STEPS = 3
ENTRY_POINTS = ("solve", "task", "compute", "transform", "process", "answer", "build", "convert", "work", "apply")
ARGUMENTS = {"L": ("xs", "nums", "values", "items"), "S": ("s", "text", "word"), "I": ("n", "num", "number")}
STYLES = ("steps", "loop", "functional", "nested")
TYPE_SHARES = {"L": 0.62, "S": 0.23, "I": 0.15}


class OutOfRange(ValueError):
    """The value lies outside the pocket world (a list or number too large to be a reasonable test)."""


@dataclass(frozen=True)
class Step:
    primitive: Primitive
    k: int | None

    @property
    def key(self) -> str:
        return self.primitive.name if self.k is None else f"{self.primitive.name}:{self.k}"


@lru_cache(maxsize=1)
def steps_by_input() -> dict[str, tuple[Step, ...]]:
    """Every primitive with every parameter, grouped by the type it takes."""
    found: dict[str, list[Step]] = {t: [] for t in TYPE_NAMES}
    for primitive in PRIMITIVES.values():
        found[primitive.takes] += [Step(primitive, k) for k in primitive.ks or (None,)]
    return {t: tuple(steps) for t, steps in found.items()}


@dataclass(frozen=True)
class Composition:
    """One to three steps applied in order; the meaning of a pocket question."""

    steps: tuple[Step, ...]

    @property
    def key(self) -> str:
        return "|".join(step.key for step in self.steps)

    @property
    def takes(self) -> str:
        return self.steps[0].primitive.takes

    @property
    def gives(self) -> str:
        return self.steps[-1].primitive.gives

    def trace(self, value) -> list:
        """The value before the first step and after each one.

        Raises:
            OutOfRange: an intermediate value is too large for this world.
        """
        values = [value]
        for step in self.steps:
            values.append(step.primitive.meaning(values[-1], step.k))
            check_range(values[-1])
        return values

    def __call__(self, value):
        return self.trace(value)[-1]


def check_range(value) -> None:
    if isinstance(value, int):
        if abs(value) > 10**6:
            raise OutOfRange(f"{value} is larger than the pocket world's 10^6")
    elif len(value) > 200:
        raise OutOfRange(f"a value of length {len(value)} is longer than the pocket world's 200")


def parse_key(key: str) -> Composition:
    """The composition written as ``name|name:k|...`` (inverse of `Composition.key`)."""
    steps = []
    for part in key.split("|"):
        name, _, k = part.partition(":")
        steps.append(Step(PRIMITIVES[name], int(k) if k else None))
    return Composition(tuple(steps))


def follows(previous: Step, step: Step) -> bool:
    return step.primitive.takes == previous.primitive.gives and step.primitive.name != previous.primitive.name


def count_compositions() -> int:
    """Number of distinct well-typed compositions of one to `MAX_STEPS` steps."""
    steps = [step for group in steps_by_input().values() for step in group]
    ending_with = dict.fromkeys(steps, 1)
    total = len(steps)
    for _ in range(MAX_STEPS - 1):
        ending_with = {s: sum(n for p, n in ending_with.items() if follows(p, s)) for s in steps}
        total += sum(ending_with.values())
    return total


def split_of(composition: Composition) -> str:
    """``train``, ``seeds`` (synthesis and RL) or ``benchmark``: by composition, never by phrasing."""
    if len(composition.steps) == 1:
        return "train"
    bucket = int(hashlib.sha256(composition.key.encode()).hexdigest(), 16) % 100
    return "train" if bucket < 70 else "seeds" if bucket < 85 else "benchmark"


def random_value(rng: random.Random, type_: str, longest: int = 5):
    """An input as a person would pick it: short, small, sometimes empty or negative."""
    if type_ == "L":
        length = rng.choice([0, *range(1, longest + 1), *range(2, longest + 1)])
        low = rng.choice([0, 0, 1, -5])
        return [rng.randint(low, 9) for _ in range(length)]
    if type_ == "S":
        length = rng.choice([0, *range(1, longest + 1), *range(2, longest + 1)])
        return "".join(rng.choice("aeobcdAEBCDX12") for _ in range(length))
    return rng.choice([rng.randint(0, 9), rng.randint(0, 30), rng.randint(10, 99), rng.randint(-20, -1)])


def is_interesting(composition: Composition) -> bool:
    """Whether the answer depends on the input and every value stays small."""
    rng = random.Random(composition.key)
    outputs = set()
    try:
        for _ in range(16):
            outputs.add(repr(composition(random_value(rng, composition.takes))))
    except OutOfRange:
        return False
    return len(outputs) >= 4


def random_composition(rng: random.Random, split: str, lengths=(1, 2, 2, 3, 3, 3)) -> Composition:
    """A composition of the given split, drawn by type share and length."""
    by_input = steps_by_input()
    while True:
        length = rng.choice(lengths)
        type_ = rng.choices(list(TYPE_SHARES), list(TYPE_SHARES.values()))[0]
        steps: list[Step] = []
        while len(steps) < length:
            # A primitive first and its parameter second, so that parametrised ones do not crowd out the rest.
            names = sorted({s.primitive.name for s in by_input[type_] if not steps or follows(steps[-1], s)})
            name = rng.choice(names)
            steps.append(rng.choice([s for s in by_input[type_] if s.primitive.name == name]))
            type_ = PRIMITIVES[name].gives
        composition = Composition(tuple(steps))
        if split_of(composition) == split and is_interesting(composition):
            return composition


def compositions(seed: int, split: str, lengths=(1, 2, 2, 3, 3, 3)) -> Iterator[Composition]:
    """An endless deterministic stream (repetitions included) of one split's compositions."""
    rng = random.Random(seed)
    while True:
        yield random_composition(rng, split, lengths)


# --- questions -------------------------------------------------------------------------------------------------------

OPENINGS = (
    "Write a function `{f}({x})` that takes {type}.",
    "Implement `{f}({x})` where `{x}` is {type}.",
    "Define `{f}({x})` for {type}.",
)
JOINERS = (
    (", then ", ", then "),
    (". Then ", ". Then "),
    (", and after that ", ", and after that "),
    (". Next, ", ". Finally, "),
)
CLOSINGS = (" and return the result.", ". Return the result.", ".")
OPENING = re.compile(
    r"(?:Write a function|Implement|Define) `(?P<f>\w+)\((?P<x>\w+)\)` (?:that takes|where `\w+` is|for) "
    r"(?P<type>a list of integers|a string|an integer)\. (?P<steps>.+)",
    re.DOTALL,
)
_JOINER = re.compile("|".join(sorted({re.escape(j) for pair in JOINERS for j in pair}, key=len, reverse=True)))
_CLOSING = re.compile(r"(?: and return the result\.|\. Return the result\.|\.)$")


def phrase_question(rng: random.Random, composition: Composition, entry_point: str, argument: str) -> str:
    """A natural-language question for the composition, in one of many phrasings."""
    phrases = [rng.choice(s.primitive.phrases).format(k=s.k) for s in composition.steps]
    between, last = rng.choice(JOINERS)
    text = phrases[0][0].upper() + phrases[0][1:]
    for i, phrase in enumerate(phrases[1:], start=1):
        text += (last if i == len(phrases) - 1 else between) + phrase
    opening = rng.choice(OPENINGS).format(f=entry_point, x=argument, type=TYPE_NAMES[composition.takes])
    return f"{opening} {text}{rng.choice(CLOSINGS)}"


@lru_cache(maxsize=1)
def _steps_by_phrase() -> dict[tuple[str, str], Step]:
    table = {}
    for steps in steps_by_input().values():
        for step in steps:
            for phrase in step.primitive.phrases:
                spoken = (step.primitive.takes, phrase.format(k=step.k))
                if table.setdefault(spoken, step) != step:
                    raise ValueError(f"the phrase {spoken} means two things")
    return table


def understand(question: str) -> Composition | None:
    """The composition that a question describes, or None when it is not a sentence of this world."""
    opening = OPENING.fullmatch(question.strip())
    if not opening:
        return None
    text = _CLOSING.sub("", opening["steps"])
    type_ = next(t for t, name in TYPE_NAMES.items() if name == opening["type"])
    steps = []
    for phrase in _JOINER.split(text):
        step = _steps_by_phrase().get((type_, phrase[:1].lower() + phrase[1:]))
        if step is None:
            return None
        steps.append(step)
        type_ = step.primitive.gives
    return Composition(tuple(steps)) if len(steps) <= MAX_STEPS else None


# --- programs --------------------------------------------------------------------------------------------------------


def write_program(
    rng: random.Random, composition: Composition, entry_point: str, argument: str, style: str | None = None
) -> str:
    """Python source of a function that implements the composition, in one of `STYLES`."""
    style = style or rng.choice(STYLES)
    exprs = [rng.choice(s.primitive.exprs) for s in composition.steps]
    if style == "nested" and all(e.count("{v}") == 1 for e in exprs[1:]) and len(exprs) <= 2:
        value = argument
        for step, expr in zip(composition.steps, exprs):
            value = expr.format(v=value if _binds_tightly(value) else f"({value})", k=step.k)
        return f"def {entry_point}({argument}):\n    return {value}\n"
    lines, value, type_, looped = [f"def {entry_point}({argument}):"], argument, composition.takes, False
    for i, (step, expr) in enumerate(zip(composition.steps, exprs)):
        primitive, last = step.primitive, i == len(exprs) - 1
        elementwise = primitive.condition or primitive.body
        if style == "loop" and elementwise and not looped:
            lines += _loop(step, value, type_)
            value, looped = "out", True
            if type_ == "S":
                expr = '"".join({v})'
            elif last:
                lines.append("    return out")
                break
            else:
                continue
        elif style == "functional" and elementwise:
            call = "filter" if primitive.condition else "map"
            expr = f"{call}(lambda x: {elementwise}, {{v}})"
            expr = f"list({expr})" if type_ == "L" else f'"".join({expr})'
        expr = expr.format(v=value, k=step.k)
        if last:
            lines.append(f"    return {expr}")
        else:
            if primitive.gives != type_ or value == "out":
                value = next(n for n in ARGUMENTS[primitive.gives] if n != argument)
            lines.append(f"    {value} = {expr}")
        type_ = primitive.gives
    return "\n".join(lines) + "\n"


def _binds_tightly(expression: str) -> bool:
    node = ast.parse(expression, mode="eval").body
    return isinstance(node, (ast.Name, ast.Call, ast.Subscript, ast.ListComp))


def _loop(step: Step, value: str, type_: str) -> list[str]:
    primitive = step.primitive
    lines = ["    out = []", f"    for x in {value}:"]
    if primitive.condition:
        return lines + [f"        if {primitive.condition.format(k=step.k)}:", "            out.append(x)"]
    return lines + [f"        out.append({primitive.body.format(k=step.k)})"]


def assertion(entry_point: str, value, expected) -> str:
    return f"assert {entry_point}({value!r}) == {expected!r}"


def true_tests(composition: Composition, entry_point: str, n: int, seed: int) -> list[str]:
    """`n` distinct correct asserts, longer and wider inputs than the ones the teacher was trained to pick."""
    rng = random.Random(f"{seed}/{composition.key}")
    tests: dict[str, None] = {}
    for _ in range(50 * n):
        value = random_value(rng, composition.takes, longest=7)
        try:
            tests[assertion(entry_point, value, composition(value))] = None
        except OutOfRange:
            continue
        if len(tests) == n:
            break
    return list(tests)
