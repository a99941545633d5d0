"""Profiles: every mistake is one sentence that says how to mend it."""

import re

import pytest
import yaml

from acelib.core import ProfileError
from acelib.core.inheritance import value
from acelib.core.profiles import ROOT, load_profile, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_survives_a_round_trip(name, tmp_path):
    profile = load_profile(name)
    assert profile.name == name
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(profile.to_dict()))
    assert load_profile(copy) == profile


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("reinforce.step", 2, "no key 'reinforce.step'. Did you mean 'reinforce.steps'"),
        ("reinforc.steps", 2, "no key 'reinforc'. Did you mean 'reinforce'"),
        ("reinforce.steps", 0, "reinforce.steps must be greater than or equal to 1, not 0; profiles/pocket.yaml shows"),
        ("reinforce.steps", 10**6, "reinforce.steps must be less than or equal to 100000, not 1000000"),
        ("reinforce.steps", 2.5, "reinforce.steps must be a whole number in digits, not 2.5"),
        ("reinforce.steps", True, "reinforce.steps must be a whole number in digits, not True"),
        ("sampling.temperature", 0, "sampling.temperature must be greater than 0, not 0"),
        ("sampling.temperature", True, "sampling.temperature must be a valid number, not True"),
        ("sampling.temperature", "warm", "sampling.temperature must be a number .*'warm'"),
        ("sampling.temperature", float("nan"), "sampling.temperature must be greater than 0, not nan"),
        ("engine.gradient_checkpointing", "yes", "checkpointing must be True, False or 'auto', not 'yes'; profiles/"),
        ("models.dtype", "int8", "models.dtype must be 'float32' or 'bfloat16', not 'int8'"),
        ("prompts.solve", "Solve it.", "prompts.solve must contain {question} exactly once"),
        ("best_of_n.ns", [], "best_of_n.ns must have at least 1 item"),
        ("data.decontaminate", "mbpp.jsonl", "data.decontaminate must be a list, not 'mbpp.jsonl'"),
        ("best_of_n.ns", [4, 2], "best_of_n.ns must rise without repeats"),
        ("best_of_n.ns", [0, 2], r"best_of_n.ns\[0\] must be greater than or equal to 1"),
        ("filtering.min_tests", 13, "every question would be dropped"),
        ("reinforce.updates_per_rollout", 3, "must divide a rollout's 128 samples"),
        ("data", 3, "data must be a mapping"),
        ("models.proxies", [{"label": "a"}], r"lacks models.proxies\[0\].model"),
        ("reinforce.steps", "1e3", "reinforce.steps must be a whole number in digits, not '1e3'"),
        ("reinforce.steps", None, "must be a whole number in digits, not None; profiles/pocket.yaml shows"),
        ("models.policy", "", "models.policy must have at least 1 character, not ''; profiles/pocket.yaml shows"),
        ("prompts.solve", {"question": None}, r"prompts.solve must be text .in quotes., not"),
        ("reinforce.steps.x", 2, "reinforce.steps must be a whole number in digits, not {'x': 2}"),
        (
            "engine.quantise",
            "nf4",
            "set engine.lora_rank above 0 and engine.generation to transformers, or quantise to none",
        ),
        ("name", "../x", "name must be that of a folder"),
        ("name", "..", "name must be that of a folder"),
    ],
)
def test_bad_values_are_named(key, value, said):
    with pytest.raises(ProfileError, match=said.replace("{", r"\{")):
        load_profile("pocket", {key: value})


def test_scientific_notation_without_a_dot_is_a_number():
    assert load_profile("pocket", {"reinforce.learning_rate": "1e-5"}).reinforce.learning_rate == 1e-5


def test_a_section_keeps_the_values_that_are_not_named():
    changed, before = load_profile("pocket", {"engine": {"lora_rank": 3}}).engine, load_profile("pocket").engine
    assert changed.lora_rank == 3 and changed.generation == before.generation


def test_unknown_profile_lists_the_known_ones():
    with pytest.raises(ProfileError, match="There is no profile 'pockte'. Known profiles: .*pocket"):
        load_profile("pockte")


def test_extends_takes_the_other_values(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: pocket\nname: mine\nreinforce: {steps: 3}\n")
    mine, pocket = load_profile(tmp_path / "mine.yaml"), load_profile("pocket")
    assert mine.reinforce.steps == 3 and mine.name == "mine"
    assert mine.reinforce.beta == pocket.reinforce.beta and mine.sampling == pocket.sampling


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: loop", "extends itself"),
        ("a: [", "is not YAML"),
        ("- 1", "must be a mapping"),
        ("name: x", "The profile lacks seed"),
        ("extends: nowhere", "There is no profile 'nowhere'"),
    ],
)
def test_bad_files_are_named(tmp_path, text, said):
    (tmp_path / "loop.yaml").write_text(text)
    with pytest.raises(ProfileError, match=said):
        load_profile(tmp_path / "loop.yaml")


