"""What a notebook costs: a card before it starts, and the actual figures beside the estimate when it is done.

For a profile that has been run the estimate is what was measured then (`profiles/costs.json`); for a profile that names
GPUs it is computed from the models' shapes (`acelib.preflight.cost_model`).
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from acelib.core import ROOT, CourseError, GpuMemory, Profile, end_of_records, load_profile, peak_memory_mb, read_json
from acelib.preflight.cost_model import CostModel, fits
from acelib.training import shape_of

ONE_CARD = ("single-gpu-7b", "single-gpu-7b-48gb", "single-gpu-7b-4bit", "single-gpu-1.5b", "single-gpu", "colab")
COSTS = ROOT / "profiles" / "costs.json"
COMPUTED = """\
Computed, never measured, a lower bound: operations over {plan.gpu_tflops:g} TFLOP/s per GPU at {training:g}% \
(training) or {decoding:g}% (decoding); loading and judging not counted.
All stages and assumptions: python -m acelib plan --profile {name}"""
FIGURES = {  # of what a notebook took; in brackets beside each goes its estimate
    "minutes": ("{:.1f}", " minutes"),
    "GiB, GPU": ("{:.1f}", " GiB on the fullest GPU"),
    "GPU-hours": ("{:.2f}", " GPU-hours"),
    "dollars": ("${:.2f}", ""),
    "GiB, largest process": ("{:.1f}", " GiB in its largest process"),
}


class Estimate(NamedTuple):
    """Of one notebook: where its figures come from, and those of `FIGURES` that are known, with "GiB" for all its
    processes together ("GiB, GPU" is that of the fullest GPU)."""

    how: str
    figures: dict[str, float] = {}


def measured(name: str) -> dict[str, Any]:
    """What a profile's last committed run took (see `tools/notebooks.py`); empty where there was none."""
    return read_json(COSTS).get(name, {})


def _took(name: str, notebook: str) -> dict[str, float]:
    """Figures of a notebook when the profile of this name was measured; empty where it was not."""
    found = (one for path, one in measured(name).get("notebooks", {}).items() if path[:2] == notebook[:2])
    return next(({"minutes": one["seconds"] / 60, "GiB": one["peak_mb"] / 1024} for one in found), {})


def estimate(profile: Profile, notebook: str) -> Estimate:
    """The estimate for a notebook, given by its name or number."""
    if profile.plan.gpus:
        return _computed(profile, notebook)
    known, figures = measured(profile.name), _took(profile.name, notebook)
    if not figures:
        pocket = _took("pocket", notebook)
        took = f"; profile pocket takes {pocket['minutes']:.1f} minutes" if pocket else ""
        return Estimate(f"Nobody has measured profile {profile.name}, and its plan names no GPU{took}.")
    how = f"As measured on {known['machine']}, {known['measured']}, with the sandboxes' memory."
    if changed := differences(profile):
        how += f" Other values here: {', '.join(changed[:4])}{' and more' if changed[4:] else ''}."
    return Estimate(how, figures)


def _computed(profile: Profile, notebook: str) -> Estimate:
    plan = profile.plan
    try:
        mine = [one for one in CostModel(profile).stages() if one.notebook == notebook[:2]]
    except CourseError as error:
        return Estimate(f"Not computed: {error}")
    if any(one.what == "adopted" for one in mine):
        return Estimate(f"Its data are adopted from {profile.data.adopt}; nothing is made here.", {"minutes": 0.0})
    if not mine:
        return Estimate("It needs no GPU; this is what it takes on profile pocket.", _took("pocket", notebook))
    hours = sum(one.hours for one in mine)
    dollars = hours * plan.gpus * plan.dollars_per_gpu_hour + sum(one.dollars for one in mine)
    training, decoding = 100 * plan.training_utilisation, 100 * plan.generation_utilisation
    how = COMPUTED.format(plan=plan, training=training, decoding=decoding, name=profile.name)
    figures = {"minutes": hours * 60, "GiB, GPU": max(one.gib for one in mine), "GPU-hours": hours * plan.gpus}
    return Estimate(how, figures | {"dollars": dollars})


def for_one_card(gib: float, bfloat16: bool = True) -> str | None:
    """The command with the largest policy that a card of so many GiB holds, with or without `bfloat16`: of a profile
    in ONE_CARD."""
    found = {}
    for profile in map(load_profile, ONE_CARD):
        able, card = bfloat16 or profile.models.dtype == "float32", gib * 2**30 / 1e9
        if able and all(fits(one, profile, card) for one in CostModel(profile, card=card).stages()):
            found[f"make course PROFILE={profile.name}"] = shape_of(profile.models.policy).parameters
    return max(found, key=found.get, default=None)


