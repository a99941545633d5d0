"""The runner, on notebooks of a few cells."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
from small_disk import on_small_disk

from acelib.__main__ import main
from acelib.core import CourseError, DeviceError, EngineError, NotebookError
from acelib.models.devices import Gpu, Machine
from runner.course import Course, select
from runner.progress import Forecast, Line

OPENING = 'profile = "pocket"\nrun_dir = "../runs/pocket"'
OPEN_RUN = (
    "from acelib.core.run import Run\nfrom acelib.core.profiles import load_profile\n"
    "run = Run(run_dir, load_profile(profile))"
)


def write_notebook(path: Path, *cells: str, parameters: str = OPENING, tag: str = "parameters") -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.cells = [nbformat.v4.new_markdown_cell(f"# {path.stem}"), nbformat.v4.new_code_cell(parameters)]
    notebook.cells[1].metadata.tags = [tag]
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def course(tmp_path):
    def make(**options):
        options.setdefault("run_dir", tmp_path / "run")
        return Course("pocket", folder=tmp_path / "notebooks", out=io.StringIO(), **options)

    make.folder = tmp_path / "notebooks"
    return make


@pytest.mark.slow
def test_runs_skips_resumes_and_reruns(course, monkeypatch):
    first, second = course.folder / "01_numbers.ipynb", course.folder / "02_sum.ipynb"
    write_notebook(first, OPEN_RUN, 'rows = run.table("numbers", lambda scratch: [{"x": run.profile.seed}])')
    write_notebook(
        second,
        OPEN_RUN,
        'total = sum(row["x"] for row in run.read("numbers"))',
        'if total == 0: raise RuntimeError("nothing to add")',
    )

    failed = course()
    with pytest.raises(NotebookError) as caught:
        failed.run()
    said = str(caught.value)
    assert "02_sum failed in cell 5" in said and "RuntimeError: nothing to add" in said and "FROM=02" in said
    assert (failed.dir / "notebooks" / "02_sum.ipynb").exists()
    assert "[1/2] 01_numbers  done in" in failed.out.getvalue()

    write_notebook(second, OPEN_RUN, 'total = sum(row["x"] for row in run.read("numbers"))')
    mended = course()
    mended.run()
    assert "01_numbers  unchanged, skipped" in mended.out.getvalue()
    assert "02_sum  done in" in mended.out.getvalue()

    again = course()
    again.run()
    assert again.out.getvalue().count("unchanged, skipped") == 2

    changed = course(overrides={"seed": 5})
    changed.run()
    assert "skipped" not in changed.out.getvalue()
    assert changed.store.read("numbers") == [{"x": 5}]
    record = json.loads((changed.dir / "state.json").read_text())["02_sum"]
    assert record["artefacts"] == ["numbers"] and record["seconds"] > 0


@pytest.mark.slow
def test_a_deleted_artefact_is_made_again(course):
    write_notebook(course.folder / "01_a.ipynb", OPEN_RUN, 'run.table("a", lambda scratch: [{"x": 1}])')
    course().run()
    (course().dir / "artifacts" / "a.parquet").unlink()
    again = course()
    again.run()
    assert "done in" in again.out.getvalue() and again.store.read("a") == [{"x": 1}]


def test_a_run_in_the_checkout_itself_is_refused(course):
    write_notebook(path := course.folder / "01_a.ipynb", "x = 1")
    with pytest.raises(CourseError, match="is the checkout, .* another RUN_DIR="):
        course(run_dir=course.folder.parent)
    assert path.exists()


def test_misspelt_and_missing_parameters_are_refused(course):
    path = course.folder / "01_a.ipynb"
    write_notebook(path, parameters='profil = "pocket"\nrun_dir = "x"')
    with pytest.raises(NotebookError, match="has no parameter 'profile'; its parameters are profil, run_dir"):
        course().run()
    write_notebook(path, tag="parameter")
    with pytest.raises(NotebookError, match="0 cells tagged `parameters`; it needs exactly one"):
        course().run()
    write_notebook(path, parameters='profile = "pocket"\nrun_dir = "x" + profile')
    with pytest.raises(NotebookError, match="only `name = literal`"):
        course().run()


@pytest.mark.slow
def test_a_dead_kernel_is_named(course):
    write_notebook(course.folder / "01_dies.ipynb", "x = 1", "import os\nos._exit(9)")
    with pytest.raises(NotebookError, match="01_dies failed in cell 4 .*kernel died"):
        course().run()


@pytest.mark.slow
def test_full_memory_is_named_also_by_a_kernel_that_can_but_print_it(course):
    write_notebook(course.folder / "01_a.ipynb", "x = 1", "bytes(2**60)")
    with pytest.raises(NotebookError, match=r"in cell 4 .*: memory is full; close other programs, .* \(MemoryError\)"):
        course().run()
    # A second for the kernel's thread that sends what is printed.
    printing = (
        "import os, sys, time\nprint('Traceback\\nMemoryError', file=sys.stderr, flush=True)\ntime.sleep(1)\n"
        "os._exit(1)"
    )
    write_notebook(course.folder / "01_a.ipynb", "x = 1", printing)
    with pytest.raises(NotebookError, match=r"in cell 4 .*: memory is full; close other programs, .* \(MemoryError\)"):
        course().run()


def test_a_full_disk_is_named(course, tmp_path):
    log = tmp_path / "log"
    log.write_text("Traceback\nOSError: [Errno 28] No space left on device\n")
    said = course()._explain(tmp_path / "01_a.ipynb", tmp_path / "nothing.ipynb", log, status=1)
    assert "01_a failed before its first cell: the disk is full; make room" in said and "FROM=01" in said


@pytest.mark.slow
def test_a_disk_that_fills_up_in_a_notebook(course, tmp_path):
    """Neither the executed notebook nor the log can be written any more, so neither says what happened."""
    write_notebook(course.folder / "01_a.ipynb", OPEN_RUN, "(run.dir / 'large').write_bytes(bytes(2**23))")
    disk = tmp_path / "disk"
    script = (
        f"from runner.course import *\none = Course('pocket', run_dir={str(disk)!r}, "
        f"folder=Path({str(course.folder)!r}))\ntry: one.run()\nexcept NotebookError as error: print(error)"
    )
    ended = subprocess.run([*on_small_disk(disk), sys.executable, "-c", script], capture_output=True, text=True)
    assert "the disk is full; make room" in ended.stdout, ended.stdout + ended.stderr
    assert "then go on with: make course FROM=01" in ended.stdout


def test_a_runner_ended_from_outside_is_told_apart_from_a_failing_notebook(course, tmp_path):
    log = tmp_path / "log"
    log.write_text("[IPKernelApp] WARNING | Parent appears to have exited\n")
    said = course()._explain(tmp_path / "01_a.ipynb", tmp_path / "nothing.ipynb", log, status=-signal.SIGKILL)
    assert "ended from outside by SIGKILL" in said
    assert "exit status 2; see" in course()._explain(tmp_path / "01_a.ipynb", tmp_path / "nothing.ipynb", log, status=2)


def test_select(tmp_path):
    for name in ("00_a", "01_b", "02_c", "A1_appendix"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in select(tmp_path)] == ["00_a", "01_b", "02_c"]
    assert [path.stem for path in select(tmp_path, only="0")] == ["00_a"]
    assert [path.stem for path in select(tmp_path, first="01")] == ["01_b", "02_c"]
    assert [path.stem for path in select(tmp_path, only="A1")] == ["A1_appendix"]
    with pytest.raises(NotebookError, match="There is no notebook '99' .* there are 00, 01, 02, A1"):
        select(tmp_path, first="99")


def test_two_runs_in_one_directory_are_refused(course):
    write_notebook(course.folder / "01_a.ipynb", "x = 1")
    one = course()
    one.dir.mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl,time; h=open({str(one.dir / '.lock')!r},'w'); "
            "fcntl.flock(h, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        with pytest.raises(CourseError, match="Another run is using"):
            one.run()
    finally:
        holder.kill()
        holder.wait()


STOPPED = """
import signal, sys
from pathlib import Path
from acelib.core import stoppable
from runner.course import Course
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_IGN if name in sys.argv[3:] else signal.SIG_DFL)
with stoppable():
    Course("pocket", run_dir=Path(sys.argv[1]), folder=Path(sys.argv[2])).run(force=True)
