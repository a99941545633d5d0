"""Memory that grows from step to step ends a run before it runs out; memory that stands still does not."""

import pytest
import torch
from datasets import Dataset
from tiny_models import tiny_policy
from transformers import Trainer, TrainingArguments

from acelib.core import DeviceError
from acelib.models.devices import out_of_memory_explained
from acelib.training.memory import Memory, MemoryWatch, expected_growth, read_memory


def run(folder, memory, steps=5):
    """A real trainer, to which `memory` (readings of allocated, reserved and capacity, GiB) is what the card says."""
    model, tokenizer = tiny_policy()
    ids = tokenizer("def solve(xs):")["input_ids"]
    watch = MemoryWatch("lower reinforce.micro_batch", iter([one and Memory(*one) for one in memory]).__next__)
    trainer = Trainer(
        model=model,
        train_dataset=Dataset.from_list([{"input_ids": ids, "labels": ids}] * steps),
        callbacks=[watch],
        args=TrainingArguments(
            str(folder),
            max_steps=steps,
            per_device_train_batch_size=1,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    try:
        trainer.train()
    finally:
        watch.reached = trainer.state.global_step
    return watch


STEADY = [(40, 50, 79), (60, 70, 79), (60, 70, 79)]  # the optimiser's moments come at the end of the first step


@pytest.mark.parametrize(
    "memory",
    [
        STEADY,
        [(40, 50, 79), (60, 74, 79), (60, 76, 79)],  # grows ever less, and the next 2 GiB are there
        [(70, 78.9, 79), (70, 78.9, 79), (70, 78.9, 79)],  # full, but it stands still
        [(40, 50, 79), (40, 45, 79), (40, 45, 79)],  # shrinks
    ],
)
def test_what_fits_goes_on_to_the_end(tmp_path, memory):
    watch = run(tmp_path, memory)
    assert watch.reached == 5 and len(watch.readings) == 3, "later steps are not even looked at"


@pytest.mark.parametrize(
    ("memory", "step", "fragments"),
    [
        ([(40, 50, 79), (41, 72, 79)], 2, 31),
        ([(40, 50, 79), (60, 74, 79), (60, 78, 79)], 3, 18),
        ([(40, 50, 79), (60, 70, 79), (66, 76, 79)], 3, 10),  # a longer batch than any before
    ],
)
def test_what_keeps_growing_is_ended_with_a_remedy(tmp_path, memory, step, fragments):
    with pytest.raises(DeviceError) as caught:
        run(tmp_path, memory)
    said = str(caught.value)
    assert f"at step {step} of this run" in said and f"{fragments:.1f} of them as fragments" in said
    assert "expandable_segments:True (without colocated vLLM), or lower reinforce.micro_batch" in said


def test_moments_of_the_optimiser_are_no_growth():
    first, second, third = (Memory(*one) for one in STEADY)
    assert expected_growth(first, second, 2) == 0 == expected_growth(second, third, 3)
    assert expected_growth(first, second, 3) == 20


def test_a_run_that_uses_no_gpu_is_left_alone(tmp_path):
    assert run(tmp_path, [None] * 5).readings == []
    assert torch.cuda.is_initialized() or read_memory() is None


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