def differences(profile: Profile) -> list[str]:
    """Dotted names of the values in which a profile differs from the file of its name."""
    try:
        mine, theirs = (_flat(one.to_dict()) for one in (profile, load_profile(profile.name)))
    except CourseError:  # there is no such file
        return []
    return [key for key in mine if mine[key] != theirs[key]]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    pairs = {key: value if isinstance(value, dict) else {"": value} for key, value in values.items()}
    return {f"{key}.{name}".rstrip("."): one for key, section in pairs.items() for name, one in section.items()}


class Meter:
    """What a notebook takes, from the moment it is opened (under the runner: from its process's start)."""

    def __init__(self, profile: Profile, notebook: str, paid: Path):
        self.profile, self.notebook, self.paid = profile, notebook, paid
        # In a session that a reader keeps open, only the work on this notebook counts.
        self.start = psutil.Process().create_time() if os.environ.get("ACELIB_PROGRESS") else time.time()
        self.estimate = estimate(profile, notebook)
        self.gpu_memory = GpuMemory()
        self.bought = end_of_records(paid)  # what a crash has cut is removed by the next writer

    def card(self) -> str:
        """What it will take, and how one knows."""
        (how, known), plan = self.estimate, self.profile.plan
        name = f"Notebook {self.notebook[:2]} on profile {self.profile.name}"
        if not known:
            return f"{name}: no estimate. {how}"
        parts = [f"{known['minutes']:.1f} minutes"] + ([f"{known['GiB']:.1f} GiB of memory"] if "GiB" in known else [])
        if "GPU-hours" in known:
            where = f"{known['GiB, GPU']:.0f} GiB on each of {plan.gpus} x {plan.gpu}"
            parts.append(f"{where}, {known['GPU-hours']:.2f} GPU-hours")
            parts.append(f"${known['dollars']:.2f} at ${plan.dollars_per_gpu_hour:g} per GPU-hour")
        else:
            parts.append("no GPU")
        return f"{name}, estimated: {', '.join(parts)}.\n{how}"

    def actual(self) -> dict[str, float]:
        """Minutes; GiB of the largest process; and what GPUs and servers took, where there were any."""
        largest = max(peak_memory_mb(), peak_memory_mb(resource.RUSAGE_CHILDREN)) / 1024
        found = {"minutes": (time.time() - self.start) / 60, "GiB, largest process": largest}
        torch = sys.modules.get("torch")
        used = torch.cuda.device_count() if torch and torch.cuda.is_available() else 0
        if self.gpu_memory.gib is not None:
            found["GiB, GPU"] = self.gpu_memory.gib
        if gpus := self.profile.plan.gpus or used:
            found["GPU-hours"] = found["minutes"] / 60 * gpus
        dollars = found.get("GPU-hours", 0.0) * self.profile.plan.dollars_per_gpu_hour + self._paid()
        return found | ({"dollars": dollars} if dollars else {})

    def compare(self, kept: list[str]) -> tuple[str, dict[str, float]]:
        """Actual beside estimate in words, and both as metrics. `kept` are artefacts that were not made this time."""
        estimated, found, parts = self.estimate.figures, self.actual(), []
        for key, (figure, unit) in FIGURES.items():
            if key in found:
                beside = f" ({figure.format(estimated[key])} estimated)" if key in estimated else ""
                parts.append(figure.format(found[key]) + unit + beside)
        text = f"Notebook {self.notebook[:2]} took {', '.join(parts)}"
        text += f" ({estimated['GiB']:.1f} estimated for all together)." if "GiB" in estimated else "."
        if kept:
            text += f"\nKept, so their making is not in this time: {', '.join(dict.fromkeys(kept))}."
        values = found | {f"{key}, estimated": value for key, value in estimated.items()}
        return text, {f"cost: {key}": value for key, value in values.items()}

    def _paid(self) -> float:
        """Dollars that servers have charged since the notebook was opened."""
        if not self.paid.exists():
            return 0.0
        with open(self.paid, "rb") as log:
            log.seek(self.bought)
            return sum(json.loads(line).get("dollars", 0.0) for line in log if line.endswith(b"\n"))
