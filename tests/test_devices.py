"""Each reason why a GPU cannot be used has its own sentence; the facts themselves are read on this machine."""

import dataclasses
import re

import pytest
import torch

from acelib.core import DeviceError, EngineError
from acelib.core.profiles import ROOT, load_profile
from acelib.engine.configuration import processes_per_machine
from acelib.models.devices import Gpu, Machine, gpu_memory, gpu_problem, machine_facts, out_of_memory_explained
from acelib.models.generation import load_policy, pick_device
from acelib.preflight.machine import check_gpu, check_gpu_memory, for_one_card, preflight_gpu

A100, T4 = Gpu("NVIDIA A100", (8, 0)), Gpu("Tesla T4", (7, 5))
SOUND = Machine("2.13.0", (75, 80, 90), "580.65.06", None, (A100, A100))
BLIND = dataclasses.replace(SOUND, gpus=(), said="No CUDA GPUs are available")
NO_CUDA, NO_DRIVER = "Torch not compiled with CUDA enabled", "Found no NVIDIA driver on your system"
OLD = "The NVIDIA driver on your system is too old (found version 12020)"


def changed(machine, **changes):
    return dataclasses.replace(machine, **changes)


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (
            changed(BLIND, torch="2.13.0+cpu", said=NO_CUDA),
            r"torch 2.13.0\+cpu .* was built without CUDA; run .*pip install --force-reinstall torch==2.13.0`",
        ),
        (changed(BLIND, driver=None, said=NO_DRIVER), "no NVIDIA driver; go to a .*docker run --gpus all"),
        (changed(BLIND, driver=None, said=NO_CUDA), "this machine has no NVIDIA driver"),
        (changed(BLIND, said=OLD), r"driver on your system is too old \(found version 12020\); .*update its driver"),
        (changed(BLIND, said=NO_DRIVER), "does not find libcuda.so.1 of .* 580.65.06; .*NVIDIA_DRIVER_CAPABILITIES"),
        (changed(BLIND, visible=""), "CUDA_VISIBLE_DEVICES is '' and hides every GPU; unset it"),
        (changed(BLIND, visible="-1"), "CUDA_VISIBLE_DEVICES is '-1' and hides"),
        (changed(BLIND, visible="0"), "No CUDA GPUs are available; see whether `nvidia-smi` lists"),
    ],
    ids=["torch for CPU", "no driver", "neither", "old driver", "no library", "hidden", "hidden by -1", "in use"],
)
def test_no_gpu_has_many_reasons(machine, said):
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(gpu_problem(machine))
    assert gpu_problem(machine).count(". ") == 0 and gpu_problem(machine).endswith("or set models.device to cpu.")


def test_a_gpu_that_is_there_may_still_not_do():
    assert gpu_problem(SOUND, "bfloat16", 2) is None and gpu_problem(changed(SOUND, gpus=(T4,))) is None
    said = gpu_problem(changed(SOUND, gpus=(A100, T4)), "bfloat16")
    assert (
        "Tesla T4 (compute capability 7.5) does not compute in bfloat16, which starts at 8.0; take PROFILE=colab"
        in said
    )
    pascal = changed(SOUND, gpus=(Gpu("GTX 1080", (6, 1)),))
    assert "GTX 1080 (compute capability 6.1) is too old for torch 2.13.0, which starts at 7.5; take" in gpu_problem(
        pascal
    )
    assert "starts 8 processes on this machine, and it has 2 GPU(s) to use; lower num_processes" in gpu_problem(
        SOUND, processes=8
    )
    assert "(CUDA_VISIBLE_DEVICES is '0,1')" in gpu_problem(changed(SOUND, visible="0,1"), processes=4)


