"""What needs a GPU: `python -m pytest tests/gpu` on a machine that has one. Elsewhere all of it is skipped.

The course on tiny values runs once, with everything in the notebooks' process; single notebooks then run again with the
engines that only a GPU can test. bench/README.md splits them into commands of a few minutes each.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from test_reinforce import PROBLEMS, SETTINGS, wordy
from test_reward_model import SETTINGS as SCORER_SETTINGS
from test_reward_model import some_pairs
from tiny_models import profile_with, save_tiny_policy

from acelib.core.profiles import ROOT
from acelib.models.generation import load_policy
from acelib.reward_model import load_reward_model
from acelib.training import make_reinforce_trainer, make_reward_trainer

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    pytest.mark.timeout(1800),
]
SMOKE = Path(__file__).parents[1] / "smoke.yaml"


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not find_spec(package), reason=f"{package} is missing: see requirements-gpu.txt")


def run(*words: object) -> str:
    # A kernel that finds pytest's variable gives its output no file descriptor, and vLLM asks for one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def course(folder: Path, *words: object, **values: object) -> None:
    asked = {"models.device": "cuda", "models.dtype": "bfloat16"} | values
    settings = [word for key, value in asked.items() for word in ("--set", f"{key}={value}")]
    run("-m", "acelib", "course", "--profile", SMOKE, "--run-dir", folder, *words, *settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    course(folder)
    return folder


def for_one_gpu(name: str, folder: Path) -> Path:
    """An accelerate configuration of `configs/`, with one process."""
    values = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    (folder / "one.yaml").write_text(yaml.safe_dump(values | {"num_processes": 1}), encoding="utf-8")
    return folder / "one.yaml"


def weights(model) -> torch.Tensor:
    return torch.cat([weight.detach().float().cpu().flatten() for weight in model.parameters()])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_trainers_change_the_weights(tmp_path, dtype):
    base = save_tiny_policy(tmp_path / "base")
    settings = {"reinforce": vars(SETTINGS) | {"steps": 2}, "reward_model": SCORER_SETTINGS | {"epochs": 2.0}}
    profile = profile_with(base, models={"dtype": dtype, "device": "cuda"}, sampling={"n": 4}, **settings)
    rows = make_reinforce_trainer(profile, PROBLEMS, wordy, tmp_path / "rl").train_and_save(tmp_path / "policy")
    assert [row["step"] for row in rows] == [0, 1, 2] and rows[-1]["seconds_generate"] > 0
    before, after = (weights(load_policy(path, device="cpu")) for path in (base, tmp_path / "policy"))
    assert torch.isfinite(after).all() and not torch.equal(before, after)

    log = make_reward_trainer(profile, some_pairs(), tmp_path / "scratch").train_and_save(tmp_path / "rm")
    losses = [row["pair_loss"] for row in log if "pair_loss" in row]
    assert losses[-1] < losses[0]
    assert torch.isfinite(weights(load_reward_model(tmp_path / "rm", device="cpu")[0])).all()


def test_the_bench_measures_the_true_shape(tmp_path):
    run(
        "bench/gpu.py",
        "--sizes",
        "0.5B",
        "--prompt",
        256,
        "--reply",
        128,
        "--questions",
        1,
        "--replies",
        2,
        "--micro-batch",
        1,
        "--steps",
        1,
        "--models",
        tmp_path,
        "--out",
        tmp_path / "out.md",
    )
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["stage"] for record in records] == ["reward model", "RL"]
    for record in records:
        whole = record["phases"]["all"]
        share = whole["flop"] / whole["seconds"] / 1e12 / record["matrix_tflops"]
        assert 0 < share < 1 and record["autocast"] == "bfloat16"
        assert record["trained_weights"] == ["float32"]  # or steps of 5e-7 would be rounded away: docs/hardware.md
        states = 16 * record["parameters"] / 2**30
        assert states < record["peak_gib"]["allocated"] <= record["peak_gib"]["reserved"]


@needs("vllm")
@pytest.mark.parametrize("variant", ["full", "lora"])
def test_the_bench_samples_with_vllm(tmp_path, variant):
    run(
        "bench/gpu.py",
        "--sizes",
        "0.5B",
        "--stages",
        "RL",
        "--generation",
        "vllm",
        "--variant",
        variant,
        "--prompt",
        256,
        "--reply",
        128,
        "--questions",
        1,
        "--replies",
        2,
        "--steps",
        1,
        "--models",
        tmp_path,
        "--out",
        tmp_path / "out.md",
    )
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert record["phases"]["generate"]["tokens"] > 0.9 * 2 * 128


def test_the_course_ends_with_a_report(finished):
    assert (finished / "report.html").stat().st_size > 10_000


@needs("vllm")
def test_the_course_with_vllm(tmp_path):
    """From the beginning, as `single-gpu`: a server samples in 01 to 03, 05 and 07, and 06 trains twice."""
    course(tmp_path, **{"engine.generation": "vllm", "engine.launch": "configs/gpu-1.yaml"})


@needs("vllm")
@needs("deepspeed")
def test_the_course_with_vllm_and_zero3(finished, tmp_path):
    course(finished, "--only", "06", **{"engine.generation": "vllm", "engine.launch": for_one_gpu("zero3-8", tmp_path)})


@pytest.mark.parametrize(
    "name",
    [
        "fsdp2-1",
        "fsdp2-8",
        pytest.param("zero3-1", marks=needs("deepspeed")),
        pytest.param("zero3-8", marks=needs("deepspeed")),
    ],
)
def test_a_launched_reward_model(finished, tmp_path, name):
    course(finished, "--only", "04", **{"engine.launch": for_one_gpu(name, tmp_path)})
