"""Rewards that nothing but the comparison of notebook 08 uses: the share of tests that pass, and another reward with a
gate or a term for its form."""

import ast
import math
import re
from collections.abc import Sequence
from typing import Any

from acelib.extraction import extract_program
from acelib.judge import Judge
from acelib.rewards import RewardFunction, judge_replies
from acelib.schema import Problem

ONE_BLOCK = re.compile(r"```(?:python)?\n(?:(?!```).)*\n```", re.S)


def pass_rate_reward(judge: Judge, problems: Sequence[Problem]) -> RewardFunction:
    """The share of tests that pass, as the paper's public rule script does."""
    known = {problem.id: problem for problem in problems}

    def pass_rate(completions, problem_id, **_) -> list[float | None]:
        reports = judge_replies(judge, known, problem_id, _texts(completions))
        return [None if report is None else report.pass_rate for report in reports]

    return pass_rate


def gated(reward: RewardFunction, problems: Sequence[Problem]) -> RewardFunction:
    """`reward`, but a reply without a program that parses and defines the question's function gets no more than the
    worst reply to its question. (A reward model's scores have no zero that one could give instead.)"""
    names = {problem.id: problem.entry_point for problem in problems}

    def guarded(completions, problem_id, **rest) -> list[float | None]:
        values = reward(completions=completions, problem_id=problem_id, **rest)
        replies = list(zip(problem_id, values, _texts(completions), strict=True))
        worst = {}
        for one, value, _ in replies:
            if value is not None:
                worst[one] = min(value, worst.get(one, math.inf))
        return [value if value is None or defines(text, names[one]) else worst[one] for one, value, text in replies]

    guarded.__name__ = f"gated_{reward.__name__}"
    return guarded


def with_format(reward: RewardFunction, problems: Sequence[Problem], weight: float = 0.1) -> RewardFunction:
    """`reward` plus `weight` when the reply is one closed code block, with nothing around it, that defines the
    question's function."""
    names = {problem.id: problem.entry_point for problem in problems}

    def rewarded(completions, problem_id, **rest) -> list[float | None]:
        values = reward(completions=completions, problem_id=problem_id, **rest)
        tidy = [
            bool(ONE_BLOCK.fullmatch(text.strip())) and defines(text, names[one])
            for text, one in zip(_texts(completions), problem_id, strict=True)
        ]
        return [None if value is None else value + weight * good for value, good in zip(values, tidy, strict=True)]

    rewarded.__name__ = f"{reward.__name__}_format"
    return rewarded


def defines(reply: str, entry_point: str) -> bool:
    """Whether the program in a reply parses and defines the function that the question asks for; nothing is run."""
    program = extract_program(reply, entry_point)
    return program is not None and any(
        isinstance(node, ast.FunctionDef) and node.name == entry_point for node in ast.parse(program).body
    )


def _texts(completions: Sequence[Any]) -> list[str]:
    return [completion[-1]["content"] for completion in completions]
