"""The runner: executes the notebooks in order with papermill, each in its own process, and remembers what it did.

A notebook is skipped when its code, acelib, the profile, the shipped data and every artefact it read or wrote are as
they were. Only the exit status counts; the executed notebook of a failure stays for reading.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import psutil
import yaml
from filelock import FileLock, Timeout

from acelib.core import (
    ROOT,
    Child,
    CourseError,
    DeviceError,
    NotebookError,
    Profile,
    Run,
    atomic,
    digest,
    full_disk_explained,
    load_profile,
    modules_digest,
    profile_values,
    read_json,
    versions,
    write_json,
)
from acelib.data import read_benchmark
from runner.notebooks import NOTEBOOKS, code, failure, parameters
from runner.progress import Forecast, Line, clock
from runner.report import scorecard_text, write_report
from tools.adopt import import_as_profile_says
from tools.commands import PROFILE_AND_SET, explained, set_values
from tools.published import adopt_models
from tools.together import require_together

# A process of its own: within ours papermill would take over the signals and the working directory.
PAPERMILL = [*("-m", "papermill", "-k", "python3"), "--no-progress-bar", *("--log-level", "WARNING")]
FULL_DISK = "the disk is full; make room, what was finished before is kept"
NO_MEMORY = "memory is full; close other programs, or lower batch_size and micro_batch in the profile"
# What stands in a log that names no cause.
SIGNS = {
    "DeadKernel": f"its kernel died, most likely because {NO_MEMORY}",
    "No space left": FULL_DISK,
    "Disk quota exceeded": FULL_DISK,
}
MAKES_DATA = ("01", "02")  # what they make is adopted where the profile says data.adopt
TRAINS = (*MAKES_DATA, "03", "04", "06")  # what they make others have published where it says best_of_n.reward_model


def _is_local(profile: Profile) -> bool:
    models, data = profile.models, profile.data
    names = [models.teacher, models.proxy, models.policy, profile.reward_model.base, *(m.model for m in models.proxies)]
    names += profile.published.values()
    names += [data.benchmark, *([data.adopt, *data.decontaminate] if data.adopt != "none" else [])]
    return all(Path(profile.resolve(name)).is_absolute() for name in names)


def select(folder: Path, first: str | None = None, only: str | None = None) -> list[Path]:
    """The numbered notebooks of a folder, `first` and later ones, or `only` one, which may be an appendix such as A1.

    Raises NotebookError.
    """
    known = {path.name[:2]: path for path in sorted(folder.glob("[0-9A][0-9]_*.ipynb"))}
    wanted = (only or first or "").zfill(2)
    if (only or first) and wanted not in known:
        raise NotebookError(
            f"There is no notebook {only or first!r} in {folder}; there are {', '.join(known) or 'none'}."
        )
    if only:
        return [known[wanted]]
    return [path for number, path in known.items() if number.isdigit() and number >= wanted]


def require_device(profile: Profile, notebooks: list[str]) -> None:
    """Raises DeviceError when the profile wants GPUs and they cannot be used, and CourseError when they are too small
    or too few for the `notebooks` ("04"): in seconds, before anything is fetched."""
    if profile.models.device != "cuda":
        return
    from acelib.engine import processes_per_machine
    from acelib.models import ask_apart, gpu_problem, machine_facts
    from acelib.preflight import preflight_gpu, require

    here, _ = processes_per_machine(profile.resolve(profile.engine.launch))
    machine = ask_apart(machine_facts)
    if problem := gpu_problem(machine, profile.models.dtype, here):
        raise DeviceError(f"Profile {profile.name} needs a GPU, which PROFILE=pocket does not: {problem}")
    require_together(profile, notebooks, len(machine.gpus))
    require(ask_apart(partial(preflight_gpu, profile, *notebooks)))


def _make_set(overrides: dict[str, Any]) -> str:
    """`SET='key=value ...'`, for a shell; make splits it at blanks and expands `$`."""
    texts = []
    for key, value in overrides.items():
        plain = isinstance(value, str) and re.fullmatch(r"[\w./:#+-]+", value)
        text = value if plain else json.dumps(value, separators=(",", ":")).replace(" ", r"\u0020")
        texts.append(f"{key}={text.replace('$', '$$')}")
    return f"SET={shlex.quote(' '.join(texts))}"


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
        if self.dir / "notebooks" == folder.resolve():
            raise CourseError(
                f"{self.dir} is the checkout, whose notebooks a run would write over; take another RUN_DIR=."
            )
        self.records = read_json(self.dir / "state.json")
        self.store = Run(self.dir, self.profile)
        if _is_local(self.profile):
            os.environ.setdefault("HF_HUB_OFFLINE", "1")

    def run(self, first: str | None = None, only: str | None = None, force: bool = False) -> None:
        """Execute what is not up to date, after adopting what the profile says.

        Raises NotebookError at the first notebook that fails, and CourseError for what the machine or the profile's
        data lack, before the first one.
        """
        chosen, left_out = self._chosen(first, only)
        numbers = [path.name[:2] for path in chosen]
        require_together(self.profile, numbers)
        require_device(self.profile, numbers)
        if only is None:
            read_benchmark(self.profile.resolve(self.profile.data.benchmark))  # now, not hours later in notebook 05
        try:
            alone = FileLock(self.dir / ".lock", timeout=0).acquire()
        except Timeout:
            raise CourseError(f"Another run is using {self.dir}; wait for it or choose another RUN_DIR=.") from None
        with alone:
            given = self._parameters(chosen)
            if self.profile.published:
                adopt_models(self.store, self.again())
            elif self.profile.data.adopt != "none":
                import_as_profile_says(self.store, self.again(), lambda text: print(text, file=self.out, flush=True))
            for path in left_out:
                Line(self.out, path.stem).end(f"left out: what it makes comes from {self._source()}")
            for position, path in enumerate(chosen, start=1):
                line = Line(self.out, f"[{position}/{len(chosen)}] {path.stem}")
                if not (force or only) and self.up_to_date(path):
                    line.end("unchanged, skipped")
                else:
                    self._execute(path, given, line)

    def _source(self) -> str:
        """Where what this run does not make comes from, or "none"."""
        return self.profile.published.get("reward_model", self.profile.data.adopt)

    def _chosen(self, first: str | None, only: str | None) -> tuple[list[Path], list[Path]]:
        """What to run, and what adopted data or published models make needless. Raises NotebookError."""
        chosen, numbers = select(self.folder, first, only), TRAINS if self.profile.published else MAKES_DATA
        needless = [path for path in chosen if self._source() != "none" and path.name[:2] in numbers]
        if only is not None and needless:
            raise NotebookError(
                f"{needless[0].stem} makes what profile {self.profile.name} takes from {self._source()}; leave "
                "ONLY= out, or take a profile that makes it (see data.adopt and best_of_n.reward_model)."
            )
        if not chosen:
            raise NotebookError(f"There are no notebooks in {self.folder}.")
        return [path for path in chosen if path not in needless], needless

    def _parameters(self, chosen: list[Path]) -> dict[str, str]:
        """What the notebooks are given, with the profile written to the run directory.

        Raises NotebookError when one lacks such a parameter: papermill would only warn, and run the defaults.
        """
        effective = self.dir / "profile.yaml"
        with atomic(effective) as temporary:
            temporary.write_text(yaml.safe_dump(self.profile.to_dict(), sort_keys=False), encoding="utf-8")
        # A plain run hands the notebooks exactly what a reader would type into them.
        same = not self.overrides and self.given == self.profile.name
        profile = self.given if same else os.path.relpath(effective, self.folder)
        given = {"profile": profile, "run_dir": os.path.relpath(self.dir, self.folder)}
        for path in chosen:
            known = parameters(path)
            for name in given.keys() - known.keys():
                raise NotebookError(f"{path.name} has no parameter {name!r}; its parameters are {', '.join(known)}.")
        return given

    def last_run(self, name: str) -> dict[str, Any]:
        """What the notebook took last time here, or else by the committed cost table: `seconds`, `stages`."""
        costs = read_json(ROOT / "profiles" / "costs.json").get(self.profile.name, {}).get("notebooks", {})
        return self.records.get(name) or costs.get(name, {})

    def key(self, path: Path, used: list[str]) -> str:
        """Digest of all that the notebook's results depend on; `used` are the artefacts it read or wrote."""
        contents = {name: self.store.content(name) for name in used}
        return digest([code(path), modules_digest(["acelib"]), profile_values(self.profile), versions(), contents])

    def up_to_date(self, path: Path) -> bool:
        """Whether the notebook has run here, and all that its results depend on is as it was."""
        record = self.records.get(path.stem)
        executed = self.dir / "notebooks" / path.name
        return bool(record) and executed.exists() and record["key"] == self.key(path, record["artefacts"])

    def _execute(self, path: Path, given: dict[str, str], line: Line) -> None:
        name, executed, forecast = path.stem, self.dir / "notebooks" / path.name, Forecast(self.last_run(path.stem))
        log, trace, progress = (self.dir / "logs" / f"{name}.{end}" for end in ("log", "artefacts", "progress"))
        with full_disk_explained(executed):
            for stale in (log, trace, progress, executed, self.dir / "metrics" / f"{name}.json"):
                stale.parent.mkdir(parents=True, exist_ok=True)
                stale.unlink(missing_ok=True)
        shutil.rmtree(self.dir / "figures" / name, ignore_errors=True)
        if name in self.records:  # what it took is kept for the forecast
            self.records[name]["key"] = None
            write_json(self.dir / "state.json", self.records)
        command = [sys.executable, *PAPERMILL, "--start-timeout", "600", "--cwd", str(self.folder)]
        command += [word for key, value in given.items() for word in ("-r", key, value)]
        environment = {**os.environ, "ACELIB_PROGRESS": str(progress), "ACELIB_TRACE": str(trace)}
        process = Child([*command, str(path), str(executed)], log, env=environment)
        try:
            measured = _watch(process, line, forecast, progress)
        except KeyboardInterrupt:
            process.close()
            line.end(f"interrupted; go on with: {self.again(f'FROM={path.name[:2]}')}")
            raise
        if status := process.status():
            line.end(f"failed after {clock(measured['seconds'])}")
            raise NotebookError(self._explain(path, executed, log, status))
        used = sorted(set(trace.read_text().split())) if trace.exists() else []
        finished = {"finished": time.strftime("%Y-%m-%d %H:%M")}
        self.records[name] = {"key": self.key(path, used), "artefacts": used} | measured | finished
        write_json(self.dir / "state.json", self.records)
        line.end(f"done in {clock(measured['seconds'])}, peak {measured['peak_mb'] / 1024:.1f} GiB")

    def again(self, *words: str) -> str:
        """The command of this run, with `words` after `make course`."""
        words = [*words, *([f"PROFILE={self.given}"] if self.given != "pocket" else [])]
        if self.overrides:
            words.append(_make_set(self.overrides))
        words += [f"RUN_DIR={shlex.quote(str(self.dir))}"] if self.dir != ROOT / "runs" / self.profile.name else []
        return " ".join(["make course", *words])

    def _explain(self, path: Path, executed: Path, log: Path, status: int) -> str:
        """Where and why a notebook failed, and the command to go on with."""
        where, cause = failure(executed)
        text = log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.strip() and "[IPKernelApp]" not in line]
        if re.match(r"(_Array)?MemoryError|RuntimeError.*allocate memory", cause):
            cause = f"{NO_MEMORY} ({cause.rstrip(': ')})"
        cause = cause or next((said for sign, said in SIGNS.items() if sign in text), "")
        if not cause and shutil.disk_usage(log.parent).free < 2**20:  # the log may have been cut off
            cause = FULL_DISK
        if not cause and status < 0:
            cause = f"it was ended from outside by {signal.Signals(-status).name} (also done when memory runs out)"
        cause = cause or f"{lines[-1] if lines else f'exit status {status}'}; see {log}"
        return (
            f"{path.stem} failed {where}: {' '.join(cause.split())}\n"
            f"  Executed notebook: {executed}\n  Mend the cause, then go on with: {self.again(f'FROM={path.name[:2]}')}"
        )


