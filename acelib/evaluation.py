"""Held-out evaluation of models, paired comparisons, and the scorecard against the paper's claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acelib.core import Progress
from acelib.judge import Judge
from acelib.models import SamplingParams, generate, solve_messages
from acelib.sampling import judge_programs, sample_programs
from acelib.schema import Problem, Row


def evaluate(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    judge: Judge,
    params: SamplingParams,
    *,
    name: str,
    prompt: str,
    scratch: Path,
    progress: Progress | None = None,
) -> list[Row]:
    """One greedy and `params.n` sampled programs per problem, judged by all tests of the problem.

    Rows: id, question, model, greedy (bool: the greedy program passes every test), correct (bool per sample), pass_rate
    (float per sample), completions (the sampled replies). Replies are kept in `scratch` until the caller has stored
    the rows, so an interrupted evaluation resumes. `progress` counts problems, of the samples.
    """
    common = dict(prompt=prompt, model_name=name)
    log = scratch / f"{name}-greedy.jsonl"
    greedy = sample_programs(model, tokenizer, problems, params.greedy(), log=log, **common)
    log = scratch / f"{name}-sampled.jsonl"
    sampled = sample_programs(model, tokenizer, problems, params, log=log, progress=progress, **common)
    rates = [float(report.pass_rate) for report in judge_programs(judge, problems, [*greedy, *sampled])]
    rows = []
    for number, problem in enumerate(problems):
        mine = slice(number * params.n, (number + 1) * params.n)
        passed = rates[len(problems) :][mine]
        rows.append(
            {
                "id": problem.id,
                "question": problem.question,
                "model": name,
                "greedy": rates[number] == 1.0,
                "correct": [rate == 1.0 for rate in passed],
                "pass_rate": passed,
                "completions": [program.reply for program in sampled[mine]],
            }
        )
    return rows


@dataclass(frozen=True)
class Prompt:
    """What the user says ({question} is filled in) and, for `prefill`, how the model's reply is made to begin."""

    user: str
    prefill: str = ""


# EvalPlus 0.3.1, evalplus/codegen.py and provider/utility.py, for models with a chat template
EVALPLUS = Prompt(
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
    "```\n{question}\n```\n",
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    "```python\n",
)


def ask(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    prompt: Prompt,
    params: SamplingParams,
    progress: Progress | None = None,
) -> list[list[str]]:
    """`params.n` replies per problem, each with the prefill that it continues.

    Raises ModelError when a prompt and `params.max_new_tokens` exceed the model's context.
    """
    chats = [solve_messages(prompt.user, problem.question, prompt.prefill or None) for problem in problems]
    found = generate(model, tokenizer, chats, params, progress)
    return [[prompt.prefill + one.text for one in row] for row in found]
