"""Logs of JSON lines that only grow, each written by one process at a time: a stop cuts at most the last line."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from acelib.core.errors import ArtifactError
from acelib.core.files import full_disk_explained

Progress = Callable[[float, int], None]  # (done, also in parts of one; total)
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what network disks say that know no locks
SYNC_SECONDS = 1.0  # of records that are lost when the machine itself goes, not just the process


class Log:
    """An open log; see `open_log`."""

    def __init__(self, file: IO[bytes]):
        self.file, self._synced = file, time.monotonic()

    def records(self) -> Iterator[dict[str, Any]]:
        """All records from the first on; a last line cut by a crash is removed from the file. Raises ArtifactError."""
        self.file.seek(0)
        for line in self.file:
            if not line.endswith(b"\n"):
                self.file.truncate(self.file.tell() - len(line))
                break
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise ArtifactError(f"{self.file.name} has a line that is no record, {line[:40]!r}; remove it.")
            yield record

    def append(self, *records: dict[str, Any]) -> None:
        """Add records; they outlive this process from here on."""
        self.file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self.file.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self.file.fileno())
            self._synced = time.monotonic()


def end_of_records(path: Path) -> int:
    """Bytes up to the end of the last whole record, none of which is longer than a MiB."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - 2**20)
        file.seek(start)
        return start + file.read().rfind(b"\n") + 1


@contextmanager
def open_log(path: Path) -> Iterator[Log]:
    """The log at `path`, for this process alone. Raises ArtifactError when another one has it open, FullDiskError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_explained(path), path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"Another process writes to {path}; wait for it, or choose another RUN_DIR=.") from None
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                raise
        yield Log(file)
