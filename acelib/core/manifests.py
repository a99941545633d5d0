"""What a thing on disk was made from: one manifest beside it, by which every stage asks whether it is as before.

`a.parquet`, or the folder `a`, has `a.manifest.json`: `key`, the digest of what it was made from, `content`, that of
what was written, and whatever else its maker notes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acelib.core.digests import digest, path_digest
from acelib.core.files import atomic, read_json, write_json


def manifest_path(path: Path) -> Path:
    return path.with_suffix(".manifest.json")


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the file or folder `path`; None when there is none, or no whole one."""
    return read_json(manifest_path(path)) or None


def is_unchanged(path: Path) -> bool:
    """Whether `path` is there as it was written."""
    manifest = read_manifest(path)
    return manifest is not None and path.exists() and path_digest(path) == manifest.get("content")


def is_current(path: Path, made_from: Any) -> bool:
    """Whether `path` is there as it was written, and was made from just this (anything that `digest` takes)."""
    return is_unchanged(path) and read_manifest(path)["key"] == digest(made_from)


@contextmanager
def making(path: Path, made_from: Any, facts: dict[str, Any] | None = None) -> Iterator[Path]:
    """A name to make the file or folder `path` under; then come its manifest and, in it, `facts` (read at the end).

    Whole or not at all: a failure leaves what was there before. Raises FullDiskError.
    """
    with atomic(path) as temporary:
        yield temporary
        manifest_path(path).unlink(missing_ok=True)  # until the new one is there, the thing counts as missing
    write_json(manifest_path(path), {**(facts or {}), "key": digest(made_from), "content": path_digest(path)})
