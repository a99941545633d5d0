"""Measure pocket models on held-out compositions, shipped beside retrained."""

from __future__ import annotations

from pathlib import Path

from acelib.core import load_profile
from acelib.extraction import extract_program
from acelib.judge import Judge, Limits, Submission
from acelib.models import SamplingParams, generate, load_policy, load_tokenizer
from acelib.pairs import pass_at_k
from acelib.pocket import corpus
from acelib.pocket.laboratory import Laboratory
from acelib.synthesis import parse_reply

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=10.0, memory_mb=512)


def measure_solver(folder: Path, questions: int = 100, n: int = 16) -> dict[str, float]:
    """Greedy accuracy, pass@1 and pass@16 at temperature 1, and the share of samples that are partly right."""
    model, tokenizer = load_policy(folder), load_tokenizer(folder)
    problems = corpus.benchmark_problems(questions, seed=1)
    chats = [corpus.solve_messages(p["question"], "")[:1] for p in problems]
    params = SamplingParams(n=n, max_new_tokens=120, batch_size=256, seed=0)
    rates = []
    with Judge(workers=2, limits=LIMITS) as judge:
        for how in (params.greedy(), params):
            replies = generate(model, tokenizer, chats, how)
            reports = judge.run(
                [
                    Submission(extract_program(c.text, p["entry_point"]), p["tests"], entry_point=p["entry_point"])
                    for p, group in zip(problems, replies)
                    for c in group
                ]
            )
            rates.append([r.pass_rate for r in reports])
    correct = [sum(r == 1 for r in rates[1][i : i + n]) for i in range(0, len(rates[1]), n)]
    return {
        "greedy": sum(r == 1 for r in rates[0]) / questions,
        "pass@1": sum(correct) / (n * questions),
        f"pass@{n}": sum(pass_at_k(n, c, n) for c in correct) / questions,
        "partly right": sum(0 < r < 1 for r in rates[1]) / len(rates[1]),
    }


def measure_teacher(folder: Path, questions: int = 100) -> dict[str, float]:
    """How many replies parse and are understood, and which share of the imagined tests is true."""
    model, tokenizer, laboratory = load_policy(folder), load_tokenizer(folder), Laboratory.open(load_profile("pocket"))
    seeds = corpus.seed_programs(questions, seed=1)
    chats = [[{"role": "user", "content": corpus.TEACHER_PROMPT.replace("{program}", s["program"])}] for s in seeds]
    params = SamplingParams(temperature=0.7, max_new_tokens=750, batch_size=64, seed=0)
    replies = generate(model, tokenizer, chats, params)
    parsed, verdicts = 0, []
    for (reply,) in replies:
        try:
            question, tests = parse_reply(reply.text)[:2]
        except ValueError:
            continue
        parsed += 1
        verdicts += [laboratory.test_is_valid(question, t) for t in tests]
    known = [v for v in verdicts if v is not None]
    return {
        "replies parsed": parsed / questions,
        "tests per reply": len(verdicts) / max(1, parsed),
        "tests understood": len(known) / max(1, len(verdicts)),
        "tests valid": sum(known) / max(1, len(known)),
    }


def measure(folder: Path) -> dict[str, float]:
    return measure_teacher(folder) if folder.name == "teacher" else measure_solver(folder)


def compare(shipped: Path, retrained: Path) -> str:
    """A table of every model's metrics, shipped against retrained."""
    lines = [f"{'model':<14}{'metric':<18}{'shipped':>9}{'retrained':>11}"]
    for folder in sorted(p for p in retrained.iterdir() if p.is_dir()):
        old = measure(shipped / folder.name) if (shipped / folder.name).exists() else {}
        for metric, value in measure(folder).items():
            lines.append(f"{folder.name:<14}{metric:<18}{old.get(metric, float('nan')):>9.3f}{value:>11.3f}")
    return "\n".join(lines)
