"""A real model's programs and imagined tests for public benchmarks, whose own tests and solutions know the truth.

    python -m experiments.real_laboratory --model FOLDER_OR_HUB_NAME --humaneval humaneval.jsonl.gz --mbpp mbpp.jsonl

makes `data/real/laboratory.parquet` in three stages that stop and go on (programs, tests, verdicts): one row per
question with the model's greedy and sampled programs, the tests that it imagines, and who passes what. The benchmarks'
own texts (questions, tests, solutions) stay out of it; programs lose their docstrings and comments, which repeat them.
"""

import argparse
import ast
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from acelib.core import ROOT, Profile, assume, digest, is_current, load_profile, making, read_rows, write_rows
from acelib.data import benchmark_rows, read_benchmark
from acelib.engine import open_sampler, sample_and_judge
from acelib.evaluation import Prompt, ask
from acelib.extraction import extract_program
from acelib.judge import Judge, why_invalid
from acelib.models import SamplingParams
from acelib.sampling import submission
from acelib.schema import Problem, Row

SAMPLES, TESTS, REPLIES = 16, 12, 2  # programs per question; tests asked for in a reply, and replies of tests
MBPP_TEST = range(11, 511)  # MBPP's own test split
IMAGINE = Prompt(
    "{question}\n\n"
    f"Write {TESTS} different tests for this function, each one line of the form "
    "`assert function(arguments) == result` with constant arguments and the correct result. "
    "Do not write the function itself.",
    "Here are the tests:\n```python\nassert",  # small instruct models otherwise solve the question first
)


def questions(humaneval: str, mbpp: str, limits: Sequence[int]) -> tuple[list[Problem], dict[str, str]]:
    """The first problems of HumanEval and of MBPP's test split, `limits` of each, and reference solutions by id."""
    solutions = {row["task_id"]: row["prompt"] + row["canonical_solution"] for row in benchmark_rows(humaneval)}
    solutions |= {f"MBPP/{row['task_id']}": row["code"] for row in benchmark_rows(mbpp)}
    chosen = [one for one in read_benchmark(mbpp) if int(one.id.removeprefix("MBPP/")) in MBPP_TEST]
    return [*read_benchmark(humaneval)[: limits[0]], *chosen[: limits[1]]], solutions


def imagine_tests(profile: Profile, problems: Sequence[Problem], folder: Path, batch: int = 32) -> dict[str, list[str]]:
    """The tests that the teacher imagines for each problem, by id: well-formed, distinct, about its function."""
    params = SamplingParams(
        n=REPLIES, temperature=0.8, max_new_tokens=320, batch_size=batch * REPLIES, seed=profile.seed
    )
    model = None
    for start in range(0, len(problems), batch):
        part, path = problems[start : start + batch], folder / f"tests-{start:04d}.parquet"
        source = [[one.question for one in part], digest(vars(params)), digest(vars(IMAGINE))]
        if not is_current(path, source):
            model = model or open_sampler(profile, profile.models.teacher, folder)
            replies = ask(*model, part, IMAGINE, params)
            with making(path, source) as temporary:
                write_rows(temporary, [{"id": one.id, "replies": texts} for one, texts in zip(part, replies)])
            print(f"{time.strftime('%X')} tests for {start + len(part)} of {len(problems)} questions", flush=True)
    rows = [row for path in sorted(folder.glob("tests-*.parquet")) for row in read_rows(path)]
    known = {one.id: one for one in problems}
    return {row["id"]: asserts(row["replies"], known[row["id"]].entry_point) for row in rows}


