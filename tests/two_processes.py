"""Runs a script as several real processes on this machine, as a cluster would."""

import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


class LaunchFailed(Exception):
    """The script did not end well; the message is what it printed."""


def launch(script: Path, *arguments, timeout: float = 180) -> str:
    """Everything that two copies of `script` print (gloo, one thread each). Raises LaunchFailed."""
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        TESTS.parent / "configs/cpu-2.yaml",
        "--main_process_port",
        "0",
        script,
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS))),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with subprocess.Popen(
        list(map(str, command)),
        env=environment,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as running:
        try:
            printed, _ = running.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGTERM)
            raise LaunchFailed(f"{script.name} ran past {timeout} s:\n{running.communicate()[0]}") from None
    if running.returncode:
        raise LaunchFailed(printed)
    return printed
