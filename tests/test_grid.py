"""The grid's plan, two of its trainings on tiny values, and its tables."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from in_notebooks import notebook_function
from tiny_models import judged_rows

from acelib.advantages import ALGORITHMS
from acelib.core import ArtifactError, DataError, DeviceError, assume
from acelib.core.profiles import ROOT, load_profile
from acelib.core.run import Run
from acelib.core.tables import read_rows
from acelib.pocket.laboratory import Laboratory
from experiments.filters import own_questions, reward_tests, trusted_tests
from experiments.grid import (
    CHOICES,
    PUBLISHED,
    REWARDS,
    SEEDS,
    TESTS,
    VARIANTS,
    Policy,
    Scorer,
    artefact,
    by_tests,
    check_engine,
    policies,
    run_grid,
    scorers,
)
from experiments.teachers import SPECS
from experiments.trainings import chosen_questions, train_policy


def read_table(name, folder=PUBLISHED):
    return read_rows(folder / f"{name}.jsonl")


RATES = [[1.0, 1.0], [0.0, 0.0], [0.5, 1.0], [0.2, 0.4], [0.9, 0.1], [1.0, 0.0], [0.3, 0.3], [0.6, 0.5]]


def test_every_training_has_a_name_of_its_own():
    names = [artefact(spec) for spec in [*policies(), *scorers(), *by_tests()]]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in names)


def test_the_plan_compares_at_equal_budgets_on_three_seeds():
    short = [spec for spec in policies() if 0 < spec.steps < 80]
    assert {spec.steps for spec in short if spec.algorithm != "dapo"} == {24}
    for reward in REWARDS:
        assert {spec.seed for spec in short if spec.reward == reward} == set(SEEDS)
    assert {(spec.reward, spec.algorithm) for spec in short} >= {("rule", one) for one in ALGORITHMS}
    assert len(scorers()) == len(VARIANTS) * len(SEEDS)


def test_choices_of_questions_are_equally_large():
    chosen = {choice: chosen_questions(RATES, choice, seed=1) for choice in CHOICES}
    assert len({len(indices) for indices in chosen.values()}) == 1
    assert all(len({rate == 1.0 for rate in RATES[i]}) == 2 for i in chosen["mixed"])
    assert chosen["random"] == chosen_questions(RATES, "random", seed=1)


def test_the_trusted_set_is_that_of_appendix_a6():
    there, score = (notebook_function("A6", name) for name in ("trusted_tests", "agreement"))
    rng = np.random.default_rng(0)
    for _ in range(50):
        results = rng.random((8, 5)) < rng.random((1, 5))
        assert (trusted_tests(results, 0.25) == there(results, score(0.25))).all()


def test_tests_behind_the_reward(tmp_path):
    run = Run(tmp_path, load_profile("pocket"))
    question = "Define `f(word)` for a string. Sort the characters, and after that select the vowels"
    tests = ["assert f('bea') == 'ae'", "assert f('uo') == 'ou'", "assert f('xi') == 'x'", "assert f('a') == ''"]
    results = [[True, True, False, False]] * 3 + [[True, False, True, True]]
    row = {
        "id": "q",
        "question": question,
        "test_cases": tests,
        "inferences": [{"test_results": one} for one in results],
    }
    new = {
        "id": "q",
        "results": results,
        "calls": ["f('aab')"],
        "values": [["'a'", "'aa'"]],
        "outputs": [[0, 0, 0, 1]],
        "proxy_outputs": [1],
        "votes": [[1] * 7 + [-1]],
    }
    tables = {"samples_unfiltered": [row], "samples": [row | {"test_cases": tests[:1]}], "distinguishing": [new]}
    run.adopt(tables, {"source": "a test"})
    kept = {name: reward_tests(run, name)["q"] for name in TESTS}
    hidden = kept.pop("hidden")
    assert len(set(hidden)) == 20 and all(Laboratory().test_is_valid(question, test) for test in hidden)
    assert kept == {
        "proxy": (tests[0],),
        "all": tuple(tests),
        "agreement": (tests[0], tests[2], tests[3]),
        "truth": tuple(tests[:2]),
        "agreement, made": (tests[0], tests[2], tests[3], "assert f('aab') == 'aa'"),
        "proxy, made": (tests[0], "assert f('aab') == 'aa'"),
    }


def test_filters_want_a_laboratory(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: pocket\nname: mine\ndata: {laboratory: false}\n")
    with pytest.raises(DataError, match="mine has no laboratory; ask for one of the other tables"):
        run_grid(str(tmp_path / "mine.yaml"), tmp_path / "run", only="filters")


def test_a_filter_chooses_its_own_questions(tmp_path):
    profile = load_profile("pocket")
    run = Run(tmp_path, assume(profile, filtering=assume(profile.filtering, min_tests=2)))
    programs = [[True, True, False], [True, False, False], [True, True, False], [False, False, True]]
    rows = [
        {
            "id": str(number),
            "test_cases": ["a", "b", "c"][:size],
            "inferences": [{"test_results": one[:size], "pass_rate": 0.0} for one in programs],
        }
        for number, size in enumerate((3, 1, 3, 3, 3))
    ]
    run.adopt({"samples_imagined": rows}, {"source": "a test"})
    chosen = own_questions(run, "agreement")
    assert [row["id"] for row in chosen] == ["0", "2", "3", "4"] and chosen[0]["test_cases"] == ["a", "b"]
    assert [one["pass_rate"] for one in chosen[0]["inferences"]] == [1, 0.5, 1, 0]


def test_published_tables_are_whole():
    base = [row for row in read_table("rl") if row["steps"] == 0]
    assert len(base) == 1
    for row in read_table("rl"):
        assert len(row["correct"]) == len(row["greedy"]) == len(base[0]["correct"])
        assert max(row["correct"]) <= row["samples"] and set(row["greedy"]) <= {0, 1}
    made = {
        (row["reward"], row["algorithm"], row["questions"], row["steps"], row["max_kl"], row["seed"])
        for row in read_table("rl")
    }
    assert made == {(s.reward, s.algorithm, s.questions, s.steps, s.max_kl, s.seed) for s in policies()}
    assert {(row["variant"], row["seed"]) for row in read_table("rm")} == {(s.variant, s.seed) for s in scorers()}
    made = [(row["tests"], row["questions"], row["seed"]) for row in read_table("filters")]
    assert made == [(spec.tests, spec.questions, spec.seed) for spec in by_tests()]
    teachers = {(row["teacher_steps"], row["min_tests"]): row["valid"] for row in read_table("teachers")}
    assert list(teachers) == [(550, 5), (550, 1), (1100, 5)] and teachers[550, 5] < teachers[1100, 5]
    for (steps, fewest), valid in teachers.items():
        mine = [row for row in read_table("teachers") if (row["teacher_steps"], row["min_tests"]) == (steps, fewest)]
        made = [(row["tests"], row["questions"], row["seed"]) for row in mine]
        assert made == [(s.tests, s.questions, s.seed) for s in SPECS if s.tests == "proxy" or fewest == 5]
        assert all(row["asked"] > 0 and row["valid"] == valid < row["valid_kept"] for row in mine)
        assert all({"no filter", "strong"} <= row["filters"].keys() for row in mine)
    assert (PUBLISHED / "provenance.json").is_file()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A profile file and a run with all that trainings start from: four questions, two programs each."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "tiny.yaml").write_text(
        f"extends: {ROOT / 'tests' / 'smoke'}\nname: tiny\nmodels: {{device: cpu}}\nthreads: 1\n"
        "reward_model: {batch_size: 2, held_out: 0.01}\nevaluation: {questions: 2}\nreinforce: {eval_questions: 2}\n"
    )
    run = Run(folder / "run", load_profile(folder / "tiny.yaml"))
    programs = ["def solve(xs):\n    return sum(xs)\n", "def solve(xs):\n    return len(xs)\n"]
    samples = judged_rows(programs, (1.0, 0.5))
    true = [
        {
            "id": row["id"],
            "question": row["question"],
            "completion": programs,
            "true_rate": [1.0, 0.5],
            "completions": programs * 8,
            "correct": [True, False] * 8,
        }
        for row in samples
    ]
    for name, rows in (
        ("samples", samples),
        ("samples_unfiltered", samples),
        ("imagined", samples),
        ("reward_audit", true),
        ("candidates", true),
    ):
        run.table(name, lambda scratch, rows=rows: rows)
    return folder / "tiny.yaml", run


@pytest.mark.slow
def test_trainings_are_made_and_become_tables(finished, tmp_path):
    profile, run = finished
    specs = [Policy("rule", steps=1), Scorer("paper")]
    written = run_grid(str(profile), run.dir, target=tmp_path, specs=specs)
    assert [path.name for path in written] == ["rm.jsonl", "rl.jsonl"]
    (policy,), (scorer,) = read_table("rl", tmp_path), read_table("rm", tmp_path)
    assert policy["rollouts"] == 1 and len(policy["correct"]) == policy["samples"] == 2
    assert (scorer["pairs"], scorer["questions"]) == (4, 4) and len(scorer["auc"]) == len(scorer["best_of_16"]) == 4


@pytest.mark.slow
def test_trainings_heed_the_engine_and_go_on_after_a_stop(finished, tmp_path, monkeypatch):
    profile, run = finished
    adapted = Run(run.dir, load_profile(profile, {"engine.lora_rank": 2}))
    spec = Policy("rule", steps=1)
    monkeypatch.setattr("experiments.trainings.evaluate", lambda *a, **k: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        train_policy(adapted, spec, tmp_path)
    assert json.loads((tmp_path / "training" / "settings.json").read_text())["lora_rank"] == 2
    monkeypatch.undo()
    monkeypatch.setattr("experiments.trainings.make_reinforce_trainer", lambda *a, **k: pytest.fail("trained again"))
    assert len(train_policy(adapted, spec, tmp_path)["correct"]) == 2


def test_what_the_grid_cannot_do_is_said_before_it_starts(finished, tmp_path):
    profile, run = finished
    several = load_profile("pocket", {"engine.launch": "configs/cpu-2.yaml"})
    with pytest.raises(DataError, match="profile pocket has engine.launch configs/cpu-2.yaml .*; set both to none in"):
        check_engine(several)
    fast = load_profile("pocket", {"engine.generation": "vllm"})
    with pytest.raises(DataError, match="needs the GPU to itself; leave out --processes 3"):
        check_engine(fast, 3)
    assert check_engine(load_profile("pocket", {"models.device": "cpu"})) == 2
    with pytest.raises(ArtifactError, match="There is no 'samples' in .*; run notebook 03 first"):
        run_grid(str(profile), tmp_path, specs=[Policy("rule")])


STOPPED = """
import os, time
from pathlib import Path
from acelib.core import stoppable
from experiments import grid

def slow(profile, run_dir, spec):
    Path(run_dir, f"{spec.seed}-{os.getpid()}").touch()
    time.sleep(600)

if __name__ == "__main__":
    grid._make = slow
    with stoppable():
        grid.train_all("pocket", Path.cwd(), [grid.Policy("rule", seed=seed) for seed in (0, 1, 2)], 2, "transformers")
"""


@pytest.mark.slow
def test_a_stopped_grid_does_not_wait_for_its_trainings(tmp_path):
    (tmp_path / "stopped.py").write_text(STOPPED)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    grid = subprocess.Popen(
        [sys.executable, "stopped.py"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while len(started := list(tmp_path.glob("[012]-*"))) < 2:
        assert grid.poll() is None, grid.stderr.read()
        time.sleep(0.1)
    grid.terminate()
    _, said = grid.communicate(timeout=120)
    assert grid.returncode == 128 + signal.SIGTERM and "what was finished is kept" in said
    assert not any(psutil.pid_exists(int(path.name[2:])) for path in started)


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_the_grid_asks_for_its_gpu_first(finished):
    with pytest.raises(DeviceError, match="no NVIDIA driver; .* set models.device to cpu"):
        check_engine(load_profile("pocket", {"models.device": "cuda"}))
