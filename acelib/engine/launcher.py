"""Start a training job in this process, or through `accelerate launch` on as many devices and machines as the profile's
`engine.launch` names. Progress, what the job prints, and its errors come back into the calling cell either way."""

import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.other import get_free_port

from acelib.core import ROOT, CourseError, EngineError, Run, end_tree, end_with_parent, full_disk_explained
from acelib.engine.configuration import configuration, processes_per_machine
from acelib.models import free_gpu

LOG = "launch.log"
ERRORS = "error-*.txt"
EVERY = 0.2  # seconds between two looks at the processes
PATIENCE = 300  # seconds for other machines to end after this one
DOUBT = 60  # seconds for Ray to find out that a machine is lost, after this one's processes have failed for want of it


def launch(run: Run, job: Callable[..., None], path: Path, scratch: Path, label: str, **arguments: Any) -> None:
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
    with _other_machines(run, config["num_machines"], command, environment, scratch) as (mine, check):
        print(f"{label}: {' '.join(mine[2:-1])} {order.name}")

        def follow(text: str) -> None:
            print(text, end="", flush=True)
            check()  # a process that waits for one on a lost machine would wait for the length of a time-out

        try:
            _run(mine, environment, scratch, scratch / LOG, follow)
        except EngineError:
            if not list(scratch.glob(ERRORS)):
                check(DOUBT, failures=False)
            raise


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

    from acelib.engine.cluster import join_cluster

    ray = join_cluster(None if run.profile.engine.cluster == "none" else run.profile.engine.cluster)
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    others = [nodes[name] for name in sorted(nodes.keys() - {here})][: count - 1]
    if len(others) < count - 1:
        raise EngineError(
            f"{run.profile.engine.launch} asks for {count} machines, the Ray cluster has {len(nodes)}; run `ray start "
            "--address=<this machine>:6379` on the others, or take a configuration for one machine."
        )
    task, first, running = ray.remote(num_cpus=0, max_retries=0)(_run), nodes[here]["NodeManagerAddress"], {}
    for rank, node in enumerate(others, start=1):
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        placed = task.options(num_gpus=node["Resources"].get("GPU", 0), scheduling_strategy=place)
        part = placed.remote(_on_machine(command, count, first, rank), environment, scratch, scratch / f"{rank}-{LOG}")
        running[part] = node["NodeManagerAddress"]

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
    out = log.with_suffix(".out")
    try:
        with log.open("w", encoding="utf-8") as said, out.open("w", encoding="utf-8") as printed:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=said,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
    except OSError as error:
        raise EngineError(
            f"A machine cannot start its part ({error}); give all machines this checkout, its .venv and the run "
            "directory under the same paths."
        ) from None
    try:
        with out.open(encoding="utf-8", errors="replace") as printed:
            while process.poll() is None:
                follow(printed.read())
                time.sleep(EVERY)  # Ray cancels between two of these, not within a wait
            follow(printed.read())
    except BaseException:
        end_tree(process)
        raise
    if process.returncode == 0:
        return
    for path in sorted(scratch.glob(ERRORS)):
        raise EngineError(path.read_text(encoding="utf-8"))
    said = re.sub(r"^\[rank\d+\]: ", "", log.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE)
    lines = [line.strip() for line in said.splitlines()] or ["it said nothing"]
    cause = next((line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))), lines[-1])
    raise EngineError(
        f"A process of the job ended with status {process.returncode}: {cause}. All it wrote is in {log}; mend the "
        "cause and start again, the job goes on from its last checkpoint."
    )


def main(order: Path) -> int:
    """One process of a job."""
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
