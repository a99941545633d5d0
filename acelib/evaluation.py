"""Held-out evaluation of models, paired comparisons, and the scorecard against the paper's claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acelib.core import Progress
from acelib.judge import Judge
from acelib.models import sample_tokens, solve_messages, stop_tokens
from acelib.sampling import judge_programs, sample_programs
from acelib.schema import Problem, Row


def evaluate(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    judge: Judge,
    *,
    name: str,
    prompt: str,
    samples: int,
    temperature: float,
    top_p: float = 1.0,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    scratch: Path,
    progress: Progress | None = None,
) -> list[Row]:
    """One greedy and `samples` sampled programs per problem, judged by all tests of the problem.

    Rows: id, question, model, greedy (bool: the greedy program passes every test), correct (bool per sample), pass_rate
    (float per sample), completions (the sampled replies). Replies are kept in `scratch` until the caller has stored
    the rows, so an interrupted evaluation goes on where it stopped.
    """
    common = dict(prompt=prompt, max_new_tokens=max_new_tokens, batch_size=batch_size, model_name=name)
    greedy = sample_programs(
        model, tokenizer, problems, n=1, temperature=0.0, seed=seed, log=scratch / f"{name}-greedy.jsonl", **common
    )
    sampled = sample_programs(
        model,
        tokenizer,
        problems,
        n=samples,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        log=scratch / f"{name}-sampled.jsonl",
        progress=progress,
        **common,
    )
    rates = [float(report.pass_rate) for report in judge_programs(judge, problems, greedy + sampled)]
    rows = []
    for number, problem in enumerate(problems):
        mine = slice(number * samples, (number + 1) * samples)
        passed = rates[len(greedy) :][mine]
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
MARK = "-[[the reply goes on here]]-"


def ask(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    prompt: Prompt,
    *,
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int,
    batch_size: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[list[str]]:
    """`n` replies per problem (temperature 0: greedy), each with the prefill that it continues.

    Raises ModelError when a prompt and `max_new_tokens` exceed the model's context.
    """
    texts = []
    for problem in problems:
        chat = solve_messages(prompt.user, problem.question)
        # EvalPlus's way: whatever the template does to the end of a message, it does it after the mark
        chat += [{"role": "assistant", "content": prompt.prefill + MARK}] if prompt.prefill else []
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=not prompt.prefill)
        texts.append(text.partition(MARK)[0])
    found = sample_tokens(
        model,
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts],
        n=n,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed,
        stop=stop_tokens(model, tokenizer),
        pad_id=tokenizer.pad_token_id,
        progress=progress,
    )
    return [[prompt.prefill + tokenizer.decode(one.ids, skip_special_tokens=True) for one in row] for row in found]
