"""Where an interrupted training goes on: the newest whole checkpoint, if it was made by a run like this one."""

import json
import os
from pathlib import Path
from typing import Any

from acelib.core import ArtifactError

STATE = "trainer_state.json"
SETTINGS = "settings.json"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole `checkpoint-<step>` in `folder`; None when there is none.

    The trainer writes its state last: a checkpoint that a crash or a full disk cut short has none, or half of one.
    """
    whole = [path.parent for path in Path(folder).glob(f"checkpoint-*/{STATE}") if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def check_settings(folder: Path, settings: dict[str, Any], processes: int | None = None) -> None:
    """Note in `folder`, which exists, what its checkpoints are made with, `settings` (JSON values) and the number of
    processes (by default that of this launch).

    Raises ArtifactError when it holds those of other settings, or of another number of processes: each has its own
    random state and its own shard of the optimiser.
    """
    processes = processes or int(os.environ.get("WORLD_SIZE", 1))
    path = folder / SETTINGS
    if path.is_file():
        old = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in settings if old.get(key) != settings[key]]
        if changed:
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
    # All processes write the same; none may read half of it.
    temporary = path.with_name(f".{SETTINGS}.{os.getpid()}")
    temporary.write_text(json.dumps(settings | {"processes": processes}), encoding="utf-8")
    os.replace(temporary, path)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
