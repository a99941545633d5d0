"""What notebooks 04 and 06 train, as jobs: functions of a run that work in a notebook's process and, started by
`acelib.engine.launch`, in every process of many devices. `progress(done, total)` is called in the first one only."""

import os
from pathlib import Path

from acelib.core import Progress, Run
from acelib.data import load_benchmark
from acelib.judge import Judge
from acelib.reward_model import load_reward_model
from acelib.rewards import model_reward, rule_reward
from acelib.schema import Pair, Problem
from acelib.training.log import held_out_pass_rate
from acelib.training.reinforce_trainer import train
from acelib.training.reward_trainer import train_reward_model


def reward_model(run: Run, path: Path, scratch: Path, progress: Progress, pairs: str) -> None:
    """A reward model from the preference pairs in the table `pairs`. Raises ArtifactError, and as
    `train_reward_model` does."""
    train_reward_model(run.profile, run.read(pairs, Pair), path, scratch, progress)


def policy(run: Run, path: Path, scratch: Path, progress: Progress, reward: str) -> None:
    """A policy trained on the hard questions with `reward`: rule, or reward_model. Raises ArtifactError, and as
    `train` does."""
    profile, models, problems = run.profile, run.profile.models, run.read("hard_questions", Problem)
    workers = max(1, profile.judge.workers // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    with Judge.from_settings(profile.judge, workers=workers) as judge:
        measure = held_out_pass_rate(profile, judge, load_benchmark(profile, profile.reinforce.eval_questions))
        chosen, watch = rule_reward(judge, problems), []
        if reward == "reward_model":
            scorer = load_reward_model(run.path("reward_model"), models.dtype, models.device)
            chosen, watch = model_reward(*scorer, profile.reward_model.score_batch), [chosen]
        train(profile, problems, chosen, path, scratch, watch=watch, measure=measure, progress=progress)
