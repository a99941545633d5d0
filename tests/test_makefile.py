"""What `make` would run, and what `make clean` leaves: nothing is installed here."""

import os
import shlex
import shutil
import subprocess

import pytest

from acelib.core.profiles import ROOT, load_profile
from runner.course import Course
from tools.commands import set_values


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile, the profiles and an `nvidia-smi` that finds no driver, as on a machine without."""
    for name in (
        "Makefile",
        "requirements.txt",
        "requirements-gpu.txt",
        "pyproject.toml",
        "acelib/core/inheritance.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\nexit 9\n")
    smi.chmod(0o755)
    return tmp_path


def make(checkout, *words):
    environment = {**os.environ, "PATH": f"{checkout / 'bin'}:{os.environ['PATH']}"}
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # this may itself run under `make test`
        environment.pop(name, None)
    return subprocess.run(["make", *words], cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "gpu"),
    [
        (["PROFILE=pocket"], False),
        (["PROFILE=single-gpu"], True),
        (["PROFILE=paper"], True),  # says so by the profile it extends
        (["PROFILE=mine.yaml"], True),
        (["PROFILE=single-gpu", "SET=sampling.n=4 models.device=cpu"], False),
        (["PROFILE=pocket", "SET=models.device=cuda"], None),  # a GPU, and nothing that its requirements add
        (["PROFILE=colab"], None),
        (["PROFILE=single-gpu", "SET=engine.generation=transformers engine.quantise=nf4"], True),
        (
            ["PROFILE=pocket", "SET=models.device=cpu models.device=cuda engine.generation=vllm"],
            True,
        ),  # the last counts
        (["PROFILE=cpu.yaml"], False),
        (["PROFILE=missing"], False),  # the course itself says which profiles there are
    ],
)
def test_a_profile_on_a_gpu_installs_what_gpus_need_and_others_do_not(checkout, words, gpu):
    (checkout / "mine.yaml").write_text("extends: single-gpu   # and nothing else\nname: mine\n")
    (checkout / "cpu.yaml").write_text("extends: mine\nname: cpu\nmodels: {dtype: float32, device: cpu}\n")
    said = make(checkout, "-n", "course", *words).stdout
    steps = [
        said.find("nvidia-smi -L"),
        said.find("install  \"$(grep '^torch=="),
        said.find("-r requirements.txt"),
        said.find("-r requirements-gpu.txt"),
        said.find("-m acelib course"),
    ]
    if gpu is None:
        assert steps.pop(3) == -1
    if gpu is not False:
        assert -1 not in steps and steps == sorted(steps)
    else:
        assert steps[0] == steps[3] == -1 and steps[1] < steps[2] < steps[4]


def test_without_a_gpu_nothing_is_installed(checkout):
    found = make(checkout, "course", "PROFILE=single-gpu")
    assert found.returncode != 0 and found.stdout == ""
    assert "Profile single-gpu needs an NVIDIA GPU, and nvidia-smi shows none; repeat this on" in found.stderr
    assert not (checkout / ".venv").exists()


SMI = '#!/bin/sh\ncase "$1" in -L) echo "GPU 0: H100";; --query-gpu=driver_version) printf "%s";; esac\n'


@pytest.mark.parametrize(
    ("drivers", "words", "refused"),
    [
        (r"550.54.15\n", [], True),
        (r"580.65.06\n550.54.15\n", [], True),
        (r"580.65.06\n", [], False),
        (r"1000.1\n", [], False),
        (r"550.54.15\n", ["TORCH_INDEX=https://download.pytorch.org/whl/cu126"], False),
        (r"[Not Supported]\n", [], False),
        ("", [], False),
    ],
)
def test_an_old_driver_is_told_before_anything_is_installed(checkout, drivers, words, refused):
    (checkout / "bin" / "nvidia-smi").write_text(SMI % drivers)
    found = make(checkout, "gpu", "PROFILE=single-gpu", *words)
    assert (found.returncode != 0) is refused and found.stdout == ""
    assert (
        "driver here is 550.54.15, and the pinned PyTorch (CUDA 13.0) needs 580 or newer" in found.stderr
    ) is refused
    if refused:  # who has installed an older CUDA repeats no TORCH_INDEX
        (checkout / ".venv").mkdir()
        (checkout / ".venv" / ".installed-gpu").touch()
        assert make(checkout, "gpu", "PROFILE=single-gpu").returncode == 0


def test_the_command_to_go_on_with_means_what_was_said_before(checkout):
    overrides = {
        "prompts.solve": "It's $2: {question}\\n; `rm`\n\"#",
        "best_of_n.ns": [1, 2],
        "reinforce.learning_rate": 1e-5,
        "data.laboratory": False,
        "models.policy": "http://host:8000/v1#org/m",
        "name": "mine",
    }
    command = Course("pocket", overrides, checkout / "a folder").again("FROM=04")
    target, *words = shlex.split(command)[1:]
    said = make(checkout, "-n", target, *words)
    given = shlex.split(said.stdout.splitlines()[-1])
    texts = [given[i + 1] for i, word in enumerate(given) if word == "--set"]
    assert load_profile("pocket", set_values(texts)) == load_profile("pocket", overrides)
    assert given[given.index("--run-dir") + 1] == str(checkout / "a folder")
    assert given[given.index("--from") + 1] == "04"


def test_the_grid_refuses_what_it_would_not_heed(checkout):
    said = make(checkout, "-n", "grid", "PROFILE=mine", "RUN_DIR=r").stdout
    assert "experiments.grid --profile 'mine' --run-dir 'r'" in said
    found = make(checkout, "-n", "grid", "SET=engine.lora_rank=8")
    assert found.returncode != 0 and "knows PROFILE= and RUN_DIR= alone; put other values into" in found.stderr
    assert "-m experiments.worlds" in make(checkout, "-n", "worlds").stdout
    for given in ("SEED=1", "PROFILE=mine", "RUN_DIR=r"):
        assert "make worlds takes no variable" in make(checkout, "-n", "worlds", given).stderr


def test_clean_keeps_what_was_paid_for_and_distclean_says_what_it_takes(checkout):
    run = checkout / "runs" / "mine"
    for name in ("paid.jsonl", "artifacts/a.parquet", "notebooks/01.ipynb"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    (checkout / "runs" / "other").mkdir()
    assert make(checkout, "clean").returncode == 0
    assert list((checkout / "runs").rglob("*")) == [run, run / "paid.jsonl"]
    assert "Removing replies that were paid for: runs/mine/paid.jsonl" in make(checkout, "distclean").stdout
    assert not (checkout / "runs").exists()
    assert make(checkout, "clean").returncode == 0
