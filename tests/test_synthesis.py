import json
from collections import Counter
from pathlib import Path

import pytest

from acelib import sampling, synthesis
from acelib.core import CourseError, DataError, load_profile
from acelib.core.tables import write_rows
from acelib.models.generation import Completion
from acelib.models.params import SamplingParams
from acelib.models.server import Server
from acelib.preflight import preflight
from acelib.synthesis import (
    TeacherReplyError,
    clean_test,
    close_brackets,
    imagine,
    load_seeds,
    parse_reply,
    problems_from_replies,
)

REPLY = json.dumps({"question": "Write `f(x)`.", "tests": ["# 1 > 2\nassert f(1) == 2", "assert f(2) == 3"]})
TESTS = ["assert f(1) == 2", "assert f(2) == 3"]


@pytest.mark.parametrize(
    "reply",
    [
        REPLY,
        f"```json\n{REPLY}\n```",
        f'Sure! A set like {{1, 2}} or {{"a": 1}} first.\n{REPLY}\nHope this helps {{"x": 1}}.',
        REPLY.replace("\\n", "\n"),
    ],
    ids=["plain", "fenced", "chat around", "raw newlines"],
)
def test_a_complete_reply_is_read(reply):
    assert parse_reply(reply) == ("Write `f(x)`.", TESTS)


@pytest.mark.parametrize("cut", range(REPLY.index("f(2)"), len(REPLY) - 2))
def test_a_truncated_reply_keeps_its_complete_strings(cut):
    counts = Counter()
    assert parse_reply(REPLY[:cut], counts) == ("Write `f(x)`.", TESTS[: 1 + (cut > REPLY.rindex('"'))])
    assert counts["replies: truncated, salvaged"] == 1