def test_this_machine_is_read():
    facts = machine_facts()
    assert facts.torch == torch.__version__ and len(facts.gpus) == torch.cuda.device_count()
    assert len(gpu_memory()) == len(facts.gpus) and all(free <= total for free, total in gpu_memory())
    assert bool(facts.said) == (not facts.gpus)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_asking_for_a_gpu_in_vain_stops_every_stage():
    policy = ROOT / "data" / "models" / "policy"
    for attempt in (lambda: pick_device("cuda"), lambda: load_policy(policy, device="cuda")):
        with pytest.raises(DeviceError, match="or set models.device to cpu"):
            attempt()
    assert pick_device("auto").type == "cpu" and pick_device("auto", "bfloat16").type == "cpu"
    (found,) = preflight_gpu(load_profile("single-gpu"))
    assert not found.ok and found.required and "set models.device to cpu" in found.remedy
    assert preflight_gpu(load_profile("pocket")) == []


def test_a_launch_says_how_many_gpus_it_wants(tmp_path):
    file = tmp_path / "two-nodes.yaml"
    file.write_text("distributed_type: FSDP\nnum_machines: 2\nnum_processes: 16\n")
    assert processes_per_machine(str(file)) == (8, 16) and processes_per_machine("none") == (1, 1)
    for text in ("num_machines: 2\n", "[]", "a: [", ""):
        file.write_text(text)
        with pytest.raises(EngineError, match="is no accelerate configuration .*; set engine.launch"):
            processes_per_machine(str(file))
    profile = load_profile("pocket", {"models.device": "cuda", "engine.launch": str(tmp_path / "none.yaml")})
    (found,) = preflight_gpu(profile)
    assert not found.ok and "is no accelerate configuration" in found.found and "engine.launch" in found.remedy


def test_findings_about_the_gpu_and_its_memory():
    assert check_gpu(SOUND, "bfloat16", 2).found == "2 x NVIDIA A100"
    assert "lower num_processes" in check_gpu(SOUND, "bfloat16", 3).remedy
    assert check_gpu_memory("RL", "06", 70, 78, 79).ok
    large = check_gpu_memory("RL", "06", 75, 78, 79)
    assert not large.ok and large.required and "lower reinforce.micro_batch" in large.remedy
    assert "75.0 GiB per GPU needed, 78.0 of 79.0 GiB free" in large.found
    assert "reward_model.max_length" in check_gpu_memory("reward model", "04", 75, 78, 79).remedy
    assert "PROFILE=" not in check_gpu_memory("RL", "06", 75, 4, 5).remedy  # nothing holds anything there
    on_t4 = check_gpu_memory("RL", "06", 30, 14.0, 14.7, bfloat16=False).remedy
    assert "or run what this card holds (make course PROFILE=colab)" in on_t4
    assert "end the other programs" in check_gpu_memory("RL", "06", 60, 10, 79).remedy  # it would fit an idle card


@pytest.mark.parametrize(
    ("gib", "command"),
    [
        (79.6, "make course PROFILE=single-gpu-7b$"),
        (47.5, "make course PROFILE=single-gpu-7b-48gb$"),
        (23.6, "make course PROFILE=single-gpu-7b-4bit$"),
        (14.7, "make course PROFILE=(single-gpu-1.5b|colab)$"),
        (4.0, None),
    ],
)
def test_a_card_that_is_too_small_is_told_what_it_holds(gib, command):
    found = for_one_card(gib)
    assert found is None if command is None else re.match(command, found), found
    assert for_one_card(gib, bfloat16=False) == ("make course PROFILE=colab" if gib > 5 else None)
    if found:
        assert f"or run what this card holds ({found})" in check_gpu_memory("RL", "06", 200, gib, gib).remedy


def test_out_of_memory_is_one_sentence():
    said = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB of which 1.2 GiB "
        "is free. See documentation for Memory Management"
    )
    expected = r"full \(CUDA out of memory. Tried to allocate 2.00 GiB\); lower x, or set PYTORCH.* the last checkpoint"
    with pytest.raises(DeviceError, match=expected), out_of_memory_explained("lower x"):
        raise torch.OutOfMemoryError(said)
    waking = "CUDA Error: out of memory at /build/csrc/cumem_allocator.cpp:62"
    with pytest.raises(DeviceError, match="full .CUDA Error: out of memory"), out_of_memory_explained("lower x"):
        raise RuntimeError(waking)  # vLLM's own allocator
    with pytest.raises(RuntimeError, match="else"), out_of_memory_explained("lower x"):
        raise RuntimeError("something else")
