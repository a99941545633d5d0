"""A real file system that is soon full, for one process: in memory, in a mount namespace of its own."""

import shutil
import subprocess
from pathlib import Path

import pytest


def on_small_disk(folder: Path, mebibytes: int = 4) -> list[str]:
    """What to put before a command that is to find an empty disk of this size at `folder`; skips the test where
    nothing may be mounted. When the command has ended, `folder` is as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    script = f'mount -t tmpfs -o size={mebibytes}m tmpfs "$0" && exec "$@"'
    before = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(folder)]
    if not shutil.which("unshare") or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets us mount nothing")
    return before
