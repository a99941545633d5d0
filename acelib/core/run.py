"""What stages hand to each other: tables and folders under `runs/<profile>/`, each with a manifest beside it.

An artefact is written to a temporary name in the same folder, flushed to disk and renamed, so a crash or a full disk
never leaves half of one. It is built again only when something it depends on has changed (`acelib.core.digests`).
"""

import functools
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from acelib.core.digests import digest, fingerprint, path_digest
from acelib.core.errors import ArtifactError
from acelib.core.files import atomic, flush, full_disk_explained
from acelib.core.processes import peak_memory_mb
from acelib.core.profiles import ROOT, Profile
from acelib.core.sections import Remote
from acelib.core.tables import read_rows, write_rows

FORMAT = 1  # raise it when an older artefact can no longer be read
PACKAGES = ("torch", "transformers", "trl", "datasets", "numpy")


@functools.cache
def versions() -> dict[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def write_json(path: Path, value: Any) -> None:
    """Atomic: a reader sees the old file or the new one. Raises FullDiskError."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(_strict(value), indent=1, default=float) + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """JSON knows no NaN and no infinity: what could not be measured becomes null."""
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


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
    if manifest and (adopted := manifest.get("adopted")):
        return f"adopt it again with `{adopted['command']}`"
    number = producers().get(name)
    return f"run notebook {number} first: make course FROM={number}" if number else "run `make course` first"


class Run:
    """One run directory: `artifacts/`, `figures/`, `metrics/`, `notebooks/`, `scratch/`, and `paid.jsonl`."""

    def __init__(self, run_dir: str | Path, profile: Profile):
        self.dir = Path(run_dir).resolve()
        self.profile = profile
        self.meter: Any = None  # acelib.preflight.Meter, set by acelib.course.open_run
        self.kept: list[str] = []
        self._allowed: set[str] | None = None
        self._last_progress = 0.0

    @property
    def remote(self) -> tuple[Remote, Path]:
        """What `load_policy` needs for a model behind a server: its limits, and a log that outlives all artefacts."""
        return self.profile.remote, self.dir / "paid.jsonl"

    def table(
        self,
        name: str,
        build: Callable[[Path], list[dict]],
        inputs: Sequence[str] = (),
        params: dict[str, Any] | None = None,
    ) -> list[dict]:
        """Rows of the table `name`, built by `build(scratch)` unless an up-to-date one exists.

        All rows have the same columns. `scratch` is a folder that survives a crash and is removed on success.
        Raises ArtifactError when an input is missing, and FullDiskError.
        """
        return read_rows(
            self._make(name, ".parquet", lambda path, scratch: write_rows(path, build(scratch)), build, inputs, params)
        )

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

        return self._make(name, "", fill, build, inputs, params)

    def path(self, name: str) -> Path:
        """Where the artefact `name` lies. Raises ArtifactError when it is missing or made by other versions, or when
        the artefact being built does not declare it as an input."""
        if self._allowed is not None and name not in self._allowed:
            raise ArtifactError(f"A builder reads {name!r} without declaring it; add it to `inputs`.")
        self._note(name)
        manifest = self.manifest(name)
        path = self.dir / "artifacts" / (name + manifest.get("suffix", "")) if manifest else None
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

    def read(self, name: str) -> list[dict]:
        """Rows of a table made by an earlier notebook. Raises ArtifactError, also when the file was changed since."""
        return read_rows(self.unchanged(name))

    def unchanged(self, name: str) -> Path:
        """Where the table `name` lies. Raises ArtifactError as `path` does, and when it was changed since."""
        path, manifest = self.path(name), self.manifest(name)
        if path.is_dir():
            raise ArtifactError(f"{name!r} is a folder; use run.path({name!r}).")
        if path_digest(path) != manifest["content"]:
            remedy = _remake(name, manifest)
            raise ArtifactError(f"{path} was changed or damaged after it was written; delete it, then {remedy}.")
        return path

    def adopt(self, tables: dict[str, list[dict]], origin: dict[str, Any]) -> None:
        """Store tables that were made elsewhere: notebooks take them as they are and do not make their own.

        `origin` goes into the manifests: `source` names where they come from, `command` is what to repeat should one be
        lost. What was adopted before goes. Raises ArtifactError when this run has made one of the tables itself,
        and FullDiskError.
        """
        known = {path.name.partition(".")[0] for path in (self.dir / "artifacts").glob("*.manifest.json")}
        before = {name for name in known if "adopted" in (self.manifest(name) or {})}
        if own := sorted((known & tables.keys()) - before):
            made = f"holds {', '.join(own)}, which its notebooks have made"
            raise ArtifactError(f"{self.dir} {made}; name another --run-dir.")
        for name in before:
            for suffix in (".manifest.json", ".parquet"):
                (self.dir / "artifacts" / f"{name}{suffix}").unlink(missing_ok=True)
        for name, rows in tables.items():
            fields = {"key": digest([FORMAT, origin, name]), "adopted": origin}
            self._store(name, ".parquet", functools.partial(write_rows, rows=rows), fields)

    @staticmethod
    def _note(name: str) -> None:
        """Tell the runner which artefacts this notebook reads and writes."""
        if trace := os.environ.get("ACELIB_TRACE"):
            with open(trace, "a") as handle:
                handle.write(f"{name}\n")

    def manifest(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.dir / "artifacts" / f"{name}.manifest.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _make(
        self,
        name: str,
        suffix: str,
        write: Callable[[Path, Path], None],
        build: Callable,
        inputs: Sequence[str],
        params: dict[str, Any] | None,
    ) -> Path:
        self._note(name)
        for one in inputs:
            self.path(one)
        hashes = {one: self.manifest(one)["content"] for one in inputs}
        key = digest([FORMAT, versions(), self.profile.seed, hashes, fingerprint(build, params)])
        store = self.dir / "artifacts"
        final = store / (name + suffix)
        old = self.manifest(name)
        if old and "adopted" in old:
            self.unchanged(name)
            self.kept.append(name)
            print(f"{name}: adopted from {old['adopted']['source']}, kept.")
            return final
        if old and old.get("key") == key and final.exists() and path_digest(final) == old["content"]:
            self.kept.append(name)
            print(f"{name}: nothing it depends on has changed, kept.")
            return final
        scratch = self._scratch(name, key)
        self._allowed = set(inputs)
        try:
            fields = {"key": key, "inputs": hashes, "params": json.loads(json.dumps(params or {}, default=_show))}
            final = self._store(name, suffix, lambda path: write(path, scratch), fields)
        finally:
            self._allowed = None
        shutil.rmtree(scratch, ignore_errors=True)
        return final

    def _store(self, name: str, suffix: str, write: Callable[[Path], None], fields: dict[str, Any]) -> Path:
        """Write, flush, rename; then the manifest, to which `fields` belong."""
        store = self.dir / "artifacts"
        final, temporary = store / (name + suffix), store / f".{name}.tmp{suffix}"
        manifest_path = store / f"{name}.manifest.json"
        start = time.monotonic()
        try:
            with full_disk_explained(final):
                store.mkdir(parents=True, exist_ok=True)
                _remove(temporary)
                write(temporary)
                flush(temporary)
        except BaseException:
            _remove(temporary)
            raise
        manifest_path.unlink(missing_ok=True)  # until the new one is there, the artefact counts as missing
        if final.is_dir():
            _remove(final)
        os.replace(temporary, final)
        seconds = round(time.monotonic() - start, 2)
        write_json(
            manifest_path,
            fields
            | {
                "name": name,
                "suffix": suffix,
                "format": FORMAT,
                "content": path_digest(final),
                "seed": self.profile.seed,
                "versions": versions(),
                "seconds": seconds,
                "process_peak_rss_mb": peak_memory_mb(),
            },
        )
        print(f"{name}: made in {seconds:.1f} s.")
        return final

    def _scratch(self, name: str, key: str) -> Path:
        """A folder for half-done work of exactly this key; left-overs of other keys go."""
        scratch = self.dir / "scratch" / f"{name}-{key[:12]}"
        for stale in scratch.parent.glob(f"{name}-*"):
            if stale != scratch and re.fullmatch(re.escape(name) + r"-[0-9a-f]{12}", stale.name):
                shutil.rmtree(stale, ignore_errors=True)
        with full_disk_explained(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    def metrics(self, values: dict[str, Any], notebook: str) -> None:
        """Record numbers, or `{"value", "low", "high"}`, for the report; repeated calls add to each other."""
        path = self.dir / "metrics" / f"{notebook}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_json(path, {**known, **values})

    def spent(self) -> None:
        """The closing line of every notebook: what it took, beside the estimate; both go to the report."""
        text, values = self.meter.compare(self.kept)
        self.metrics(values, self.meter.notebook)
        print(text)

    def figure(self, fig, name: str, caption: str, notebook: str) -> None:
        """Save `fig` for the report and show it here, once, above its caption."""
        import matplotlib.pyplot as plt
        from IPython.display import Image, Markdown, display

        folder = self.dir / "figures" / notebook
        path = folder / f"{name}.png"
        order = {one.stem: i for i, one in enumerate(sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime))}
        with full_disk_explained(path):
            folder.mkdir(parents=True, exist_ok=True)
            fig.savefig(path, metadata={"Software": None})
        write_json(folder / f"{name}.json", {"caption": caption, "order": order.get(name, len(order))})
        plt.close(fig)
        display(Image(filename=str(path), alt=caption), Markdown(f"*{caption}*"))

    def progress(self, done: int, total: int, label: str) -> None:
        """Tell the runner, or the reader when there is no runner, how far a long step is. Cheap to call often."""
        now = time.monotonic()
        watched = os.environ.get("ACELIB_PROGRESS")
        if now - self._last_progress < (0.5 if watched else 15) and done < total:
            return
        self._last_progress = now
        if watched:
            try:
                Path(watched).write_text(json.dumps({"done": done, "total": total, "label": label}))
            except OSError:
                pass  # a progress line is never worth a failed run
        elif done < total:
            print(f"  {label}: {done} of {total}", flush=True)


def _show(value: Any) -> Any:
    from dataclasses import asdict, is_dataclass

    return asdict(value) if is_dataclass(value) else str(value)
