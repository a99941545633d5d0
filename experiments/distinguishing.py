"""Inputs that tell samples apart, with what the samples and the teacher say about each (appendix A4).

    python -m experiments.distinguishing        # pocket, from a finished run
    python -m experiments.distinguishing --model FOLDER_OR_HUB_NAME --humaneval humaneval.jsonl.gz

Programs that pass the same imagined tests may still disagree elsewhere. Where? We try the arguments of the imagined
tests, whether their results are right or not, and mutations of them, and keep those that best split the samples which
pass all tests that agreement keeps, or all that the proxy keeps. On these the teacher is asked again: eight results for
each. The truth stands beside it for measuring. One row per question, in `data/grid/distinguishing.parquet` and
`data/real/distinguishing.parquet`.
"""

import argparse
import ast
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from acelib.core import ROOT, Profile, Run, assume, load_profile, read_rows, write_rows
from acelib.course import open_run
from acelib.data import benchmark_rows, read_benchmark
from acelib.engine import open_sampler
from acelib.judge import LLM_PRELUDE, Judge, Submission, outputs
from acelib.models import Conversation, SamplingParams, generate, solve_messages
from acelib.pocket.laboratory import Laboratory
from acelib.sampling import judge_programs
from acelib.schema import Problem, Program, Row
from experiments.filters import AGREEMENT, HIDDEN, TABLE, passes_all, trusted_tests
from experiments.published import record_provenance
from experiments.real_laboratory import IMAGINE

MUTANTS, INPUTS, VOTES = 40, 5, 8  # new inputs tried, inputs kept at most, and results asked for each, per question
Ask = Callable[[list[tuple[Row, list]]], list[list[str]]]  # (question, arguments) -> texts of VOTES results