"""


@pytest.fixture
def waiting(course, tmp_path):
    """Starts a run whose second notebook waits; returns the runner and its kernel's process id."""
    write_notebook(course.folder / "01_a.ipynb", OPEN_RUN, 'run.table("a", lambda scratch: [{"x": 1}])')
    flag = tmp_path / "waiting"
    write_notebook(
        course.folder / "02_b.ipynb",
        f"import time, pathlib, os\nflag, go = pathlib.Path({str(flag)!r}), pathlib.Path({str(tmp_path / 'go')!r})\n"
        "flag.write_text(str(os.getpid()))\nwhile not go.exists(): time.sleep(0.1)",
    )

    def start(*ignored):
        flag.unlink(missing_ok=True)
        command = [sys.executable, "-c", STOPPED, str(tmp_path / "run"), str(course.folder), *ignored]
        runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not flag.exists() or not flag.read_text():
            assert runner.poll() is None, runner.stderr.read()
            time.sleep(0.1)
        return runner, int(flag.read_text())

    return start


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_leaves_no_process_and_resumes(course, waiting, tmp_path, number):
    runner, kernel = waiting()
    os.kill(runner.pid, number)
    os.kill(runner.pid, number)  # as when make passes on what it got, and the shell sent it to all
    out, error = runner.communicate(timeout=60)
    assert runner.returncode == 128 + number and "what was finished is kept" in error and "Traceback" not in error
    assert "interrupted; go on with: make course FROM=02" in out
    assert not psutil.pid_exists(kernel)
    (tmp_path / "go").touch()
    again = course()
    again.run()
    assert "01_a  unchanged, skipped" in again.out.getvalue() and "02_b  done in" in again.out.getvalue()