def _watch(process: Child, line: Line, forecast: Forecast, progress: Path) -> dict[str, Any]:
    """Wait for a notebook's process, looking once a second: at what stage it says it is, and at its tree's memory.

    Returns `seconds`, `stages` (see Forecast), `peak_mb`, and as `memory` how that was counted.
    """
    start, tree, peak, memory = time.monotonic(), psutil.Process(process.popen.pid), 0.0, "PSS"
    while process.status(1.0) is None:
        held, counted = tree_memory(tree)
        peak, memory = max(peak, held), "RSS" if counted == "RSS" else memory
        seconds, stage = time.monotonic() - start, read_json(progress)
        line.show(seconds, stage, forecast.see(seconds, stage))
    seconds = round(time.monotonic() - start, 1)
    return {"seconds": seconds, "stages": forecast.stages, "peak_mb": round(peak), "memory": memory}


def tree_memory(process: psutil.Process) -> tuple[float, str]:
    """MiB that a process and its descendants hold now, and how they were counted: as PSS, or where the system does not
    tell it as RSS, which counts a shared page once per process."""
    total, kind = 0, "PSS"
    with suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                try:
                    total += one.memory_full_info().pss
                except (AttributeError, psutil.AccessDenied):
                    total, kind = total + one.memory_info().rss, "RSS"
    return total / 2**20, kind


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m acelib course", description="Run the notebooks and write the report.", parents=[PROFILE_AND_SET]
    )
    parser.add_argument("--from", dest="first", metavar="NN", help="begin with this notebook")
    parser.add_argument("--only", metavar="NN", help="run only this notebook, also when it is up to date")
    parser.add_argument("--run-dir", type=Path, help="where to write (default: runs/<profile>)")
    parser.add_argument("--force", action="store_true", help="run notebooks that are up to date, too")
    asked = parser.parse_args(words)
    course = Course(asked.profile, set_values(asked.overrides), asked.run_dir)
    course.run(asked.first, asked.only, asked.force)
    report, values = write_report(course.dir)
    print(f"\n{scorecard_text(values['scorecard'])}\n" if values["scorecard"] else "")
    print(f"{values['total_seconds'] / 60:.1f} minutes, peak {values['peak_mb'] / 1024:.1f} GiB. Report: {report}")
