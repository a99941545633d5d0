"""What one unit of the pipeline costs on this machine: a verdict, a question on disk and in memory, a sampled token.

    python bench/units.py                           measures (minutes) and prints; needs a finished runs/pocket
    python bench/units.py --to docs/units.json      writes the committed figures; then make docs/scaling.md anew

`python -m acelib plan --scaling` predicts larger runs from these. Programs for the judge are HumanEval's references
where `--humaneval` names the file, else functions made in bench/judge.py; in a second workload 5% are bad: they loop,
sleep, exit, recurse or fill memory. Tables of real size are made of text from Python's own library, cut to the lengths
that the profile `paper` assumes (4 characters per token): real text, compressible as such, but samples of one question
share nothing, so sizes on disk are upper bounds. Memory is what a fresh process holds more after the call than before.
Nothing here uses a GPU.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import judge as bench_judge  # noqa: E402

from acelib.core import Run, load_profile, read_rows, write_json, write_rows  # noqa: E402  # noqa: E402
from acelib.judge import Judge, Submission  # noqa: E402
from acelib.models import SamplingParams, generate, load_policy, load_tokenizer, solve_messages  # noqa: E402
from acelib.pairs import build_pairs  # noqa: E402
from acelib.schema import Problem  # noqa: E402
from runner.report import machine  # noqa: E402

PAPER = load_profile("paper")
CHARACTERS = 4  # per token, assumed
QUESTIONS, TESTS = 1000, 16  # of a made table; the paper has 15.87 tests per question
PASSES = 3


def judging() -> dict[str, float]:
    """CPU and programs per second of the judge, on good programs and with 5% bad ones; medians over passes."""
    found = {}
    with Judge.from_settings(PAPER.judge, workers=2) as judge:
        for kind, bad in (("honest", False), ("5% bad", True)):
            rows = []
            for number in range(PASSES):
                made = [Submission(one["program"], one["tests"]) for one in bench_judge.workload(bad, number)]
                cpu, start = bench_judge.cpu_seconds(os.getpid()), time.perf_counter()
                judge.run(made)
                rows.append((bench_judge.cpu_seconds(os.getpid()) - cpu, time.perf_counter() - start))
            cpu, wall = (statistics.median(column) for column in zip(*rows, strict=True))
            tests = statistics.fmean(len(one.tests) for one in made)
            found |= {
                f"CPU ms per program, {kind}": cpu / len(made) * 1000,
                f"verdicts per core-second, {kind}": len(made) * tests / cpu,
                f"programs/s with 2 workers, {kind}": len(made) / wall,
            }
    return found | {"tests per program": tests}


def library() -> str:
    """Text of Python's own library, comments and all."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def real_rows(count: int = QUESTIONS) -> list[dict]:
    """Rows as `samples_to_rows` writes them, of the lengths that the profile `paper` assumes."""
    text, draw, assumed = library(), random.Random(0), PAPER.plan

    def cut(tokens: int) -> str:
        start = draw.randrange(len(text) - tokens * CHARACTERS)
        return text[start : start + tokens * CHARACTERS]

    rows = []
    for number in range(count):
        inferences = []
        for place in range(PAPER.sampling.n):
            reply = cut(assumed.program_tokens)
            results = [draw.random() < 0.7 for _ in range(TESTS)]  # paper: mean pass rate 70.3%
            inferences.append(
                {
                    "completion_id": place,
                    "model_name": PAPER.models.policy,
                    "completion": reply,
                    "program": reply[100:],
                    "pass_rate": sum(results) / TESTS,
                    "test_results": results,
                }
            )
        tests = [f"assert solve({cut(5)!r}) == {cut(5)!r}" for _ in range(TESTS)]
        rows.append(
            {
                "id": f"q{number}",
                "source": "evol",
                "question": cut(assumed.question_tokens),
                "entry_point": "solve",
                "test_cases": tests,
                "inferences": inferences,
            }
        )
    return rows


GROWTH = """
import os, psutil, sys
from acelib.judge import Judge, Submission
from acelib.core import read_rows
def held():
    return psutil.Process().memory_info().rss / 2**20
before = held()
kept = {work}
print(held() - before)
"""
READING = "read_rows(sys.argv[1])"
REPORTS = """(lambda made: Judge(workers=2).__enter__().run(made))([
    Submission(f"def f(x): return x + {i}", [f"assert f({j}) == {i + j}" for j in range(16)]) for i in range(COUNT)])"""


