"""What stages hand to each other: tables and folders under `runs/<profile>/`, each with a manifest beside it.

An artefact is whole or not there, and is built again only when something it depends on has changed
(`acelib.core.digests`).
"""

import functools
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from acelib.core.digests import digest, fingerprint
from acelib.core.errors import ArtifactError
from acelib.core.files import full_disk_explained, remove
from acelib.core.manifests import is_current, is_unchanged, making, manifest_path, read_manifest
from acelib.core.processes import peak_memory_mb
from acelib.core.profiles import ROOT, Profile
from acelib.core.sections import Remote
from acelib.core.tables import Row, read_rows, write_rows
from acelib.core.threads import Threads

FORMAT = 1  # raise it when an older artefact can no longer be read
PACKAGES = ("torch", "transformers", "trl", "datasets", "numpy")


def installed(package: str) -> str:
    """Its version, or `missing`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


@functools.cache
def versions() -> dict[str, str]:
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python} | {package: installed(package) for package in PACKAGES}


@functools.cache
def producers() -> dict[str, str]:
    """Number of the notebook that makes each artefact, read off the notebooks themselves."""
    found: dict[str, str] = {}
    for notebook in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for name in re.findall(r"\brun\.(?:table|folder)\(\s*[\"'](\w+)", text):
            found.setdefault(name, notebook.name[:2])
    return found


def _remake(name: str, manifest: dict[str, Any] | None = None) -> str:
    if manifest and "adopted" in manifest:
        return f"adopt it again with `{manifest['adopted']['command']}`"
    number = producers().get(name)
    return f"run notebook {number} first: make course FROM={number}" if number else "run `make course` first"


class Run:
    """One run directory: `artifacts/`, `figures/`, `metrics/`, `notebooks/`, `scratch/`, and `paid.jsonl`."""

    threads: Threads | None = None  # for a process that computes: what chooses their number

    def __init__(self, run_dir: str | Path, profile: Profile):
        self.dir = Path(run_dir).resolve()
        self.profile = profile
        self.kept: list[str] = []  # artefacts that were up to date
        self._store = self.dir / "artifacts"
        self._allowed: set[str] | None = None
        self._last_progress = 0.0

    @property
    def remote(self) -> tuple[Remote, Path]:
        """What `load_policy` needs for a model behind a server: its limits, and a log that outlives all artefacts."""
        return self.profile.remote, self.dir / "paid.jsonl"

    def table(
        self,
        name: str,
        build: Callable[[Path], Sequence[Any]],
        inputs: Sequence[str] = (),
        params: dict[str, Any] | None = None,
        of: type | None = None,
    ) -> list[Any]:
        """Rows of the table `name`, built by `build(scratch)` unless an up-to-date one exists.

        Rows are dicts with the same columns, or objects of the class `of`, whose `to_row` and `from_row` know the
        columns (`acelib.core.tables`). `scratch` is a folder that survives a crash and is removed on success.
        Raises ArtifactError when an input is missing, and FullDiskError.
        """
        path = self._store / f"{name}.parquet"
        self._make(name, path, lambda path, scratch: write_rows(path, build(scratch)), build, inputs, params)
        return read_rows(path, of)

    def folder(
        self,
        name: str,
        build: Callable[[Path, Path], None],
        inputs: Sequence[str] = (),
        params: dict[str, Any] | None = None,
    ) -> Path:
        """The folder `name`, filled by `build(path, scratch)` unless an up-to-date one exists. Raises as `table`."""

        def fill(path: Path, scratch: Path) -> None:
            path.mkdir()
            build(path, scratch)

        self._make(name, self._store / name, fill, build, inputs, params)
        return self._store / name

    def path(self, name: str) -> Path:
        """Where the artefact `name` lies. Raises ArtifactError when it is missing or made by other versions, or when
        the artefact being built does not declare it as an input."""
        if self._allowed is not None and name not in self._allowed:
            raise ArtifactError(f"A builder reads {name!r} without declaring it; add it to `inputs`.")
        self._note(name)
        manifest = self.manifest(name)
        path = self._store / (name + manifest.get("suffix", "")) if manifest else None
        if path is None or not path.exists():
            raise ArtifactError(f"There is no {name!r} in {self.dir}; {_remake(name)}.")
        made, here = manifest.get("versions", {}), versions()
        other = [f"{key} {made.get(key)} instead of {here[key]}" for key in here if made.get(key) != here[key]]
        if manifest.get("format") != FORMAT:
            other.insert(0, f"artefact format {manifest.get('format')} instead of {FORMAT}")
        if other:
            made_by = f"was made by another version ({', '.join(other)})"
            raise ArtifactError(f"{name!r} in {self.dir} {made_by}; {_remake(name, manifest)}.")
        return path

    def read(self, name: str, of: type | None = None) -> list[Any]:
        """Rows of a table made by an earlier notebook, as dicts or as objects of the class `of`.

        Raises ArtifactError, also when the file was changed since.
        """
        return read_rows(self.unchanged(name), of)

    def unchanged(self, name: str) -> Path:
        """Where the table `name` lies. Raises ArtifactError as `path` does, and when it was changed since."""
        path = self.path(name)
        if path.is_dir():
            raise ArtifactError(f"{name!r} is a folder; use run.path({name!r}).")
        if not is_unchanged(path):
            remedy = _remake(name, self.manifest(name))
            raise ArtifactError(f"{path} was changed or damaged after it was written; delete it, then {remedy}.")
        return path

    def manifest(self, name: str) -> dict[str, Any] | None:
        """What the artefact `name` was made from, by which versions, and in how many seconds; None without one."""
        return read_manifest(self._store / name)

    def content(self, name: str) -> str | None:
        """Digest of the artefact `name`, as its manifest has it; None when it is not there."""
        manifest = self.manifest(name)
        return manifest["content"] if manifest and (self._store / (name + manifest["suffix"])).exists() else None

    def adopt(self, tables: dict[str, Sequence[Row]], origin: dict[str, Any]) -> None:
        """Store tables that were made elsewhere: notebooks take them as they are and do not make their own.

        `origin` goes into the manifests: `source` names where they come from, `command` is what to repeat should one be
        lost. What was adopted before goes. Raises ArtifactError when this run has made one of the tables itself,
        and FullDiskError.
        """
        known = {path.name.partition(".")[0] for path in self._store.glob("*.manifest.json")}
        before = {name for name in known if "adopted" in (self.manifest(name) or {})}
        if own := sorted((known & tables.keys()) - before):
            made = f"holds {', '.join(own)}, which its notebooks have made"
            raise ArtifactError(f"{self.dir} {made}; name another --run-dir.")
        for name in before:
            remove(manifest_path(self._store / name))
            remove(self._store / f"{name}.parquet")
        for name, rows in tables.items():
            write = functools.partial(write_rows, rows=rows)
            self._save(self._store / f"{name}.parquet", write, [FORMAT, origin, name], {"adopted": origin})

    @staticmethod
    def _note(name: str) -> None:
        """Tell the runner which artefacts this notebook reads and writes."""
        if trace := os.environ.get("ACELIB_TRACE"):
            with open(trace, "a") as handle:
                handle.write(f"{name}\n")

    def _make(
        self,
        name: str,
        path: Path,
        write: Callable[[Path, Path], None],
        build: Callable,
        inputs: Sequence[str],
        params: dict[str, Any] | None,
    ) -> None:
        if self.threads:
            self.threads.look()
        self._note(name)
        contents = {one: read_manifest(self.path(one))["content"] for one in inputs}
        made_from = [FORMAT, versions(), self.profile.seed, contents, fingerprint(build, params)]
        adopted = (self.manifest(name) or {}).get("adopted")
        if adopted:
            self.unchanged(name)
        if adopted or is_current(path, made_from):
            self.kept.append(name)
            if adopted:
                print(f"{name}: adopted from {adopted['source']}, kept.")
            return
        scratch = self._scratch(name, digest(made_from))
        self._allowed = set(inputs)
        try:
            shown = json.dumps(params or {}, default=lambda value: asdict(value) if is_dataclass(value) else str(value))
            facts = {"inputs": contents, "params": json.loads(shown)}
            self._save(path, lambda path: write(path, scratch), made_from, facts)
        finally:
            self._allowed = None
        shutil.rmtree(scratch, ignore_errors=True)

    def _save(self, path: Path, write: Callable[[Path], None], made_from: Any, facts: dict[str, Any]) -> None:
        start, name = time.monotonic(), path.stem
        facts = facts | {"name": name, "suffix": path.suffix, "format": FORMAT, "seed": self.profile.seed}
        with making(path, made_from, facts) as temporary:
            write(temporary)
            facts["versions"], facts["process_peak_rss_mb"] = versions(), peak_memory_mb()
            facts["seconds"] = round(time.monotonic() - start, 2)
        print(f"{name}: made in {facts['seconds']:.1f} s.")

    def _scratch(self, name: str, key: str) -> Path:
        """A folder for half-done work of exactly this key; those of other keys go."""
        scratch = self.dir / "scratch" / f"{name}-{key[:12]}"
        for stale in scratch.parent.glob(f"{name}-*"):
            if stale != scratch and re.fullmatch(re.escape(name) + r"-[0-9a-f]{12}", stale.name):
                shutil.rmtree(stale, ignore_errors=True)
        with full_disk_explained(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    def progress(self, done: float, total: int, label: str) -> None:
        """Tell the runner, or the reader when there is no runner, how far a long step is. Cheap to call often.

        The runner is told twice a second at most, a reader every 15 seconds; `done` may count parts of a unit.
        """
        if self.threads:
            self.threads.look()
        now, watched = time.monotonic(), os.environ.get("ACELIB_PROGRESS")
        if now - self._last_progress < (0.5 if watched else 15) and done < total:
            return
        self._last_progress = now
        if watched:
            try:
                Path(watched).write_text(json.dumps({"done": done, "total": total, "label": label}))
            except OSError:
                pass  # a progress line is never worth a failed run
        elif done < total:
            print(f"  {label}: {round(done, 1)} of {total}", flush=True)
