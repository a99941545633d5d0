"""HumanEval and MBPP as judge submissions, when the public data lies beside the repository."""

import ast
import gzip
import json
from pathlib import Path

from acelib.judge import Submission

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def humaneval() -> dict[str, Submission]:
    with gzip.open(DATA / "humaneval.jsonl.gz", "rt") as f:
        rows = [json.loads(line) for line in f]
    return {
        row["task_id"]: Submission(row["prompt"] + row["canonical_solution"], _split(row["test"], row["entry_point"]))
        for row in rows
    }


def _split(test: str, entry_point: str) -> list[str]:
    """The asserts of `check(candidate)`, one by one; the whole of it where it is more than asserts."""
    check = next(n for n in ast.parse(test).body if isinstance(n, ast.FunctionDef))
    body = [n for n in check.body if not isinstance(n, ast.Expr)]
    if not all(isinstance(n, ast.Assert) for n in body):
        return [f"{test}\ncheck({entry_point})\n"]
    for node in ast.walk(check):
        if isinstance(node, ast.Name) and node.id == "candidate":
            node.id = entry_point
    return [ast.unparse(n) for n in body if any(isinstance(c, ast.Call) for c in ast.walk(n))]


def mbpp() -> dict[str, Submission]:
    with open(DATA / "mbpp.jsonl") as f:
        rows = [json.loads(line) for line in f]
    return {
        f"MBPP/{row['task_id']}": Submission(row["code"], row["test_list"], setup_after=row["test_setup_code"])
        for row in rows
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
