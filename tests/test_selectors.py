import json
import math

import pytest
import torch
from in_notebooks import notebook_function
from tiny_models import tiny_policy

from acelib.best_of_n import dual_agreement, expected_best, rate_then_score, share_passed, shown_outputs
from acelib.core import DataError, ModelError
from acelib.core.tables import read_rows
from acelib.judge import Judge, Report, Verdict
from acelib.models.generation import render
from acelib.models.prefix import pad, response_logps
from tools.rank import main, majority_vote, picked_correct, rank, read_recorded

mean_logprob, self_certainty = (notebook_function("A3", name) for name in ("mean_logprob", "self_certainty"))
policy_confidence = notebook_function("A3", "policy_confidence", "mean_logprob", "self_certainty")
DOUBLE, ALSO, SQUARE, BROKEN = (
    "def f(x):\n    return 2 * x\n",
    "def f(x):\n    return x + x\n",
    "def f(x):\n    return x * x\n",
    "def f(:",
)
TESTS = ["assert f(2) == 4", "assert f(3) == 6", "assert f(3) == 9"]


@pytest.fixture(scope="module")
def judge():
    with Judge() as judge:
        yield judge


def test_mean_logprob_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log() + 7  # a constant on all logits is no matter
    by_hand = (math.log(0.25) + math.log(0.8)) / 2
    assert mean_logprob(logits, torch.tensor([1, 2])) == pytest.approx(by_hand, abs=1e-6)
    assert mean_logprob(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == -math.inf


def test_self_certainty_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log() - 3
    first = -(math.log(3 * 0.5) + 2 * math.log(3 * 0.25)) / 3
    second = -(2 * math.log(3 * 0.1) + math.log(3 * 0.8)) / 3
    assert self_certainty(logits) == pytest.approx((first + second) / 2, abs=1e-6)
    assert self_certainty(torch.full((4, 9), 2.0)) == pytest.approx(0, abs=1e-6)
    assert self_certainty(torch.zeros(0, 3)) == -math.inf


PROMPTS = ["a?", "a?", "a much longer question?", "b?", "a?"]
REPLIES = ["return 1", "return sorted(xs)", "x", "", "return 1"]


def test_confidence_of_a_policy_is_that_of_one_text_alone():
    model, tokenizer = tiny_policy(initializer_range=0.1)
    found = policy_confidence(model, tokenizer, PROMPTS, REPLIES, batch_size=3)
    for i, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES)):
        start = tokenizer(render(tokenizer, [{"role": "user", "content": prompt}]))["input_ids"]
        tokens = tokenizer(reply)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([start + tokens])).logits[0, len(start) - 1 : -1]
        alone = mean_logprob(logits, torch.tensor(tokens, dtype=torch.long)), self_certainty(logits)
        assert found["mean_logprob"][i] == pytest.approx(alone[0], rel=1e-4, abs=1e-5)
        assert found["self_certainty"][i] == pytest.approx(alone[1], rel=1e-4, abs=1e-5)
    assert found["mean_logprob"][3] == found["self_certainty"][3] == -math.inf
    assert found["mean_logprob"][0] == found["mean_logprob"][4]
    assert policy_confidence(model, tokenizer, [], []) == {"mean_logprob": [], "self_certainty": []}


@torch.no_grad()
def test_confidence_agrees_with_the_log_probs_that_training_uses():
    model, tokenizer = tiny_policy(initializer_range=0.1)
    prompts, replies = PROMPTS[:3], REPLIES[:3]
    starts = [tokenizer(render(tokenizer, [{"role": "user", "content": p}]))["input_ids"] for p in prompts]
    tokens, mask = pad([tokenizer(reply)["input_ids"] for reply in replies], tokenizer.pad_token_id, side="right")
    logps, _ = response_logps(model, *pad(starts, tokenizer.pad_token_id), tokens, mask, 1.0, 8)
    expected = (logps.sum(1) / mask.sum(1)).tolist()
    found = policy_confidence(model, tokenizer, prompts, replies)
    assert found["mean_logprob"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_text_longer_than_the_context_is_an_error():
    model, tokenizer = tiny_policy()
    with pytest.raises(ModelError, match="context of 128"):
        policy_confidence(model, tokenizer, ["q?"], ["x" * 200])


PASSED = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]]