def mutated(value, rng: random.Random):
    """A value of the same type with one small change; what is empty or of another type may stay as it is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice([value + 1, value - 1, -value, 2 * value])
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        kept = {name: one for name, one in value.items() if name != key}
        return kept if rng.random() < 0.5 else value | {key: mutated(value[key], rng)}
    if isinstance(value, (str, list, tuple)) and value:
        place = rng.randrange(len(value))
        before, one, after = value[:place], value[place : place + 1], value[place + 1 :]
        other = one.swapcase() if isinstance(value, str) else type(value)([mutated(one[0], rng)])
        return rng.choice([before + after, before + one + one + after, before + other + after, after + one + before])
    return value


def arguments(test: str, entry_point: str) -> list | None:
    """The literal arguments of the first call of `entry_point` in a test; None without one."""
    try:
        for node in ast.walk(ast.parse(test)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == entry_point and not node.keywords:
                return [ast.literal_eval(one) for one in node.args]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    return None


def inputs(tests: Sequence[str], entry_point: str, rng: random.Random) -> list[list]:
    """Arguments of the tests, then up to MUTANTS new ones, each with one argument of a test mutated once or twice."""
    known = {repr(one): one for one in (arguments(test, entry_point) for test in tests) if one}
    seeds, enough = list(known.values()), len(known) + MUTANTS
    for _ in range(10 * MUTANTS if seeds else 0):
        if len(known) == enough:
            break
        new = list(rng.choice(seeds))
        for _ in range(rng.choice([1, 2])):
            place = rng.randrange(len(new))
            new[place] = mutated(new[place], rng)
        known.setdefault(repr(new), new)
    return list(known.values())


def numbered(texts: Sequence[str | None], values: list[str] | None = None) -> tuple[list[str], list[int]]:
    """(distinct values, their numbers): outputs that are equal as Python has it get one number; -1 for None."""
    values, found = list(values or ()), []
    for text in texts:
        known = (place for place, value in enumerate(values) if text is not None and _equal(text, value))
        number = next(known, -1 if text is None else len(values))
        values += [text] * (number == len(values))
        found.append(number)
    return values, found


def _equal(a: str, b: str) -> bool:
    return a == b or bool(ast.literal_eval(a) == ast.literal_eval(b))


def distinguishing_inputs(numbers: np.ndarray, alive: np.ndarray, most: int = INPUTS) -> list[int]:
    """Places of inputs that tell samples apart, the best first: each splits the most pairs that were alike before.

    numbers: (samples, inputs), which value each sample returns (`numbered`); alive: which samples to tell apart.
    """
    groups, chosen = [()] * int(alive.sum()), []

    def pairs(place: int) -> int:
        """How many pairs are alike with this input, too."""
        _, sizes = np.unique(_labels(groups, numbers[alive, place]), return_counts=True)
        return int((sizes * (sizes - 1)).sum())

    together = len(groups) * (len(groups) - 1)
    while len(chosen) < most and together:
        best = min(range(numbers.shape[1]), key=pairs, default=None)
        if best is None or pairs(best) == together:
            break
        together = pairs(best)
        groups = list(zip(groups, numbers[alive, best].tolist()))
        chosen.append(best)
    return chosen


def _labels(groups: Sequence[tuple], values: np.ndarray) -> list[int]:
    known: dict[tuple, int] = {}
    return [known.setdefault(one, len(known)) for one in zip(groups, values.tolist())]


def call(entry_point: str, given: Sequence) -> str:
    return f"{entry_point}({', '.join(map(repr, given))})"


def examine(rows: Sequence[Row], judge: Judge, ask: Ask) -> list[Row]:
    """The rows with the inputs that tell their programs apart, best first, at most INPUTS.

    rows: `id`, `entry_point`, `tests`, `programs`, `results` (programs x tests), `proxy_program`, `proxy` (its
    verdicts), and the truth: a correct program as `reference`, or `true_value(arguments)`, a literal or None.
    New columns: `calls`, and for each call `values` (distinct outputs), `outputs` (which of them each program returns,
    -1 for none), `proxy_outputs` (which one the proxy's program returns), `votes` (which of them the teacher says, -1
    for another) and `expected` (the right one, -1 for another).
    """
    found, asked = [], []
    for row in rows:
        given = inputs(row["tests"], row["entry_point"], random.Random(row["id"]))
        calls = [call(row["entry_point"], one) for one in given]
        programs = [*row["programs"], row["proxy_program"], *filter(None, [row.get("reference")])]
        seen = outputs(judge, [Submission(one, calls, LLM_PRELUDE, entry_point=row["entry_point"]) for one in programs])
        columns = [numbered([one[place] for one in seen]) for place in range(len(calls))]
        numbers = np.array([column for _, column in columns]).reshape(len(calls), len(programs)).T
        mine, proxy = numbers[: len(row["programs"])], numbers[len(row["programs"])]
        chosen = distinguishing_inputs(mine, _alive(row)) if calls else []
        if row.get("reference"):
            truths = [numbers[-1, k] for k in chosen]
        else:
            truths = [_among(columns[k][0], row["true_value"](given[k])) for k in chosen]
        found.append(
            {
                "calls": [calls[k] for k in chosen],
                "values": [columns[k][0] for k in chosen],
                "outputs": [mine[:, k].tolist() for k in chosen],
                "proxy_outputs": [int(proxy[k]) for k in chosen],
                "expected": [int(one) for one in truths],
            }
        )
        asked += [(row, given[k]) for k in chosen]
    answers = iter(ask(asked))
    return [
        row | new | {"votes": [[_among(values, text) for text in next(answers)] for values in new["values"]]}
        for row, new in zip(rows, found, strict=True)
    ]


def _alive(row: Row) -> np.ndarray:
    """Samples that pass all tests which agreement keeps, or all which the proxy keeps: those are to be told apart."""
    results, proxy = np.array(row["results"], dtype=bool), np.array(row["proxy"], dtype=bool)
    return passes_all(results, trusted_tests(results, AGREEMENT)) | passes_all(results, proxy)


def _among(values: Sequence[str], text: str | None) -> int:
    """The place of a literal among `values`; -1 if it is none of them, or no literal."""
    try:
        ast.literal_eval(text or "")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return -1
    known, (number,) = numbered([text], list(values))
    return number if len(known) == len(values) else -1


def _continued(profile: Profile, folder: Path, chats: Sequence[Conversation], tokens: int) -> list[list[str]]:
    """VOTES continuations of the replies that are begun in `chats`, by the profile's teacher."""
    params = SamplingParams(n=VOTES, temperature=0.8, max_new_tokens=tokens, batch_size=64, seed=profile.seed)
    if not chats:
        return []
    found = generate(*open_sampler(profile, profile.models.teacher, folder), chats, params)
    return [[one.text for one in row] for row in found]


