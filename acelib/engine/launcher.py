"""Start a training job in this process, or through `accelerate launch` on as many devices and machines as the profile's
`engine.launch` names. Progress, what the job prints, and its errors come back into the calling cell either way."""

import codecs
import importlib
import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils.other import get_free_port

from acelib.core import (
    ROOT,
    CourseError,
    EngineError,
    Run,
    end_tree,
    end_with_parent,
    full_disk_explained,
    load_profile,
)
from acelib.engine.configuration import configuration
from acelib.models import free_gpu

LOG = "launch.log"
ERRORS = "error-*.json"
PATIENCE = 300  # seconds for other machines to end after this one
DOUBT = 60  # seconds for Ray to find out that a machine is lost, after this one's processes have failed for want of it


def launch(run: Run, job: Callable[..., None], path: Path, scratch: Path, label: str, **arguments: Any) -> None:
    """`job(run, path, scratch, progress, **arguments)`, here or on the devices of `engine.launch`.

    `job` is a function of an acelib module, `arguments` are JSON data. Called again after a stop with the same
    `scratch`, the job goes on from its last checkpoint. Raises what the job raises in this process, and EngineError
    with the same sentence from elsewhere; also what `configuration` raises, and JudgeError where other machines are
    asked for and there is no Ray cluster.
    """
    free_gpu()  # of models that the notebook has dropped
    engine = run.profile.engine
    if engine.launch == "none" and engine.generation == "vllm" and engine.vllm_mode == "colocate":
        raise EngineError(
            "Colocated vLLM leaves its memory pool and variables in the process it ran in, where the "
            "next training would meet them; set engine.launch to configs/gpu-1.yaml, or "
            "engine.generation to transformers."
        )
    if engine.launch == "none":
        print(f"{label}: in this process")
        job(run, path, scratch, lambda done, total: run.progress(done, total, label), **arguments)
        return
    order = scratch / "job.json"
    values = scratch / "profile.yaml"
    values.write_text(yaml.safe_dump(run.profile.to_dict(), sort_keys=False), encoding="utf-8")
    order.write_text(
        json.dumps(
            {
                "job": f"{job.__module__}:{job.__qualname__}",
                "run_dir": str(run.dir),
                "profile": str(values),
                "path": str(path),
                "scratch": str(scratch),
                "label": label,
                "arguments": arguments,
            }
        ),
        encoding="utf-8",
    )
    for stale in scratch.glob(ERRORS):
        stale.unlink()
    config = configuration(run.profile.engine.launch)
    command, environment = _command(run, config, order)
    with _other_machines(run, config.get("num_machines", 1), command, environment, scratch) as (mine, check):
        print(f"{label}: {' '.join(mine[2:-1])} {order.name}")
        _follow(mine, environment, scratch, check)