def test_pass_rates_on_all_and_on_filtered_tests():
    assert share_passed(PASSED) == [0.5, 0.5, 0.75, 0, 0, 0, 0.5]
    assert share_passed(PASSED, kept=[0, 1]) == [1, 1, 0.5, 0, 0, 0, 0.5]
    assert share_passed(PASSED, kept=[]) == [0] * 7
    assert share_passed([[], []]) == [0, 0]


def test_dual_agreement_by_hand():
    # Two samples pass tests {0, 1}: 2 x 2. One passes {1, 2, 3}: 1 x 3. Three pass nothing: 3 x 0. Another two: 1 x 2.
    assert dual_agreement(PASSED) == [4, 4, 3, 0, 0, 0, 2]
    assert dual_agreement([]) == []
    with pytest.raises(DataError, match="different numbers of tests"):
        dual_agreement([[1, 0], [1]])


def test_majority_vote_by_hand():
    assert majority_vote(["a", "b", "a", None, None, None]) == [2, 1, 2, 0, 0, 0]
    assert majority_vote([(1, 2), (1, 2), (2, 1)]) == [2, 2, 1]


def test_outputs_are_told_apart_as_far_as_the_judge_shows_them():
    reports = [
        Report(tuple(Verdict(*v) for v in verdicts))
        for verdicts in (
            [("passed", ""), ("failed", "got 3")],
            [("passed", ""), ("failed", "got 4")],
            [("passed", ""), ("error", "KeyError: 1")],
            [("passed", ""), ("error", "KeyError: 2")],
            [("error", "x"), ("timeout", "")],
            [("syntax_error", ""), ("syntax_error", "")],
        )
    ]
    assert majority_vote(shown_outputs(reports)) == [1, 1, 2, 2, 0, 0]


def test_tests_first_and_the_reward_model_breaks_ties():
    rates, scores = [0.5, 1.0, 1.0, 0.5, 1.0], [9.0, -3.0, 2.0, 9.0, 2.0]
    order = rate_then_score(rates, scores)
    assert order == [0, 1, 2, 0, 2]
    assert expected_best([0, 0, 1, 0, 0], order, 5) == 0.5
    for rates, scores in (([1.0], [1.0, 2.0]), ([1.0], [math.nan])):
        with pytest.raises(DataError, match="give one of each per sample"):
            rate_then_score(rates, scores)


