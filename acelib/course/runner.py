"""The runner: executes the notebooks in order with papermill, each in its own process, and remembers what it did.

A notebook is skipped when its code, acelib, the profile, the shipped data and every artefact it read or wrote are as
they were. Only the exit status counts; the executed notebook of a failure stays for reading.
"""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import yaml

from acelib.core import (
    ROOT,
    CourseError,
    NotebookError,
    Profile,
    Run,
    digest,
    end_tree,
    full_disk_explained,
    load_profile,
    profile_values,
    versions,
    write_json,
)
from acelib.course.notebooks import check_parameters, code, failure
from acelib.course.watch import Line, Watch, clock
from acelib.data import adopt_as_profile_says, read_benchmark

NOTEBOOKS = ROOT / "notebooks"
FULL_DISK = "the disk is full; make room, what was finished before is kept"
NO_MEMORY = "memory is full; close other programs, or lower batch_size and micro_batch in the profile"
# What stands in a log that names no cause.
SIGNS = {
    "DeadKernel": f"its kernel died, most likely because {NO_MEMORY}",
    "No space left": FULL_DISK,
    "Disk quota exceeded": FULL_DISK,
}
MAKES_DATA = ("01", "02")  # what they make is adopted where the profile says data.adopt


def contain() -> None:
    """Keep caches inside the checkout and hubs and telemetry out, for this process and its children."""
    cache = ROOT / ".cache"
    places = {
        "HF_HOME": "huggingface",
        "XDG_CACHE_HOME": "xdg",
        "MPLCONFIGDIR": "matplotlib",
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "jupyter/config",
        "JUPYTER_DATA_DIR": "jupyter/data",
        "JUPYTER_RUNTIME_DIR": "jupyter/runtime",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
    }
    # The login is no cache: `hf auth login` keeps it where the hub's client looks unless it is told otherwise.
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    os.environ.setdefault("HF_TOKEN_PATH", str(Path(os.environ.get("HF_HOME", usual), "token").expanduser()))
    for name, place in places.items():
        os.environ.setdefault(name, str(cache / place))
    fixed = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TRANSFORMERS_VERBOSITY": "warning",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONHASHSEED": "0",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    for name, value in fixed.items():
        os.environ.setdefault(name, value)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in paths:  # kernels find acelib also where it is not installed
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, paths)])


def _is_local(profile: Profile) -> bool:
    models, data = profile.models, profile.data
    names = [models.teacher, models.proxy, models.policy, profile.reward_model.base, *(m.model for m in models.proxies)]
    names += [data.benchmark, *([data.adopt, *data.decontaminate] if data.adopt != "none" else [])]
    return all(Path(profile.resolve(name)).is_absolute() for name in names)


def select(folder: Path, first: str | None = None, only: str | None = None) -> list[Path]:
    """The numbered notebooks of a folder, `first` and later ones, or `only` one, which may be an appendix such as A1.

    Raises NotebookError.
    """
    known = sorted(folder.glob("[0-9A][0-9]_*.ipynb"))
    numbers = [path.name[:2] for path in known]
    for wanted in (first, only):
        if wanted is not None and wanted.zfill(2) not in numbers:
            there = ", ".join(numbers) or "none"
            raise NotebookError(f"There is no notebook {wanted!r} in {folder}; there are {there}.")
    if only is not None:
        return [path for path in known if path.name.startswith(only.zfill(2))]
    chapters = [path for path in known if path.name[0].isdigit()]
    return [path for path in chapters if first is None or path.name[:2] >= first.zfill(2)]


def _machine_facts():
    from acelib.models import ask_apart, machine_facts

    return ask_apart(machine_facts)


def require_device(profile: Profile) -> None:
    """Raises DeviceError when the profile wants GPUs and they cannot be used: in seconds, not in notebook 03."""
    if profile.models.device != "cuda":
        return
    from acelib.core import DeviceError
    from acelib.engine import processes_per_machine
    from acelib.models import gpu_problem

    here, _ = processes_per_machine(profile.resolve(profile.engine.launch))
    if problem := gpu_problem(_machine_facts(), profile.models.dtype, here):
        raise DeviceError(f"Profile {profile.name} needs a GPU, which PROFILE=pocket does not: {problem}")


