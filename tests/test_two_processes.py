"""Training on two real processes is training on one: same batches, same weights, same log."""

import json

import pytest
import torch
from safetensors.torch import load_file
from test_reinforce import PROBLEMS, profile, wordy
from test_reward_model import profile as scorer_profile
from test_reward_model import some_pairs
from tiny_models import save_tiny_policy
from two_processes import launch

from acelib.training import reward_trainer as reward_training
from acelib.training.reinforce_trainer import train as train_on_rewards

LOGGED = {
    "step",
    "learning_rate",
    "loss",
    "pair_loss",
    "accuracy",
    "grad_norm",
    "eval_loss",
    "eval_pair_loss",
    "eval_accuracy",
}
# 18 and 19 questions are left to train on: the last batch has 2 or 3 of 8, and one process none that count.
REWARD_MODELS = [(28, 2), (29, 8)]
# Replies of 8 tokens: in longer ones a sample near the edge between two tokens may fall to either side by rounding.
ALGORITHMS = ["reinforce++", "grpo", "dapo"]
TRAIN_ALL = """
import sys
from pathlib import Path

import torch
from test_two_processes import train_all

train_all(Path(sys.argv[1]), Path(sys.argv[2]))
torch.distributed.destroy_process_group()
"""


def train_all(base, folder):
    for questions, at_once in REWARD_MODELS:
        train(base, folder / f"{questions}-{at_once}", questions, at_once)
    for algorithm in ALGORITHMS:
        train_policy(base, folder / algorithm, algorithm)


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    """The model that all start from, and the folder of what two processes, started once, have trained of it."""
    folder = tmp_path_factory.mktemp("launched")
    base, script = save_tiny_policy(folder / "base"), folder / "train.py"
    script.write_text(TRAIN_ALL)
    launch(script, base, folder / "two")
    return base, folder / "two"


def train(base, folder, questions, at_once):
    small = scorer_profile(base, batch_size=8, epochs=2.0, micro_batch=at_once)
    reward_training.train_reward_model(small, some_pairs(questions), folder / "rm", folder / "scratch")


@pytest.mark.parametrize("questions, at_once", REWARD_MODELS)
def test_a_reward_model_trained_on_two_processes(tmp_path, in_two, questions, at_once):
    base, launched = in_two
    train(base, tmp_path, questions, at_once)

    folders = (tmp_path, launched / f"{questions}-{at_once}")
    one, two = (load_file(folder / "rm" / "model.safetensors") for folder in folders)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5)
    one, two = (json.loads((folder / "rm" / "training_log.json").read_text()) for folder in folders)
    assert {key for row in one for key in row} >= LOGGED
    for mine, theirs in zip(one, two, strict=True):
        mine, theirs = ({key: row[key] for key in LOGGED & row.keys()} for row in (mine, theirs))
        assert theirs == pytest.approx(mine, rel=1e-5, abs=1e-6)


def picky(completions, problem_id, **_):
    return [len(reply[-1]["content"]) * (one < "p2") for reply, one in zip(completions, problem_id, strict=True)]


def train_policy(base, folder, algorithm):
    # Five questions in rollouts of four: some rollouts hold a question twice, once in each process.
    reward = picky if algorithm == "dapo" else wordy
    small = profile(base, algorithm=algorithm, rollout_questions=4, micro_batch=4, steps=3)
    train_on_rewards(small, PROBLEMS, reward, folder / "policy", folder / "scratch")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_policy_trained_on_two_processes(tmp_path, in_two, algorithm):
    base, launched = in_two
    train_policy(base, tmp_path, algorithm)

    folders = (tmp_path, launched / algorithm)
    start = load_file(base / "model.safetensors")
    one, two = (load_file(folder / "policy" / "model.safetensors") for folder in folders)
    if algorithm != "dapo":  # which drops replies that were cut off, here nearly all
        assert max((one[name] - start[name]).abs().max() for name in one) > 1e-3
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-4)
    one, two = (json.loads((folder / "policy" / "training_log.json").read_text()) for folder in folders)
    for mine, theirs in zip(one, two, strict=True):
        # TRL logs the mean entropy of the passes, which hold other replies on one process than on two.
        mine, theirs = (
            {
                key: value
                for key, value in row.items()
                if value is not None and key != "entropy" and not key.startswith("seconds")
            }
            for row in (mine, theirs)
        )
        assert theirs == pytest.approx(mine, rel=1e-3, abs=1e-4)
    if algorithm == "dapo":
        assert max(row["sampled"] or 0 for row in one) > 16
