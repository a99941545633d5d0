from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny_models import save_tiny_policy

from acelib import sampling
from acelib.core import DataError, ModelError
from acelib.core.tables import read_rows, write_rows
from acelib.models.generation import Completion, load_policy, load_tokenizer
from acelib.models.params import SamplingParams
from acelib.sampling import (
    judge_programs,
    pass_rates,
    restrict_tests,
    rows_to_programs,
    sample_programs,
    samples_to_rows,
)
from acelib.schema import Problem, Program

TESTS = ("assert f(1) == 1", "assert f(2) == 2")
PROBLEMS = [Problem("a", "qa", "f", TESTS), Problem("b", "qb", "f", TESTS)]
PARAMS = SamplingParams(n=2, max_new_tokens=9, batch_size=2, seed=3)
OPTIONS = dict(params=PARAMS, prompt="{question}")


def _report(*passed):
    verdicts = [SimpleNamespace(passed=p) for p in passed]
    return SimpleNamespace(verdicts=verdicts, pass_rate=sum(passed) / len(passed) if passed else 0.0)


@pytest.fixture
def talker(monkeypatch):
    """A model that answers with numbered programs and remembers what it was asked."""
    asked = []

    def generate(model, tokenizer, conversations, params, progress, complete):
        asked.extend(conversation[0]["content"] for conversation in conversations)
        reply = "```python\ndef f(x):\n    return {}\n```"
        for number in range(len(conversations)):
            complete(number, [Completion(reply.format(i), [], True, 0.0) for i in range(params.n)])

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "prompt_tokens", lambda *_: [])
    monkeypatch.setattr(sampling, "check_room", lambda *_: None)
    return asked


def test_programs_come_in_the_order_of_the_problems(talker, tmp_path):
    programs = sample_programs(None, None, PROBLEMS, log=tmp_path / "log", model_name="m", **OPTIONS)
    assert [program.problem_id for program in programs] == ["a", "a", "b", "b"]
    assert "return 1" in programs[3].text and "```" not in programs[3].text and "```" in programs[3].reply
    assert sample_programs(None, None, [], log=tmp_path / "none", **OPTIONS) == []


def test_equal_questions_are_asked_once_and_get_equal_replies(talker, tmp_path):
    twins = [PROBLEMS[0], replace(PROBLEMS[0], id="c")]
    for _ in range(2):  # the second time from the log
        one, _, other, _ = sample_programs(None, None, twins, log=tmp_path / "log", **OPTIONS)
        assert (one.problem_id, other.problem_id) == ("a", "c") and one.reply == other.reply
    assert talker == ["qa"]


def test_a_second_run_generates_nothing_and_a_changed_n_everything(talker, tmp_path):
    first = sample_programs(None, None, PROBLEMS, log=tmp_path / "log", **OPTIONS)
    assert len(talker) == 2
    assert sample_programs(None, None, PROBLEMS, log=tmp_path / "log", **OPTIONS) == first
    assert len(talker) == 2
    sample_programs(None, None, PROBLEMS, log=tmp_path / "log", **(OPTIONS | {"params": replace(PARAMS, n=3)}))
    assert len(talker) == 4


def test_a_torn_log_with_unusual_line_breaks_inside_a_reply_goes_on_from_its_whole_lines(talker, tmp_path):
    whole = '{"id": "a", "replies": ["one\u2028two\x85three", "def f(x):\\n    return 3"]}\n'
    (tmp_path / "log").write_text(whole + '{"id": "b", "repl', "utf-8")
    programs = sample_programs(None, None, PROBLEMS, log=tmp_path / "log", **OPTIONS)
    assert programs[0].reply == "one\u2028two\x85three" and "return 3" in programs[1].text
    assert talker == ["qb"]
    text = (tmp_path / "log").read_text("utf-8")
    assert text.startswith(whole) and text.count("\n") == 2 and text.endswith("}\n")


def test_equal_ids_are_refused(talker, tmp_path):
    with pytest.raises(DataError, match="same id"):
        sample_programs(None, None, PROBLEMS[:1] * 2, log=tmp_path / "log", **OPTIONS)


def test_judging_needs_the_problem_of_each_program():
    with pytest.raises(DataError, match="unknown problems"):
        judge_programs(None, PROBLEMS, [Program("c", "x", "m")])


def _rows():
    programs = [Program(p.id, text, "m", f"reply {text}") for p in PROBLEMS for text in ("x = 1", None)]
    reports = [_report(True, False), _report(False, False), _report(True, True), _report(False, False)]
    return programs, samples_to_rows(PROBLEMS, programs, reports)


def test_samples_survive_a_file(tmp_path):
    programs, rows = _rows()
    write_rows(tmp_path / "samples.parquet", rows)
    back = read_rows(tmp_path / "samples.parquet")
    assert back == rows and rows_to_programs(back) == programs
    assert [pass_rates(row) for row in back] == [[0.5, 0.0], [1.0, 0.0]]


def test_the_public_code_divides_by_all_imagined_tests():
    _, rows = _rows()
    assert pass_rates(rows[1], denominator=4) == [0.5, 0.0]
    with pytest.raises(DataError, match="denominator"):
        pass_rates(rows[1], denominator=1)


def test_hub_rows_have_no_program_column():
    row = {"id": 1, "inferences": [{"model_name": "m", "completion": "```python\ndef f():\n    pass\n```"}]}
    assert rows_to_programs([row])[0].text.startswith("def f()")


def test_results_on_surviving_tests_are_read_off():
    _, rows = _rows()
    kept = restrict_tests(rows, [Problem("a", "qa", "f", TESTS[1:])])
    assert [row["id"] for row in kept] == ["a"] and kept[0]["test_cases"] == [TESTS[1]]
    assert pass_rates(kept[0]) == [0.0, 0.0]
    assert pass_rates(restrict_tests(rows, PROBLEMS)[0]) == [0.5, 0.0]
    with pytest.raises(DataError, match="not judged"):
        restrict_tests(rows, [Problem("a", "qa", "f", ("assert f(9) == 9",))])


def test_programs_are_judged_with_the_usual_imports_and_in_order():
    from acelib.judge import Judge

    problem = Problem("a", "Write f.", "f", ("assert f([3, 1]) == 4", "assert f([]) == 1"))
    texts = ["def f(xs):\n    return reduce(lambda a, b: a + b, xs, 0)\n", None, "def f(xs):\n    return 1\n"]
    with Judge(workers=1) as judge:
        reports = judge_programs(judge, [problem], [Program("a", text, "m") for text in texts])
    assert [[verdict.passed for verdict in report.verdicts] for report in reports] == [
        [True, False],
        [False, False],
        [False, True],
    ]


def test_a_prompt_that_is_too_long_is_told_of_before_anything_is_sampled(tmp_path):
    policy = save_tiny_policy(tmp_path / "policy")
    model, tokenizer = load_policy(policy, device="cpu"), load_tokenizer(policy)
    long = Problem("c", "word " * 5000, "f", TESTS)
    with pytest.raises(ModelError, match="do not fit the model's context"):
        sample_programs(model, tokenizer, [*PROBLEMS, long], log=tmp_path / "log", **OPTIONS)
    assert not (tmp_path / "log").exists()
