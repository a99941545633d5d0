"""Start a training job in this process, or through `accelerate launch` on as many devices and machines as the profile's
`engine.launch` names. Progress, what the job prints, and its errors come back into the calling cell either way."""

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from acelib.artifacts import Run
from acelib.errors import CourseError
from acelib.profiles import ROOT, load_profile
from acelib.watch import end_tree

LOG = "launch.log"


class LaunchError(CourseError):
    """A job that did not end well on several devices, or that cannot be started there."""


def launch(run: Run, job: Callable[..., None], path: Path, scratch: Path, label: str, **arguments: Any) -> None:
    """`job(run, path, scratch, progress, **arguments)`, here or on the devices of `engine.launch`.

    `job` is a function of an acelib module, `arguments` are JSON data. Called again after a stop with the same
    `scratch`, the job goes on from its last checkpoint. Raises what the job raises in this process, and LaunchError
    with the same sentence from elsewhere.
    """
    if run.profile.engine.launch == "none":
        job(run, path, scratch, lambda done, total: run.progress(done, total, label), **arguments)
        return
    _free_gpu()
    order = scratch / "job.json"
    values = scratch / "profile.yaml"
    values.write_text(yaml.safe_dump(run.profile.to_dict(), sort_keys=False), encoding="utf-8")
    order.write_text(json.dumps({
        "job": f"{job.__module__}:{job.__qualname__}", "run_dir": str(run.dir), "profile": str(values),
        "path": str(path), "scratch": str(scratch), "label": label, "arguments": arguments,
    }), encoding="utf-8")
    for stale in scratch.glob("error-*.json"):
        stale.unlink()
    command, environment = _command(run, order)
    print(f"{label}: {' '.join(command[2:-1])} {order.name}")
    _follow(command, environment, scratch)


def configuration(name: str) -> dict[str, Any]:
    """The accelerate configuration that `engine.launch` names. Raises LaunchError when there is none."""
    path = Path(name) if Path(name).is_absolute() else ROOT / name
    if not path.is_file():
        known = ", ".join(f"configs/{one.name}" for one in sorted((ROOT / "configs").glob("*.yaml")))
        raise LaunchError(f"There is no accelerate configuration {name}; set engine.launch to one of {known}, or none.")
    return yaml.safe_load(path.read_text(encoding="utf-8")) | {"file": str(path)}


def _command(run: Run, order: Path) -> tuple[list[str], dict[str, str]]:
    config = configuration(run.profile.engine.launch)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config["file"]]
    if config.get("num_machines", 1) > 1:
        raise LaunchError("Several machines are not supported yet.")
    command += ["--main_process_port", "0", "-m", "acelib.launch", str(order)]
    threads = max(1, run.profile.threads // config["num_processes"])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return command, environment


def _free_gpu() -> None:
    """What this process has cached of a GPU's memory is lost to the processes of the job."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _follow(command: list[str], environment: dict[str, str], scratch: Path) -> None:
    """Print what the first process prints, and raise what any of them raised."""
    with (scratch / LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=log, text=True, start_new_session=True)  # fmt: skip
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
            status = process.wait()
        except BaseException:
            end_tree(process)
            raise
    if status == 0:
        return
    for path in sorted(scratch.glob("error-*.json")):
        raise LaunchError(json.loads(path.read_text(encoding="utf-8"))["message"])
    lines = [line.strip() for line in (scratch / LOG).read_text(encoding="utf-8", errors="replace").splitlines()]
    cause = next((line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))), lines[-1:] or "")
    raise LaunchError(f"A process of the job ended with status {status}: {cause or 'it said nothing'}. All it wrote is "
                      f"in {scratch / LOG}; mend the cause and start again, the job goes on from its last checkpoint.")


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
        job(run, path, scratch, progress, **asked["arguments"])
    except CourseError as error:
        (scratch / f"error-{rank}.json").write_text(json.dumps({"message": str(error)}), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    # Without a clean-up of process groups, others would wait for a process that has failed.
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status) if status else sys.exit(0)
