"""An interrupted training goes on from its last whole checkpoint, also after the disk was full, or says why not."""

import json
import re
import subprocess
import sys

import pytest
import torch
from small_disk import on_small_disk
from tiny_models import profile_with, save_tiny_policy

from acelib.core import ArtifactError, FullDiskError
from acelib.core.files import full_disk_explained
from acelib.core.profiles import ROOT
from acelib.models.generation import load_policy
from acelib.reward_model import load_reward_model
from acelib.schema import Pair, Problem
from acelib.training import make_reinforce_trainer, make_reward_trainer
from acelib.training.checkpoints import STATE, check_settings, fitting, last_checkpoint, shrink

SETTINGS = dict(
    rollout_questions=2,
    samples_per_question=2,
    steps=4,
    updates_per_rollout=1,
    micro_batch=4,
    max_new_tokens=8,
    max_kl=0.0,
    eval_every=1,
    learning_rate=3e-3,
)
SCORER_SETTINGS = dict(epochs=1.0, batch_size=2, micro_batch=1, max_length=128, held_out=0.01, learning_rate=3e-3)
PAIRS = [Pair(f"q{i}", f"question {i}?", "def a(): return 1", "x = 1" + "0" * (i % 4), 1.0, 0.2) for i in range(8)]
PROBLEMS = [Problem(f"p{i}", "Sort " + "x" * i, "solve", ()) for i in range(3)]


def checkpoint(folder, step, state='{"global_step": 1}'):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").touch()
    if state is not None:
        (path / STATE).write_text(state)
    return path


def test_the_newest_whole_checkpoint_counts(tmp_path):
    assert last_checkpoint(tmp_path / "nowhere") is None and last_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 90)
    newest = checkpoint(tmp_path, 100)
    checkpoint(tmp_path, 110, state=None)
    checkpoint(tmp_path, 120, state='{"global_st')
    assert last_checkpoint(tmp_path) == newest


def test_a_checkpoint_of_other_settings_or_of_another_world_is_refused(tmp_path):
    check_settings(tmp_path, {"beta": 0.1}, 8)
    check_settings(tmp_path, {"beta": 0.1}, 4)  # nothing was saved by the 8
    check_settings(tmp_path, {"beta": 0.1}, 8)
    checkpoint(tmp_path, 5)
    check_settings(tmp_path, {"beta": 0.1}, 8)
    with pytest.raises(
        ArtifactError,
        match="checkpoint of 8 processes and this is a run of 4; start with 8 again, "
        "or delete the folder to start anew",
    ):
        check_settings(tmp_path, {"beta": 0.1}, 4)
    with pytest.raises(ArtifactError, match=r"other settings \(beta\); delete that folder"):
        check_settings(tmp_path, {"beta": 0.2}, 8)
    assert [path.name for path in tmp_path.glob("*settings*")] == ["settings.json"]


def test_what_changes_no_update_may_change(tmp_path):
    check_settings(tmp_path, {"seed": 0, "micro_batch": 4, "score_batch": 16})
    check_settings(tmp_path, {"seed": 0, "micro_batch": 2, "score_batch": 8})
    assert fitting(tmp_path, 4) == 4
    for tried, fits in ((4, 2), (2, 1), (1, 1)):
        shrink(tmp_path, tried)
        assert fitting(tmp_path, 4) == fits and fitting(tmp_path, 1) == 1


def test_the_launcher_says_how_many_processes_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    check_settings(tmp_path, {})
    checkpoint(tmp_path, 5)
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ArtifactError, match="of 8 processes and this is a run of 1"):
        check_settings(tmp_path, {})


def test_a_note_from_before_processes_were_counted_is_taken(tmp_path):
    (tmp_path / "settings.json").write_text('{"beta": 0.1}')
    checkpoint(tmp_path, 5)
    check_settings(tmp_path, {"beta": 0.1}, 2)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"beta": 0.1, "processes": 2}


def test_other_errors_are_not_blamed_on_the_disk(tmp_path):
    for error in (KeyError("No"), RuntimeError("CUDA error"), FileNotFoundError(2, "No such file")):
        with pytest.raises(type(error)), full_disk_explained(tmp_path):
            raise error
    with pytest.raises(FullDiskError, match="The disk is full: a could not"), full_disk_explained(tmp_path / "a"):
        raise OSError(122, "Disk quota exceeded")


def wordy(completions, **_):
    return [float(len(completion[-1]["content"])) for completion in completions]


def train_policy(policy, out, scratch, progress=None):
    profile = profile_with(policy, seed=3, reinforce=SETTINGS)
    rows = make_reinforce_trainer(profile, PROBLEMS, wordy, scratch, progress=progress).train_and_save(out)
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


