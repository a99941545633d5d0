"""What the recorded run of a real model in data/real says of itself, and that today's judge says the same."""

import ast
from statistics import fmean

import pytest

from acelib.core import ROOT, read_rows
from acelib.judge import LLM_PRELUDE, Judge, Submission

LABORATORY = ROOT / "data" / "real" / "laboratory.parquet"


@pytest.fixture(scope="module")
def rows():
    return read_rows(LABORATORY)


def test_every_row_is_complete(rows):
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        samples, tests = len(row["programs"]), len(row["tests"])
        assert samples == len(row["correct"]) == len(row["pass_rate"]) == len(row["results"]) == 16
        assert tests == len(row["valid"]) == len(row["shown"]) == len(row["greedy_results"]) == len(set(row["tests"]))
        assert all(len(verdicts) == tests for verdicts in row["results"])
        assert row["correct"] == [rate == 1.0 for rate in row["pass_rate"]]
        assert all(row["entry_point"] in test for test in row["tests"])


def test_no_text_of_a_benchmark_is_shipped(rows):
    """Programs lost their docstrings and comments, which repeat the question."""
    for row in rows:
        for program in (row["greedy_program"], *row["programs"]):
            tree = ast.parse(program or "")
            assert ast.unparse(tree) == (program or "")
            documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            assert not any(ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))


def test_the_judge_of_today_agrees(rows):
    """A sixteenth of the verdicts on imagined tests, judged again."""
    chosen = [row for row in rows[::16] if row["tests"]]
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
