"""Files that are whole or not there; and a full disk as one sentence, met in Python, Arrow, safetensors or torch."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from acelib.core.errors import FullDiskError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The last two are all that torch.save says of it.
SAID = ("No space left", "File too large", "Disk quota exceeded", "unexpected pos", "iostream error")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on: libraries wrap what the system said in errors of their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in FULL or any(said in str(error) for said in SAID)


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Turn 'no space left' from anywhere below into FullDiskError, which says what could not be written and what to do.

    `path` is what is being written.
    """
    try:
        yield
    except Exception as error:
        if not any(_says_full(one) for one in causes(error)) or isinstance(error, FullDiskError):
            raise
        place = next(one for one in (path, *path.parents) if one.exists())
        free = shutil.disk_usage(place).free // 2**20
        raise FullDiskError(
            f"The disk is full: {path.name} could not be written to {path.parent} ({free} MiB free). Make room there "
            "(or raise your quota) and repeat the command; everything finished before is kept."
        ) from error


def flush(path: Path) -> None:
    """To the disk: a file, or a folder with all that it holds."""
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name to make the file or folder `path` under: a reader sees the old one or the new one, whole, and a failure
    leaves the old one. Raises FullDiskError."""
    temporary = path.with_name(f".tmp-{path.name}")
    with full_disk_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        try:
            yield temporary
            flush(temporary)
        except BaseException:
            remove(temporary)
            raise
        if path.is_dir():
            remove(path)
        os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; empty where there is nothing, or nothing readable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_json(path: Path, value: Any) -> None:
    """Atomic. JSON knows no NaN and no infinity: what could not be measured becomes null. Raises FullDiskError."""
    with atomic(path) as temporary:
        temporary.write_bytes(to_json(value, indent=1, inf_nan_mode="null", fallback=float) + b"\n")
