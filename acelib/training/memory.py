"""GPU memory during training: an end with a remedy at the second or third step instead of an error at hour five."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import TrainerCallback

from acelib.core import DeviceError
from acelib.models import GIB, UNFRAGMENTED

WATCHED = 3  # steps


@dataclass(frozen=True)
class Memory:
    """GiB on this process's GPU: the peaks of tensors and of what torch's allocator held since the last reading, and
    all that this process can have (what the allocator holds now and what the card has free)."""

    allocated: float
    reserved: float
    capacity: float


def read_memory() -> Memory | None:
    """Memory since the last call, whose peaks it forgets; None where no GPU is in use."""
    if not torch.cuda.is_initialized():
        return None
    free, _ = torch.cuda.mem_get_info()
    found = Memory(
        torch.cuda.max_memory_allocated() / GIB,
        torch.cuda.max_memory_reserved() / GIB,
        (free + torch.cuda.memory_reserved()) / GIB,
    )
    torch.cuda.reset_peak_memory_stats()
    return found


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

    def on_train_begin(self, args, state, control, **kwargs):
        self.readings.clear()

    def on_step_end(self, args, state, control, **kwargs):
        if len(self.readings) >= WATCHED or (now := self.read()) is None:
            return
        self.readings.append(now)
        step = len(self.readings)
        if step == 1:
            return
        growth = expected_growth(self.readings[-2], now, step)
        if growth > 0 and now.reserved + growth > now.capacity:
            raise DeviceError(
                f"GPU memory will not last: at step {step} of this run {now.reserved:.1f} of {now.capacity:.1f} GiB "
                f"are reserved, {now.reserved - now.allocated:.1f} of them as fragments, and another growth of "
                f"{growth:.1f} GiB like the last would not fit; {UNFRAGMENTED}, or {self.remedy}, and repeat the "
                "command."
            )
