"""`make doctor`: what an issue should say of a machine, and nothing that it should not."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from acelib.core import ROOT, load_profile
from acelib.judge import LEVELS, JudgeError
from acelib.preflight import machine
from tools.doctor import container, doctor, main, optional


def lines(text):
    return {line.partition(" ")[0]: line for line in text.splitlines()}


def test_it_tells_versions_machine_isolation_and_checks(capsys):
    main([])
    told = lines(capsys.readouterr().out)
    assert f"torch {importlib.metadata.version('torch')}" in told["packages"]
    assert f"numpy {importlib.metadata.version('numpy')}" in told["packages"] and "vllm" in told["optional"]
    assert "isolation" in told["judge"] and any(level in told["judge"] for level in LEVELS)
    assert f"{os.cpu_count()} CPUs" in told["threads"] and "idle ones spin" in told["threads"]
    assert "checks" in told and not any("cannot be told" in line for line in told.values())


def test_it_tells_no_secrets_and_no_paths_of_the_reader(monkeypatch):
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "SOMETHING"):
        monkeypatch.setenv(name, "a-secret-value")
    monkeypatch.setattr(machine, "check_disk", lambda *_: (_ for _ in ()).throw(OSError(f"{ROOT}/x {Path.home()}/y")))
    text = doctor(load_profile("pocket"), ROOT / "runs")
    assert "a-secret-value" not in text and str(ROOT) not in text and str(Path.home()) + "/" not in text
    assert "cannot be told: OSError: <checkout>/x ~/y" in lines(text)["checks"]


def test_the_limits_of_a_container_are_told(tmp_path):
    profile = load_profile("single-gpu-7b")
    assert container(profile, tmp_path) == "no limits to be seen"
    for memory, cpu, told in (
        ("max\n", "max 100000\n", "no limits"),
        (f"{30 * 2**30}\n", "max 100000\n", "limited to 30.0 GiB of memory"),
        ("max\n", "1600000 100000\n", "limited to 16 cores"),
        (
            f"{2**29}\n",
            "850000 100000\n",
            "limited to 0.5 GiB of memory and 8.5 cores, fewer than judge.workers (16): ",
        ),
    ):
        (tmp_path / "memory.max").write_text(memory)
        (tmp_path / "cpu.max").write_text(cpu)
        assert container(profile, tmp_path).startswith(told)


def test_packages_for_gpus_are_held_to_their_pins(monkeypatch):
    there = {"vllm": "0.30.0", "deepspeed": "0.19.8+cu130"}
    monkeypatch.setattr("tools.doctor.installed", lambda package: there.get(package, "missing"))
    small, large = (optional(load_profile(name)) for name in ("pocket", "single-gpu"))
    for told in (small, large):
        assert "vllm 0.30.0 (FAIL: 0.31.0 is pinned)" in told and "deepspeed 0.19.8+cu130, " in told
        assert told.endswith("; run `.venv/bin/pip install -r requirements-gpu.txt` and repeat this")
    assert "ray missing, " in small and "ray missing (FAIL" in large, "who needs none may lack them"
    there.clear()
    assert "FAIL" not in optional(load_profile("colab")) and ";" not in optional(load_profile("pocket"))


def test_a_profile_s_needs_are_checked(monkeypatch):
    monkeypatch.setattr(machine, "preflight_gpu", lambda profile: [machine.check_memory(10**6)])
    text = doctor(load_profile("paper"), ROOT / "runs")
    assert "FAIL  memory" in text and "profile paper on cuda, bfloat16" in text


def test_why_no_stronger_isolation_works_is_told(monkeypatch):
    def refuse(self, workers, limits, isolation):
        raise JudgeError(f"This machine does not allow {isolation} (EPERM). Allow user namespaces.")

    monkeypatch.setattr("acelib.judge.Judge.__init__", refuse)
    told = lines(doctor(load_profile("pocket"), ROOT / "runs"))["judge"]
    for level in LEVELS:
        assert f"not {level}: This machine does not allow {level} (EPERM)" in told


def test_a_library_that_cannot_be_imported_silences_no_other_line(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so is broken')\n")
    done = subprocess.run(
        [sys.executable, "-m", "tools.doctor"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    told = lines(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "cannot be told: ImportError: libtorch.so is broken" in told["threads"] and "Python 3" in told["system"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libgomp is what torch brings on Linux")
def test_idle_threads_sleep_soon_in_every_process_that_imports_acelib():
    script = "import acelib, torch; torch.ones(2) + 1"
    unset = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = unset | {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "GOMP_SPINCOUNT = '30000'" in done.stderr
