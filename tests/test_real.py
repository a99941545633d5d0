"""What the recorded run of a real model in data/real says of itself, and that today's judge says the same."""

import ast
from statistics import fmean

import numpy as np
import pytest

from acelib.core import ROOT, read_rows
from acelib.judge import LLM_PRELUDE, Judge, Submission
from acelib.stats import auc, paired_bootstrap

LABORATORY = ROOT / "data" / "real" / "laboratory.parquet"


@pytest.fixture(scope="module")
def rows():
    return read_rows(LABORATORY)


@pytest.fixture(scope="module", params=["laboratory", "laboratory_mbpp"])
def both(request):
    """The rows of one benchmark, then of the other."""
    return read_rows(LABORATORY.with_name(f"{request.param}.parquet"))


def test_every_row_is_complete(both):
    assert len({row["id"] for row in both}) == len(both)
    for row in both:
        samples, tests = len(row["programs"]), len(row["tests"])
        assert samples == len(row["correct"]) == len(row["pass_rate"]) == len(row["results"]) == 16
        assert tests == len(row["valid"]) == len(row["shown"]) == len(row["greedy_results"]) == len(set(row["tests"]))
        assert all(len(verdicts) == tests for verdicts in row["results"])
        assert row["correct"] == [rate == 1.0 for rate in row["pass_rate"]]
        assert all(row["entry_point"] in test for test in row["tests"])


def test_no_text_of_a_benchmark_is_shipped(both):
    """Programs lost their docstrings and comments, which repeat the question."""
    for row in both:
        for program in (row["greedy_program"], *row["programs"]):
            tree = ast.parse(program or "")
            assert ast.unparse(tree) == (program or "")
            documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            assert not any(ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))


def test_the_judge_of_today_agrees(both):
    """A sixteenth of the verdicts on imagined tests, judged again."""
    chosen = [row for row in both[::16] if row["tests"]]
    with Judge(workers=1) as judge:
        reports = judge.run(
            Submission(program, tuple(row["tests"]), LLM_PRELUDE, entry_point=row["entry_point"])
            for row in chosen
            for program in row["programs"]
        )
    recorded = [verdicts for row in chosen for verdicts in row["results"]]
    same = [
        bool(one.passed) == before
        for report, verdicts in zip(reports, recorded, strict=True)
        for one, before in zip(report.verdicts, verdicts, strict=True)
    ]
    assert fmean(same) > 0.995  # helpers that a prompt gave are not shipped with it


def test_features_belong_to_the_programs(rows):
    """One row per layer and question, and what separates right from wrong programs is in them."""
    features = read_rows(LABORATORY.with_name("features.parquet"))
    layers = {row["layer"] for row in features}
    known = {row["id"]: row for row in rows}
    assert {(row["layer"], row["id"]) for row in features} == {(layer, name) for layer in layers for name in known}
    last = {row["id"]: row for row in features if row["layer"] == max(layers)}
    states = {
        name: np.frombuffer(row["features"], np.float16).reshape(row["programs"], -1) for name, row in last.items()
    }
    assert {one.shape for one in states.values()} == {(17, 128)}
    assert all(np.allclose(one.astype(float).mean(0), 0, atol=0.02) for one in states.values())

    mixed = [name for name, row in known.items() if len(set(row["correct"])) == 2]
    means = {}  # right minus wrong, per question
    for name in mixed:
        right = np.array(known[name]["correct"])
        means[name] = states[name][1:][right].mean(0) - states[name][1:][~right].mean(0)
    found = []
    for half in (0, 1):  # the direction of one half ranks the other
        direction = np.mean([means[name] for name in mixed[half::2]], axis=0, dtype=float)
        for name in mixed[1 - half :: 2]:
            found.append(auc((states[name][1:].astype(float) @ direction).tolist(), known[name]["correct"]))
    assert fmean(found) > 0.6


def test_the_recipe_is_complete_and_its_pieces_belong_together():
    asked = read_rows(LABORATORY.with_name("recipe.parquet"))
    assert len({row["id"] for row in asked}) == len(asked) == 300
    for row in asked:
        tests = len(row["tests"])
        assert bool(row["question"]) == bool(row["entry_point"]) == bool(tests)
        assert len(row["valid"]) == len(row["proxy_results"]) == tests == len(set(row["tests"]))
        assert row["kept"] == (sum(row["proxy_results"]) >= 3)
        assert len(row["programs"]) == len(row["results"]) == 16 * row["kept"]
        assert all(len(verdicts) == tests for verdicts in row["results"])
    usable = [row for row in asked if row["question"]]
    assert len(usable) >= 0.9 * len(asked) and all(row["entry_point"] in row["question"] for row in usable)
    assert fmean(len(row["tests"]) for row in usable) >= 6


