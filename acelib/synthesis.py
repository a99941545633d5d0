"""A teacher rewrites seed programs into questions and imagines tests for them (section 2.2 of the paper)."""

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acelib.core import CourseError, DataError, Progress, read_rows
from acelib.extraction import answer_of
from acelib.interface import calls_of, fits, heads_of, named_functions, signatures, state_interface
from acelib.judge import why_invalid
from acelib.models import SamplingParams, Server
from acelib.sampling import sample_replies
from acelib.schema import Problem, Row, called_functions, entry_point_of, parse
from acelib.teacher_reply import as_asserts, merged, read_leniently, tests_of, usual_keys

JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
MAX_CUTS = 4
PARAGRAPH = 200  # tokens, for a question
HERE = "Here are the tests:\n\n"
REPLY_SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "tests": {"type": "array", "items": {"type": "string"}}},
    "required": ["question", "tests"],
    "additionalProperties": False,
}


class TeacherReplyError(DataError):
    """A teacher's reply that holds no usable question with tests; `reason` is the short form that is counted."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(f"The teacher's reply cannot be used: {reason}; {remedy}.")
        self.reason = reason


def load_seeds(path: str | Path) -> list[Row]:
    """Seed programs: rows with `id`, `source` and `program`. Raises CourseError without any or if one lacks these."""
    seeds = read_rows(path) if Path(path).exists() else []
    if not seeds:
        make = f"`python -m acelib seeds {Path(path).parent} --installed` makes some from the functions on this disk"
        raise CourseError(f"{path} holds no seed programs; {make}, or correct data.seeds in the profile.")
    for number, seed in enumerate(seeds):
        if missing := {"id", "source", "program"} - seed.keys():
            raise CourseError(f"Seed {number} in {path} lacks {', '.join(sorted(missing))}; add the columns.")
    return [seed | {"id": str(seed["id"])} for seed in seeds]


def find_json(text: str) -> tuple[dict, bool]:
    """The JSON object with a question and most tests in `text`; whether it had to be salvaged from a truncated reply.

    Fences, thoughts and chat before and after the object do not matter. A truncated object is cut after its last
    complete string (of the last few, the first that gives valid JSON) and its open brackets are closed; what is not
    quite JSON is read by `teacher_reply.read_leniently`, and of the two the one with more tests is taken.
    Raises TeacherReplyError when there is none.
    """
    if not text.strip():
        raise TeacherReplyError("it is empty", "check the teacher's chat template and stop tokens")
    if (found := _valid_json(text)) is not None:
        return found, False
    lenient = read_leniently(text)
    cut = _cut_json(answer_of(text)) if lenient is None or lenient[1] else None
    if cut is not None and len(tests_of(cut)) >= sum(map(bool, lenient[0]["tests"] if lenient else ())):
        return cut, True
    if lenient is None:
        raise TeacherReplyError(
            "it holds no question with tests", "say in the prompt what it should look like, or use a stronger teacher"
        )
    return lenient


def _valid_json(text: str) -> dict | None:
    decoder, text = json.JSONDecoder(strict=False, object_pairs_hook=merged), answer_of(text)
    best, most, end = None, (False, 0), 0
    for match in re.finditer(r'\{\s*"', text):
        if match.start() < end:
            continue
        try:
            found, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):  # also: a number of thousands of digits
            continue
        found = usual_keys(found)
        asserts = sum("assert" in test if isinstance(test, str) else bool(test) for test in tests_of(found))
        if "question" not in found:
            end = match.end()  # it may hold one that has
        elif (rank := (bool(found["question"]), asserts)) >= most:  # the last draft, unless it only shows the form
            best, most = found, rank
    return best


def _cut_json(text: str) -> dict | None:
    """The JSON object in `text` once that is cut after its last complete string, or one of the last, and closed."""
    ends = [match.end() for match in JSON_STRING.finditer(text)][: -MAX_CUTS - 1 : -1]
    return next((found for end in ends if (found := _valid_json(close_brackets(text[:end]))) is not None), None)


def close_brackets(text: str) -> str:
    """`text` followed by the brackets it leaves open; brackets inside JSON strings do not count."""
    closers = []
    for char in JSON_STRING.sub("", text):
        if char in "{[":
            closers.append("}" if char == "{" else "]")
        elif char in "}]" and closers:
            closers.pop()
    return text + "".join(reversed(closers))


def clean_test(test: str) -> str | None:
    """The test without comments, in canonical layout, or None when it does not parse or asserts nothing."""
    tree = parse(test)
    try:
        return ast.unparse(tree) if tree and any(isinstance(node, ast.Assert) for node in tree.body) else None
    except (ValueError, RecursionError):
        return None


def parse_reply(reply: str, counts: Counter | None = None, entry_point: str | None = None) -> tuple[str, list[str]]:
    """The question and the usable tests of a teacher's reply.

    Kept are tests that parse, assert something, call the function that most of them call (or the question names) and
    no other unknown one, as the question says if it gives a signature, and have not been seen. Pairs of input and
    output become such tests where it is clear which call they mean; `entry_point` is the function's name where neither
    the tests nor the question have one. What is dropped is added to `counts` by reason. Raises TeacherReplyError when
    nothing is left.
    """
    counts = Counter() if counts is None else counts
    found, salvaged = find_json(reply)
    question, raw = found["question"], tests_of(found)
    if not isinstance(question, str) or not question.strip():
        raise TeacherReplyError("it has no question", "check that the prompt asks for one")
    texts, unclear = as_asserts(raw, question, entry_point)
    counts["tests: imagined"] += len(texts) + unclear
    if unclear:
        counts["tests: input and output, unclear which call"] += unclear
    cleaned = [clean_test(test) if isinstance(test, str) else None for test in texts]
    counts["tests: no readable assert"] += cleaned.count(None)
    name = _function_of(question, [test for test in cleaned if test])
    heads = [head for other, head in signatures(question) if other == name]
    good = []
    for test in filter(None, cleaned):
        if called_functions(test) != {name}:
            counts["tests: call another function"] += 1
        elif heads and not any(fits(head, calls_of(name, test)) for head in heads):
            counts["tests: call it otherwise than the question says"] += 1
        elif why_invalid(test, name):
            counts["tests: check nothing"] += 1
        else:
            good.append(test)
    tests = list(dict.fromkeys(good))
    repeated = len(good) - len(tests)
    counts["tests: repeated"] += repeated
    looped = salvaged and repeated > max(len(tests), 4)
    counts["replies: truncated, salvaged"] += salvaged and not looped
    if looped:
        counts["replies: filled up by a loop, salvaged"] += 1
    elif not salvaged and "prose" not in found and _valid_json(reply) is None:
        counts["replies: not quite JSON, mended"] += 1
    if not tests and unclear:
        raise TeacherReplyError(
            "its inputs may be one argument or several", "ask for assert statements, or name the function"
        )
    if not tests:
        raise TeacherReplyError("it has no usable assert", "check that the prompt asks for assert statements")
    counts["tests: kept"] += len(tests)
    return question.strip().encode("utf-8", "replace").decode(), tests  # half a character is no text


def _function_of(question: str, tests: Sequence[str]) -> str | None:
    """The function that a reply is about. Raises TeacherReplyError when its question names one that no test calls."""
    named, called = named_functions(question), set().union(*map(called_functions, tests))
    if named and called and not named & called:
        raise TeacherReplyError("its tests call another function than its question names", "use a stronger teacher")
    mine = [test for test in tests if called_functions(test) & named]
    return entry_point_of(mine or tests, question)


def imagine(
    teacher: Any,
    tokenizer: Any,
    seeds: Sequence[Row],
    params: SamplingParams,
    *,
    prompt: str,
    log: Path,
    form: str = "json",
    tests: str = "none",
    progress: Progress | None = None,
) -> list[Row]:
    """The teacher's raw reply to every seed: rows with `id`, `source` and `reply`, in the order of the seeds.

    `prompt` is a template with {program}; a server is held to a JSON schema if `form` is json. With `turns` a teacher
    that is weak writes the question in one paragraph and then, asked with `tests` ({question}, {program}), the tests.
    Both replies are begun for it, with the name and the arguments of the seed's last function: small models otherwise
    solve the question, or keep the name to themselves. Replies go to `log` as they come, before anybody parses them:
    called again with the same log, only what is missing is generated. Raises as `sample_replies`, and CourseError for
    a server that is to go on from what is begun.
    """
    heads = {row["id"]: (heads_of(row["program"]) or [""])[-1] for row in seeds} if form == "turns" else {}
    if heads and isinstance(teacher, Server):
        raise CourseError("A server cannot go on from a reply that is begun; set synthesis.form to json or code.")
    schema, questions, begun = REPLY_SCHEMA if form == "json" else None, {}, {}

    def ask(template: str, log: Path, params: SamplingParams, before: float, share: float) -> dict[str, str]:
        chats, report = {}, progress and (lambda done, total: progress(round(before * total + share * done, 2), total))
        for row in seeds:
            known = {"{program}": row["program"], "{question}": questions.get(row["id"], "")}
            said = re.sub("|".join(map(re.escape, known)), lambda match, known=known: known[match[0]], template)
            reply = [{"role": "assistant", "content": begun[row["id"]]}] if begun else []
            chats[row["id"]] = [{"role": "user", "content": said}, *reply]
        found = sample_replies(teacher, tokenizer, chats, params, log=log, json_schema=schema, progress=report)
        return {key: begun.get(key, "") + texts[0] for key, texts in found.items()}

    if heads:
        begun = {key: f"Write a Python function `{head}` that" if head else "Write" for key, head in heads.items()}
        short = replace(params, max_new_tokens=min(PARAGRAPH, params.max_new_tokens))
        written = ask(prompt, log.with_name(f"questions-{log.name}"), short, 0, 0.5)
        questions = {key: _paragraph(text) for key, text in written.items()}
        begun = {
            key: f"{HERE}```python\nassert {head.partition('(')[0]}{'(' * bool(head)}" for key, head in heads.items()
        }
    replies = ask(tests if heads else prompt, log, params, *((0.5, 0.5) if heads else (0, 1)))
    if heads:
        replies = {key: f"{questions[key]}\n\n{text.removeprefix(HERE)}" for key, text in replies.items()}
    return [{"id": row["id"], "source": row["source"], "reply": replies[row["id"]]} for row in seeds]


def _paragraph(text: str) -> str:
    """The first one of `text`, up to its last whole sentence."""
    first = re.split(r"\n\s*\n|```", text)[0].strip()
    return first if first[-1:] in ".!?:`" else re.sub(r"(?s)([.!?])\s[^.!?]*$", r"\1", first)


def problems_from_replies(replies: Sequence[Row], seeds: Sequence[Row] = ()) -> tuple[list[Problem], Counter]:
    """The problems in the teacher's replies (see `imagine`), and counts of what was kept and dropped, by reason.

    A reply without a usable question and tests is dropped, and so is a question that was imagined before. A question
    that keeps the function or its arguments to itself gets a sentence that tells them (`state_interface`); `seeds` name
    the arguments where the function is theirs. Raises CourseError when nothing is left.
    """
    counts: Counter = Counter({"replies: all": len(replies)})
    programs = {seed["id"]: seed["program"] for seed in seeds}
    problems: dict[str, Problem] = {}
    for row in replies:
        try:
            asked, tests = parse_reply(row["reply"], counts)
        except TeacherReplyError as error:
            counts[f"replies: {error.reason}"] += 1
            continue
        entry_point = entry_point_of(tests, asked)
        question = state_interface(asked, entry_point, tests, programs.get(row["id"], ""))
        if question in problems:
            counts["questions: repeated"] += 1
            continue
        counts["questions: function and arguments named by us"] += question != asked
        problems[question] = Problem(row["id"], question, entry_point, tuple(tests), row.get("source", ""))
    if replies and not problems:
        reasons = Counter({key: n for key, n in counts.items() if key.startswith("replies: it")})
        raise CourseError(
            f"None of the teacher's {len(replies)} replies can be used "
            f"(most often {reasons.most_common(1)[0][0][9:]}); look at one, then at prompts.teacher and "
            "synthesis.max_new_tokens in the profile."
        )
    counts["questions: kept"] = len(problems)
    return list(problems.values()), counts
