"""HumanEval and MBPP as judge submissions, when the public data lies beside the repository."""

import ast
from pathlib import Path

from acelib.data.benchmarks import benchmark_rows, read_benchmark
from acelib.judge import Submission

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def reference_programs(path: str | Path) -> list[str | None]:
    """The benchmark's own solutions in the order of its problems; None where the file has none."""
    found = []
    for row in benchmark_rows(path):
        solution = row.get("canonical_solution")
        found.append(row.get("code") if solution is None else row["prompt"] + solution)
    return found


def humaneval() -> dict[str, Submission]:
    return _submissions(DATA / "humaneval.jsonl.gz")


def mbpp() -> dict[str, Submission]:
    return _submissions(DATA / "mbpp.jsonl")


def _submissions(path: Path) -> dict[str, Submission]:
    problems, programs = read_benchmark(path), reference_programs(path)
    return {
        problem.id: Submission(program, problem.tests, setup_after=problem.setup)
        for problem, program in zip(problems, programs, strict=True)
    }


def twisted(submission: Submission) -> Submission:
    """The same program, but every function that the tests call returns something a little different."""
    names = {n.name for n in ast.parse(submission.program).body if isinstance(n, ast.FunctionDef)}
    used = {n.id for test in submission.tests for n in ast.walk(ast.parse(test)) if isinstance(n, ast.Name)}
    twist = _TWIST + "".join(f"{name} = _twist({name})\n" for name in sorted(names & used))
    return Submission(submission.program, submission.tests, setup_after=f"{submission.setup_after}\n{twist}")


_TWIST = """
def _twist(function):
    def changed(*args, **kwargs):
        value = function(*args, **kwargs)
        if isinstance(value, bool): return not value
        if isinstance(value, (int, float, complex)): return value + 1
        if isinstance(value, str): return value + "?"
        if isinstance(value, (list, tuple)): return value + type(value)([object])
        return ["twisted"]
    return changed
"""
