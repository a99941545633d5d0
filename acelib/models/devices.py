"""Why a GPU cannot be used: what torch and the driver report, and what follows from it as one sentence."""

import gc
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from torch.utils import collect_env

from acelib.core import DeviceError

GIB = 2**30
AMPERE = (8, 0)  # the first compute capability with bfloat16 in hardware
UNFRAGMENTED = "set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True (without colocated vLLM)"


@dataclass(frozen=True)
class Gpu:
    name: str
    capability: tuple[int, int]  # compute capability, (8, 0) for an A100


@dataclass(frozen=True)
class Machine:
    """What torch and the driver say; None is what there is not."""

    torch: str  # its version
    architectures: tuple[int, ...]  # compute capabilities that torch has code for, 80 for (8, 0)
    driver: str | None  # version of the NVIDIA driver, by nvidia-smi
    visible: str | None  # CUDA_VISIBLE_DEVICES
    gpus: tuple[Gpu, ...]  # those that torch can use
    said: str = ""  # torch's own words when it can use none


def machine_facts() -> Machine:
    """The facts of this machine; needs no GPU."""
    gpus, said, driver = [], "", None
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            gpus.append(Gpu(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)))
    else:
        driver = collect_env.get_nvidia_driver_version(collect_env.run)
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            said = str(error).partition(". Please")[0].splitlines()[0].rstrip(".")
    codes = (re.match(r"(?:sm|compute)_(\d+)", one) for one in torch.cuda.get_arch_list())
    architectures = tuple(sorted({int(code[1]) for code in codes if code}))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Machine(torch.__version__, architectures, driver, visible, tuple(gpus), said)


def gpu_problem(machine: Machine, dtype: str = "float32", processes: int = 1) -> str | None:
    """What keeps `processes` on this machine from computing in `dtype` on a GPU each: `what; remedy.`, or None."""
    if not machine.gpus:
        return _no_gpu(machine)
    oldest = min(machine.architectures, default=0)
    for gpu in machine.gpus:
        major, minor = gpu.capability
        what = f"The {gpu.name} (compute capability {major}.{minor})"
        if 10 * major + minor < oldest:
            return (
                f"{what} is too old for torch {machine.torch}, which starts at {oldest // 10}.{oldest % 10}; take a "
                "newer card, or set models.device to cpu."
            )
        if dtype == "bfloat16" and gpu.capability < AMPERE:
            return (
                f"{what} does not compute in bfloat16, which starts at 8.0; take PROFILE=colab, made for such a "
                "card, set models.dtype to float32, or take a newer card."
            )
    if processes > len(machine.gpus):
        hidden = f" (CUDA_VISIBLE_DEVICES is {machine.visible!r})" if machine.visible is not None else ""
        return (
            f"engine.launch starts {processes} processes on this machine, and it has {len(machine.gpus)} "
            f"GPU(s) to use{hidden}; lower num_processes in that file, or free as many GPUs."
        )
    return None


def _no_gpu(machine: Machine) -> str:
    without_cuda, without_driver = "compiled with CUDA" in machine.said, "Found no NVIDIA driver" in machine.said
    if machine.driver is None and (without_cuda or without_driver):
        why = "this machine has no NVIDIA driver"
        remedy = "go to a machine with a GPU and its driver, start the container with GPUs (`docker run --gpus all`)"
    elif without_cuda:
        why, release = "it was built without CUDA", machine.torch.partition("+")[0]
        remedy = f"run `python -m pip install --force-reinstall torch=={release}` (without TORCH_INDEX)"
    elif without_driver:
        why = f"it does not find libcuda.so.1 of the NVIDIA driver {machine.driver}"
        remedy = "install it, start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    elif machine.visible is not None and not re.match(r"\s*(\d|GPU-|MIG-)", machine.visible):
        why, remedy = f"CUDA_VISIBLE_DEVICES is {machine.visible!r} and hides every GPU", "unset it"
    else:
        why = machine.said or "none is found"
        remedy = "see whether `nvidia-smi` lists a GPU, update its driver (after an update, restart the machine)"
    return f"torch {machine.torch} can use no GPU: {why}; {remedy}, or set models.device to cpu."


def gpu_memory() -> list[tuple[float, float]]:
    """Free and total GiB of each visible GPU; empty without any."""
    return ask_apart(_memory) if torch.cuda.is_available() else []


def _memory() -> list[tuple[float, float]]:
    readings = (torch.cuda.mem_get_info(i) for i in range(torch.cuda.device_count()))
    return [(free / GIB, total / GIB) for free, total in readings]


def ask_apart(question: Callable[[], Any]) -> Any:
    """The answer, from a process of its own: asking leaves half a GiB of context on every card, which training would
    miss for as long as the asking process lives."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(question).result()


def free_gpu() -> None:
    """Hand back what this process has cached of a GPU's memory: to other processes it looks taken."""
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def out_of_memory_explained(remedy: str) -> Iterator[None]:
    """Turns what torch raises, or vLLM as it wakes up, into DeviceError; `remedy` says what to lower in the profile."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        said = str(error).partition(". GPU")[0].splitlines()[0].rstrip(".")
        raise DeviceError(
            f"The GPU's memory is full ({said}); {remedy}, or {UNFRAGMENTED}, and repeat the command: it "
            "resumes from the last checkpoint."
        ) from error
