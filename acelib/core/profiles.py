"""Profiles: every value that makes a laptop run differ from the paper's run, read from commented YAML.

A profile is one frozen object. Values are checked for type and bounds when it is loaded, so a mistake costs a second
and one sentence instead of a failed run. Where the values of the paper come from is noted in `profiles/paper.yaml`.
"""

import difflib
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from acelib.core.errors import ProfileError
from acelib.core.sections import (
    BestOfN,
    Data,
    Engine,
    Evaluation,
    Filtering,
    JudgeLimits,
    Models,
    Pairs,
    Plan,
    Prompts,
    Reinforce,
    Remote,
    RewardModel,
    Sampling,
    Synthesis,
    within,
)

ROOT = Path(__file__).resolve().parents[2]
WRITE_IT = {
    str: "put it in quotes",
    bool: "write true or false",
    int: "write a whole number in digits",
    float: "write a number",
}


@dataclass(frozen=True)
class Profile:
    name: str
    seed: int = within(0, 2**31 - 1)
    threads: int = within(1, 1024)  # torch threads at most; fewer where the machine has fewer cores
    data: Data
    models: Models
    engine: Engine
    remote: Remote
    prompts: Prompts
    synthesis: Synthesis
    filtering: Filtering
    sampling: Sampling
    pairs: Pairs
    reward_model: RewardModel
    best_of_n: BestOfN
    reinforce: Reinforce
    evaluation: Evaluation
    judge: JudgeLimits
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `load_profile` reads back from YAML."""
        return _plain(asdict(self))

    def resolve(self, path: str) -> str:
        """Absolute path of something in the repository or on disk; a hub name (`owner/name`) stays as it is."""
        local = ROOT / path
        inside = Path(path).parts[0] in (".", "..", "data", "runs", "profiles", "configs") if path else False
        return str(local) if inside or local.exists() else path


def load_profile(name_or_path: str | Path, overrides: dict[str, Any] | None = None) -> Profile:
    """Read `profiles/<name>.yaml`, or the YAML file at a path, and check every value.

    `extends: pocket` at the top of a file takes all other values from that profile; `overrides` are dotted, as in
    `{"reinforce.steps": 2}`. Raises ProfileError.
    """
    values = _read(name_or_path)
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    profile = _build(Profile, values, "")
    _check_together(profile)
    return profile


def profile_names() -> list[str]:
    return sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def _read(name_or_path: str | Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = ROOT / "profiles" / f"{name_or_path}.yaml"
    path = path.resolve()
    if not path.is_file():
        raise ProfileError(
            f"There is no profile {str(name_or_path)!r}. Known profiles: {', '.join(profile_names())}; "
            "or give the path of a .yaml file."
        )
    if path in seen:
        raise ProfileError(f"{path.name} extends itself; remove its `extends:` line.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ProfileError(f"{path} is not YAML: {' '.join(str(error).split())}. Mend that line.") from None
    if not isinstance(values, dict):
        raise ProfileError(f"{path} must be a mapping of keys to values; start from profiles/pocket.yaml.")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    beside = path.parent / f"{parent}.yaml"
    return _merge(_read(beside if beside.is_file() else str(parent), (*seen, path)), values)


def _merge(base: dict, over: dict) -> dict:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    for depth, section in enumerate(sections):
        if not isinstance(values.get(section), dict):
            raise _unknown(dotted if section in values else ".".join(sections[: depth + 1]))
        values = values[section]
    values.update(_merge({last: values.get(last)}, {last: value}))


@cache
def _known_keys(cls: type = Profile, where: str = "") -> tuple[str, ...]:
    keys: list[str] = []
    for item in fields(cls):
        keys.append(where + item.name)
        if is_dataclass(item.type):
            keys.extend(_known_keys(item.type, f"{where}{item.name}."))
    return tuple(keys)


def _unknown(key: str) -> ProfileError:
    near = difflib.get_close_matches(key, _known_keys(), n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}?" if near else "See profiles/pocket.yaml for all keys."
    return ProfileError(f"A profile has no key {key!r}. {hint}")


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ProfileError(f"{where.rstrip('.')} must be a mapping of keys to values, not {values!r}.")
    names = {item.name for item in fields(cls)}
    for key in values:
        if key not in names:
            raise _unknown(f"{where}{key}")
    built = {}
    for item in fields(cls):
        if item.name not in values:
            raise ProfileError(f"The profile lacks {where}{item.name}; add it, or begin with `extends: pocket`.")
        built[item.name] = _convert(item.type, values[item.name], f"{where}{item.name}", item.metadata)
    return cls(**built)


def _convert(kind: Any, value: Any, key: str, rules: Any) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, f"{key}.")
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)) or not (value or "empty" in rules):
            least = "" if "empty" in rules else " with at least one entry"
            raise ProfileError(f"{key} must be a list{least}, not {value!r}.")
        return tuple(_convert(get_args(kind)[0], one, f"{key}[{i}]", rules) for i, one in enumerate(value))
    if kind is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-5 (no dot) as text
            value = float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value is None or value == "":
        raise ProfileError(f"{key} has no value; give it one of type {kind.__name__}, as profiles/pocket.yaml does.")
    if type(value) is not kind:
        raise ProfileError(
            f"{key} must be of type {kind.__name__}, not {value!r} ({type(value).__name__}); {WRITE_IT[kind]}."
        )
    _check_rules(value, key, rules)
    return value


def _check_rules(value: Any, key: str, rules: Any) -> None:
    if "choices" in rules and value not in rules["choices"]:
        raise ProfileError(f"{key} must be one of {', '.join(rules['choices'])}, not {value!r}.")
    if "placeholder" in rules and value.count(rules["placeholder"]) != 1:
        raise ProfileError(f"{key} must contain {rules['placeholder']} exactly once; got {value!r}.")
    if "low" in rules:
        low, high, above = rules["low"], rules["high"], rules["above"]
        if not (low < value if above else low <= value) or not value <= high:
            raise ProfileError(f"{key} must be {'above' if above else 'from'} {low} up to {high}, not {value}.")


def _check_together(profile: Profile) -> None:
    if profile.name != Path(profile.name).name or profile.name.startswith("."):
        raise ProfileError(f"name must be that of a folder, where runs of the profile lie, not {profile.name!r}.")
    rl = profile.reinforce
    samples = rl.rollout_questions * rl.samples_per_question
    if samples % rl.updates_per_rollout:
        raise ProfileError(
            f"reinforce.updates_per_rollout ({rl.updates_per_rollout}) must divide a rollout's {samples} samples "
            f"(rollout_questions x samples_per_question), so that its updates see equal batches."
        )
    if rl.max_kl and (not rl.beta or rl.algorithm == "dapo"):
        raise ProfileError(
            "reinforce.max_kl needs a reference model, and with beta 0 or DAPO there is none; set max_kl to 0, or "
            "another algorithm with beta above 0 (1e-9 measures without pulling)."
        )
    if profile.filtering.min_tests > profile.synthesis.tests_per_question:
        raise ProfileError(
            f"filtering.min_tests ({profile.filtering.min_tests}) is more than synthesis.tests_per_question "
            f"({profile.synthesis.tests_per_question}): every question would be dropped. Lower the first."
        )
    if list(profile.best_of_n.ns) != sorted(set(profile.best_of_n.ns)):
        raise ProfileError(f"best_of_n.ns must rise without repeats, not {list(profile.best_of_n.ns)}.")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