MENDED = {
    "unquoted": '{"question": "Write f.", "tests": [\n  assert f(1) == 2,\n  assert f(2) == 3\n]}',
    "unquoted, no commas": '{"question": "Write f.", "tests": [\n  assert f(1) == 2\n  assert f(2) == 3\n]}',
    "single quotes": "{'question': 'Write f.', 'tests': ['assert f(1) == 2', 'assert f(2) == 3']}",
    "bad escape": r'{"question": "Write f.", "n": "\d", "tests": ["assert f(1) == 2", "assert f(2) == 3"]}',
    "inner quotes": '{"question": "Write the "f".", "tests": ["assert f(1) == 2", "assert f(2) == 3"]}',
    "trailing comma": '{"question": "Write f.", "tests": ["assert f(1) == 2", "assert f(2) == 3",]}',
    "remarks": '{"question": "Write f.", "tests": ["assert f(1) == 2", // one\n "assert f(2) == 3" // two\n]}',
    "objects": '{"question": "Write f.", "tests": [{"assert": "f(1) == 2"}, {"test": "assert f(2) == 3", "why": "x"}]}',
    "repeated key": '{"question": "Write f.", "tests": ["assert f(1) == 2"], "tests": ["assert f(2) == 3"]}',
    "one text": '{"question": "Write f.", "tests": "assert f(1) == 2\\nassert f(2) == 3"}',
    "draft": '<think>{"question": "Draft", "tests": ["assert g(1) == 2"]}</think>' + REPLY.replace("`f(x)`", "f"),
    "pairs": '{"question": "Write `f(x)`.", "tests": [{"input": 1, "expected": 2}, {"args": [2], "output": 3}]}',
    "pairs of Python": '{"question": "Write `f(x)`.", "tests": [{"input": (1), "want": 2}, {"input": 2, "want": 3}]}',
    "no JSON": "Write f.\n```python\nassert f(1) == 2\nassert f(2) == 3\n```",
    "keys without quotes": '{question: "Write f.", tests: ["assert f(1) == 2", "assert f(2) == 3"]}',
    "other keys": '{"Problem Statement": {"title": "Write f.", "x": ""}, "Test Cases": ["f(1) == 2", "f(2) == 3"]}',
    "an example of the form": '{"question": "...", "tests": ["..."]}\n' + REPLY.replace("`f(x)`", "f"),
    "JSON in JSON": json.dumps(json.dumps({"question": "Write f.", "tests": TESTS})),
    "tests in JSON in JSON": json.dumps({"question": "Write f.", "tests": json.dumps(TESTS)}),
    "no commas": '{"question": "Write f." "tests": ["assert f(1) == 2" "assert f(2) == 3"]}',
    "printed quotes": "{“question”: “Write f.”, “tests”: [“assert f(1) == 2”, “assert f(2) == 3”]}",
    "YAML": "```yaml\nquestion: Write f.\ntests:\n  - assert f(1) == 2\n  - 'assert f(2) == 3'\n```",
    "TOML": 'question = "Write f."\ntests = ["assert f(1) == 2", "assert f(2) == 3"]',
    "XML": "<question>Write f.</question><test>assert f(1) == 2</test><test>assert f(2) == 3</test>",
    "a numbered list": "**Question:** Write f.\n\n**Tests:**\n1. `assert f(1) == 2`\n2. `assert f(2) == 3`\n",
    "numbered texts": json.dumps({"question": "Write f.", "tests": ["1. `assert f(1) == 2`", "- assert f(2) == 3"]}),
    "examples": json.dumps({"question": "Write f.", "tests": ["f(1) -> 2", ">>> f(2)\n3"]}),
    "functions": json.dumps({"question": "Write f.", "tests": ["def test():\n    assert f(1) == 2", TESTS[1]]}),
    "pairs in lists": '{"question": "Write `f(x)`.", "tests": [["f(1)", "2"], [2, 3]]}',
    "calls and results": '{"question": "Write f.", "tests": [{"call": "f(1)", "out": "2"}, {"call":"f(2)","out":3}]}',
    "calls as keys": '{"question": "Write f.", "tests": {"f(1)": 2, "f(2)": 3}}',
    "inputs and outputs": '{"question": "Write `f(x)`.", "tests": {"inputs": [[1], [2]], "outputs": [2, 3]}}',
    "no tests but inputs": '{"question": "Write `f(x)`.", "inputs": [1, 2], "outputs": [2, 3]}',
    "backticks": '{"question": "Write f.", "tests": [`assert f(1) == 2`, `assert f(2) == 3`]}',
    "a tuple": '{"question": "Write f.", "tests": ("assert f(1) == 2", "assert f(2) == 3")}',
    "named texts": json.dumps(
        {"question": "Write f.", "tests": ["Test 1: assert f(1) == 2", "Case: assert f(2) == 3"]}
    ),
    "unittest": json.dumps({"question": "Write f.", "tests": ["self.assertEqual(f(1), 2)", TESTS[1]]}),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_is_not_quite_json_is_read_as_it_is_meant(name):
    counts = Counter()
    question, tests = parse_reply(MENDED[name], counts)
    assert question.startswith("Write ") and tests == TESTS and not counts["replies: truncated, salvaged"]


def test_pairs_become_calls_only_where_it_is_clear_which():
    def read(question, *pairs, **options):
        counts = Counter()
        reply = json.dumps({"question": question, "tests": [{"input": i, "expected": o} for i, o in pairs]})
        return parse_reply(reply, counts, **options)

    assert read("Reverse.", ("ab", "ba"))[1] == ["assert solution('ab') == 'ba'"]
    unnamed = {"id": "a", "reply": '{"question": "Reverse.", "tests": [{"input": "ab", "expected": "ba"}]}'}
    assert "`solution`" in problems_from_replies([unnamed])[0][0].question
    assert read("Sum.", ([1, 2], 3), ([4], 4), entry_point="total")[1][1] == "assert total([4]) == 4"  # lengths differ
    assert read("Write `add(a, b)`.", ([1, 2], 3))[1] == ["assert add(1, 2) == 3"]
    assert read("Write `total(xs)`.", ([1, 2], 3))[1] == ["assert total([1, 2]) == 3"]
    assert read("Take.", ({"xs": [1], "n": 1}, [1]))[1] == ["assert solution(xs=[1], n=1) == [1]"]
    with pytest.raises(TeacherReplyError, match="one argument or several"):
        read("Combine.", ([1, 2], 3), ([3, 4], 7))
    with pytest.raises(TeacherReplyError, match="one argument or several"):
        read("Convert.", ("5", 5), ("6", 6))  # a text or a number


def test_a_loop_that_fills_the_reply_is_counted_as_one():
    counts = Counter()
    loop = '{"question": "Write f.", "tests": [' + '"assert f(1) == 2", ' * 30 + '"assert f('
    assert parse_reply(loop, counts)[1] == TESTS[:1]
    assert counts["replies: filled up by a loop, salvaged"] == 1 and counts["replies: truncated, salvaged"] == 0


def test_what_stands_beside_a_test_becomes_no_part_of_it():
    odd = '"n": "a"b"'  # and 'a'", " would be a text of four characters
    reply = f"""{{"question": "Write f.", {odd}, "tests": ["assert f(1) == 'a'", "assert f(2) == 'b'"]}}"""
    assert parse_reply(reply)[1] == ["assert f(1) == 'a'", "assert f(2) == 'b'"]


def test_a_question_that_has_swallowed_a_test_is_none():
    tests = ", ".join(json.dumps(f"# {i} > 3\nassert f({i}) == 3") for i in range(9))
    reply = f'{{"question": "Write f. Add one> [1]\\nassert f(1) == 2", {tests}]}}'
    with pytest.raises(TeacherReplyError, match="no question with tests"):
        parse_reply(reply)


HEAD = 'def f(x: int) -> int:\n    """Add one to x."""\n'


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("**Question:** Write `f(x)`.\n\n**Tests:**\n```python\n{}\n```\nGood luck!", "Write `f(x)`."),
        ("Write `f(x)`.\n\n```\n{}", "Write `f(x)`."),  # breaks off
        ("Write `f(x)`.\n\n{}", "Write `f(x)`."),
        ("```python\n" + HEAD + "\n{}\n```", "Write the function `f(x: int) -> int`.\n\nAdd one to x."),
        ("Sure!\n" + HEAD + "    return x + 1\n\n{}", "Write the function `f(x: int) -> int`.\n\nAdd one to x."),
        ("Given a number, add one to it.\n```python\n" + HEAD + "{}\n```", "Given a number, add one to it."),
        (
            "Write `f(x)`, which adds one to x.\n```python\n" + HEAD + "    assert x > 0\n```\n```python\n{}\n```",
            "Write `f(x)`, which adds one to x.",
        ),
    ],
)
def test_prose_or_a_docstring_is_the_question_of_asserts_in_code(reply, question):
    counts = Counter()
    said, tests = parse_reply(reply.format("\n".join(TESTS)), counts)
    assert tests == TESTS and said == question and not counts["replies: not quite JSON, mended"]


