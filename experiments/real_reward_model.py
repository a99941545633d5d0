"""Reward models from a real model's recorded programs (`data/real/laboratory.parquet`): each learns from the pairs of
one half of the questions, by imagined tests alone, and scores the programs of the other half.

    python experiments/real_reward_model.py --humaneval humaneval.jsonl.gz [--model FOLDER]

makes `data/real/reward_scores.parquet`: per question the scores of its greedy program and of its samples, once for
pairs by all imagined tests and once by those that the policy's own greedy program passes. Every training is kept in
`--scratch`; a stop loses the one in flight up to its last checkpoint.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from acelib.core import ROOT, Profile, assume, load_profile, read_rows, write_rows
from acelib.data import read_benchmark
from acelib.models import solve_messages
from acelib.pairs import build_pairs
from acelib.reward_model import load_reward_model, score
from acelib.schema import Pair, Row
from acelib.training import make_reward_trainer
from experiments.real_laboratory import Show

FILTERS = ("all tests", "own greedy program")
MIN_TESTS = 3  # surviving ones; half of what the teacher of 0.5B imagines is wrong


def reply(program: str | None) -> str:
    """A recorded program as the reply that it came in, without the chat around it."""
    return f"```python\n{program}\n```" if program else ""


def rated(row: Row, tests: str) -> Row | None:
    """The question as an AceCode row, its programs rated by the tests that are left; None where too few are."""
    kept = [tests == "all tests" or passed for passed in row["greedy_results"]]
    if sum(kept) < MIN_TESTS:
        return None
    inferences = []
    for number, (program, results) in enumerate(zip(row["programs"], row["results"], strict=True)):
        results = [passed for passed, good in zip(results, kept, strict=True) if good]
        rate = sum(results) / len(results)
        inferences.append({"completion_id": number, "model_name": "", "completion": reply(program), "pass_rate": rate})
    return {"id": row["id"], "question": row["id"], "inferences": [one for one in inferences if one["completion"]]}


def pairs_of(profile: Profile, rows: Sequence[Row], tests: str, questions: dict[str, str]) -> list[Pair]:
    kept = [one for row in rows if (one := rated(row, tests))]
    return build_pairs(kept, questions.__getitem__, **vars(profile.pairs), seed=profile.seed)


def trained(profile: Profile, pairs: Sequence[Pair], folder: Path) -> Path:
    """The folder of a reward model from these pairs, made unless it is there."""
    show = Show()
    if not (folder / "model").is_dir():
        profile = assume(profile, reward_model=assume(profile.reward_model, held_out=0.0))
        progress = partial(show, label=folder.name)
        make_reward_trainer(profile, pairs, folder / "training", progress).train_and_save(folder / "half")
        (folder / "half").rename(folder / "model")
    return folder / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="real")
    parser.add_argument("--model", help="folder or hub name of the backbone; default: the profile's policy")
    parser.add_argument("--humaneval", default="openai/openai_humaneval")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs" / "real-reward-models")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "real" / "reward_scores.parquet")
    args = parser.parse_args()
    profile = load_profile(args.profile)
    base = args.model or profile.models.policy
    profile = assume(profile, reward_model=assume(profile.reward_model, base=base))
    torch.set_num_threads(profile.threads)
    rows = read_rows(ROOT / "data" / "real" / "laboratory.parquet")
    questions = {
        one.id: solve_messages(profile.prompts.solve, one.question)[-1]["content"]
        for one in read_benchmark(args.humaneval)
    }
    found: dict[str, Row] = {row["id"]: {"id": row["id"]} for row in rows}
    for tests in FILTERS:
        for half in (0, 1):
            name = f"{tests.replace(' ', '-')}-{half}"
            pairs = pairs_of(profile, rows[half::2], tests, questions)
            print(
                f"{time.strftime('%X')} {name}: {len(pairs)} pairs of {len({one.problem_id for one in pairs})}",
                flush=True,
            )
            model = load_reward_model(trained(profile, pairs, args.scratch / name), profile.models.dtype)
            for row in rows[1 - half :: 2]:
                texts = [reply(one) for one in (row["greedy_program"], *row["programs"])]
                scores = score(*model, [questions[row["id"]]] * len(texts), texts)
                found[row["id"]][tests] = [round(one, 4) for one in scores]
    write_rows(args.out, list(found.values()))
    print(f"{args.out}: {len(found)} questions")


if __name__ == "__main__":
    main()
