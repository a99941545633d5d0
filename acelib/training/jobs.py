"""What notebooks 04 and 06 train, as jobs: functions of a run that work in a notebook's process and, started by
`acelib.engine.launch`, in every process of many devices. `progress(done, total)` is called in the first one only."""

import os
from pathlib import Path
from typing import Any

from acelib.core import Profile, Progress, Run
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
    profile, settings = run.profile, run.profile.reward_model
    options = dict(settings=settings, n=profile.sampling.n, progress=progress, **_options(profile))
    train_reward_model(run.read(pairs, Pair), profile.resolve(settings.base), path, scratch, **options)


def policy(run: Run, path: Path, scratch: Path, progress: Progress, reward: str) -> None:
    """A policy trained on the hard questions with `reward`: rule, or reward_model. Raises ArtifactError, and as
    `train` does."""
    profile, models, rl = run.profile, run.profile.models, run.profile.reinforce
    problems, prompt = run.read("hard_questions", Problem), profile.prompts.solve
    workers = max(1, profile.judge.workers // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    with Judge.from_settings(profile.judge, workers=workers) as judge:
        rule = rule_reward(judge, problems)
        measure = held_out_pass_rate(judge, load_benchmark(profile, rl.eval_questions), prompt, rl)
        options = dict(settings=rl, prompt=prompt, measure=measure, progress=progress, **_options(profile))
        if reward == "reward_model":
            scorer = load_reward_model(run.path("reward_model"), models.dtype, models.device)
            learned = model_reward(*scorer, profile.reward_model.score_batch)
            train(profile.resolve(models.policy), problems, learned, path, scratch, watch=[rule], **options)
        else:
            train(profile.resolve(models.policy), problems, rule, path, scratch, **options)


def _options(profile: Profile) -> dict[str, Any]:
    models = profile.models
    return dict(seed=profile.seed, dtype=models.dtype, device=models.device, engine=profile.engine)