def test_a_loop_in_code_gives_the_tests_before_it():
    counts = Counter()
    loop = "Write `f(x)`.\n```python\n" + "\n".join([*TESTS, *TESTS[:1] * 40]) + "\nassert f("
    assert parse_reply(loop, counts)[1] == TESTS and counts["replies: filled up by a loop, salvaged"] == 1


def test_a_test_that_checks_nothing_is_dropped():
    counts = Counter()
    tests = ["assert (f(1) == 2, 'always true')", "assert f(1) == 2 or True", TESTS[0]]
    assert parse_reply(json.dumps({"question": "Write f.", "tests": tests}), counts)[1] == TESTS[:1]
    assert counts["tests: check nothing"] == 2


RECORDED = Path(__file__).resolve().parents[2] / "shared" / "real" / "teacher_replies.jsonl"


@pytest.mark.skipif(not RECORDED.exists(), reason="a real teacher's replies are not in ../shared/real")
def test_at_least_twenty_of_a_real_teachers_24_replies_give_something():
    rows = [json.loads(line) | {"source": "s"} for line in RECORDED.read_text().splitlines()]
    problems, counts = problems_from_replies(rows)
    assert len(rows) == 24 and len(problems) >= 20
    lost = sum(n for reason, n in counts.items() if reason.startswith("replies: it"))
    assert lost == 24 - len(problems)


def test_brackets_inside_strings_stay_closed():
    assert json.loads(close_brackets('{"a": ["}", "[\\"["')) == {"a": ["}", '["[']}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ("I cannot help with that.", "it holds no question with tests"),
        ('{"question', "it holds no question with tests"),
        ('{"quest": "a", "tests": []}', "it holds no question with tests"),
        ("[1, 2]", "it holds no question with tests"),
        ('{"question": "", "tests": ["assert f(1) == 2"]}', "it has no question"),
        ('{"question": 3, "tests": ["assert f(1) == 2"]}', "it has no question"),
        ('{"question": "Write f.", "tests": []}', "it has no usable assert"),
        ('{"question": "Write f.", "tests": ["f(1)", "assert f(", 7, null]}', "it has no usable assert"),
        ('{"question": "Write f."}', "it has no usable assert"),
        ('{"question": "Write f.", "tests": ["assert f(1', "it has no usable assert"),
        ('{"question": "Write f.", "tests": ["assert True"]}', "it has no usable assert"),
    ],
)
def test_a_useless_reply_says_why(reply, reason):
    with pytest.raises(TeacherReplyError, match=reason) as caught:
        parse_reply(reply)
    assert caught.value.reason == reason and isinstance(caught.value, CourseError)


