"""Why a GPU cannot be used: what torch and the driver report, and what follows from it as one sentence.

Facts are gathered in one place (`machine_facts`, `gpu_memory`); what they mean is decided by plain functions of them.
"""

import ctypes
import gc
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from acelib.core import DeviceError

GIB = 2**30
AMPERE = (8, 0)  # the first compute capability with bfloat16 in hardware


@dataclass(frozen=True)
class Gpu:
    name: str
    capability: tuple[int, int]  # compute capability, (8, 0) for an A100


@dataclass(frozen=True)
class Machine:
    """What torch and the driver say. Versions of CUDA are (major, minor); None is what there is not."""

    torch: str  # its version
    torch_cuda: tuple[int, int] | None  # what torch was built with
    architectures: tuple[int, ...]  # compute capabilities that torch has code for, 80 for (8, 0)
    driver: str | None  # version of the NVIDIA driver
    driver_cuda: tuple[int, int] | None  # the newest CUDA that the driver knows
    visible: str | None  # CUDA_VISIBLE_DEVICES
    gpus: tuple[Gpu, ...]  # those that torch can use
    said: str = ""  # torch's own words when it can use none


def machine_facts() -> Machine:
    """The facts of this machine; needs no GPU."""
    cuda = re.match(r"(\d+)\.(\d+)", torch.version.cuda or "")
    gpus, said = [], ""
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            gpus.append(Gpu(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)))
    else:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            said = str(error).splitlines()[0]
    codes = (re.match(r"(?:sm|compute)_(\d+)", one) for one in torch.cuda.get_arch_list())
    return Machine(
        torch.__version__,
        (int(cuda[1]), int(cuda[2])) if cuda else None,
        tuple(sorted({int(code[1]) for code in codes if code})),
        _driver(),
        _driver_cuda(),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        tuple(gpus),
        said,
    )


def _driver() -> str | None:
    proc = Path("/proc/driver/nvidia/version")
    if proc.is_file() and (found := re.search(r"(\d+\.\d+(\.\d+)?)", proc.read_text(encoding="utf-8"))):
        return found[1]
    try:  # on WSL there is no such file
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(asked.stdout.split()), None) if asked.returncode == 0 else None


def _driver_cuda() -> tuple[int, int] | None:
    try:
        library, version = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        failed = library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)


def gpu_problem(machine: Machine, dtype: str = "float32", processes: int = 1) -> str | None:
    """What keeps `processes` on this machine from computing in `dtype` on a GPU each: `what; remedy.`, or None."""
    if not machine.gpus:
        return _no_gpu(machine)
    for gpu in machine.gpus:
        capability = ".".join(map(str, gpu.capability))
        number = 10 * gpu.capability[0] + gpu.capability[1]
        if machine.architectures and number < machine.architectures[0]:
            oldest = machine.architectures[0]
            return (
                f"torch {machine.torch} has no code for the {gpu.name} (compute capability {capability}, torch "
                f"starts at {oldest // 10}.{oldest % 10}); take a newer card, or set models.device to cpu."
            )
        if dtype == "bfloat16" and gpu.capability < AMPERE:
            return (
                f"The {gpu.name} (compute capability {capability}) does not compute in bfloat16, which starts at "
                "8.0; set models.dtype to float32, or take a newer card."
            )
    if processes > len(machine.gpus):
        hidden = f" (CUDA_VISIBLE_DEVICES is {machine.visible!r})" if machine.visible is not None else ""
        return (
            f"engine.launch starts {processes} processes on this machine, and it has {len(machine.gpus)} "
            f"GPU(s) to use{hidden}; lower num_processes in that file, or free as many GPUs."
        )
    return None


def _no_gpu(machine: Machine) -> str:
    otherwise = "or set models.device to cpu."
    if machine.driver is None and machine.driver_cuda is None:
        return (
            "models.device is cuda, and this machine has no NVIDIA driver; go to a machine with a GPU and its "
            f"driver, start the container with its GPUs (`docker run --gpus all`), {otherwise}"
        )
    if machine.torch_cuda is None:
        release = machine.torch.partition("+")[0]
        return (
            f"models.device is cuda, and torch {machine.torch} was built without CUDA; install the build with it "
            f"by `python -m pip install --force-reinstall torch=={release}` (without TORCH_INDEX), {otherwise}"
        )
    built = ".".join(map(str, machine.torch_cuda))
    driver = f"NVIDIA driver {machine.driver}" if machine.driver else "NVIDIA driver"
    if machine.driver_cuda is None:
        return (
            f"The {driver} is loaded, but its library libcuda.so.1 cannot be found; install the driver's "
            f"libraries, or start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility, {otherwise}"
        )
    if machine.driver_cuda[0] < machine.torch_cuda[0]:  # within a major version older drivers do
        knows = ".".join(map(str, machine.driver_cuda))
        return (
            f"The {driver} knows CUDA up to {knows}, and torch {machine.torch} was built with {built}; update the "
            f"driver to one for CUDA {machine.torch_cuda[0]}.0 or newer, {otherwise}"
        )
    if machine.visible is not None and not re.match(r"\s*(\d|GPU-|MIG-)", machine.visible):
        return f"CUDA_VISIBLE_DEVICES is {machine.visible!r} and hides every GPU; unset it, {otherwise}"
    return (
        f"torch {machine.torch} cannot use the {driver} ({machine.said or 'no GPU found'}); see whether "
        f"`nvidia-smi` lists a GPU (after an update of the driver, restart the machine), {otherwise}"
    )


def gpu_memory() -> list[tuple[float, float]]:
    """Free and total GiB of each visible GPU; empty without any."""
    return ask_apart(_memory) if torch.cuda.is_available() else []


def ask_apart(question: Callable[[], Any]) -> Any:
    """The answer, from a process of its own: asking leaves half a GiB of context on every card, which training would
    miss for as long as the asking process lives."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(question).result()


def free_gpu() -> None:
    """Hand back what this process has cached of a GPU's memory: to other processes it looks taken."""
    gc.collect()
    torch.cuda.empty_cache()


def _memory() -> list[tuple[float, float]]:
    readings = (torch.cuda.mem_get_info(i) for i in range(torch.cuda.device_count()))
    return [(free / GIB, total / GIB) for free, total in readings]


UNFRAGMENTED = "set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True (without colocated vLLM)"


@contextmanager
def out_of_memory_explained(remedy: str) -> Iterator[None]:
    """Turns torch.OutOfMemoryError into DeviceError; `remedy` says what to lower, in the words of the profile."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        said = str(error).partition(". GPU")[0].splitlines()[0].rstrip(".")
        raise DeviceError(
            f"The GPU's memory is full ({said}); {remedy}, or {UNFRAGMENTED}, and repeat the command, which goes on "
            "from the last checkpoint."
        ) from error