def record(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


QUESTION = {
    "question": "Double x with f.",
    "programs": [SQUARE, DOUBLE, ALSO, BROKEN, None],
    "tests": TESTS,
    "filtered_tests": TESTS[:2],
    "correct": [0, 1, 1, 0, 0],
    "scores": {"reward model": [5, 1, 2, 9, 0]},
}


def test_a_recorded_file_is_ranked_by_every_selector_that_needs_no_model(tmp_path, judge):
    source = record(tmp_path / "a.jsonl", QUESTION)
    rows = rank(read_recorded(source), judge)
    assert rows == [
        {
            "question": "Double x with f.",
            "scores": {
                "pass rate": [pytest.approx(2 / 3)] * 3 + [0, 0],
                "dual agreement": [2, 4, 4, 0, 0],
                "majority vote": [1, 2, 2, 0, 0],
                "filtered pass rate": [0.5, 1, 1, 0, 0],
                "reward model": [5, 1, 2, 9, 0],
                "filtered pass rate, then reward model": [2, 3, 4, 1, 0],
            },
            "pick": {
                "pass rate": 0,
                "dual agreement": 1,
                "majority vote": 1,
                "filtered pass rate": 1,
                "reward model": 3,
                "filtered pass rate, then reward model": 2,
            },
            "correct": [0, 1, 1, 0, 0],
        }
    ]
    assert picked_correct(rows) == {
        "average": 0.4,
        "pass rate": pytest.approx(2 / 3),
        "dual agreement": 1,
        "majority vote": 1,
        "filtered pass rate": 1,
        "reward model": 0,
        "filtered pass rate, then reward model": 1,
        "oracle": 1,
    }


def test_code_is_found_in_replies_and_truth_is_optional(tmp_path, judge):
    row = {"question": "q", "replies": [f"Here:\n```python\n{DOUBLE}```", "I do not know."], "tests": TESTS}
    (one,) = read_recorded(record(tmp_path / "a.jsonl", row))
    assert one.programs == (DOUBLE, None)
    rows = rank([one], judge)
    assert rows[0]["pick"] == {"pass rate": 0, "dual agreement": 0, "majority vote": 0}
    with pytest.raises(DataError, match="add the column `correct`"):
        picked_correct(rows)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"question": None}, "`question` must be a string"),
        ({"tests": []}, "`tests` must be a list of asserts, at least one"),
        ({"tests": "assert f(1) == 2"}, "`tests` must be a list"),
        ({"programs": None}, "`programs` or `replies` must be"),
        ({"programs": [1]}, "`programs` must be a list of strings or nulls"),
        ({"programs": []}, "`programs` must be a list of strings or nulls, at least one"),
        ({"filtered_tests": ["assert f(9) == 9"]}, "`filtered_tests` must be some of `tests`"),
        ({"correct": [0, 1]}, "`correct` must be a list of 0 or 1 for each of its 5 samples"),
        ({"correct": [0, 0.5, 1, 0, 0]}, "`correct` must be a list of 0 or 1"),
        ({"scores": [1, 2, 3, 4, 5]}, "`scores` must be an object of lists"),
        ({"scores": {"rm": [1, 2]}}, "`scores.rm` must be a list of 5 numbers"),
        ({"scores": {"rm": [1, 2, 3, 4, math.nan]}}, "`scores.rm` must be a list of 5 numbers"),
        ({"scores": {"oracle": [1, 2, 3, 4, 5]}}, "must not use the name 'oracle'"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path, change, said):
    with pytest.raises(DataError, match=f"a.jsonl, question 2: .*{said}.*; mend or drop the line"):
        read_recorded(record(tmp_path / "a.jsonl", QUESTION, QUESTION | change))


def test_files_that_cannot_be_ranked_at_all(tmp_path):
    with pytest.raises(DataError, match="question 1: it is no JSON object"):
        read_recorded(record(tmp_path / "a.jsonl", [1]))
    with pytest.raises(DataError, match="has no questions"):
        read_recorded(record(tmp_path / "a.jsonl"))
    without = {name: value for name, value in QUESTION.items() if name not in ("correct", "scores")}
    with pytest.raises(DataError, match="question 2 differs from question 1 in correct, scores.reward model"):
        read_recorded(record(tmp_path / "a.jsonl", QUESTION, without))
    (tmp_path / "a.jsonl").write_text("{}\n{oops\n")
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read_recorded(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="There is no table"):
        read_recorded(tmp_path / "none.jsonl")


def test_the_command_line_ranks_a_file_and_overwrites_none(tmp_path, capsys):
    source, target = record(tmp_path / "a.jsonl", QUESTION), tmp_path / "b.jsonl"
    assert main([str(source), str(target)]) == 0
    said = capsys.readouterr().out
    assert "1 questions ranked" in said and " 66.7% correct  pass rate" in said
    assert read_rows(target)[0]["pick"]["dual agreement"] == 1
    for other in (target, source, tmp_path / "b.csv"):
        assert main([str(source), str(other)]) == 1
        assert "name a .jsonl file that does not exist yet" in capsys.readouterr().err
