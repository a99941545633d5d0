"""Sampling programs from a model and having them judged, in a way that survives a crash."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acelib.core import DataError, Progress, open_log
from acelib.extraction import extract_program
from acelib.judge import LLM_PRELUDE, Judge, Report, Submission
from acelib.models import (
    Completion,
    SamplingParams,
    Server,
    check_room,
    generate,
    out_of_memory_explained,
    prompt_tokens,
    solve_messages,
)
from acelib.schema import Problem, Program, Row


def sample_replies(
    model: Any,
    tokenizer: Any,
    conversations: dict[str, list[dict[str, str]]],
    params: SamplingParams,
    *,
    log: Path,
    json_schema: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, list[str]]:
    """`params.n` raw replies for each conversation, keyed as given.

    The replies to a conversation are appended to `log` (JSON lines) when all are there, before anybody parses them.
    Called again with the same log, only those that are not there are generated, and the replies are those of an
    uninterrupted run: what is sampled depends on the seed and the conversation alone (so two equal conversations get
    equal replies). `progress` counts distinct conversations, also in parts.

    A server (see `acelib.models.server`) has limits, and a log of its own where it is paid; it alone is asked for JSON
    after `json_schema`. Raises ModelError when a prompt does not fit the model's context, DeviceError, and
    ArtifactError, and what `remote_replies` does.
    """
    if isinstance(model, Server):
        from acelib.models import remote_replies  # loads openai

        server = model if model.log else replace(model, log=log)
        return remote_replies(server, conversations, params, json_schema=json_schema, progress=progress)
    # All of them first: a prompt that is too long should cost seconds, not the hours up to its turn.
    check_room(model, prompt_tokens(tokenizer, conversations.values()), params.max_new_tokens)
    asked = {str(one): key for key, one in reversed(conversations.items())}  # the first of equal ones
    with open_log(log) as file, out_of_memory_explained("lower the stage's batch_size in the profile"):
        done = {one["id"]: one["replies"] for one in file.records() if len(one.get("replies", ())) == params.n}
        missing = [key for key in reversed(asked.values()) if key not in done]

        def complete(number: int, replies: list[Completion]) -> None:
            done[missing[number]] = [one.text for one in replies]
            file.append({"id": missing[number], "replies": done[missing[number]]})

        def report(replies: float, _: int) -> None:
            progress(round(len(asked) - len(missing) + replies / params.n, 2), len(asked))

        chats = [conversations[key] for key in missing]
        generate(model, tokenizer, chats, params, report if progress else None, complete)
    return {key: done[asked[str(one)]] for key, one in conversations.items()}


def sample_programs(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    params: SamplingParams,
    *,
    prompt: str,
    log: Path,
    model_name: str = "",
    progress: Progress | None = None,
) -> list[Program]:
    """`params.n` programs per problem, in the order of the problems (see `sample_replies`).

    Raises DataError when two problems share an id.
    """
    conversations = {problem.id: solve_messages(prompt, problem.question) for problem in problems}
    if len(conversations) < len(problems):
        raise DataError("Two problems have the same id; give every problem its own.")
    replies = sample_replies(model, tokenizer, conversations, params, log=log, progress=progress)
    return [
        Program(problem.id, extract_program(reply, problem.entry_point), model_name, reply)
        for problem in problems
        for reply in replies[problem.id]
    ]


def submission(problem: Problem, program: str | None) -> Submission:
    """A program and the tests of its problem, after the usual imports and what the question gives."""
    prelude = LLM_PRELUDE + problem.prelude
    return Submission(program, problem.tests, prelude, setup_after=problem.setup, entry_point=problem.entry_point)


def judge_programs(judge: Judge, problems: Iterable[Problem], programs: Sequence[Program]) -> list[Report]:
    """One report per program, in order; its verdicts are in the order of the problem's tests.

    Programs get the usual imports first (`LLM_PRELUDE`): models rely on imports that a prompt did not give.
    """
    known = {problem.id: problem for problem in problems}
    strangers = {program.problem_id for program in programs} - known.keys()
    if strangers:
        raise DataError(f"Programs for unknown problems ({', '.join(sorted(strangers)[:3])}); pass those problems too.")
    return judge.run([submission(known[program.problem_id], program.text) for program in programs])


def samples_to_rows(problems: Sequence[Problem], programs: Sequence[Program], reports: Sequence[Report]) -> list[Row]:
    """AceCode-87K rows whose `inferences` carry the programs; `reports` is aligned with `programs`."""
    inferences: dict[str, list[Row]] = {problem.id: [] for problem in problems}
    for program, report in zip(programs, reports, strict=True):
        row = {
            "completion_id": len(inferences[program.problem_id]),
            "model_name": program.model,
            "completion": program.reply,
            "program": program.text,
            "pass_rate": float(report.pass_rate),
            "test_results": [bool(verdict.passed) for verdict in report.verdicts],
        }
        inferences[program.problem_id].append(row)
    return [row | {"inferences": inferences[row["id"]]} for row in map(Problem.to_row, problems)]


def restrict_tests(rows: Iterable[Row], problems: Sequence[Problem]) -> list[Row]:
    """The rows of `problems`, with results and pass rates on those problems' tests only.

    The tests of each problem must be among the tests of its row; raises DataError otherwise. Used to read off, from
    programs judged once on all imagined tests, how they do on the surviving ones.
    """
    by_id = {row["id"]: row for row in rows}
    restricted = []
    for problem in problems:
        row, judged = problem.to_row(), by_id.get(problem.id, {"test_cases": (), "inferences": ()})
        if problem.id not in by_id or not set(problem.tests) <= set(judged["test_cases"]):
            raise DataError(f"Question {problem.id!r} was not judged on all of these tests; judge its programs again.")
        places, row["inferences"] = [judged["test_cases"].index(test) for test in problem.tests], []
        for item in judged["inferences"]:
            results = [item["test_results"][place] for place in places]
            rate = sum(results) / max(1, len(results))
            row["inferences"].append(item | {"test_results": results, "pass_rate": rate})
        restricted.append(row)
    return restricted


def rows_to_programs(rows: Iterable[Row]) -> list[Program]:
    """The programs of AceCode-87K rows. Hub rows store no `program`: it is found in the completion again."""
    return [
        Program(
            str(row["id"]),
            item["program"] if "program" in item else extract_program(item["completion"], row.get("entry_point")),
            item["model_name"],
            item["completion"],
        )
        for row in rows
        for item in row["inferences"]
    ]


def pass_rates(row: Row, denominator: int | None = None) -> list[float]:
    """Share of tests each sampled program passes, in [0, 1].

    The paper divides by the surviving tests; its public code divides by all imagined ones: pass their number as
    `denominator` to do the same.
    """
    if denominator is None:
        return [item["pass_rate"] for item in row["inferences"]]
    if denominator < len(row["test_cases"]):
        raise DataError("The denominator is smaller than the number of surviving tests; pass all imagined tests.")
    return [sum(item["test_results"]) / max(1, denominator) for item in row["inferences"]]
