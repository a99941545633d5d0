"""ZeRO-3 and FSDP2 on one GPU, through `accelerate launch`: a training that is cut off goes on from its sharded
checkpoint, and what it saves is one ordinary folder. `python -m pytest tests/gpu`; skipped where there is no GPU."""

import re
import threading
import time
from importlib.util import find_spec

import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_launch import a_run, scratch_of
from tiny_models import save_tiny_policy

from acelib.core import EngineError
from acelib.engine.launcher import launch
from acelib.models.generation import load_policy
from acelib.reward_model import load_reward_model
from acelib.training import jobs as training
from acelib.training.checkpoints import last_checkpoint

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    pytest.mark.timeout(1800),
]
LONGER = {"models.device": "cuda", "models.dtype": "bfloat16", "reward_model.epochs": 40.0, "reinforce.steps": 12}
SHARDS = {"configs/zero3-1.yaml": "global_step*/*optim_states.pt", "configs/fsdp2-1.yaml": "optimizer_0/*.distcp"}


def needs(package, *values):
    return pytest.param(
        *values,
        marks=pytest.mark.skipif(
            not find_spec(package), reason=f"{package} is not installed: see requirements-gpu.txt"
        ),
    )


def cut_off(scratch):
    """Kill what trains below this process once there is a checkpoint."""
    while last_checkpoint(scratch) is None:
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        if "acelib.engine.launcher" in process.cmdline() and "accelerate.commands.launch" not in process.cmdline():
            process.kill()


@pytest.mark.parametrize("config", [needs("deepspeed", "configs/zero3-1.yaml"), "configs/fsdp2-1.yaml"])
@pytest.mark.parametrize(
    "job, arguments, changes, load",
    [
        ("reward_model", {"pairs": "pairs"}, {}, load_reward_model),
        needs(
            "vllm",
            "policy",
            {"reward": "rule"},
            {"engine.generation": "vllm"},
            lambda path, device: (load_policy(path, device=device), None),
        ),
    ],
)
def test_a_sharded_training_is_cut_off_and_goes_on(tmp_path, capfd, monkeypatch, config, job, arguments, changes, load):
    monkeypatch.delenv("ACELIB_PROGRESS", raising=False)
    # Heads of 64: vLLM has no kernels for narrower ones than 32.
    base = save_tiny_policy(tmp_path / "base", hidden_size=256, intermediate_size=512)
    run, train = a_run(tmp_path / "run", base, config, **LONGER, **changes), getattr(training, job)
    launch(run, train, tmp_path / "whole", scratch_of(tmp_path, "s-whole"), "training", **arguments)

    scratch = scratch_of(tmp_path, "s-cut")
    killer = threading.Thread(target=cut_off, args=(scratch,))
    killer.start()
    with pytest.raises(EngineError, match="goes on from its last checkpoint"):
        launch(run, train, tmp_path / "cut", scratch, "training", **arguments)
    killer.join()
    assert not (tmp_path / "cut").exists() and list(last_checkpoint(scratch).glob(SHARDS[config]))
    capfd.readouterr()
    launch(run, train, tmp_path / "cut", scratch, "training", **arguments)
    assert int(re.search(r"training: (\d+) of", capfd.readouterr().out)[1]) > 1

    start = load_file(base / "model.safetensors")
    whole, cut = (load(tmp_path / name, device="cpu")[0].state_dict() for name in ("whole", "cut"))
    assert {name: one.shape for name, one in cut.items()} == {name: one.shape for name, one in whole.items()}
    assert all(torch.isfinite(one).all() for one in cut.values())
    shared = [name for name in start if name in cut]
    moved = sum((whole[name] - start[name]).float().norm() ** 2 for name in shared) ** 0.5
    apart = sum((whole[name] - cut[name]).float().norm() ** 2 for name in shared) ** 0.5
    assert moved > 0
    if job == "reward_model":  # vLLM samples other replies the second time
        assert apart < 0.1 * moved
