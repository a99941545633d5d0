"""Something to sample from: a model in this process, behind somebody's server, or behind a server that we start.

vLLM runs as a server of its own even on this machine: its engine wants a process to itself, the card is free again the
moment it ends, and the client that speaks to paid teachers (`acelib.models.server`) does the rest.
"""

import os
import sys
import time
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.other import get_free_port

from acelib.core import Child, EngineError, Profile, Remote, assume
from acelib.models import Server, free_gpu, gpu_memory, is_address, load_policy, load_tokenizer, stop_tokens

HERE = "http://127.0.0.1"
# What the interpreter is told. vLLM would otherwise take temperature, top-k and repetition penalty from the model's
# generation_config.json wherever a request is silent; the end-of-reply tokens there count either way.
VLLM = (
    "-m vllm.entrypoints.cli.main serve {model} --host 127.0.0.1 --port {port} --dtype {dtype} "
    "--tensor-parallel-size {parallel} --data-parallel-size {replicas} --gpu-memory-utilization {share} "
    "--generation-config vllm --disable-uvicorn-access-log"
)
START_SECONDS = 1800.0  # 32B parameters from a slow disk, compiled
IN_FLIGHT = 1024  # requests: what vLLM decodes side by side on an H100; where it is fewer, the rest waits in its queue


@dataclass(frozen=True)
class LocalServer(Server):
    """A server of our own, until `close()`. Its replies cost nothing, so they are logged where the stage logs."""

    process: Child

    def close(self) -> None:
        self.process.close()

    def trouble(self) -> str | None:
        ended = _ended(self.process)
        return ended and f"{ended}. Repeat the command: it starts another one, and goes on where this one ended"


def serve(
    profile: Profile, model: str, scratch: Path, start_seconds: float = START_SECONDS, **options: Any
) -> LocalServer:
    """Start vLLM for a model folder or hub name on all GPUs of this machine, and wait until it answers.

    `engine.vllm_parallel` GPUs share one copy of the model; all copies are behind the one address. `scratch` gets the
    server's log; replies go to the log of the stage that asks; `options` go with every request. Raises EngineError,
    with the server's last words.
    """
    if find_spec("vllm") is None:
        raise EngineError("engine.generation is vllm, which is not installed; pip install -r requirements-gpu.txt.")
    free_gpu()
    # vLLM refuses to start where less is free than it wants, and a card may drive a display, too.
    share, port = min([0.9, *(0.97 * free / total for free, total in gpu_memory())]), get_free_port()
    parallel = profile.engine.vllm_parallel
    replicas = max(1, torch.cuda.device_count() // parallel)
    values = dict(model=model, port=port, dtype=profile.models.dtype, parallel=parallel, replicas=replicas)
    command = [sys.executable, *(word.format(**values, share=f"{share:.2f}") for word in VLLM.split())]
    process = Child(command, scratch / f"vllm-{os.getpid()}-{port}.log")
    try:
        _wait(process, f"{HERE}:{port}", f"The server for {model}", start_seconds)
    except BaseException:
        process.close()
        raise
    free = dict(dollars_per_million_input=0.0, dollars_per_million_output=0.0)
    limits = assume(profile.remote, concurrency=IN_FLIGHT * replicas, **free)
    return LocalServer(url=f"{HERE}:{port}/v1", model=model, limits=limits, log=None, process=process, options=options)


def _last_lines(process: Child) -> str:
    return " | ".join(process.lines()[-5:])[-1000:] or "none"


def _ended(process: Child) -> str | None:
    """How it ended, with the last lines of its log; None while it runs."""
    status = process.status()
    return None if status is None else f"ended with exit status {status}; its last lines: {_last_lines(process)}"


def _wait(process: Child, url: str, name: str, seconds: float) -> None:
    """Until it answers. Raises EngineError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is behind no proxy
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ended := _ended(process):
            raise EngineError(f"{name} {ended}; mend what they name and repeat the command.")
        try:
            return opener.open(f"{url}/health", timeout=5).close()
        except OSError:
            time.sleep(0.2)
    raise EngineError(
        f"{name} did not answer within {seconds:.0f} s; its last lines: {_last_lines(process)}; look into "
        f"{process.log}, or take a smaller model."
    )


def open_sampler(
    profile: Profile, name: str, scratch: Path, remote: tuple[Remote, Path] | None = None
) -> tuple[Any, Any]:
    """(model, tokenizer) to give to `sample_replies` and all that build on it, as the profile's `engine` says.

    An address is a server (with `remote`, as in `load_policy`); otherwise `generation: transformers` loads the weights
    into this process, and `vllm` starts a server on all GPUs of this machine, which ends when the model is closed or no
    longer used. Give `reply_settings(profile)` as `params` of the artefact. Raises ModelError, DeviceError or
    EngineError.
    """
    name, models = profile.resolve(name), profile.models
    if is_address(name) or profile.engine.generation == "transformers":
        return load_policy(name, models.dtype, models.device, remote), load_tokenizer(name)
    stop = stop_tokens(None, load_tokenizer(name))  # raises before a server starts where there is no model or template
    return serve(profile, name, scratch, stop_token_ids=stop), None


def reply_settings(profile: Profile) -> dict[str, str]:
    """What changes the replies of `open_sampler`'s models besides their weights."""
    return {"generation": profile.engine.generation, "dtype": profile.models.dtype, "device": profile.models.device}