def ask_pocket(run: Run, folder: Path) -> Ask:
    """Asks the pocket teacher as notebook 01 does, its own question and the new input already written."""
    said = {row["id"]: row["reply"] for row in run.read("replies")}
    seeds = {row["id"]: row["program"] for row in read_rows(run.profile.resolve(run.profile.data.seeds))}

    def ask(asked: list[tuple[Row, list]]) -> list[list[str]]:
        chats = []
        for row, given in asked:
            head, key, _ = said[row["id"]].partition('"tests": [')
            begun = head + key + json.dumps(f"# {given[0]!r}")[:-1]
            first = solve_messages(run.profile.prompts.teacher.replace("{program}", "{question}"), seeds[row["id"]])
            chats.append([*first, {"role": "assistant", "content": begun}])
        texts = _continued(run.profile, folder, chats, 90)
        return [[_claim(text) for text in row] for row in texts]

    return ask


def _claim(text: str) -> str:
    """The result in the first assert of a reply that is JSON from somewhere inside a string on."""
    found = re.search(r'assert .*?\) == ((?:[^"\\]|\\.)*)"', text)
    try:
        return json.loads(f'"{found[1]}"') if found else ""
    except ValueError:  # an escape that JSON does not know
        return ""


def ask_real(profile: Profile, folder: Path, questions: dict[str, str]) -> Ask:
    """Asks the model to go on from `assert f(arguments) ==`."""

    def ask(asked: list[tuple[Row, list]]) -> list[list[str]]:
        begun = [f"{IMAGINE.prefill} {call(row['entry_point'], given)} ==" for row, given in asked]
        chats = [
            [*solve_messages(IMAGINE.user, questions[row["id"]]), {"role": "assistant", "content": text}]
            for (row, _), text in zip(asked, begun, strict=True)
        ]
        return [[_first_literal(t) for t in row] for row in _continued(profile, folder, chats, 40)]

    return ask