def _command(run: Run, config: dict[str, Any], order: Path) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config["file"]]
    # The profile decides: left to the file, autocast would compute in bf16 behind the back of a float32 profile.
    command += ["--mixed_precision", "bf16" if run.profile.models.dtype == "bfloat16" else "no"]
    command += ["--main_process_port", str(get_free_port() if config.get("num_machines", 1) > 1 else 0)]
    threads = max(1, run.profile.threads // config["num_processes"])
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    return [*command, "-m", "acelib.engine.launcher", str(order)], environment


def _on_machine(command: list[str], count: int, first: str, rank: int) -> list[str]:
    """The command of machine `rank` of `count`; `first` is the address of rank 0."""
    where = ["--num_machines", str(count), "--main_process_ip", first, "--machine_rank", str(rank)]
    return [*command[:5], *where, *command[5:]]


@contextmanager
def _other_machines(
    run: Run, count: int, command: list[str], environment: dict[str, str], scratch: Path
) -> Iterator[tuple[list[str], Callable[..., bool]]]:
    """This machine's command, while Ray runs that of each of the `count - 1` others; and `check`, which asks for them.

    They must see this checkout and the run directory under the same paths (a shared file system). Raises EngineError,
    and JudgeError without a cluster.
    """
    if count == 1:
        yield command, lambda *_, **__: True
        return
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from acelib.engine.cluster import connect

    ray = connect(None if run.profile.engine.cluster == "none" else run.profile.engine.cluster)
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    others = [nodes[name] for name in sorted(nodes.keys() - {here})][: count - 1]
    if len(others) < count - 1:
        raise EngineError(
            f"{run.profile.engine.launch} asks for {count} machines, the Ray cluster has {len(nodes)}; "
            "run `ray start --address=<this machine>:6379` on the others, or take a configuration for "
            "one machine."
        )
    task, first = ray.remote(num_cpus=0, max_retries=0)(_machine), nodes[here]["NodeManagerAddress"]
    running = {
        task.options(
            num_gpus=node["Resources"].get("GPU", 0),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(_on_machine(command, count, first, rank), environment, scratch, rank): node["NodeManagerAddress"]
        for rank, node in enumerate(others, start=1)
    }

    def check(seconds: float = 0, failures: bool = True) -> bool:
        """Whether all have ended, now or within `seconds`. Raises EngineError for one that was lost, or has failed."""
        ended, going_on = ray.wait(list(running), num_returns=len(running), timeout=seconds)
        for one in ended:
            try:
                ray.get(one)
            except ray.exceptions.RayTaskError as error:
                if failures:
                    raise error.cause from None
            except ray.exceptions.RayError as error:
                raise EngineError(
                    f"A machine of the job was lost ({running[one]}, {type(error).__name__}); start Ray there again "
                    "and repeat the command, the job goes on from its last checkpoint."
                ) from error
        return not going_on

    try:
        yield _on_machine(command, count, first, 0), check
        if not check(PATIENCE):
            raise EngineError(
                f"Another machine of the job has not ended {PATIENCE} s after this one; look at what still runs there."
            )
    finally:
        for one in running:
            ray.cancel(one)
        ray.wait(list(running), num_returns=len(running), timeout=DOUBT)  # or the next job finds their GPUs in use


def _machine(command: list[str], environment: dict[str, str], scratch: Path, rank: int) -> None:
    """On another machine, in a Ray worker. Raises EngineError."""
    log = scratch / f"{rank}-{LOG}"
    try:
        said = log.open("w", encoding="utf-8")
        process = _start(command, environment, stdout=subprocess.DEVNULL, stderr=said)
    except OSError as error:
        raise EngineError(
            f"Another machine cannot start its part ({error}); give all machines this checkout, its "
            ".venv and the run directory under the same paths."
        ) from None
    with said:
        try:
            while process.poll() is None:
                time.sleep(0.5)  # Ray cancels between two of these, not within a wait
        except BaseException:
            end_tree(process)
            raise
    _raise_what_failed(process.returncode, scratch, log)


def _start(command: list[str], environment: dict[str, str], **streams: Any) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent,
        **streams,
    )


def _follow(command: list[str], environment: dict[str, str], scratch: Path, check: Callable[..., bool]) -> None:
    """Print what the first process prints, and raise what any of them raised, or `check` about other machines."""
    log = scratch / LOG
    with log.open("w", encoding="utf-8") as said:
        process = _start(command, environment, stdout=subprocess.PIPE, stderr=said)
        try:
            for text in _pieces(process.stdout.fileno()):
                print(text, end="", flush=True)
                check()  # a process that waits for one on a lost machine would wait for the length of a time-out
            status = process.wait()
        except BaseException:
            end_tree(process)
            raise
    try:
        _raise_what_failed(status, scratch, log)
    except EngineError:
        if not list(scratch.glob(ERRORS)):
            check(DOUBT, failures=False)
        raise


def _pieces(pipe: int) -> Iterator[str]:
    """What comes through a pipe until its end, and an empty piece for every second without."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=1):
                yield ""
            elif piece := os.read(pipe, 2**16):
                yield decoder.decode(piece)
            else:
                return


def _raise_what_failed(status: int, scratch: Path, log: Path) -> None:
    if status == 0:
        return
    for path in sorted(scratch.glob(ERRORS)):
        raise EngineError(json.loads(path.read_text(encoding="utf-8"))["message"])
    said = re.sub(r"^\[rank\d+\]: ", "", log.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE)
    lines = [line.strip() for line in said.splitlines()]
    errors = (line for line in lines if line.split(":")[0].endswith(("Error", "Exception")))
    cause = next(errors, lines[-1] if lines else "it said nothing")
    raise EngineError(
        f"A process of the job ended with status {status}: {cause}. All it wrote is in {log}; mend the "
        "cause and start again, the job goes on from its last checkpoint."
    )


def main(order: Path) -> int:
    """One process of a job."""
    import torch

    asked, rank = json.loads(order.read_text(encoding="utf-8")), int(os.environ.get("RANK", 0))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    run = Run(asked["run_dir"], load_profile(asked["profile"]))
    torch.manual_seed(run.profile.seed)
    module, _, name = asked["job"].partition(":")
    job = getattr(importlib.import_module(module), name)
    if rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives

    def progress(done: int, total: int) -> None:
        if rank == 0:
            run.progress(done, total, asked["label"])

    path, scratch = Path(asked["path"]), Path(asked["scratch"])
    try:
        with full_disk_explained(path):
            job(run, path, scratch, progress, **asked["arguments"])
    except CourseError as error:
        (scratch / f"error-{rank}.json").write_text(json.dumps({"message": str(error)}), encoding="utf-8")
        return 1
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # or its threads may outlive the interpreter, and abort the process
    return 0


if __name__ == "__main__":
    # Without a clean-up of process groups, others would wait for a process that has failed.
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status) if status else sys.exit(0)