@pytest.mark.slow
def test_a_run_under_nohup_outlives_its_terminal(course, waiting, tmp_path):
    runner, kernel = waiting("SIGHUP", "SIGINT")
    os.kill(runner.pid, signal.SIGHUP)
    os.kill(runner.pid, signal.SIGINT)
    time.sleep(1)
    assert runner.poll() is None and psutil.pid_exists(kernel)
    (tmp_path / "go").touch()
    out, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0 and "[2/2] 02_b  done in" in out
    assert course().up_to_date(course.folder / "02_b.ipynb")
    (tmp_path / "go").unlink()
    runner, _ = waiting("SIGHUP", "SIGINT")
    runner.terminate()
    assert runner.wait(timeout=60) == 128 + signal.SIGTERM
    assert not course().up_to_date(course.folder / "02_b.ipynb")  # what it wrote the first time is gone


LAST = {"seconds": 50.0, "stages": {"loading": [0.0, 10.0], "training": [10.0, 40.0]}}
HALF = {"label": "training (3 per s)", "done": 12.5, "total": 25}


@pytest.mark.parametrize(
    ("last", "looks", "expected"),
    [
        ({}, [(5, None)], None),
        ({"seconds": 50.0}, [(5, None)], 50.0),
        ({"seconds": 50.0}, [(51, None)], None),  # not "4:01 of about 0:51"
        ({"seconds": 50.0}, [(20, HALF | {"done": 0}), (100, HALF)], 180.0),
        ({"seconds": 500.0}, [(20, HALF | {"done": 0}), (100, HALF)], 500.0),
        (LAST, [(25, HALF)], 50.0),
        (LAST, [(75, HALF)], 150.0),  # three times as slow so far, so it stays
        (LAST, [(60, HALF | {"label": "saving"})], None),
        ({}, [(10, HALF), (20, HALF | {"done": 0}), (30, HALF | {"done": 5})], 70.0),  # its second time counts anew
    ],
)
def test_the_forecast_follows_what_is_seen(last, looks, expected):
    forecast = Forecast(last)
    for seconds, stage in looks:
        found = forecast.see(seconds, stage)
    assert found == pytest.approx(expected) if expected else found is None


def test_a_progress_line_shows_what_moves(tmp_path):
    out = io.StringIO()
    line = Line(out, "[1/2] 01_a")
    for seconds, done in ((29, 1), (30, 2.25), (59, 3), (61, 4000000)):
        line.show(seconds, {"label": "sampling", "done": done, "total": 5000000}, 241.0)
    assert out.getvalue().splitlines() == [
        "[1/2] 01_a  sampling 2.2/5000000  0:30 of about 4:01",
        "[1/2] 01_a  sampling 4000000/5000000  1:01 of about 4:01",
    ]