def _first_literal(text: str) -> str:
    """The value at the head of a line, without the comment behind it."""
    line = text.strip().split("\n")[0]
    try:
        return ast.unparse(ast.parse(line, mode="eval"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def pocket_rows(run: Run, judge: Judge) -> list[Row]:
    """Questions of notebook 03 that the laboratory understands, with the policy's samples and who passes what."""
    laboratory, rows = Laboratory.open(run.profile), []
    proxies = {row["id"]: row for row in run.read("proxy_verdicts")}
    for row in run.read("samples_unfiltered"):
        question, tests = row["question"], row["test_cases"]
        hidden = laboratory.hidden_tests(question, HIDDEN)
        valid = [laboratory.test_is_valid(question, test) for test in tests]
        if not hidden or None in valid:
            continue
        problem = Problem.from_row(row | {"test_cases": hidden})
        programs = [one["program"] for one in row["inferences"]]
        truth = judge_programs(judge, [problem], [Program(row["id"], one, "policy") for one in programs])
        rows.append(
            {
                "id": row["id"],
                "entry_point": row["entry_point"],
                "tests": tests,
                "valid": valid,
                "results": [one["test_results"] for one in row["inferences"]],
                "proxy": proxies[row["id"]]["passed"],
                "proxy_program": proxies[row["id"]]["program"],
                "truth": [one.pass_rate for one in truth],
                "programs": programs,
                "true_value": _true_value(laboratory, question, row["entry_point"]),
            }
        )
    return rows


def _true_value(laboratory: Laboratory, question: str, entry_point: str) -> Callable[[list], str | None]:
    def value(given: list) -> str | None:
        known, found = laboratory.expected(question, f"assert {call(entry_point, given)} == 0")
        return repr(found) if known else None

    return value


def real_rows(humaneval: str) -> tuple[list[Row], dict[str, str]]:
    """The questions of `data/real/laboratory.parquet` with their reference solutions; and the questions' texts."""
    solutions = {row["task_id"]: row["prompt"] + row["canonical_solution"] for row in benchmark_rows(humaneval)}
    rows = [
        {
            "id": row["id"],
            "entry_point": row["entry_point"],
            "tests": row["tests"],
            "valid": row["valid"],
            "results": row["results"],
            "proxy": row["greedy_results"],
            "proxy_program": row["greedy_program"],
            "truth": row["pass_rate"],
            "programs": row["programs"],
            "reference": solutions[row["id"]],
        }
        for row in read_rows(ROOT / "data" / "real" / "laboratory.parquet")
        if row["id"] in solutions
    ]
    return rows, {one.id: one.question for one in read_benchmark(humaneval)}


SHIPPED = (
    "id",
    "valid",
    "results",
    "proxy",
    "truth",
    "calls",
    "values",
    "outputs",
    "proxy_outputs",
    "votes",
    "expected",
)


def pocket_table(run: Run) -> list[Row]:
    """The table of a finished run, an artefact of it: columns SHIPPED."""

    def make(scratch: Path) -> list[Row]:
        with Judge.from_settings(run.profile.judge) as judge:
            rows = examine(pocket_rows(run, judge), judge, ask_pocket(run, scratch))
        return [{key: row[key] for key in SHIPPED} for row in rows]

    return run.table(TABLE, make, inputs=("samples_unfiltered", "replies", "proxy_verdicts"))


def real_table(profile: Profile, humaneval: str) -> list[Row]:
    """The table of the recorded laboratory: columns SHIPPED."""
    rows, questions = real_rows(humaneval)
    with Judge.from_settings(profile.judge) as judge, tempfile.TemporaryDirectory() as folder:
        found = examine(rows, judge, ask_real(profile, Path(folder), questions))
    return [{key: row[key] for key in SHIPPED} for row in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="default: pocket, or real with --model")
    parser.add_argument("--run-dir", type=Path, help="pocket: a finished run to start from (default: runs/<profile>)")
    parser.add_argument("--model", help="folder or hub name of the model that the laboratory recorded")
    parser.add_argument("--humaneval", default="openai/openai_humaneval")
    parser.add_argument("--to", type=Path, help="default: data/grid, or data/real with --model")
    asked, start = parser.parse_args(), time.process_time()
    profile = load_profile(asked.profile or ("real" if asked.model else "pocket"))
    torch.set_num_threads(profile.threads)
    target = asked.to or ROOT / "data" / ("real" if asked.model else "grid")
    if asked.model:
        rows = real_table(assume(profile, models=assume(profile.models, teacher=asked.model)), asked.humaneval)
    else:
        rows = pocket_table(open_run(asked.profile or "pocket", asked.run_dir or ROOT / "runs" / profile.name))
    target.mkdir(parents=True, exist_ok=True)
    write_rows(target / f"{TABLE}.parquet", rows)
    record_provenance(target, TABLE, profile, questions=len(rows), core_minutes=(time.process_time() - start) / 60)
    print(f"{target}: {len(rows)} questions, {sum(len(one['calls']) for one in rows)} inputs")


if __name__ == "__main__":
    main()
