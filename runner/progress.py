"""One progress line per notebook, with a forecast that follows what is seen."""

import shutil
from contextlib import suppress
from typing import Any, TextIO

PLAIN_SECONDS = 30.0  # between two lines on something that is not a terminal


def clock(seconds: float) -> str:
    """Minutes and seconds, as 4:01."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Forecast:
    """How long a notebook will take in all, by the last run and by how this one keeps up with it.

    last: `seconds` of the last run and its `stages`, the seconds from and to which each lasted; both may lack.
    """

    def __init__(self, last: dict[str, Any]):
        self.last, self.stages = last, {}  # of this run, growing with every `see`
        self._name, self._times, self._done = "", 0, 0.0

    def see(self, seconds: float, stage: dict[str, Any] | None) -> float | None:
        """Seconds in all, as it looks after `seconds` in `stage` (label, done, total); None while nothing tells.

        With the last run's stages: what it had left at this point, stretched by how much longer this run took to get
        here. Without: what is left of the stage at its pace so far, or the last run's time if that is more.
        """
        whole = self.last.get("seconds") or 0.0
        if not stage:
            return whole if whole > seconds else None
        place, share = self._place(stage), min(1.0, stage["done"] / max(1, stage["total"]))
        began = self.stages.setdefault(place, [round(seconds, 1), 0.0])[0]
        self.stages[place][1] = round(seconds, 1)
        if before := self.last.get("stages", {}).get(place):
            here = before[0] + share * (before[1] - before[0])
            return seconds + max(0.0, whole - here) * seconds / here if here else whole
        needed = seconds + (seconds - began) * (1 - share) / share if share else 0.0
        return max(whole, needed) if max(whole, needed) > seconds else None

    def _place(self, stage: dict[str, Any]) -> str:
        """The stage's name (its label without what stands in brackets), numbered from its second time on."""
        name, done = stage["label"].split(" (")[0], stage["done"]
        if name != self._name or done < self._done:
            self._times = 1 + sum(one.partition(" #")[0] == name for one in self.stages)
        self._name, self._done = name, done
        return name if self._times == 1 else f"{name} #{self._times}"


class Line:
    """The progress line of a notebook; on something that is not a terminal, a plain line now and then."""

    def __init__(self, out: TextIO, head: str):
        self.out, self.head, self.live, self.next_plain = out, head, out.isatty(), PLAIN_SECONDS

    def show(self, seconds: float, stage: dict[str, Any] | None, forecast: float | None) -> None:
        """Where the notebook is: its stage's label with done and total, and the time so far and in all."""
        if not self.live and seconds < self.next_plain:
            return
        self.next_plain = seconds + PLAIN_SECONDS
        done, total = (f"{stage[one]:.1f}".removesuffix(".0") if stage else "" for one in ("done", "total"))
        where = f"  {stage['label']} {done}/{total}" if stage else ""
        text = f"{self.head}{where}  {clock(seconds)}{f' of about {clock(forecast)}' if forecast else ''}"
        self._write(text[: shutil.get_terminal_size().columns - 1] if self.live else f"{text}\n")

    def end(self, text: str) -> None:
        """What became of the notebook."""
        self._write(f"{self.head}  {text}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # of a terminal that is gone
            self.out.write(f"\r\x1b[2K{text}" if self.live else text)
            self.out.flush()
