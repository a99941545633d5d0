"""What a sampled reply is worth: rewards in the form that TRL calls.

A reward takes keyword arguments, among them `prompts` and `completions` (conversations) and one list per column of the
training set (here `problem_id`), and returns one float per reply, or None when the reply could not be judged. A
program that fails is worth 0: only a failure of the machinery is None.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from acelib.extraction import extract_program
from acelib.judge import Judge, Report
from acelib.reward_model import score
from acelib.sampling import submission
from acelib.schema import Problem

RewardFunction = Callable[..., list[float | None]]


def judge_replies(
    judge: Judge, problems: dict[str, Problem], problem_ids: Sequence[str], replies: Sequence[str]
) -> list[Report | None]:
    """One report per reply, None where the judge itself failed. A program that was sampled twice runs once.

    Programs get the same prelude as in `judge_programs`: what evaluation accepts, training has to accept.
    """
    programs = [
        (problem_id, extract_program(reply, problems[problem_id].entry_point))
        for problem_id, reply in zip(problem_ids, replies, strict=True)
    ]
    distinct = list(dict.fromkeys(programs))
    try:
        reports = judge.run([submission(problems[one], text) for one, text in distinct])
    except OSError as error:  # no memory or processes left: the programs are not to blame
        warnings.warn(f"The judge failed ({error}); {len(replies)} replies stay unjudged.", stacklevel=2)
        return [None] * len(replies)
    found = dict(zip(distinct, reports, strict=True))
    return [found[program] for program in programs]


def _texts(completions: Sequence[Any]) -> list[str]:
    return [completion[-1]["content"] for completion in completions]


def _test_reward(name: str, worth: Callable[[Report], float], judge: Judge, problems: Sequence[Problem]):
    known = {problem.id: problem for problem in problems}

    def reward(completions, problem_id, **_) -> list[float | None]:
        reports = judge_replies(judge, known, problem_id, _texts(completions))
        return [None if report is None else worth(report) for report in reports]

    reward.__name__ = name
    return reward


def rule_reward(judge: Judge, problems: Sequence[Problem]) -> RewardFunction:
    """The paper's rule: 1 when the program passes all tests of its question, else 0 (section 4.3)."""
    return _test_reward("rule", lambda report: float(report.passed), judge, problems)


def pass_rate_reward(judge: Judge, problems: Sequence[Problem]) -> RewardFunction:
    """The share of tests that pass, as the paper's public rule script does."""
    return _test_reward("pass_rate", lambda report: report.pass_rate, judge, problems)


def model_reward(model: Any, tokenizer: Any, batch_size: int) -> RewardFunction:
    """The reward model's score of the reply as it was sampled; `batch_size` replies are scored at a time."""

    def reward(prompts, completions, **_) -> list[float | None]:
        return score(model, tokenizer, [prompt[-1]["content"] for prompt in prompts], _texts(completions), batch_size)

    reward.__name__ = "reward_model"
    return reward
