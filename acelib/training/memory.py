"""GPU memory during training: an end with a remedy at the second or third step instead of an error at hour five."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from transformers import TrainerCallback

from acelib.core import DeviceError
from acelib.models import GIB, UNFRAGMENTED

WATCHED = 3  # steps


class Memory(NamedTuple):
    """GiB on this process's GPU."""

    allocated: float  # peak of the tensors since the last reading
    reserved: float  # peak of what torch's allocator held
    capacity: float  # all that this process can have: what the allocator holds now, and what the card has free


def read_memory() -> Memory | None:
    """Memory since the last call, whose peaks it forgets; None where no GPU is in use."""
    if not torch.cuda.is_initialized():
        return None
    capacity = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    found = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), capacity
    torch.cuda.reset_peak_memory_stats()
    return Memory(*(one / GIB for one in found))


def expected_growth(before: Memory, after: Memory, step: int) -> float:
    """GiB by which the allocator's share will grow once more if it goes on as it did between two steps; `step` is the
    later one, from 1.

    From the third step on nothing new comes to stay, so all that the allocator took more is fragments, or a batch
    longer than any before, and both come again. At the second step what the tensors grew by does not count: the
    optimiser's moments are made at the end of the first one, and only then.
    """
    growth = after.reserved - before.reserved
    return growth - max(0.0, after.allocated - before.allocated) if step == 2 else growth


class MemoryWatch(TrainerCallback):
    """Raises DeviceError after the second or third step of a run when another growth like the last (see
    `expected_growth`) would exceed the card. Does nothing where no GPU is in use.

    `remedy` says what to lower, in the words of the profile.
    """

    def __init__(self, remedy: str, read: Callable[[], Memory | None] = read_memory):
        self.remedy, self.read = remedy, read
        self.readings: list[Memory] = []

    def on_step_end(self, args, state, control, **kwargs):
        if len(self.readings) >= WATCHED or (now := self.read()) is None:
            return
        self.readings.append(now)
        step = len(self.readings)
        growth = expected_growth(self.readings[-2], now, step) if step > 1 else 0.0
        if growth > 0 and now.reserved + growth > now.capacity:
            raise DeviceError(
                f"GPU memory will not last: at step {step} of this run {now.reserved:.1f} of {now.capacity:.1f} GiB "
                f"are reserved, {now.reserved - now.allocated:.1f} of them as fragments, and another growth of "
                f"{growth:.1f} GiB like the last would not fit; {UNFRAGMENTED}, or {self.remedy}, and repeat the "
                "command."
            )
