"""How to sample: one object from a notebook to the decoder and to servers."""

from dataclasses import dataclass, fields, replace
from typing import Any

from acelib.core import ModelError


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Raises ModelError when counts are not positive, temperature is negative, or top_p is not in (0, 1].

    The seed and a prompt decide what is sampled, whatever else is in a batch. A server stops by its own rules and has a
    concurrency of its own: it takes no `stop`, no `repeats` and no `batch_size`.
    """

    n: int = 1  # replies per prompt
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0  # share of probability that is sampled from, likeliest tokens first
    max_new_tokens: int
    batch_size: int  # replies that are decoded together
    seed: int
    stop: tuple[int, ...] | None = None  # token ids that end a reply; None: the model's own (`stop_tokens`)
    repeats: int = 0  # a reply is cut when its last 16 tokens or more have come so many times in a row; 0: never

    def __post_init__(self):
        if min(self.n, self.max_new_tokens, self.batch_size) < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ModelError(
                f"Cannot sample by {self}; make counts positive, temperature at least 0 and top_p above 0, at most 1."
            )
        if self.repeats < 0 or self.repeats == 1:
            raise ModelError(f"Cannot sample by {self}; make repeats 2 or more, or 0 to cut no reply.")

    @classmethod
    def of(cls, *sections: Any, **values: Any) -> "SamplingParams":
        """From a profile's sections, of which later ones win, and from `values`, which win over them."""
        names = [field.name for field in fields(cls)]
        found = {name: getattr(one, name) for one in sections for name in names if hasattr(one, name)}
        return cls(**found | values)

    def greedy(self) -> "SamplingParams":
        """One reply per prompt: the likeliest token each time."""
        return replace(self, n=1, temperature=0.0, top_p=1.0)