def test_speed_and_memory_decide_nothing():
    """What an artefact is made from leaves them out, so that a run goes on with fewer judges or smaller portions."""
    names = ("reinforce", "reward_model", "judge")
    before = load_profile("pocket")
    faster = load_profile(
        "pocket",
        {"judge.workers": 1, "reinforce.micro_batch": 1, "reward_model.micro_batch": 1}
        | {"reinforce.reward_seconds": 9},
    )
    other = load_profile("pocket", {"judge.cpu_seconds": 2.0})
    assert before.deciding(*names) == faster.deciding(*names) != other.deciding(*names)
    assert all("to_dict()" not in path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_resolve_keeps_hub_names_and_makes_local_paths_absolute():
    profile = load_profile("pocket")
    assert profile.resolve("data/models/policy") == str(ROOT / "data/models/policy")
    assert profile.resolve("Qwen/Qwen2.5-Coder-7B-Instruct") == "Qwen/Qwen2.5-Coder-7B-Instruct"
    assert profile.resolve("/elsewhere/model") == "/elsewhere/model"


@pytest.mark.parametrize("name", profile_names())
def test_every_value_says_where_it_comes_from(name):
    bare, prompt = [], None
    for line in (ROOT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        indent = len(line) - len(line.lstrip())
        if prompt is not None and (not line.strip() or indent > prompt):
            continue
        prompt = indent if re.search(r":\s*\|\s*$", line) else None
        sets = re.match(r"\s*(- \{|\w+:\s*[^\s#|])", line)
        if sets and not re.search(r"\s# *\S", line):
            bare.append(line)
    assert not bare


def test_the_gpu_profiles_are_what_they_are_for():
    small, paper, nodes = (load_profile(name) for name in ("single-gpu", "paper", "paper-multinode"))
    assert (small.engine.launch, small.plan.gpus) == ("configs/gpu-1.yaml", 1)
    assert small.data.adopt == "TIGER-Lab/AceCode-87K"
    assert (paper.engine.launch, paper.engine.vllm_mode) == ("configs/zero3-8.yaml", "colocate")
    assert paper.engine.generation == small.engine.generation == "vllm" and paper.data.adopt == "none"
    assert (nodes.engine.launch, nodes.engine.cluster, nodes.plan.gpus) == ("configs/zero3-2x8.yaml", "auto", 16)
    assert nodes.reinforce == paper.reinforce and nodes.reward_model == paper.reward_model
    for profile in (paper, nodes):  # as the trainers ask
        rl, learners = profile.reinforce, profile.plan.gpus
        assert profile.reward_model.batch_size % learners == 0 and rl.rollout_questions % learners == 0
        assert rl.rollout_questions * rl.samples_per_question % (rl.updates_per_rollout * learners) == 0


@pytest.mark.parametrize("name", profile_names())
def test_make_is_told_the_device_that_the_profile_has(name, tmp_path):
    def device(name, overrides):
        return value("models.device", name, overrides)

    engine = load_profile(name).engine
    assert [value(f"engine.{key}", name, []) for key in ("generation", "quantise")] == [
        engine.generation,
        engine.quantise,
    ]
    assert device(name, []) == load_profile(name).models.device
    (tmp_path / "mine.yaml").write_text(f"extends: '{name}'  # quoted\nname: mine\n")
    assert device(str(tmp_path / "mine.yaml"), ["a.b=1"]) == load_profile(tmp_path / "mine.yaml").models.device
    assert device(name, ["models.device=cpu"]) == "cpu" and device("nowhere", []) == ""


def with_adapters():
    """Profiles whose adapters learn: those in profiles/, and those that `SET=` lines on pages make."""
    found = {name: load_profile(name) for name in profile_names()}
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "profiles").glob("*.yaml")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            for asked in re.findall(r'SET="([^"]*\bengine\.lora_rank=[^"]*)"', line):
                named = re.search(r"PROFILE=([\w-]+)", line)
                name = path.stem if path.suffix == ".yaml" else named[1] if named else "pocket"
                values = dict(one.split("=", 1) for one in asked.split())
                values = {key: yaml.safe_load(value) for key, value in values.items()}
                found[f"{path.name}: {asked}"] = load_profile(name, values)
    return {name: one for name, one in found.items() if one.engine.lora_rank}


def test_adapters_learn_at_rates_of_their_own():
    """Those of full fine-tuning would leave them where they began. In RL the rates of all updates add up to about what
    the recorded run had (data/real): 32 updates at 1e-4, by the same schedule."""
    chosen = with_adapters()
    assert {"real", "colab", "single-gpu-1.5b", "single-gpu-7b", "single-gpu-7b-4bit"} < chosen.keys()
    for name, profile in chosen.items():
        rl = profile.reinforce
        assert profile.reward_model.learning_rate >= 1e-4, name
        if name != "real-small":  # which shows every step and learns nothing
            assert 0.5 <= rl.learning_rate * rl.steps * rl.updates_per_rollout / (32 * 1e-4) <= 2, name
