"""An interrupted training goes on from its last whole checkpoint, also after the disk was full, or says why not."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from tiny_models import save_tiny_policy

from acelib.checkpoints import STATE, CheckpointError, check_settings, last_checkpoint
from acelib.disk import FullDiskError, full_disk_explained
from acelib.models import load_policy
from acelib.profiles import ROOT, load_profile
from acelib.reinforce import train
from acelib.schema import Problem

SETTINGS = dataclasses.replace(
    load_profile("pocket").reinforce, rollout_questions=2, samples_per_question=2, steps=4, updates_per_rollout=1,
    micro_batch=4, max_new_tokens=4, max_kl=0.0, eval_every=1, learning_rate=3e-3,
)  # fmt: skip
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
    with pytest.raises(CheckpointError, match="checkpoint of 8 processes and this is a run of 4; start with 8 again, "
                                              "or delete the folder to start anew"):  # fmt: skip
        check_settings(tmp_path, {"beta": 0.1}, 4)
    with pytest.raises(CheckpointError, match=r"other settings \(beta\); delete that folder"):
        check_settings(tmp_path, {"beta": 0.2}, 8)
    assert [path.name for path in tmp_path.glob("*settings*")] == ["settings.json"]


def test_the_launcher_says_how_many_processes_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    check_settings(tmp_path, {})
    checkpoint(tmp_path, 5)
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(CheckpointError, match="of 8 processes and this is a run of 1"):
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


def options(policy):
    return dict(policy=policy, problems=PROBLEMS, reward=wordy, settings=SETTINGS, prompt="{question}", seed=3,
                device="cpu")  # fmt: skip


SCRIPT = """
import resource, signal, sys
from pathlib import Path
import test_checkpoints as test
from acelib.disk import FullDiskError, full_disk_explained
policy, out, scratch, room = *map(Path, sys.argv[1:4]), int(sys.argv[4])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def wordy(completions, **_):
    if test.last_checkpoint(scratch):  # from now on the disk is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    return test.wordy(completions)

try:
    with full_disk_explained(out):
        test.train(**test.options(policy) | {"reward": wordy}, path=out, scratch=scratch)
except FullDiskError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.parametrize(("room", "half"), [(50_000, "model.safetensors"), (200_000, "optimizer.pt")])
def test_a_full_disk_at_a_checkpoint_costs_what_came_after_the_one_before(tmp_path, room, half):
    """A file-size limit stands in for the full disk: both make write(2) fail."""
    policy, scratch = save_tiny_policy(tmp_path / "policy"), tmp_path / "scratch"
    stopped = subprocess.run(
        [sys.executable, "-c", SCRIPT, policy, tmp_path / "out", scratch, str(room)], capture_output=True, text=True,
        cwd=ROOT / "tests",
    )  # fmt: skip
    assert stopped.returncode == 3, stopped.stderr[-2000:]
    assert "The disk is full: checkpoint could not be written" in stopped.stdout
    assert "repeat the command" in stopped.stdout
    assert last_checkpoint(scratch).name == "checkpoint-1"
    torn = scratch / "checkpoint-2"
    assert torn.is_dir() and not (torn / STATE).exists()
    assert not (torn / half).exists() or (torn / half).stat().st_size <= room

    seen = []
    rows = train(**options(policy), path=tmp_path / "out", scratch=scratch, progress=lambda *step: seen.append(step))
    assert seen[0] == (2, 4), "it went on after the first step"
    straight = train(**options(policy), path=tmp_path / "straight", scratch=tmp_path / "other")
    same = [[{key: value for key, value in row.items() if not key.startswith("seconds")} for row in run]
            for run in (rows, straight)]  # fmt: skip
    assert same[0] == same[1]
    ours, theirs = (load_policy(tmp_path / name, device="cpu").state_dict() for name in ("out", "straight"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
