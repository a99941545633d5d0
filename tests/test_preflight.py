"""Each preflight check passes on a sound machine and catches the thing it is there for."""

import json
from types import SimpleNamespace

import pytest
from tiny_models import tiny_config, tiny_tokenizer
from transformers import Qwen2ForCausalLM

from acelib.core import CourseError, load_profile
from acelib.judge import JudgeError
from acelib.preflight import machine as checks
from acelib.preflight.findings import Finding, report, require


@pytest.fixture
def model(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    network = Qwen2ForCausalLM(tiny_config(tokenizer))
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.save_pretrained(tmp_path)
    return tmp_path


def set_template(folder, template):
    for file in folder.glob("chat_template*"):
        file.unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))


def test_versions(tmp_path):
    assert checks.check_versions().check == "versions"
    pins = tmp_path / "requirements.txt"
    pins.write_text("torch==0.1\nnot-a-package==1.0\n")
    finding = checks.check_versions(pins)
    assert not finding.ok and "torch 2" in finding.found and "not-a-package missing" in finding.found
    assert "make course" in finding.remedy
    pins.write_text("# nothing pinned\n")
    assert checks.check_versions(pins).ok


def test_what_a_profile_for_gpus_needs_more_is_held_to_its_pins(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "preflight_gpu", lambda profile: [])
    found = {name: checks.check_machine(load_profile(name), tmp_path) for name in ("pocket", "single-gpu", "colab")}
    wrong = {name: [one for one in mine if one.check == "versions" and not one.ok] for name, mine in found.items()}
    assert not wrong["pocket"] and not wrong["colab"]
    (missing,) = wrong["single-gpu"]
    assert "vllm missing instead of" in missing.found and "pip install -r requirements-gpu.txt" in missing.remedy


def check_disk(wanted, available):
    return checks.check_disk(checks.ROOT, wanted, available)


@pytest.mark.parametrize("check", [checks.check_cores, checks.check_memory, check_disk])
def test_machine(check):
    assert check(2, 4).ok and not check(2, 4).remedy
    assert not check(8, 4).ok and check(8, 4).remedy


def test_weights_in_the_hubs_cache_need_no_room_again(tmp_path, monkeypatch):
    profile = load_profile("single-gpu")
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "none"))
    whole = checks.disk_gib(profile)
    snapshot = tmp_path / "hub" / "models--Qwen--Qwen2.5-Coder-0.5B-Instruct" / "snapshots" / ("0" * 40)
    (blobs := snapshot.parents[1] / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    with (blobs / "weights").open("wb") as file:
        file.truncate(2 * 10**9)  # more than they are; takes no room
    (snapshot / "model.safetensors").symlink_to(blobs / "weights")
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert whole - checks.disk_gib(profile) == pytest.approx(0.494e9 * 2 / 2**30, rel=0.01)


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    assert checks.check_disk(tmp_path / "a" / "b", wanted_gib=0.0).ok


def test_judge_works():
    finding = checks.check_judge()
    assert finding.ok, finding


@pytest.mark.parametrize(
    ("verdict", "said"), [("passed", "verdicts passed, passed, passed"), (JudgeError("no seccomp"), "no seccomp")]
)
def test_a_broken_judge_is_caught(verdict, said):
    class Broken:
        def __init__(self, workers, limits):
            if isinstance(verdict, Exception):
                raise verdict

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

        def run(self, submissions):
            return [SimpleNamespace(verdicts=[SimpleNamespace(status=verdict)]) for _ in submissions]

    finding = checks.check_judge(make_judge=Broken)
    assert not finding.ok and said in finding.found


def test_template_and_eos_of_a_sound_model(model):
    assert checks.check_chat_template(str(model)).ok
    assert checks.check_eos(str(model)).ok


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "the question is lost"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "ignores add_generation_prompt"),
    ],
)
def test_a_broken_template_is_caught(model, template, said):
    set_template(model, template)
    finding = checks.check_chat_template(str(model))
    assert not finding.ok and said in finding.found


def test_the_models_that_a_profile_trains_and_asks_are_looked_at(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(checks, "check_machine", lambda *_: [])
    monkeypatch.setattr(checks, "check_judge", lambda: None)
    monkeypatch.setattr(checks, "check_eos", lambda name: None)
    monkeypatch.setattr(checks, "check_chat_template", seen.append)
    profile = load_profile("pocket", {"reward_model.base": "o/base", "models.teacher": "https://h/v1#m"})
    checks.preflight(profile, tmp_path)
    assert "o/base" in seen and len(seen) == 3  # with the policy and the proxy


def test_a_missing_template_or_model_is_caught(model):
    set_template(model, None)
    assert "no chat template" in checks.check_chat_template(str(model)).found
    assert "no model folder" in checks.check_chat_template(str(model / "nowhere")).found
    assert not checks.check_eos(str(model / "nowhere")).ok


def test_an_end_that_generation_does_not_know_is_caught(model):
    set_template(
        model, "{% for m in messages %}{{ m['content'] }}###{% endfor %}{% if add_generation_prompt %}Now:{% endif %}"
    )
    finding = checks.check_eos(str(model))
    assert not finding.ok and "ends a reply with #; generation stops at <|im_end|>" in finding.found


def test_require_stops_for_required_checks_only():
    note = Finding("cores", False, "1", "a slow run", "wait", required=False)
    bad = Finding("disk", False, "0 GiB", "nothing written", "free some", required=True)
    require([note])
    with pytest.raises(CourseError, match="1 preflight check.* First: disk: 0 GiB; free some"):
        require([note, bad])
    assert "note  cores: 1" in report([note, bad]) and "would lead to nothing written; free some" in report([note, bad])
