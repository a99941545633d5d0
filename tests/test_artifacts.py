"""Artefacts: built once, rebuilt when something they depend on changes, whole or not at all."""

import json
import subprocess
import sys
from types import FunctionType

import pytest

from acelib.core import ArtifactError, is_current, making, read_manifest
from acelib.core import run as artifacts
from acelib.core.digests import fingerprint
from acelib.core.profiles import ROOT, load_profile
from acelib.core.run import Run

FACTOR = 2


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, load_profile("pocket"))


def with_profile(run, **overrides):
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return Run(run.dir, load_profile("pocket", dotted))


def count_builds(run, name="a", **options):
    built = []
    run.table(name, lambda scratch: built.append(1) or [{"x": 1}], **options)
    return len(built)


def test_unchanged_is_kept_and_changed_params_rebuild(run):
    assert [count_builds(run, params={"k": k}) for k in (1, 1, 2)] == [1, 0, 1]


def test_a_changed_input_rebuilds(run):
    for value, expected in ((1, 1), (1, 0), (2, 1)):
        run.table("up", lambda scratch, value=value: [{"x": value}])
        assert count_builds(run, "down", inputs=("up",)) == expected


def test_profile_values_a_builder_reads_count_and_others_do_not(run):
    def make(run):
        built = []

        def build(scratch):
            built.append(1)
            return [{"n": run.profile.sampling.n}]

        run.table("samples", build)
        return len(built)

    assert make(run) == 1
    assert make(with_profile(run, reinforce__steps=3, judge__workers=1)) == 0
    assert make(with_profile(run, sampling__n=4)) == 1
    assert make(with_profile(run, sampling__n=4, seed=1)) == 1


def test_what_changes_memory_alone_makes_nothing_anew(run):
    """A message that says to lower one of these also says that the run goes on from its checkpoint."""

    def make(run):
        built = []

        def build(path, scratch):
            built.append(run.profile.reinforce.steps + run.profile.reward_model.epochs)
            (path / "weights").write_text("")

        run.folder("policy", build)
        return len(built)

    less = {"reinforce__micro_batch": 1, "reinforce__reward_seconds": 9, "reward_model__micro_batch": 1}
    less |= {"reward_model__score_batch": 1}
    assert [make(with_profile(run, **now)) for now in ({}, less, less | {"reinforce__steps": 3})] == [1, 0, 1]


def test_code_of_acelib_modules_counts_and_that_of_tools_does_not(monkeypatch):
    from acelib.core import digests

    seen, parse = set(), digests._parse
    monkeypatch.setattr(digests, "_parse", lambda file, stamp: seen.add(file.stem) or parse(file, stamp))
    digests.modules_digest(["acelib.sampling", "acelib.plots"])
    assert {"sampling", "generation", "schema", "judge", "pool"} <= seen
    assert not {"plots", "run", "reinforce_trainer", "laboratory"} & seen


def test_values_from_outside_the_builder_count(run, monkeypatch):
    def build(scratch):
        return [{"x": FACTOR}]

    assert run.table("a", build) == [{"x": 2}]
    monkeypatch.setitem(build.__globals__, "FACTOR", 3)
    assert run.table("a", build) == [{"x": 3}]


def test_model_weights_count(run, tmp_path):
    weights = tmp_path / "model" / "weights"
    weights.parent.mkdir()

    class Model:
        name_or_path = str(weights.parent)

    model = Model()

    def build(scratch):
        return [{"x": weights.read_text() if model else ""}]

    weights.write_text("old")
    assert run.table("a", build) == [{"x": "old"}]
    weights.write_text("new")
    assert run.table("a", build) == [{"x": "new"}]


def test_missing_names_the_notebook_that_makes_it(run, monkeypatch):
    monkeypatch.setattr(artifacts, "producers", lambda: {"pairs": "03"})
    with pytest.raises(ArtifactError, match="There is no 'pairs' .* run notebook 03 first: make course FROM=03"):
        run.read("pairs")
    with pytest.raises(ArtifactError, match="There is no 'pairs'"):
        run.table("next", lambda scratch: [], inputs=("pairs",))


def test_producers_are_read_off_the_notebooks():
    for name, number in artifacts.producers().items():
        assert number.isdigit() and name.isidentifier()


@pytest.mark.parametrize("change", [{"versions": {"torch": "1.0"}}, {"format": 0}])
def test_made_by_another_version_is_refused_and_remade(run, change):
    count_builds(run)
    path = run.dir / "artifacts" / "a.manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, **change, "key": "of that version"}))
    with pytest.raises(ArtifactError, match="'a' in .* was made by another version .*; run "):
        run.read("a")
    assert count_builds(run) == 1 and run.read("a") == [{"x": 1}]


def test_a_damaged_table_is_refused_and_remade(run):
    count_builds(run)
    path = run.path("a")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="changed or damaged after it was written; delete it"):
        run.read("a")
    assert count_builds(run) == 1


def test_an_undeclared_input_is_refused(run):
    count_builds(run, "a")
    with pytest.raises(ArtifactError, match="reads 'a' without declaring it; add it to `inputs`"):
        run.table("b", lambda scratch: run.read("a"))


def test_scratch_survives_a_crash_and_goes_on_success(run):
    def build(scratch):
        half = scratch / "half"
        if not half.exists():
            half.write_text("done")
            raise RuntimeError("crash")
        return [{"x": half.read_text()}]

    with pytest.raises(RuntimeError):
        run.table("a", build)
    assert run.table("a", build) == [{"x": "done"}]
    assert not list((run.dir / "scratch").iterdir())


def test_a_failed_rebuild_keeps_the_old_artefact(run):
    count_builds(run)
    with pytest.raises(RuntimeError):
        run.table("a", lambda scratch: (_ for _ in ()).throw(RuntimeError("no")))
    assert run.read("a") == [{"x": 1}]
    assert not list((run.dir / "artifacts").glob(".*"))