def test_tests_are_cleaned_and_what_goes_is_counted():
    tests = [
        "assert f(1) == 2  # a comment",
        "assert   f( 1 )==2",
        "assert g(1) == 2",
        "assert f(g(1)) == 2",
        "assert sorted(f(3)) == [3]",
        "f(1)",
        "assert f(",
        "assert 1 == 1",
    ]
    counts = Counter()
    assert parse_reply(json.dumps({"question": "f", "tests": tests}), counts)[1] == [TESTS[0], tests[4]]
    assert counts["tests: imagined"] == 8
    assert counts["tests: repeated"] == 1
    assert counts["tests: call another function"] == 3
    assert counts["tests: no readable assert"] == 2
    assert counts["tests: kept"] == 2


@pytest.mark.parametrize(
    ("question", "odd"),
    [
        ("Write f.", "assert f(" + " + ".join(["1"] * 990) + ") == 990"),
        ("Write f.", "assert f(0x" + "f" * 5000 + ")"),
        ("Write f\ud83d.", "assert f('\ud83d')"),
        ("Write f.", "assert f(" + "[" * 300 + "]" * 300 + ")"),
    ],
    ids=["deep", "a number that cannot be written", "half a character", "too many brackets"],
)
def test_what_a_looping_teacher_writes_costs_that_test_alone(tmp_path, question, odd):
    reply = json.dumps({"question": question, "tests": [odd, TESTS[0]]})
    problems, _ = problems_from_replies([{"id": "a", "source": "s", "reply": reply}])
    assert TESTS[0] in problems[0].tests and problems[0].question == question.replace("\ud83d", "?")
    write_rows(tmp_path / "rows.parquet", problems)


def test_a_number_of_thousands_of_digits_ends_what_can_be_read():
    with pytest.raises(DataError, match="it has no usable assert"):
        parse_reply('{"question": "Write f.", "n": ' + "9" * 5000 + "}")


def test_a_hash_in_a_string_is_no_comment():
    assert clean_test("# > '#'\nassert f('#') == '#'  # yes") == "assert f('#') == '#'"
    assert clean_test("x = \0") is None


def test_every_seed_is_accounted_for():
    replies = [REPLY, "", REPLY, "no"]
    rows = [{"id": str(i), "source": "s", "reply": reply} for i, reply in enumerate(replies)]
    problems, counts = problems_from_replies(rows)
    assert [problem.id for problem in problems] == ["0"]
    assert problems[0].entry_point == "f" and problems[0].tests == tuple(TESTS) and problems[0].source == "s"
    assert counts["replies: all"] == 4
    assert counts["replies: it is empty"] == counts["replies: it holds no question with tests"] == 1
    assert counts["questions: repeated"] == counts["questions: kept"] == 1


def test_synthesis_resumes_without_generating_again(tmp_path, monkeypatch):
    asked = []

    def generate(model, tokenizer, conversations, params, progress, complete):
        for number, conversation in enumerate(conversations):
            asked.append(conversation[0]["content"])
            if model == "dies" and len(asked) == 5:
                raise KeyboardInterrupt
            complete(number, [Completion(REPLY.replace("f(", f"f{asked[-1][-1]}("), [], True, 0.0)])

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "prompt_tokens", lambda *_: [])
    monkeypatch.setattr(sampling, "check_room", lambda *_: None)
    seeds = [{"id": str(i), "source": "", "program": str(i)} for i in range(6)]
    options = dict(params=SamplingParams(max_new_tokens=9, batch_size=2, seed=0), prompt="test {program}")
    with pytest.raises(KeyboardInterrupt):
        imagine("dies", None, seeds, log=tmp_path / "log.jsonl", **options)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"id": "4", "repl')
    asked.clear()
    resumed = imagine("lives", None, seeds, log=tmp_path / "log.jsonl", **options)
    assert asked == ["test 4", "test 5"]
    assert resumed == imagine("lives", None, seeds, log=tmp_path / "other.jsonl", **options)
    assert len(problems_from_replies(resumed)[0]) == 6


