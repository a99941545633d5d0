"""Profiles: every value that makes a laptop run differ from the paper's run, read from commented YAML.

A profile is one frozen object. Values are checked for type and bounds when it is loaded, so a mistake costs a second
and one sentence instead of a failed run. Where the values of the paper come from is noted in `profiles/paper.yaml`.
"""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json

from acelib.core import sections
from acelib.core.errors import ProfileError
from acelib.core.inheritance import ROOT, profile_files

SAID = {  # where pydantic's own words are those of JSON
    "dataclass_type": "be a mapping of keys to values",
    "tuple_type": "be a list",
    "string_type": "be text (in quotes)",
    "int_type": "be a whole number in digits",
}

NO_CHECKOUT = "The course needs profiles/ and data/ beside acelib/: clone the repository, `make install`, work there."
HOW_ONLY = {"workers", "micro_batch", "score_batch", "reward_seconds"}  # speed and memory alone


@sections.section
class Profile:
    """All values of a run."""

    name: str
    seed: int = Field(ge=0, le=2**31 - 1)
    threads: int = Field(ge=1, le=1024)  # torch threads at most; fewer where the machine has fewer cores
    data: sections.Data
    models: sections.Models
    engine: sections.Engine
    remote: sections.Remote
    prompts: sections.Prompts
    synthesis: sections.Synthesis
    filtering: sections.Filtering
    sampling: sections.Sampling
    pairs: sections.Pairs
    reward_model: sections.RewardModel
    best_of_n: sections.BestOfN
    reinforce: sections.Reinforce
    evaluation: sections.Evaluation
    judge: sections.JudgeLimits
    plan: sections.Plan

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `load_profile` reads back from YAML."""
        return json.loads(json.dumps(asdict(self)))

    def deciding(self, *names: str) -> dict[str, dict[str, Any]]:
        """Sections as plain data, without what changes speed and memory alone: `params` of an artefact."""
        values = self.to_dict()
        return {name: {key: value for key, value in values[name].items() if key not in HOW_ONLY} for name in names}

    def resolve(self, path: str) -> str:
        """Absolute path of something in the repository or on disk; a hub name (`owner/name`) stays as it is."""
        local = ROOT / path
        inside = Path(path).parts[0] in (".", "..", "data", "runs", "profiles", "configs") if path else False
        return str(local) if inside or local.exists() else path

    @property
    def published(self) -> dict[str, str]:
        """Folders or hub names of models that others trained, by the artefact that each replaces; else empty."""
        scorer, policies = self.best_of_n.reward_model, self.evaluation.trained
        names = "reward_model", "reward_model_unfiltered", "policy_rule", "policy_rm"
        return {} if scorer == "none" else dict(zip(names, (scorer, scorer, *policies), strict=True))

    @model_validator(mode="after")
    def _fits_together(self) -> "Profile":
        rl, ns = self.reinforce, self.best_of_n.ns
        samples, tests = rl.rollout_questions * rl.samples_per_question, self.synthesis.tests_per_question
        problems = {
            f"name must be that of a folder, where runs of the profile lie, not {self.name!r}.": (
                self.name != Path(self.name).name or self.name.startswith(".")
            ),
            f"reinforce.updates_per_rollout ({rl.updates_per_rollout}) must divide a rollout's {samples} samples "
            "(rollout_questions x samples_per_question), so that its updates see equal batches.": (
                samples % rl.updates_per_rollout
            ),
            "reinforce.max_kl needs a reference model, and with beta 0 or DAPO there is none; set max_kl to 0, or "
            "another algorithm with beta above 0 (1e-9 measures without pulling).": (
                rl.max_kl and (not rl.beta or rl.algorithm == "dapo")
            ),
            f"filtering.min_tests ({self.filtering.min_tests}) is more than synthesis.tests_per_question ({tests}): "
            "every question would be dropped. Lower the first.": self.filtering.min_tests > tests,
            "engine.quantise: nf4 is for weights that are frozen below adapters and sampled by transformers; set "
            "engine.lora_rank above 0 and engine.generation to transformers, or quantise to none.": (
                self.engine.quantise != "none"
                and (not self.engine.lora_rank or self.engine.generation != "transformers")
            ),
            "best_of_n.reward_model and evaluation.trained go together: name a reward model and two policies, trained "
            "by rule and by reward model, or none and [].": (
                len(self.evaluation.trained) != (0 if self.best_of_n.reward_model == "none" else 2)
            ),
            f"best_of_n.ns must rise without repeats, not {list(ns)}.": list(ns) != sorted(set(ns)),
        }
        for sentence, wrong in problems.items():
            if wrong:
                raise ValueError(sentence)
        return self


def load_profile(name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> Profile:
    """Read `profiles/<name>.yaml`, or the YAML file at a path, and check every value.

    `extends: pocket` at the top of a file takes all other values from that profile; `overrides` are dotted, as in
    `{"reinforce.steps": 2}`. Raises ProfileError.
    """
    files, values = profile_files(name_or_path), {}
    if not files[-1].is_file():
        name, known = str(name_or_path) if len(files) == 1 else files[-1].stem, ", ".join(profile_names())
        known = f"Known profiles: {known}; or give the path of a .yaml file." if known else NO_CHECKOUT
        raise ProfileError(f"There is no profile {name!r}. {known}")
    if files[-1] in files[:-1]:
        raise ProfileError(f"{files[-1].name} extends itself; remove its `extends:` line.")
    for path in reversed(files):
        values = _merge(values, _read(path))
    for key, value in (overrides or {}).items():
        for part in reversed(key.split(".")):
            value = {part: value}
        values = _merge(values, value)
    try:  # as JSON, in which a list may become a tuple and nothing else is converted
        return TypeAdapter(Profile).validate_json(to_json(values, inf_nan_mode="constants", fallback=str))
    except ValidationError as error:
        raise ProfileError(_sentence(error)) from None


def profile_names() -> list[str]:
    return sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ProfileError(f"{path} is not YAML: {' '.join(str(error).split())}. Mend that line.") from None
    if not isinstance(values, dict):
        raise ProfileError(f"{path} must be a mapping of keys to values; start from profiles/pocket.yaml.")
    return {key: value for key, value in values.items() if key != "extends"}


def _merge(base: dict, over: dict) -> dict:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _known_keys(cls: type = Profile, where: str = "") -> Iterator[str]:
    for item in fields(cls):
        yield where + item.name
        if is_dataclass(item.type):
            yield from _known_keys(item.type, f"{where}{item.name}.")


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong: the dotted key, what it should be, and what to do."""
    wrong = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
    key = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, wrong["loc"])))
    if wrong["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(key, _known_keys(), n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}?" if near else "See profiles/pocket.yaml for all keys."
        return f"A profile has no key {key!r}. {hint}"
    if wrong["type"] == "missing":
        return f"The profile lacks {key}; add it, or begin with `extends: pocket`."
    said = wrong["msg"].removeprefix("Value error, ")
    if not key:  # of `_fits_together`, a whole sentence
        return said
    said = SAID.get(wrong["type"]) or said.partition("should ")[2] or f"be a number ({said})"
    return f"{key} must {said}, not {wrong['input']!r}; profiles/pocket.yaml shows what it means and may be."
