"""Published figures of untrained models (data/baselines.yaml), which have to be reproduced before a gain is claimed."""

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from acelib.core import ROOT, DataError, Profile
from acelib.data.benchmarks import read_benchmark
from acelib.stats import Interval


@dataclass(frozen=True)
class Baseline:
    """A published pass@1 of an untrained model. `prompt`: in whose words it was asked, profile or harness; `rival`:
    what another set-up gives, which need not be reproduced."""

    published: float
    tolerance: float
    decoding: str
    prompt: str
    source: str
    rival: bool = False


def published_baselines(
    model: str, benchmarks: dict[str, int], temperature: float | None = None, path: Path = ROOT / "data/baselines.yaml"
) -> list[Baseline]:
    """What data/baselines.yaml has for a model on one of `benchmarks` (name: number of questions); often nothing.

    Sampled figures count at their own temperature only. Raises DataError on one in a harness's words.
    """
    content, found = yaml.safe_load(path.read_text(encoding="utf-8")), []
    for entry in content["published"]:
        if (entry["decoding"], entry["prompt"]) == ("sampled", "harness"):
            raise DataError(
                f"{path.name} has a sampled figure in a harness's words ({entry['source']}), which "
                "nothing here measures; give the greedy one."
            )
        known = {one.name: entry[one.name] for one in fields(Baseline) if one.name in entry}
        for name, value in entry["figures"].get(model, {}).items():
            whole = name in benchmarks and benchmarks[name] == content["questions"].get(name, benchmarks[name])
            if whole and (entry["decoding"] == "greedy" or entry["temperature"] == temperature):
                found.append(Baseline(published=value, **known))
    return found


def profile_baselines(profile: Profile) -> list[Baseline]:
    """What is published for the profile's policy on its benchmark, as many questions of it as the profile evaluates: a
    part of a benchmark is another one. Raises DataError, as `read_benchmark` does."""
    problems = read_benchmark(profile.resolve(profile.data.benchmark))
    names = {profile.data.benchmark, *(problem.source for problem in problems)}
    asked = dict.fromkeys(names, min(len(problems), profile.evaluation.questions))
    return published_baselines(profile.models.policy, asked, profile.evaluation.temperature)


def reproduces(here: Interval, published: float, tolerance: float) -> bool:
    """Whether the estimate lies within `tolerance` of what was published.

    The estimate and not its interval: on few questions the interval would reach anything. What the tolerance allows
    for (other questions, rounding) is stated where the figure stands.
    """
    return abs(here.value - published) <= tolerance
