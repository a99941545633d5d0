import pytest
from tiny_models import save_tiny_reward_model

from acelib.judge import Judge, Report, Verdict
from acelib.reward_model import load_reward_model, score
from acelib.rewards import judge_replies, model_reward, rule_reward
from acelib.schema import Problem
from experiments.rewards import gated, pass_rate_reward, with_format

PROBLEM = Problem("p", "Double x.", "solve", ("assert solve(1) == 2", "assert solve(2) == 4", "assert solve(0) == 0"))
GOOD = "```python\ndef solve(x):\n    return 2 * x\n```"
PARTLY = "```python\ndef solve(x):\n    return x * x\n```"
BROKEN = "```python\ndef solve(x:\n```"


def completions(*replies):
    return [[{"role": "assistant", "content": reply}] for reply in replies]


class CountingJudge:
    """Passes every test; remembers what it was asked."""

    def __init__(self, error=None):
        self.seen, self.error = [], error

    def run(self, submissions):
        if self.error:
            raise self.error
        self.seen += submissions
        return [Report(tuple(Verdict("passed") for _ in s.tests)) for s in submissions]


def test_rule_and_pass_rate_on_real_programs():
    replies = [GOOD, PARTLY, BROKEN, "I do not know.", ""]
    with Judge(workers=1) as judge:
        rule, rate = rule_reward(judge, [PROBLEM]), pass_rate_reward(judge, [PROBLEM])
        columns = dict(completions=completions(*replies), problem_id=["p"] * len(replies), prompts=None)
        assert rule(**columns) == [1.0, 0.0, 0.0, 0.0, 0.0]
        assert rate(**columns) == pytest.approx([1.0, 2 / 3, 0.0, 0.0, 0.0])
    assert (rule.__name__, rate.__name__) == ("rule", "pass_rate")


def test_training_accepts_what_evaluation_accepts():
    forgot_the_import = "```python\ndef solve(x: int) -> List[int]:\n    return math.floor(2 * x)\n```"
    with Judge(workers=1) as judge:
        assert rule_reward(judge, [PROBLEM])(completions=completions(forgot_the_import), problem_id=["p"]) == [1.0]


def test_reports_belong_to_the_replies_of_their_questions():
    other = Problem("q", "Double y.", "solve", ("assert solve(1) == 3",))
    with Judge(workers=1) as judge:
        reports = judge_replies(judge, {"p": PROBLEM, "q": other}, ["p", "q", "p"], [GOOD, GOOD, PARTLY])
    assert [report.pass_rate for report in reports] == pytest.approx([1.0, 0.0, 2 / 3])


def test_a_question_without_tests_is_worth_nothing():
    empty = Problem("p", "?", "solve", ())
    assert rule_reward(CountingJudge(), [empty])(completions=completions(GOOD), problem_id=["p"]) == [0.0]


def test_failed_machinery_is_none_and_said():
    judge = CountingJudge(error=BlockingIOError("Resource temporarily unavailable"))
    with pytest.warns(UserWarning, match="2 replies stay unjudged"):
        values = rule_reward(judge, [PROBLEM])(completions=completions(GOOD, PARTLY), problem_id=["p", "p"])
    assert values == [None, None]


def test_reward_model_scores_replies(tmp_path):
    folder = save_tiny_reward_model(tmp_path / "rm")
    model, tokenizer = load_reward_model(folder)
    prompts = [[{"role": "user", "content": "Double x."}]] * 3
    values = model_reward(model, tokenizer, 2)(prompts=prompts, completions=completions(GOOD, PARTLY, GOOD))
    assert values == pytest.approx(score(model, tokenizer, ["Double x."] * 3, [GOOD, PARTLY, GOOD], 8), abs=1e-5)
    assert values[0] == values[2] != values[1]


def numbered(completions, **_):
    return [float(i) for i in range(len(completions))]


GATE = [Problem("p", "?", "f", ("assert f(1) == 2",)), Problem("q", "?", "g", ("assert g(1) == 2",))]


def test_a_gated_reward_gives_nothing_that_does_not_define_the_function_more_than_the_worst():
    found = gated(numbered, GATE)(
        completions=completions(
            "def f(x): return 1",
            "```python\ndef h(x): return 1\n```",
            "",
            "def g(x): return 1",
            "def g(:",
            "def g(x): pass",
        ),
        problem_id=["p", "p", "p", "q", "q", "q"],
    )
    assert found == [0.0, 0.0, 0.0, 3.0, 3.0, 5.0]


def test_a_gate_leaves_missing_rewards_missing():
    def unjudged(completions, **_):
        return [None, 2.0, 1.0]

    asked = completions("nothing", "nothing", "def f(x): return 1")
    found = gated(unjudged, GATE)(completions=asked, problem_id=["p"] * 3)
    assert found == [None, 1.0, 1.0]


def test_the_format_term_wants_one_closed_block_that_defines_the_function():
    def ones(completions, **_):
        return [1.0] * (len(completions) - 1) + [None]

    good = "```python\ndef f(x):\n    return x\n```"
    found = with_format(ones, GATE, weight=0.25)(
        completions=completions(good, f"Here you are:\n{good}", "def f(x): return x", good[:-3], good * 2, good),
        problem_id=["p"] * 6,
    )
    assert found == [1.25, 1.0, 1.0, 1.0, 1.0, None]
    assert with_format(ones, GATE).__name__ == "ones_format" and gated(ones, GATE).__name__ == "gated_ones"