def _make_set(overrides: dict[str, Any]) -> str:
    """`SET="key=value ..."`, for a shell; make splits it at blanks and expands `$`."""
    texts = []
    for key, value in overrides.items():
        plain = isinstance(value, str) and re.fullmatch(r"[\w./:#+-]+", value)
        text = value if plain else json.dumps(value, separators=(",", ":")).replace(" ", r"\u0020")
        texts.append(f"{key}={text.replace('$', '$$')}")
    joined = " ".join(texts)
    return f"SET={shlex.quote(joined)}" if set("\"'$`\\") & set(joined) else f'SET="{joined}"'


@contextmanager
def _alone(run_dir: Path):
    """One runner per run directory."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CourseError(f"Another run is using {run_dir}; wait for it or choose another RUN_DIR=.") from None
        yield


class Course:
    """One run of the course into one directory."""

    def __init__(
        self,
        profile: str,
        overrides: dict[str, Any] | None = None,
        run_dir: Path | None = None,
        folder: Path = NOTEBOOKS,
        out: TextIO | None = None,
    ):
        self.given, self.overrides, self.folder, self.out = profile, overrides or {}, folder, out or sys.stdout
        self.profile = load_profile(profile, overrides)
        self.dir = Path(run_dir or ROOT / "runs" / self.profile.name).resolve()
        self.records = self._read_json(self.dir / "state.json")
        self.store = Run(self.dir, self.profile)
        if _is_local(self.profile):
            os.environ.setdefault("HF_HUB_OFFLINE", "1")

    @staticmethod
    def _read_json(path: Path) -> dict[str, Any]:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def run(self, first: str | None = None, only: str | None = None, force: bool = False) -> None:
        """Execute what is not up to date, after adopting what the profile says.

        Raises NotebookError at the first notebook that fails, and CourseError for what the machine or the profile's
        data lack, before the first one.
        """
        chosen, left_out = self._chosen(first, only)
        require_device(self.profile)
        if only is None:
            read_benchmark(self.profile.resolve(self.profile.data.benchmark))  # now, not hours later in notebook 05
        with _alone(self.dir):
            effective = self.dir / "profile.yaml"
            with full_disk_explained(effective):
                effective.write_text(yaml.safe_dump(self.profile.to_dict(), sort_keys=False), encoding="utf-8")
            # A plain run hands the notebooks exactly what a reader would type into them.
            same = not self.overrides and self.given == self.profile.name
            profile = self.given if same else os.path.relpath(effective, self.folder)
            handed = {"profile": profile, "run_dir": os.path.relpath(self.dir, self.folder)}
            for path in chosen:
                check_parameters(path, handed)
            if self.profile.data.adopt != "none":
                adopt_as_profile_says(self.store, self.again(), lambda text: print(text, file=self.out, flush=True))
            for path in left_out:
                Line(self.out, path.stem, None).end(f"left out: its data come from {self.profile.data.adopt}")
            for position, path in enumerate(chosen, start=1):
                head = f"[{position}/{len(chosen)}] {path.stem}"
                line = Line(self.out, head, self.expected(path.stem))
                if not (force or only) and self.up_to_date(path):
                    line.end("unchanged, skipped")
                else:
                    self._execute(path, handed, line)

    def _chosen(self, first: str | None, only: str | None) -> tuple[list[Path], list[Path]]:
        """What to run, and what adopted data make needless. Raises NotebookError."""
        chosen, adopt = select(self.folder, first, only), self.profile.data.adopt
        needless = [path for path in chosen if adopt != "none" and path.name[:2] in MAKES_DATA]
        if only is not None and needless:
            raise NotebookError(
                f"{needless[0].stem} makes data, and profile {self.profile.name} adopts {adopt}; leave "
                "ONLY= out, or set data.adopt=none."
            )
        if not chosen:
            raise NotebookError(f"There are no notebooks in {self.folder}.")
        return [path for path in chosen if path not in needless], needless

    def expected(self, name: str) -> float | None:
        """Seconds the notebook took last time here, or else in the committed cost table."""
        costs = self._read_json(ROOT / "profiles" / "costs.json").get(self.profile.name, {}).get("notebooks", {})
        return self.records.get(name, {}).get("seconds") or costs.get(name, {}).get("seconds")

    def key(self, path: Path, used: list[str]) -> str:
        sources = {}
        for file in sorted((ROOT / "acelib").rglob("*.py")):
            if file.stem not in ("course", "report", "__main__"):
                sources[str(file.relative_to(ROOT))] = file.read_text(encoding="utf-8")
        contents = {name: self.store.content(name) for name in used}
        return digest([code(path), sources, profile_values(self.profile), versions(), contents])

    def up_to_date(self, path: Path) -> bool:
        record = self.records.get(path.stem)
        executed = self.dir / "notebooks" / path.name
        return bool(record) and executed.exists() and record["key"] == self.key(path, record["artefacts"])

    def _execute(self, path: Path, handed: dict[str, str], line: Line) -> None:
        name, executed = path.stem, self.dir / "notebooks" / path.name
        log, trace, progress = (self.dir / "logs" / f"{name}.{end}" for end in ("log", "artefacts", "progress"))
        with full_disk_explained(executed):
            for folder in (executed.parent, log.parent):
                folder.mkdir(parents=True, exist_ok=True)
            for stale in (log, trace, progress, executed, self.dir / "metrics" / f"{name}.json"):
                stale.unlink(missing_ok=True)
        shutil.rmtree(self.dir / "figures" / name, ignore_errors=True)
        self.records.pop(name, None)
        command = [
            sys.executable,
            "-m",
            "papermill",
            str(path),
            str(executed),
            "-k",
            "python3",
            "--cwd",
            str(self.folder),
            "--no-progress-bar",
            "--log-level",
            "WARNING",
            "--start-timeout",
            "600",
        ]
        for key, value in handed.items():
            command += ["-r", key, value]
        environment = {**os.environ, "ACELIB_PROGRESS": str(progress), "ACELIB_TRACE": str(trace)}
        with open(log, "w") as handle:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, env=environment, start_new_session=True
            )
        watch = Watch(process.pid, line, progress)
        watch.start()
        try:
            status = process.wait()
        except KeyboardInterrupt:
            watch.finish()
            end_tree(process)
            line.end(f"interrupted; go on with: {self.resume(path)}")
            raise
        measured = watch.finish()
        if status != 0:
            line.end(f"failed after {clock(measured.seconds)}")
            raise NotebookError(self._explain(path, executed, log, status))
        used = sorted(set(trace.read_text().split())) if trace.exists() else []
        self.records[name] = {
            "key": self.key(path, used),
            "artefacts": used,
            "seconds": round(measured.seconds, 1),
            "peak_mb": round(measured.peak_mb),
            "memory": measured.memory,
            "finished": time.strftime("%Y-%m-%d %H:%M"),
        }
        write_json(self.dir / "state.json", self.records)
        line.end(f"done in {clock(measured.seconds)}, peak {measured.peak_mb / 1024:.1f} GiB")

    def resume(self, path: Path) -> str:
        return self.again(f"FROM={path.name[:2]}")

    def again(self, *words: str) -> str:
        """The command of this run, with `words` after `make course`."""
        words = [*words, *([f"PROFILE={self.given}"] if self.given != "pocket" else [])]
        if self.overrides:
            words.append(_make_set(self.overrides))
        words += [f"RUN_DIR={shlex.quote(str(self.dir))}"] if self.dir != ROOT / "runs" / self.profile.name else []
        return " ".join(["make course", *words])

    def _explain(self, path: Path, executed: Path, log: Path, status: int) -> str:
        found, nowhere = None, "before its first cell"
        try:
            found = failure(executed)
        except NotebookError:  # it was cut off, too
            nowhere = "in a cell that could not be noted"
        cause = found.cause if found else ""
        if re.match(r"(_Array)?MemoryError|RuntimeError.*allocate memory", cause):
            cause = f"{NO_MEMORY} ({cause.rstrip(': ')})"
        if not cause:
            text = log.read_text(errors="replace")
            cause = next((said for sign, said in SIGNS.items() if sign in text), "")
            if not cause and shutil.disk_usage(log.parent).free < 2**20:  # the log may have been cut off
                cause = FULL_DISK
            if not cause and status < 0:
                cause = f"it was ended from outside by {signal.Signals(-status).name} (also done when memory runs out)"
            lines = [line for line in text.splitlines() if line.strip() and "[IPKernelApp]" not in line]
            cause = cause or f"{lines[-1] if lines else f'exit status {status}'}; see {log}"
        where = f"in cell {found.cell} (`{found.line.strip()}`)" if found else nowhere
        return (
            f"{path.stem} failed {where}: {' '.join(cause.split())}\n"
            f"  Executed notebook: {executed}\n  Mend the cause, then go on with: {self.resume(path)}"
        )