def test_folders(run):
    def build(path, scratch):
        (path / "sub").mkdir()
        (path / "sub" / "file").write_text("x")

    assert (run.folder("model", build) / "sub" / "file").read_text() == "x"
    with pytest.raises(ArtifactError, match=r"is a folder; use run.path\('model'\)"):
        run.read("model")
    assert run.path("model").is_dir()


def test_metrics_add_up_and_figures_are_saved_with_captions(tmp_path):
    import matplotlib.pyplot as plt

    from acelib.course import NotebookRun

    run = NotebookRun(tmp_path, load_profile("pocket"))
    run.metrics({"a": 1}, notebook="01_x")
    run.metrics({"b": {"value": float("nan"), "low": 0.5, "high": 1.5}}, notebook="01_x")
    recorded = {"a": 1, "b": {"value": None, "low": 0.5, "high": 1.5}}
    assert json.loads((run.dir / "metrics" / "01_x.json").read_text()) == recorded
    run.figure(plt.figure(), "one", "Is it drawn?", notebook="01_x")
    run.figure(plt.figure(), "two", "And this?", notebook="01_x")
    figures = run.dir / "figures" / "01_x"
    assert [json.loads((figures / f"{name}.json").read_text())["order"] for name in ("one", "two")] == [0, 1]
    assert (figures / "one.png").stat().st_size > 0
    assert not plt.get_fignums()


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_a_full_disk_is_one_sentence_and_keeps_what_was_finished(tmp_path, kind):
    """A file-size limit stands in for the full disk: both make write(2) fail."""
    script = f"""
import resource, signal, sys
from acelib.core.run import Run
from acelib.core.errors import FullDiskError
from acelib.core.profiles import load_profile
run = Run({str(tmp_path)!r}, load_profile("pocket"))
run.table("small", lambda scratch: [{{"x": 1}}])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
big = [{{"x": str(i) * 50}} for i in range(20_000)]
try:
    if {kind!r} == "table":
        run.table("big", lambda scratch: big)
    else:
        run.folder("big", lambda path, scratch: (path / "weights").write_bytes(b"x" * 100_000) and None)
except FullDiskError as error:
    print(error)
    sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stderr
    assert "The disk is full: big" in done.stdout and "Make room there" in done.stdout
    run = Run(tmp_path, load_profile("pocket"))
    assert run.read("small") == [{"x": 1}]
    assert not (tmp_path / "artifacts" / "big.parquet").exists() and not list((tmp_path / "artifacts").glob(".*"))


def test_a_really_full_file_system(tmp_path):
    """On a 1 MiB tmpfs in a private mount namespace, where the system lets us make one."""
    script = f"""
from acelib.core.run import Run
from acelib.core.errors import FullDiskError
from acelib.core.profiles import load_profile
run = Run({str(tmp_path)!r}, load_profile("pocket"))
run.table("small", lambda scratch: [{{"x": 1}}])
try:
    run.folder("big", lambda path, scratch: (path / "weights").write_bytes(bytes(2**21)) and None)
except FullDiskError as error:
    print(error)
assert run.read("small") == [{{"x": 1}}]
print("kept")
"""
    mount = f'mount -t tmpfs -o size=1m none {tmp_path} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mount, "sh", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("this system lets nobody mount a tmpfs of their own")
    assert "The disk is full" in done.stdout and done.stdout.endswith("kept\n"), done.stderr


def test_a_manifest_tells_what_a_thing_was_made_from_and_whether_it_was_touched(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(KeyError), making(path, {"k": 1}) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert not list(tmp_path.iterdir()) and not is_current(path, {"k": 1})
    with making(path, {"k": 1}, {"rows": 2}) as temporary:
        temporary.write_text("whole")
    assert is_current(path, {"k": 1}) and not is_current(path, {"k": 2}) and read_manifest(path)["rows"] == 2
    with pytest.raises(KeyError), making(path, {"k": 2}) as temporary:
        raise KeyError
    assert path.read_text() == "whole" and is_current(path, {"k": 1})
    path.write_text("edited")
    assert not is_current(path, {"k": 1})
    (tmp_path / "a.manifest.json").write_text("{")
    assert read_manifest(path) is None and not is_current(path, {"k": 1})


def test_progress_reaches_the_reader_every_fifteen_seconds_and_the_runner_twice_a_second(run, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: now[0])
    for seconds in (0, 14, 2, 1):
        now[0] += seconds
        run.progress(now[0] / 100, 3, "sampling")
    assert capsys.readouterr().out == "  sampling: 1.0 of 3\n  sampling: 1.2 of 3\n"
    told = run.dir / "progress"
    monkeypatch.setenv("ACELIB_PROGRESS", str(told))
    for done, seconds in ((1, 0.6), (2, 0.1), (3, 0.1)):
        now[0] += seconds
        run.progress(done, 3, "sampling")
        assert json.loads(told.read_text())["done"] == (3 if done == 3 else 1)


def test_an_attribute_is_no_global_and_a_path_means_what_lies_there():
    """Else a checkout that moved would train again, for a global path that shares its name with `training.policy`."""

    def build(job):
        return job.policy

    def read():
        return policy  # noqa: F821  a global of each space below

    here, same, other = (
        {"policy": where} for where in (str(ROOT / "data/models/policy"), "data/models/policy", "elsewhere")
    )
    keys = [fingerprint(FunctionType(build.__code__, space)) for space in (here, same, other)]
    assert len(set(keys)) == 1
    keys = [fingerprint(FunctionType(read.__code__, space)) for space in (here, same, other)]
    assert keys[0] == keys[1] != keys[2]