def train_scorer(base, out, scratch, progress=None):
    profile = profile_with(base, seed=3, sampling={"n": 4}, reward_model=SCORER_SETTINGS)
    log = make_reward_trainer(profile, PAIRS, scratch, progress).train_and_save(out)
    return [entry["pair_loss"] for entry in log if "pair_loss" in entry]


JOBS = {"policy": (train_policy, load_policy), "reward model": (train_scorer, lambda *a, **k: load_reward_model(*a)[0])}
# A file-size limit stands in for the full disk: both make write(2) fail.
FULL = {
    "policy at the weights": ("policy", 50_000, "model.safetensors"),
    "policy at the optimizer": ("policy", 200_000, "optimizer.pt"),
    "reward model at the weights": ("reward model", 50_000, "model.safetensors"),
    "reward model at the optimizer": ("reward model", 200_000, "optimizer.pt"),
}
LIMITED = """
import json, resource, signal, sys
from pathlib import Path
import test_checkpoints as test
from acelib.core.errors import FullDiskError
from acelib.core.files import full_disk_explained
start, folder = map(Path, sys.argv[1:])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
said = {}
for case, (name, room, _) in test.FULL.items():
    out, scratch = folder / case / "out", folder / case / "scratch"

    def fill(done, total):
        if test.last_checkpoint(scratch):
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))

    try:
        with full_disk_explained(out):
            test.JOBS[name][0](start, out, scratch, fill)
    except FullDiskError as error:
        said[case] = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
print(json.dumps(said))
"""
SMALL_DISK = """
import shutil, sys
from pathlib import Path
import test_checkpoints as test
from acelib.core.errors import FullDiskError
from acelib.core.files import full_disk_explained
start, out, scratch, copy = map(Path, sys.argv[1:])
filler = scratch.parent / "filler"

def fill(done, total):  # nothing but 20,000 bytes are left
    if test.last_checkpoint(scratch) and not filler.exists():
        filler.write_bytes(bytes(max(0, shutil.disk_usage(scratch).free - 20_000)))

try:
    with full_disk_explained(out):
        test.train_scorer(start, out, scratch, fill)
except FullDiskError as error:
    print(error)
print(test.last_checkpoint(scratch).name)
filler.unlink()
test.train_scorer(start, out, scratch, lambda done, total: done % 1 or print(int(done), total))
shutil.copytree(out, copy, dirs_exist_ok=True)
"""


def printed(script, *arguments, before=()):
    """What a process prints that trains until its disk is full."""
    child = subprocess.run(
        [*before, sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT / "tests",
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return child.stdout


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory):
    """The model to start from, and the folder and the error of every case; one process, as its start is what costs."""
    folder = tmp_path_factory.mktemp("full")
    start = save_tiny_policy(folder / "start")
    said = json.loads(printed(LIMITED, start, folder))
    return start, {case: (folder / case, said.get(case)) for case in FULL}


def assert_same_weights(name, *folders):
    ours, theirs = (JOBS[name][1](folder, device="cpu").state_dict() for folder in folders)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_at_a_checkpoint_costs_what_came_after_the_one_before(full_disk, tmp_path, case):
    name, room, half = FULL[case]
    start, (folder, said) = full_disk[0], full_disk[1][case]
    out, scratch, again = folder / "out", folder / "scratch", JOBS[name][0]
    assert "The disk is full: checkpoint could not be written" in said and "repeat the command" in said
    assert last_checkpoint(scratch).name == "checkpoint-1"
    torn = scratch / "checkpoint-2"
    assert torn.is_dir() and not (torn / STATE).exists()
    assert not (torn / half).exists() or (torn / half).stat().st_size <= room

    seen = []
    rows = again(start, out, scratch, lambda done, total: done % 1 or seen.append((done, total)))
    assert seen[0] == (2, 4), "it went on after the first step"
    assert rows == again(start, tmp_path / "straight", tmp_path / "other")
    assert_same_weights(name, out, tmp_path / "straight")


@pytest.mark.slow
def test_a_disk_that_is_full_until_there_is_room_again(tmp_path):
    disk, start = tmp_path / "disk", save_tiny_policy(tmp_path / "start")
    mounted = on_small_disk(disk)
    said = printed(SMALL_DISK, start, disk / "out", disk / "scratch", tmp_path / "out", before=mounted)
    lines = said.splitlines()
    assert re.match(r"The disk is full: checkpoint could not be written to .*scratch \(0 MiB free\)", lines[0])
    assert lines[1:] == ["checkpoint-1", "2 4", "3 4", "4 4"]
    train_scorer(start, tmp_path / "straight", tmp_path / "other")
    assert_same_weights("reward model", tmp_path / "out", tmp_path / "straight")
