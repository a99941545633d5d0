"""Tables that the project ships, and where they come from."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from acelib.core import ROOT, Profile, read_json, versions, write_json, write_rows
from acelib.schema import Row


def publish(folder: Path, name: str, profile: Profile, lines: Sequence[Row], seconds: str = "cpu_seconds") -> Path:
    """Writes a table of trainings, and into `provenance.json` beside it from which code, profile and machine it is.
    `seconds` is the column with what each took."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / f"{name}.jsonl"
    write_rows(table, lines)
    minutes = sum(line[seconds] for line in lines) / 60
    record_provenance(folder, name, profile, trainings=len(lines), core_minutes=minutes)
    return table


def record_provenance(folder: Path, name: str, profile: Profile, core_minutes: float, **counts: int) -> None:
    """Writes into `provenance.json` from which code, profile and machine the table `name` is."""
    path = folder / "provenance.json"
    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    made = {
        "made": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() or "unknown",
        "versions": versions(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        **counts,
        "core_minutes": round(core_minutes, 1),
        "profile": profile.to_dict(),
    }
    write_json(path, (read_json(path) if path.is_file() else {}) | {name: made})