def asserts(replies: Sequence[str], entry_point: str) -> list[str]:
    """The distinct one-line asserts that call `entry_point` and check something, in order."""
    found: dict[str, None] = {}
    for line in (line.strip() for reply in replies for line in reply.splitlines()):
        try:
            tree = ast.parse(line) if line.startswith("assert") else None
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        called = tree and {
            n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        if called and entry_point in called and not why_invalid(text := ast.unparse(tree), entry_point):
            found[text] = None
    return list(found)


def bare(program: str | None) -> str | None:
    """The program without comments and docstrings."""
    if program is None:
        return None
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)):
            node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def verdicts(judge: Judge, problem: Problem, tests: list[str], programs: Sequence[str | None]) -> list[list[bool]]:
    """Which of `tests` each program passes: (programs, tests)."""
    imagined = replace(problem, tests=tuple(tests))
    reports = judge.run([submission(imagined, program) for program in programs]) if tests else []
    return [[bool(one.passed) for one in report.verdicts] for report in reports] or [[] for _ in programs]


def benchmark_programs(profile: Profile, problems: Sequence[Problem], folder: Path) -> tuple[list[Row], list[Row]]:
    """AceCode rows of the problems with the policy's greedy and with its sampled programs, judged; kept in `folder`."""
    longer = assume(profile, engine=assume(profile.engine, shard_questions=16 * profile.engine.shard_questions))
    params = SamplingParams.of(profile.sampling, n=SAMPLES, temperature=1.0, top_p=1.0, seed=profile.seed)
    greedy = sample_and_judge(longer, problems, params.greedy(), folder / "greedy", Show())
    return greedy, sample_and_judge(profile, problems, params, folder / "sampled", Show())


def laboratory(profile: Profile, problems: Sequence[Problem], solutions: dict[str, str], folder: Path) -> list[Row]:
    """One row per problem. `correct` and `pass_rate` are by the benchmark's tests, `results` by the imagined ones."""
    greedy, sampled = benchmark_programs(profile, problems, folder)
    tests = imagine_tests(profile, problems, folder)
    rows = []
    with Judge.from_settings(profile.judge) as judge:
        for problem, first, others in zip(problems, greedy, sampled, strict=True):
            inferences = [*first["inferences"], *others["inferences"]]
            programs = [extract_program(one["completion"], problem.entry_point) for one in inferences]
            mine = tests[problem.id]
            *results, valid = verdicts(judge, problem, mine, [*programs, solutions[problem.id]])
            rates = [one["pass_rate"] for one in inferences]
            rows.append(
                {
                    "id": problem.id,
                    "benchmark": problem.source,
                    "entry_point": problem.entry_point,
                    "greedy": rates[0] == 1.0,
                    "correct": [rate == 1.0 for rate in rates[1:]],
                    "pass_rate": rates[1:],
                    "tests": mine,
                    "valid": valid,
                    "shown": [test.removeprefix("assert ") in problem.question for test in mine],
                    "greedy_results": results[0],
                    "results": results[1:],
                    "greedy_program": bare(programs[0]),
                    "programs": [bare(program) for program in programs[1:]],
                }
            )
    return rows


class Show:
    """Progress lines, at most one in 20 seconds."""

    def __init__(self):
        self.last = 0.0

    def __call__(self, done: float, total: int, label: str) -> None:
        if time.monotonic() - self.last > 20:
            self.last = time.monotonic()
            print(f"{time.strftime('%X')} {done} of {total} questions, {label}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="real")
    parser.add_argument("--model", help="folder or hub name; default: the profile's policy and teacher")
    parser.add_argument("--humaneval", default="openai/openai_humaneval")
    parser.add_argument("--mbpp", default="google-research-datasets/mbpp")
    parser.add_argument("--questions", type=int, nargs=2, default=(164, 200), help="of HumanEval, of MBPP's test split")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs" / "laboratory")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "real" / "laboratory.parquet")
    args = parser.parse_args()
    profile = load_profile(args.profile)
    if args.model:
        profile = assume(profile, models=assume(profile.models, policy=args.model, teacher=args.model))
    torch.set_num_threads(profile.threads)
    args.scratch.mkdir(parents=True, exist_ok=True)
    rows = laboratory(profile, *questions(args.humaneval, args.mbpp, args.questions), args.scratch)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(args.out, rows)
    solved = sum(row["greedy"] for row in rows)
    print(f"{args.out}: {len(rows)} questions, {solved} solved greedily, {sum(len(r['tests']) for r in rows)} tests")


if __name__ == "__main__":
    main()
