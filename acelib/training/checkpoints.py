"""Where an interrupted training goes on: the newest whole checkpoint, if it was made by a run like this one."""

import os
from pathlib import Path
from typing import Any

from acelib.core import HOW_ONLY, ArtifactError, read_json, write_json

STATE = "trainer_state.json"
SETTINGS = "settings.json"
FITS = "micro_batch"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole `checkpoint-<step>` in `folder`; None when there is none.

    The trainer writes its state last: a checkpoint that a crash or a full disk cut short has none, or half of one.
    """
    whole = [state.parent for state in Path(folder).glob(f"checkpoint-*/{STATE}") if read_json(state)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def fitting(folder: Path, micro_batch: int) -> int:
    """How many examples a training in `folder` reads at a time: `micro_batch`, or the fewer that `shrink` noted."""
    note = folder / FITS
    return min(micro_batch, int(note.read_text())) if note.is_file() else micro_batch


def shrink(folder: Path, micro_batch: int) -> None:
    """Note in `folder` that memory did not suffice for `micro_batch` examples at a time: half as many next time."""
    if micro_batch > 1:
        write_json(folder / FITS, micro_batch // 2)


def check_settings(folder: Path, settings: dict[str, Any], processes: int | None = None) -> None:
    """Note in `folder` what its checkpoints are made with: `settings` (JSON values) and the number of processes (by
    default that of this launch).

    Raises ArtifactError when it holds those of other settings, or of another number of processes: each has its own
    random state and its own shard of the optimiser.
    """
    path, processes = folder / SETTINGS, processes or int(os.environ.get("WORLD_SIZE", 1))
    settings = {key: one for key, one in settings.items() if key not in HOW_ONLY}
    old = read_json(path) or settings
    if changed := [key for key in settings if old.get(key) != settings[key]]:
        raise ArtifactError(
            f"{folder} holds a checkpoint made with other settings ({', '.join(changed)}); delete that folder to "
            "start anew, or restore the settings."
        )
    before = old.get("processes", processes)
    if before != processes and last_checkpoint(folder):
        raise ArtifactError(
            f"{folder} holds a checkpoint of {before} processes and this is a run of {processes}; start with "
            f"{before} again, or delete the folder to start anew."
        )
    if int(os.environ.get("RANK", 0)) == 0:
        write_json(path, settings | {"processes": processes})
