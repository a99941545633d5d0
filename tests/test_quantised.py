"""Frozen weights in 4 bits: both trainers, on the CPU where bitsandbytes is installed; else one sentence."""

import pytest
import torch
from safetensors.torch import load_file
from test_reinforce import PROBLEMS, profile, wordy
from test_reward_model import profile as scorer_profile
from test_reward_model import some_pairs
from tiny_models import save_tiny_policy

from acelib.core import EngineError
from acelib.models.generation import load_policy
from acelib.reward_model import load_reward_model
from acelib.training import make_reinforce_trainer, make_reward_trainer, settings

NF4 = {"lora_rank": 4, "quantise": "nf4"}


class Killed(BaseException):
    pass


def stop_after(step):
    def report(done, total):
        if done == step:
            raise Killed

    return report


@pytest.fixture
def base(tmp_path):
    return save_tiny_policy(tmp_path / "base", hidden_size=64, intermediate_size=128)


def test_without_bitsandbytes_it_says_what_to_install(base, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="takes bitsandbytes; run `pip install -r requirements-gpu.txt`"):
        make_reinforce_trainer(profile(base, engine=NF4), PROBLEMS, wordy, tmp_path / "s")


def policy(base, path, scratch, progress=None):
    small = profile(base, engine=NF4)
    return make_reinforce_trainer(small, PROBLEMS, wordy, scratch, progress=progress).train_and_save(path)


def scorer(base, path, scratch, progress=None):
    small = scorer_profile(base, engine=NF4, epochs=2.0)
    return make_reward_trainer(small, some_pairs(), scratch, progress).train_and_save(path)


@pytest.mark.parametrize("job", [policy, scorer])
@pytest.mark.slow
def test_a_killed_run_goes_on_and_what_is_saved_is_whole(base, tmp_path, job, monkeypatch):
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    # What it packs anew for sampling on some CPUs (0.50.2) it cannot train again.
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)
    job(base, tmp_path / "whole", tmp_path / "a")
    with pytest.raises(Killed):
        job(base, tmp_path / "cut", tmp_path / "b", stop_after(3))
    steps = []
    job(base, tmp_path / "cut", tmp_path / "b", lambda done, total: steps.append(done))
    assert steps[0] > 1
    whole, cut, before = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut", "base"))
    assert {one.dtype for one in whole.values()} == {torch.float32}
    for name in whole:
        torch.testing.assert_close(cut[name], whole[name], rtol=1e-4, atol=1e-5)
    # On the weights as they were before they were rounded to 4 bits, only what has adapters has changed.
    changed = {name for name in whole.keys() & before.keys() if not torch.equal(whole[name], before[name])}
    assert changed and all("proj" in name for name in changed)
    load = load_policy if job is policy else load_reward_model
    load(tmp_path / "whole", device="cpu")


@pytest.mark.slow
def test_matrices_below_adapters_take_4_bits_and_what_learns_is_float32(base, tmp_path):
    pytest.importorskip("bitsandbytes")
    trainers = [
        make_reinforce_trainer(profile(base, engine=NF4), PROBLEMS, wordy, tmp_path / "p"),
        make_reward_trainer(scorer_profile(base, engine=NF4), some_pairs(), tmp_path / "r"),
    ]
    for trainer in trainers:
        held = {(one.requires_grad, one.dtype) for one in trainer.model.parameters()}
        assert held == {(False, torch.uint8), (False, torch.float32), (True, torch.float32)}
        named = [name for name, one in trainer.model.named_parameters() if one.dtype == torch.uint8]
        assert named and all("proj" in name for name in named)