def grown(work: str, *arguments: str) -> float:
    """MiB that a fresh process holds more after `work`."""
    script = GROWTH.replace("{work}", work)
    out = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout
    return float(out.splitlines()[-1])


def tables() -> dict[str, float]:
    """Bytes on disk and in memory per question of tables of real size."""
    rows = real_rows()
    with tempfile.TemporaryDirectory() as folder:
        samples, questions, pairs = (Path(folder) / f"{name}.parquet" for name in ("samples", "questions", "pairs"))
        log = Path(folder) / "replies.jsonl"
        write_rows(samples, rows)
        write_rows(questions, [{key: value for key, value in row.items() if key != "inferences"} for row in rows])
        built = build_pairs(
            rows, str, min_gap=0.0, min_chosen=0.0, min_rejected=0.0, strict=True, max_pairs_per_question=1
        )
        write_rows(pairs, built)
        replies = {row["id"]: [one["completion"] for one in row["inferences"]] for row in rows}
        write_rows(log, [{"id": key, "replies": texts} for key, texts in replies.items()])
        half = Path(folder) / "half.parquet"
        write_rows(half, rows[: QUESTIONS // 2])
        memory = (grown(READING, str(samples)) - grown(READING, str(half))) / (QUESTIONS / 2)
        return {
            "samples, bytes per question": samples.stat().st_size / QUESTIONS,
            "questions and tests, bytes per question": questions.stat().st_size / QUESTIONS,
            "pairs, bytes per pair": pairs.stat().st_size / len(built),
            "reply log, bytes per question": log.stat().st_size / QUESTIONS,
            "samples as Python lists, KiB per question": memory * 1024,
        }


def reports() -> dict[str, float]:
    few, many = (grown(REPORTS.replace("COUNT", str(count))) for count in (1000, 4000))
    return {"reports of 16 verdicts held, KiB per program": (many - few) / 3000 * 1024}


def pocket(run_dir: Path) -> dict[str, float]:
    """Bytes per question of a finished pocket run's tables, and tokens/s of its policy on one core."""
    import torch

    run = Run(run_dir, load_profile("pocket"))
    questions = len(read_rows(run_dir / "artifacts" / "filtered.parquet"))
    found = {
        f"{name}, bytes per question": (run_dir / "artifacts" / f"{name}.parquet").stat().st_size / questions
        for name in ("replies", "imagined", "filtered", "samples_unfiltered", "samples", "pairs")
    }
    log = run_dir / "artifacts" / "rl_log.parquet"
    found["RL log, bytes per rollout"] = log.stat().st_size / len(read_rows(log))
    torch.set_num_threads(1)
    name, profile = run.profile.resolve(run.profile.models.policy), run.profile
    model, tokenizer = load_policy(name, device="cpu"), load_tokenizer(name)
    problems = read_rows(run_dir / "artifacts" / "filtered.parquet", Problem)[:48]
    speeds = []
    for number in range(PASSES):
        start = time.perf_counter()
        rows = generate(
            model,
            tokenizer,
            [solve_messages(profile.prompts.solve, one.question) for one in problems],
            SamplingParams.of(profile.sampling, n=16, temperature=1.0, top_p=1.0, seed=number),
        )
        speeds.append(sum(len(one.token_ids) for row in rows for one in row) / (time.perf_counter() - start))
    return found | {"policy, tokens/s on one core": statistics.median(speeds)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs" / "pocket", help="a finished pocket run")
    parser.add_argument("--humaneval", type=Path, default=bench_judge.HUMANEVAL, help="HumanEval.jsonl.gz")
    parser.add_argument("--to", type=Path, help="file to write, such as docs/units.json")
    asked = parser.parse_args()
    bench_judge.HUMANEVAL = asked.humaneval
    if not (asked.run_dir / "artifacts" / "filtered.parquet").exists():
        print(f"There is no finished run in {asked.run_dir}; run `make course` first, or name one with --run-dir.")
        sys.exit(1 if asked.to else 0)
    programs = "HumanEval's references" if asked.humaneval.exists() else "functions made in bench/judge.py"
    units = {
        "machine": machine(),
        "measured": time.strftime("%Y-%m-%d"),
        "programs": programs,
        "judge": judging(),
        "tables": tables(),
        "reports": reports(),
        "pocket": pocket(asked.run_dir),
    }
    if asked.to:
        write_json(asked.to, units)
    print(json.dumps(units, indent=1))
