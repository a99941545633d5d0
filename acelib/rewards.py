"""What a sampled reply earns: rewards in the form that TRL calls.

A reward takes keyword arguments, among them `prompts` and `completions` (conversations) and one list per column of the
training set (here `problem_id`), and returns one float per reply, or None when the reply could not be judged. A
program that fails earns 0: only a failure of the machinery is None.
"""

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any

import torch

from acelib.core import DataError
from acelib.extraction import extract_program
from acelib.judge import Judge, Report
from acelib.reward_model import score
from acelib.sampling import judge_programs
from acelib.schema import Problem, Program

RewardFunction = Callable[..., list[float | None]]


def judge_replies(
    judge: Judge, problems: dict[str, Problem], problem_ids: Sequence[str], replies: Sequence[str]
) -> list[Report | None]:
    """One report per reply, None where the judge itself failed."""
    programs = [
        Program(problem_id, extract_program(reply, problems[problem_id].entry_point), "", reply)
        for problem_id, reply in zip(problem_ids, replies, strict=True)
    ]
    try:
        return judge_programs(judge, problems.values(), programs)
    except OSError as error:  # no memory or processes left: the programs are not to blame
        warnings.warn(f"The judge failed ({error}); {len(replies)} replies stay unjudged.", stacklevel=2)
        return [None] * len(replies)


def _texts(completions: Sequence[Any]) -> list[str]:
    return [completion[-1]["content"] for completion in completions]


def rule_reward(judge: Judge, problems: Sequence[Problem]) -> RewardFunction:
    """The paper's rule: 1 when the program passes all tests of its question, else 0 (section 3.2)."""
    known = {problem.id: problem for problem in problems}

    def rule(completions, problem_id, **_) -> list[float | None]:
        reports = judge_replies(judge, known, problem_id, _texts(completions))
        return [None if report is None else float(report.passed) for report in reports]

    return rule


def model_reward(model: Any, tokenizer: Any, batch_size: int) -> RewardFunction:
    """The reward model's score of the reply as it was sampled; `batch_size` replies are scored at a time."""

    def reward_model(prompts, completions, **_) -> list[float | None]:
        return score(model, tokenizer, [prompt[-1]["content"] for prompt in prompts], _texts(completions), batch_size)

    return reward_model


def checked(reward: RewardFunction, seconds: float) -> RewardFunction:
    """`reward`, but it raises DataError after `seconds` without an answer and on a value that is no finite number (TRL
    would take NaN for "could not be judged", which None says).

    It runs in a daemon thread that is left behind when it is late. So no signal is needed (a process under `nohup`
    ignores SIGINT), the trainer may run in any thread, and the reward may hang in C code that lets other threads run.
    """

    def guarded(**kwargs) -> list[float | None]:
        answer, gpu = Future(), torch.cuda.current_device() if torch.cuda.is_initialized() else None

        def work() -> None:
            try:
                if gpu is not None:  # of several, a new thread begins with the first
                    torch.cuda.set_device(gpu)
                answer.set_result(reward(**kwargs))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        if not wait([answer], seconds).done:
            raise DataError(
                f"The reward {reward.__name__!r} gave no answer within {seconds:g} s (reinforce.reward_seconds); mend "
                "it and start again, the run goes on from its last checkpoint."
            )
        values = answer.result()
        bad = sum(value is not None and not math.isfinite(value) for value in values)
        if bad:
            raise DataError(
                f"The reward {reward.__name__!r} is not a finite number for {bad} of {len(values)} replies; nothing "
                f"was trained on them. Check the reward model (or return None when the infrastructure failed)."
            )
        return values

    guarded.__name__ = reward.__name__
    return guarded
