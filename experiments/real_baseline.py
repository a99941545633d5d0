"""What a real model solves in the words for which its figures were published: EvalPlus's prompt, greedily.

    python experiments/real_baseline.py --humaneval humaneval.jsonl.gz [--model FOLDER]

makes `data/real/baseline.parquet`: per question of HumanEval whether the greedy program passes its tests, and the
program. Compare with `data/baselines.yaml`.
"""

import argparse
from pathlib import Path

import torch

from acelib.core import ROOT, assume, load_profile, write_rows
from acelib.data import read_benchmark
from acelib.engine import open_sampler
from acelib.evaluation import EVALPLUS
from acelib.extraction import extract_program
from acelib.judge import Judge
from acelib.models import SamplingParams, solve_messages
from acelib.sampling import judge_programs, sample_replies
from acelib.schema import Program
from experiments.real_laboratory import Show, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="real")
    parser.add_argument("--model", help="folder or hub name; default: the profile's policy")
    parser.add_argument("--humaneval", default="openai/openai_humaneval")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs" / "real-baseline.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "real" / "baseline.parquet")
    args = parser.parse_args()
    profile = load_profile(args.profile)
    profile = assume(profile, models=assume(profile.models, policy=args.model or profile.models.policy))
    torch.set_num_threads(profile.threads)
    problems = read_benchmark(args.humaneval)
    begun = [{"role": "assistant", "content": EVALPLUS.prefill}]
    chats = {one.id: solve_messages(EVALPLUS.user, one.question) + begun for one in problems}
    params = SamplingParams(n=1, max_new_tokens=512, batch_size=profile.sampling.batch_size, seed=profile.seed).greedy()
    sampler = open_sampler(profile, profile.models.policy, args.scratch.parent)
    show = Show()
    replies = sample_replies(
        *sampler, chats, params, log=args.scratch, progress=lambda done, total: show(done, total, "greedy")
    )
    replies = {key: EVALPLUS.prefill + texts[0] for key, texts in replies.items()}
    texts = [replies[one.id] for one in problems]
    programs = [extract_program(text, one.entry_point) for one, text in zip(problems, texts, strict=True)]
    with Judge.from_settings(profile.judge) as judge:
        asked = [Program(one.id, program, "", text) for one, program, text in zip(problems, programs, texts)]
        passed = [report.passed for report in judge_programs(judge, problems, asked)]
    rows = [
        {"id": one.id, "greedy": good, "program": bare(program)}
        for one, good, program in zip(problems, passed, programs, strict=True)
    ]
    write_rows(args.out, rows)
    print(f"{args.out}: {sum(passed)} of {len(rows)} solved")


if __name__ == "__main__":
    main()
