"""Start a training job in this process, or through `accelerate launch` on as many devices and machines as the profile's
`engine.launch` names. Progress, what the job prints, and its errors come back into the calling cell either way."""

import math
import os
import pickle
import re
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.other import get_free_port

from acelib.core import ROOT, Child, CourseError, EngineError, Run, end_with_parent, full_disk_explained
from acelib.engine.configuration import configuration, processes_per_machine
from acelib.models import free_gpu
from acelib.training import fitting

LOG = "launch.log"
LARGEST = 10**6  # more examples than anything reads at a time
ERRORS = "error-*.txt"
EVERY = 0.2  # seconds between two looks at the processes
PATIENCE = 300  # seconds for other machines to end after one that has done its part
DOUBT = 60  # seconds for Ray to find out that a machine is lost, after another's processes have failed for want of it


def launch(run: Run, job: Callable[..., None], path: Path, scratch: Path, label: str, **arguments: Any) -> None:
    """`launch_once`; where a GPU is too small, on from the last checkpoint: the same updates, half as much at once."""
    while True:
        tried = fitting(scratch, LARGEST)
        try:
            return launch_once(run, job, path, scratch, label, **arguments)
        except CourseError as error:
            if (fewer := fitting(scratch, LARGEST)) == tried:
                raise
            print(f"{label}: {error}\n{label}: goes on in the same updates, at most {fewer} at a time")


def launch_once(run: Run, job: Callable[..., None], path: Path, scratch: Path, label: str, **arguments: Any) -> None:
    """`job(run, path, scratch, progress, **arguments)`, here or on the devices of `engine.launch`.

    `job` is a function of an acelib module, `arguments` can be pickled. Called again after a stop with the same
    `scratch`, the job goes on from its last checkpoint. Raises what the job raises in this process, and EngineError
    with the same sentence from elsewhere; also what `configuration` raises, and JudgeError where other machines are
    asked for and there is no Ray cluster.
    """
    free_gpu()  # of models that the notebook has dropped
    engine = run.profile.engine
    if engine.launch == "none":
        if engine.generation == "vllm" and engine.vllm_mode == "colocate":
            raise EngineError(
                "Colocated vLLM leaves its memory pool and variables in the process it ran in, where the next training "
                "would meet them; set engine.launch to configs/gpu-1.yaml, or engine.generation to transformers."
            )
        print(f"{label}: in this process")
        job(run, path, scratch, partial(run.progress, label=label), **arguments)
        return
    config, order = configuration(engine.launch), scratch / "job.pickle"
    for stale in scratch.glob(ERRORS):
        stale.unlink()
    order.write_bytes(pickle.dumps((partial(job, **arguments), run.dir, run.profile, path, scratch, label)))
    command, environment = _command(run, config, order)
    print(f"{label}: {' '.join(command[2:-1])} {order.name}")
    if config["num_machines"] > 1:
        _run_on_machines(run, config["num_machines"], command, environment, scratch)
    else:
        _run(command, environment, scratch, scratch / LOG, follow=partial(print, end="", flush=True))


