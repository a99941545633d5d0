"""The pins of all requirement files can be installed together, also those that only a GPU machine installs."""

import os
import subprocess
import sys

import pytest

from acelib.core.profiles import ROOT

PINNED = {
    "torch==2.13.0",
    "transformers==5.17.0",
    "trl==1.16.0",
    "vllm==0.31.0",
    "deepspeed==0.19.8",
    "openai==3.54.0",
    "ray==2.60.0",
}


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.slow
def test_the_requirement_files_resolve_together(python):
    """Seconds with an empty cache, one second with a full one: metadata is fetched, packages are not."""
    resolved = subprocess.run(
        [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            "requirements-gpu.txt",
            "requirements-test.txt",
            "--python-version",
            python,
            "--python-platform",
            "x86_64-manylinux_2_28",
            "--no-annotate",
            "--no-header",
            "--no-python-downloads",
            "--cache-dir",
            str(ROOT / ".cache" / "uv"),
            "--quiet",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"UV_HTTP_RETRIES": "1"},
    )
    if "Failed to fetch" in resolved.stderr:
        pytest.skip(f"the package index cannot be reached: {resolved.stderr.splitlines()[0]}")
    assert resolved.returncode == 0, resolved.stderr
    assert set(resolved.stdout.split()) >= PINNED