def test_the_recorded_reward_models_scored_every_program(rows):
    samples = {row["id"]: len(row["programs"]) for row in rows}
    tasks = {row["id"]: 4 for row in policies("start") if row["id"].startswith("MBPP")}
    scores = {}
    for row in read_rows(LABORATORY.with_name("reward.parquet")):
        scores.setdefault(row["model"], {})[row["id"]] = row
    asked = {"8 updates": samples, "80 updates": samples | tasks}
    assert {name: {one: len(row["scores"]) for one, row in found.items()} for name, found in scores.items()} == asked
    assert np.isfinite([row["greedy"] for found in scores.values() for row in found.values()]).all()


TRAINED = [("rule", 0), ("rule", 1), ("rule", 2), ("rm", 0), ("rm", 1)]  # the reward, the seed


def policies(name, seed=0, file="policies"):
    rows = read_rows(LABORATORY.with_name(f"{file}.parquet"))
    return [row for row in rows if (row["policy"], row["seed"]) == (name, seed)]


def test_the_policies_answered_the_same_questions():
    start, *trained = (policies(*which) for which in [("start", 0), *TRAINED])
    assert len(start) == 164 + 200
    assert all([row["id"] for row in mine] == [row["id"] for row in start] for mine in trained)
    assert len({tuple(tuple(row["programs"]) for row in mine) for mine in trained}) == len(TRAINED)
    for row in [*start, *(row for mine in trained for row in mine)]:
        assert len(row["programs"]) == 1 + len(row["correct"]) and set(row["correct"]) <= {True, False}
        for program in row["programs"]:
            assert program is None or ast.unparse(ast.parse(program)) == program  # no comment, no text of a benchmark


def test_the_training_tasks_have_eight_programs_each():
    tasks = read_rows(LABORATORY.with_name("mbpp_train.parquet"))
    assert len({row["id"] for row in tasks}) == len(tasks) == 160
    assert all(len(row["pass_rate"]) == 8 and 0 <= min(row["pass_rate"]) <= max(row["pass_rate"]) <= 1 for row in tasks)
    mixed = [len({rate == 1.0 for rate in row["pass_rate"]}) == 2 for row in tasks]
    assert sum(mixed) == 77  # those that RL was trained on


def test_every_rollout_is_logged():
    logs = {which: [] for which in TRAINED}
    for row in read_rows(LABORATORY.with_name("rollouts.parquet")):
        logs[row["policy"], row["seed"]].append(row)
    for (name, _), log in logs.items():
        assert [row["step"] for row in log] == list(range(17))
        for row in log[1:]:
            assert row["sampled"] == 64 and 0 <= row["reward_rule"] <= 1
            assert (row["reward"] == row["reward_rule"]) == (name == "rule")
        assert log[1]["kl"] == 0 < log[-1]["kl"]


def test_what_its_own_questions_taught_is_as_the_page_says():
    """One run with the rule on synthesised questions, against the start of the others."""
    log = read_rows(LABORATORY.with_name("rollouts_imagined.parquet"))
    assert [(row["step"], row["policy"], row["seed"]) for row in log] == [(step, "rule", 0) for step in range(9)]
    assert all(row["sampled"] == 64 and row["reward"] == row["reward_rule"] for row in log[1:])
    start, trained = policies("start"), policies("rule", file="policies_imagined")
    assert [row["id"] for row in trained] == [row["id"] for row in start]
    page = " ".join((ROOT / "docs" / "real.md").read_text(encoding="utf-8").split())
    passed = [fmean(row["reward"] for row in part) for part in (log[1:5], log[5:])]
    assert "of the replies {:.0%} passed in the first four and {:.0%} in the last four".format(*passed) in page
    for benchmark in ("MBPP", "HumanEval"):
        for of in (lambda row: float(row["greedy"]), lambda row: fmean(row["correct"])):
            after, before = ([of(row) for row in some if row["id"].startswith(benchmark)] for some in (trained, start))
            value, low, high = (100 * one for one in paired_bootstrap(after, before))
            assert f"{value:+.1f} ({low:+.1f} to {high:+.1f})" in page.replace(" points", ""), (benchmark, value)


def test_the_baselines_cover_both_prompts():
    baselines = read_rows(LABORATORY.with_name("baselines.parquet"))
    asked = {prompt: [row["id"] for row in baselines if row["prompt"] == prompt] for prompt in ("profile", "EvalPlus")}
    assert asked["profile"] == asked["EvalPlus"] and len(asked["profile"]) * 2 == len(baselines)
    assert sum(one.startswith("HumanEval") for one in asked["profile"]) == 164