def _command(run: Run, config: dict[str, Any], order: Path) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config["file"]]
    # The profile decides: left to the file, autocast would compute in bf16 behind the back of a float32 profile.
    command += ["--mixed_precision", "bf16" if run.profile.models.dtype == "bfloat16" else "no"]
    command += ["--main_process_port", str(get_free_port() if config["num_machines"] > 1 else 0)]
    processes, _ = processes_per_machine(config["file"])
    threads = max(1, min(run.profile.threads, torch.get_num_threads()) // processes)  # together as many as here
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    return [*command, "-m", "acelib.engine.launcher", str(order)], environment


def _on_machine(command: list[str], count: int, first: str, rank: int) -> list[str]:
    """The command of machine `rank` of `count`; `first` is the address of rank 0."""
    where = ["--num_machines", str(count), "--main_process_ip", first, "--machine_rank", str(rank)]
    return [*command[:5], *where, *command[5:]]


def _run_on_machines(run: Run, count: int, command: list[str], environment: dict[str, str], scratch: Path) -> None:
    """`_run` on this machine and `count - 1` others of the Ray cluster; what this one prints is printed here.

    All must see this checkout and the run directory under the same paths (a shared file system). Raises EngineError,
    and JudgeError without a cluster.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from acelib.engine.cluster import join_cluster

    ray = join_cluster(None if run.profile.engine.cluster == "none" else run.profile.engine.cluster)
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    if len(nodes) < count:
        raise EngineError(
            f"{run.profile.engine.launch} asks for {count} machines, the Ray cluster has {len(nodes)}; run `ray start "
            "--address=<this machine>:6379` on the others, or take a configuration for one machine."
        )
    chosen = [nodes[name] for name in [here, *sorted(nodes.keys() - {here})][:count]]
    addresses, running = [node["NodeManagerAddress"] for node in chosen], {}
    (out := scratch / f"0-{LOG}.out").write_text("")
    for rank, node in enumerate(chosen):
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        gpus = node["Resources"].get("GPU", 0)
        part = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=0, scheduling_strategy=place)(_run)
        mine = environment if rank else os.environ | environment  # Ray's own processes do not have the notebook's
        words = _on_machine(command, count, addresses[0], rank)
        running[part.remote(words, mine, scratch, scratch / f"{rank}-{LOG}")] = addresses[rank]
    _follow_machines(ray, running, out, scratch)


def _follow_machines(ray: Any, running: dict[Any, str], out: Path, scratch: Path) -> None:
    """Wait for the parts of a job, tasks of Ray with the addresses of their machines, and print what comes into `out`.

    Raises EngineError with the first failure, or for a machine that was lost or does not end.
    """
    failed, until = None, math.inf
    try:
        with out.open(encoding="utf-8", errors="replace") as printed:
            while running and time.monotonic() < until:
                ended, _ = ray.wait(list(running), timeout=EVERY)
                print(printed.read(), end="", flush=True)
                for one in ended:
                    address = running.pop(one)
                    try:
                        ray.get(one)
                    except ray.exceptions.RayTaskError as error:
                        failed = failed or error.cause
                    except ray.exceptions.RayError as error:
                        raise EngineError(
                            f"A machine of the job was lost ({address}, {type(error).__name__}); start Ray there again "
                            "and repeat the command, the job goes on from its last checkpoint."
                        ) from error
                    seconds = 0 if any(scratch.glob(ERRORS)) else DOUBT if failed else PATIENCE
                    until = min(until, time.monotonic() + seconds)
    finally:
        for one in running:
            ray.cancel(one)
        ray.wait(list(running), num_returns=len(running), timeout=DOUBT)  # or the next job finds their GPUs in use
    if failed:
        raise failed
    if running:
        raise EngineError(
            f"{', '.join(running.values())} has not ended {PATIENCE} s after another machine of the job; look at what "
            "still runs there."
        )


def _run(
    command: list[str],
    environment: dict[str, str],
    scratch: Path,
    log: Path,
    follow: Callable[[str], None] = lambda text: None,
) -> None:
    """One machine's part of a job, to its end; `follow` gets what it has printed since the last call.

    Raises EngineError with what any process of the job raised, or else with what this one wrote into `log`.
    """
    out = Path(f"{log}.out")
    try:
        child = Child(command, log, out, env={**os.environ, **environment}, cwd=ROOT)
    except OSError as error:
        raise EngineError(
            f"A machine cannot start its part ({error}); give all machines this checkout, its .venv and the run "
            "directory under the same paths."
        ) from None
    with closing(child), out.open(encoding="utf-8", errors="replace") as printed:
        while (status := child.status()) is None:
            follow(printed.read())
            time.sleep(EVERY)  # Ray cancels between two of these, not within a wait
        follow(printed.read())
    if status == 0:
        return
    for path in sorted(scratch.glob(ERRORS)):
        raise EngineError(path.read_text(encoding="utf-8"))
    lines = [re.sub(r"^\[rank\d+\]: ", "", line).strip() for line in child.lines()] or ["it said nothing"]
    cause = next((line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))), lines[-1])
    raise EngineError(
        f"A process of the job ended with status {status}: {cause}. All it wrote is in {log}; mend the cause and start "
        "again, the job goes on from its last checkpoint."
    )


def main(order: Path) -> int:
    """One process of a job."""
    end_with_parent()  # accelerate's launcher, which ends with the notebook
    rank = int(os.environ.get("RANK", 0))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    job, run_dir, profile, path, scratch, label = pickle.loads(order.read_bytes())
    run = Run(run_dir, profile)
    torch.manual_seed(profile.seed)
    if rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    progress = (lambda done, total: None) if rank else partial(run.progress, label=label)
    try:
        with full_disk_explained(path):
            job(run, path, scratch, progress)
    except CourseError as error:
        (scratch / f"error-{rank}.txt").write_text(str(error), encoding="utf-8")
        return 1
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # or its threads may outlive the interpreter, and abort the process
    return 0


if __name__ == "__main__":
    # Without a clean-up of process groups, others would wait for a process that has failed.
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status) if status else sys.exit(0)
