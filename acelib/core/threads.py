"""How many threads torch computes with: as many as the profile allows, and one while another program keeps a core busy.

Two OpenMP threads wait for each other at every operation. When one of them has to share its core, both are slower than
one alone (`bench/threads.py`). The choice is made by timing, not by the load that the system reports.
"""

import time
from statistics import fmean

EVERY = 15.0  # seconds between two looks
SLOWER, AS_FAST = 2.0, 1.1  # with how much more time than one thread many are given up, and taken again


class Threads:
    """Chooses torch's number of threads for the thread that calls it. On an idle machine it is always `most`."""

    def __init__(self, most: int):
        self.most, self.now, self._looked = most, most, -EVERY

    def look(self) -> None:
        """Time a few small operations with one thread and with many, and choose; at most every `EVERY` seconds."""
        if self.most == 1 or time.monotonic() - self._looked < EVERY:
            return
        import torch

        ratio = _time_of_many(self.most)
        wanted = 1 if ratio > SLOWER else self.most if ratio < AS_FAST else self.now
        if wanted != self.now:
            why = f"with {self.most} a step takes {ratio:.1f} times as long as with one"
            print(f"  torch computes with {wanted} thread{'s' * (wanted > 1)} from here on: {why}", flush=True)
        self.now, self._looked = wanted, time.monotonic()
        torch.set_num_threads(wanted)


def _time_of_many(most: int, seconds: float = 0.4) -> float:
    """Time of a step with `most` threads in units of its time with one.

    Steps are interleaved. Means, since a shared core shows in some steps only; the longest step does not count.
    """
    import torch

    batch, weights = torch.ones(64, 192), torch.ones(192, 768)
    times: dict[int, list[float]] = {1: [], most: []}
    start = time.monotonic()
    with torch.inference_mode():
        while len(times[most]) < 25 and time.monotonic() - start < seconds:
            for threads, found in times.items():
                torch.set_num_threads(threads)
                torch.relu(batch @ weights)  # the team of threads is there
                begin = time.perf_counter()
                for _ in range(8):
                    torch.relu(batch @ weights)
                found.append(time.perf_counter() - begin)
    with_one, with_many = (fmean(sorted(times[threads])[:-1] or times[threads]) for threads in (1, most))
    return with_many / with_one