@pytest.mark.slow
def test_adopted_data_replace_the_first_two_notebooks(course):
    for name in ("00_a", "01_b", "02_c", "03_d"):
        write_notebook(course.folder / f"{name}.ipynb", OPEN_RUN, *['run.read("filtered")'] * (name == "03_d"))
    overrides = {"data.adopt": str(Path(__file__).parent / "fixtures" / "acecode.jsonl"), "data.adopt_rows": 3}
    adopting = course(overrides=overrides)
    adopting.run()
    said = adopting.out.getvalue()
    assert "adopted, notebook 03 samples programs" in said and "01_b  left out: what it makes comes from" in said
    assert "[1/2] 00_a  done in" in said and "[2/2] 03_d  done in" in said and "02_c  done" not in said
    assert adopting.store.manifest("filtered")["adopted"]["command"].startswith("make course SET=")
    again = course(overrides=overrides)
    again.run("01")
    assert "adopted before, kept" in again.out.getvalue() and "[1/1] 03_d  unchanged, skipped" in again.out.getvalue()
    with pytest.raises(NotebookError, match="01_b makes what profile pocket takes from .*data.adopt"):
        course(overrides=overrides).run(only="01")


def test_what_is_missing_is_said_before_the_first_notebook(course, monkeypatch):
    write_notebook(course.folder / "00_a.ipynb", "x = 1")
    sound = Machine("2.13.0", (80, 90), "580.65.06", None, (Gpu("NVIDIA A100", (8, 0)),))
    for changes, said in [
        (
            {"gpus": (), "driver": None, "said": "Found no NVIDIA driver on your system"},
            "has no NVIDIA driver; go to a machine with a GPU",
        ),
        (
            {"gpus": (), "said": "Torch not compiled with CUDA enabled"},
            "torch 2.13.0 can use no GPU: it was built without CUDA; run `python -m pip install",
        ),
        ({}, "engine.launch starts 8 processes on this machine, and it has 1 GPU"),
    ]:
        monkeypatch.setattr("acelib.models.ask_apart", lambda what, changes=changes: replace(sound, **changes))
        with pytest.raises(DeviceError, match=f"^Profile pocket needs a GPU, which PROFILE=pocket does not: .*{said}"):
            course(overrides={"models.device": "cuda", "engine.launch": "configs/zero3-8.yaml"}).run()
    write_notebook(course.folder / "04_b.ipynb", "x = 1")
    write_notebook(course.folder / "05_c.ipynb", "x = 1")
    vllm = {"models.device": "cuda", "engine.generation": "vllm"}
    with pytest.raises(EngineError, match="^Profile pocket cannot be run: with engine.launch = none, vLLM"):
        course(overrides=vllm).run()
    wide = vllm | {"engine.launch": "configs/gpu-1.yaml", "engine.vllm_parallel": 2}
    with pytest.raises(EngineError, match="engine.vllm_parallel = 2 GPUs, and a machine has 1; lower it"):
        course(overrides=wide).run()
    for name in ("04_b", "05_c"):
        (course.folder / f"{name}.ipynb").unlink()
    with pytest.raises(CourseError, match="There is no benchmark at .*none.jsonl"):
        course(overrides={"data.benchmark": "data/none.jsonl"}).run()
    with pytest.raises(CourseError, match="There is no file none.jsonl"):
        course(overrides={"data.adopt": "none.jsonl"}).run()
    assert not (course().dir / "notebooks").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["course", "--profile", "pockt"], "There is no profile 'pockt'. Known profiles: "),
        (["course", "--set", "reinforce.step=2"], "Did you mean 'reinforce.steps'?"),
        (["course", "--set", "reinforce.steps=0"], "reinforce.steps must be greater than or equal to 1, not 0"),
        (["course", "--set", "reinforce.steps"], "is not key=value, as in reinforce.steps=2; leave no blanks"),
        (["course", "--set", "=2"], "is not key=value"),
        (["course", "--set", "best_of_n.ns=[1,"], "'best_of_n.ns=[1,' is not YAML; put text with special signs into"),
        (["course", "--set", "models.policy=@x"], "is not YAML"),
        (["course", "--set", "name=2026-13-45"], "is not YAML"),
        (
            ["course", "--set", "reinforce.learning_rate=1e-5x"],
            "reinforce.learning_rate must be a number (could not convert string to float: '1e-5x')",
        ),
        (["course", "--only", "77"], "There is no notebook '77'"),
        (["scorecard", "--check", "/nonexistent"], "is not a run directory"),
    ],
)
def test_bad_arguments_are_one_sentence_and_a_non_zero_exit(arguments, said, capsys, tmp_path):
    if arguments[0] == "course":
        arguments = [*arguments, "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1