def test_seeds_need_their_columns(tmp_path):
    (tmp_path / "seeds.jsonl").write_text('{"id": "a", "program": "x"}\n')
    with pytest.raises(CourseError, match="lacks source"):
        load_seeds(tmp_path / "seeds.jsonl")


def test_seeds_must_be_some(tmp_path):
    (tmp_path / "seeds.jsonl").write_text("")
    with pytest.raises(CourseError, match="no seed programs"):
        load_seeds(tmp_path / "seeds.jsonl")


def test_what_makes_seeds_is_said_before_anything_runs(tmp_path):
    profile = load_profile("real", {"data.seeds": str(tmp_path / "seeds" / "seeds.jsonl")})
    with pytest.raises(CourseError, match=rf"python -m acelib seeds {tmp_path / 'seeds'} --installed"):
        preflight(profile, tmp_path)


def test_a_teacher_that_never_answers_stops_the_course_with_one_sentence():
    replies = [{"id": str(i), "source": "", "reply": reply} for i, reply in enumerate(["", "no", "never"])]
    with pytest.raises(
        CourseError,
        match="None of the teacher's 3 replies can be used .most often it holds no question with tests.; look",
    ):
        problems_from_replies(replies)
    assert problems_from_replies([])[0] == []


def test_wherever_a_reply_is_cut_nothing_but_whole_tests_come_out():
    tests = [f"# {i} > [{i}, '}}']\nassert f({i}) == [{i}, '\"]']" for i in range(4)]
    reply = "```json\n" + json.dumps({"question": "Write `f(x)` with {braces}.", "tests": tests}) + "\n```"
    whole = parse_reply(reply)[1]
    assert len(whole) == 4
    seen = set()
    for cut in range(len(reply)):
        try:
            question, kept = parse_reply(reply[:cut])
        except DataError:
            kept = []
        else:
            assert question == "Write `f(x)` with {braces}."
        assert kept == whole[: len(kept)]
        seen.add(len(kept))
    assert seen == {0, 1, 2, 3, 4}


SEED = {
    "id": "s",
    "source": "mine",
    "program": "import math\n\ndef area(r: float, /, unit='m'):\n    return math.pi * r\n",
}


def test_a_weak_teacher_is_asked_in_turns(monkeypatch, tmp_path):
    """Both replies are begun for it, the question ends with its first paragraph, and what comes out can be read."""
    asked = []

    def replies(teacher, tokenizer, chats, params, *, log, json_schema, progress):
        asked.append((chats, params.max_new_tokens, log.name))
        for done in (1, 2):
            progress(done, 2)
        said = [
            " takes a radius `r`. It returns the area. It also\n\n```python\ndef area(r): ...",
            "1.0) == 3.0\nassert area(2.0, 'cm') == 6.0\n```",
        ]
        return {key: [said[len(asked) - 1]] for key in chats}

    monkeypatch.setattr(synthesis, "sample_replies", replies)
    params = SamplingParams(max_new_tokens=320, batch_size=1, seed=0)
    given = dict(prompt="Describe {program}", tests="{question} {program} {question}", log=tmp_path / "replies.jsonl")
    shown = []
    (row,) = imagine(None, None, [SEED], params, form="turns", progress=lambda *one: shown.append(one), **given)

    (first, paragraph, questions), (second, whole, log) = asked
    assert shown == [(0.5, 2), (1, 2), (1.5, 2), (2, 2)]  # one count over both turns
    assert first["s"] == [
        {"role": "user", "content": f"Describe {SEED['program']}"},
        {"role": "assistant", "content": "Write a Python function `area(r, /, unit='m')` that"},
    ]
    question = "Write a Python function `area(r, /, unit='m')` that takes a radius `r`. It returns the area."
    assert second["s"][0]["content"] == f"{question} {SEED['program']} {question}"
    assert second["s"][1]["content"].endswith("assert area(")
    assert (paragraph, whole, questions, log) == (synthesis.PARAGRAPH, 320, "questions-replies.jsonl", "replies.jsonl")
    assert parse_reply(row["reply"]) == (question, ["assert area(1.0) == 3.0", "assert area(2.0, 'cm') == 6.0"])


def test_a_server_cannot_go_on_from_what_is_begun(tmp_path):
    server = object.__new__(Server)
    with pytest.raises(CourseError, match="json or code"):
        imagine(
            server,
            None,
            [SEED],
            SamplingParams(max_new_tokens=9, batch_size=1, seed=0),
            prompt="",
            log=tmp_path / "l",
            form="turns",
            tests="",
        )
