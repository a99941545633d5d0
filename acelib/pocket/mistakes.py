"""Bugs as people write them: an operation taken for a similar one, and some operations by nearly everybody.

Public code is full of programs that do not do what was asked, and so is what the policy reads. Its own wrong programs
are then clean, plausible and often partly right, as a large model's are, instead of the slips of an unfinished one.
"""

from __future__ import annotations

import hashlib
import random
import re
from functools import cache

from acelib.pocket.primitives import PRIMITIVES, Primitive
from acelib.pocket.problems import Composition, Step, random_value

CAREFUL_AUTHORS = 0.15  # share of programs by authors who seldom err: one bug announces more of them
CAREFUL = 0.1  # how often such an author errs, relative to a hasty one
TREACHEROUS = 1 / 3  # share of the operations that hasty authors usually get wrong
USUALLY, RARELY = 0.85, 0.2  # how often a hasty author gets a treacherous operation wrong, and any other
LIKELIEST = 0.85  # share of the mistakes on an operation that take it for the same other one


def _parameter(primitive: Primitive, k: int | None, rng: random.Random) -> int | None:
    return k if k in primitive.ks or not primitive.ks else rng.choice(primitive.ks)


@cache
def lookalikes(name: str) -> tuple[str, ...]:
    """The one or two operations of the same type that are easiest taken for primitive `name`.

    They share words with it (Jaccard index of the paraphrases' words) or give the same result on many inputs.
    """
    primitive, rng = PRIMITIVES[name], random.Random(name)
    values = [random_value(rng, primitive.takes) for _ in range(200)]

    def similarity(other: Primitive) -> float:
        mine, theirs = _words(primitive), _words(other)
        k = primitive.ks[0] if primitive.ks else None
        other_k = _parameter(other, k, random.Random(0))
        agree = sum(primitive.meaning(value, k) == other.meaning(value, other_k) for value in values)
        return len(mine & theirs) / len(mine | theirs) + agree / len(values)

    same_type = [p for p in PRIMITIVES.values() if (p.takes, p.gives) == (primitive.takes, primitive.gives)]
    others = sorted((p for p in same_type if p is not primitive), key=lambda p: (-similarity(p), p.name))
    return tuple(p.name for p in others[:2])


def _words(primitive: Primitive) -> set[str]:
    return set(re.findall(r"[a-z]+", " ".join(primitive.phrases)))


def is_treacherous(name: str) -> bool:
    """Whether hasty authors usually get the primitive `name` wrong: fixed for ever by its name."""
    return int(hashlib.sha256(f"treacherous/{name}".encode()).hexdigest(), 16) % 10**6 < TREACHEROUS * 10**6


def misread(rng: random.Random, composition: Composition) -> Composition:
    """The composition that some author understood, often another than the one that was asked for."""
    haste, steps = CAREFUL if rng.random() < CAREFUL_AUTHORS else 1.0, []
    for step in composition.steps:
        if rng.random() < haste * (USUALLY if is_treacherous(step.primitive.name) else RARELY):
            similar = lookalikes(step.primitive.name)
            taken_for = PRIMITIVES[similar[0] if rng.random() < LIKELIEST else similar[-1]]
            step = Step(taken_for, _parameter(taken_for, step.k, rng) if taken_for.ks else None)
        steps.append(step)
    return Composition(tuple(steps))
