import json
import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from acelib.core import DataError, assume
from acelib.core.profiles import ROOT, load_profile
from acelib.data.baselines import profile_baselines, published_baselines, reproduces
from acelib.data.benchmarks import load_benchmark
from acelib.evaluation import EVALPLUS, Prompt, ask, evaluate
from acelib.models.generation import Completion, generate, load_policy, load_tokenizer, solve_messages
from acelib.models.params import SamplingParams
from acelib.schema import Problem
from acelib.scorecard import CLAIMS, Claim, scorecard, verdict
from acelib.stats import Interval, crossed_bootstrap, paired_bootstrap

LINE = {"task_id": "t1", "question": "Write `f`.", "entry_point": "f", "tests": ["assert f(1) == 2"]}


def profile_with(tmp_path, text):
    path = tmp_path / "benchmark.jsonl"
    path.write_text(text)
    return load_profile("pocket", {"data.benchmark": str(path)})


def test_benchmark_is_read_up_to_the_profiles_limit(tmp_path):
    lines = "".join(json.dumps({**LINE, "task_id": f"t{i}"}) + "\n" for i in range(5))
    profile = profile_with(tmp_path, lines)
    assert load_benchmark(profile, 2) == [
        Problem(f"t{i}", "Write `f`.", "f", ("assert f(1) == 2",), "benchmark") for i in range(2)
    ]
    assert len(load_benchmark(profile)) == 5


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds no problems; correct data.benchmark"),
        ("{not json", "line 1 is not JSON"),
        (json.dumps({"task_id": "t"}), "it needs task_id, question, entry_point and tests"),
        (json.dumps({**LINE, "tests": []}), "row 1 has no test that checks anything"),
    ],
)
def test_bad_benchmarks_are_explained(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load_benchmark(profile_with(tmp_path, text))


def test_missing_benchmark_names_the_profile_key(tmp_path):
    profile = load_profile("pocket", {"data.benchmark": str(tmp_path / "none.jsonl")})
    with pytest.raises(DataError, match="correct data.benchmark or data.decontaminate in the profile"):
        load_benchmark(profile)


@dataclass
class FakeJudge:
    """Passes programs that contain 'good'; counts what it runs."""

    seen: list = field(default_factory=list)

    def run(self, submissions):
        self.seen += [s.program for s in submissions]
        return [
            SimpleNamespace(pass_rate=1.0 if s.program and "good" in s.program else 0.5 * bool(s.program))
            for s in submissions
        ]


def test_evaluate_keeps_the_order(tmp_path, monkeypatch):
    def fake_generate(model, tokenizer, conversations, params, progress, complete):
        texts = ["def f(x):\n    return 'good'", "def f(x):\n    return 'bad'", "no code at all", ""]
        reply = lambda i: f"```python\n{texts[i % 4]}\n```" if i % 4 < 2 else texts[i % 4]  # noqa: E731
        rows = [[reply(i if params.temperature else 1) for i in range(params.n)] for _ in conversations]
        for number, row in enumerate(rows):
            complete(number, [Completion(text, [], True, 0.0) for text in row])

    monkeypatch.setattr("acelib.sampling.generate", fake_generate)
    monkeypatch.setattr("acelib.sampling.prompt_tokens", lambda *_: [])
    monkeypatch.setattr("acelib.sampling.check_room", lambda *_: None)
    problems = [Problem(f"t{i}", f"Question {i}", "f", ("assert f(1) == 2",)) for i in range(3)]
    judge = FakeJudge()
    rows = evaluate(
        None,
        None,
        problems,
        judge,
        SamplingParams(n=6, max_new_tokens=10, batch_size=4, seed=0),
        name="policy",
        prompt="{question}",
        scratch=tmp_path,
    )
    assert [row["id"] for row in rows] == ["t0", "t1", "t2"]
    assert rows[0]["correct"] == [True, False, False, False, True, False]
    assert rows[0]["pass_rate"][:2] == [1.0, 0.5] and rows[0]["greedy"] is False
    assert rows[0]["model"] == "policy" and len(rows[0]["completions"]) == 6


def test_paired_bootstrap_finds_a_small_steady_gain_that_unpaired_intervals_would_miss():
    rng = np.random.default_rng(0)
    before = rng.random(200)
    after = before + 0.02 + 0.01 * rng.standard_normal(200)
    gain = paired_bootstrap(after, before)
    assert gain.low > 0.015 and gain.high < 0.025
    assert gain.low < gain.value < gain.high
    assert paired_bootstrap(after, before) == gain


def test_relative_gain():
    gain = paired_bootstrap([0.5] * 10, [0.25] * 10, relative=True)
    assert (gain.value, gain.low, gain.high) == (1.0, 1.0, 1.0)
    with pytest.raises(DataError, match="solves no question"):
        paired_bootstrap([0.5], [0.0], relative=True)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        difference = rng.normal(0.1, 1.0, 100)
        here = paired_bootstrap(difference, np.zeros(100), draws=400, seed=seed)
        covered += here.low <= 0.1 <= here.high
    assert 175 <= covered <= 200


def test_several_trainings_widen_the_interval_by_their_spread():
    questions = np.random.default_rng(2).normal(0.3, 0.1, 100)
    alike, apart = (questions + spread * np.array([[-1.0], [0.0], [1.0]]) for spread in (0.0, 0.2))
    narrow, wide = crossed_bootstrap(alike), crossed_bootstrap(apart)
    assert narrow.value == pytest.approx(wide.value) == questions.mean()
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (wide.low, wide.high) == pytest.approx((narrow.value - 0.2, narrow.value + 0.2), abs=0.03)
    assert crossed_bootstrap(apart + 1, np.ones_like(apart)) == pytest.approx(wide)
    assert crossed_bootstrap(2 * alike, alike, relative=True) == pytest.approx((1, 1, 1))
    assert Interval(0.0567, -0.01, 0.1).in_points() == "+5.7 [-1.0, +10.0]"


@pytest.mark.parametrize("after, before", [([1.0], [1.0, 0.0]), ([], []), ([[1.0]], [[1.0]])])
def test_what_is_not_paired_is_an_error(after, before):
    with pytest.raises(DataError, match="same questions"):
        paired_bootstrap(after, before)


def test_the_verdict_rule():
    plain = Claim("k", "claim", "measure", "paper")
    third = Claim("k", "claim", "measure", "paper", at_least=1 / 3)
    assert verdict(plain, None) == "not testable here"
    assert verdict(plain, Interval(0.1, 0.01, 0.2)) == "holds"
    assert verdict(plain, Interval(0.1, -0.01, 0.2)) == "not clear"
    assert verdict(plain, Interval(math.nan, math.nan, math.nan)) == "not clear"
    assert verdict(plain, Interval(-0.1, -0.2, -0.01)) == "does not hold"
    assert verdict(third, Interval(0.4, 0.2, 0.6)) == "holds"
    assert verdict(third, Interval(0.3, 0.2, 0.4)) == "does not hold"


def test_scorecard_has_a_row_per_claim_and_the_must_hold_rows():
    rows = scorecard({"filter": Interval(0.3, 0.2, 0.4), "oracle": None}, recorded={"filter": Interval(0.4, 0.3, 0.5)})
    assert [row["key"] for row in rows] == [claim.key for claim in CLAIMS]
    by_key = {row["key"]: row for row in rows}
    assert by_key["filter"]["verdict"] == "holds"
    assert by_key["filter"]["here"] == {"value": 0.3, "low": 0.2, "high": 0.4}
    assert by_key["filter"]["recorded"]["value"] == 0.4 and by_key["oracle"]["recorded"] is None
    assert by_key["oracle"]["verdict"] == "not testable here" and by_key["oracle"]["here"] is None
    must = {row["key"] for row in rows if row["must_hold"]}
    assert must == {"filter", "rm_average", "oracle", "rule_rl_greedy"}
    elsewhere = {row["key"]: row["caveat"] for row in scorecard({}, pocket=False)}
    assert "votes" in by_key["rm_greedy"]["caveat"] and not any(
        "votes" in elsewhere[key] for key in ("rm_greedy", "rm_rl")
    )
    assert elsewhere["oracle"] == by_key["oracle"]["caveat"]
    with pytest.raises(DataError, match="No claim is called filtre"):
        scorecard({"filtre": None})


def test_every_claim_has_its_caveat_and_a_threshold_of_ours_says_so_and_is_no_promise():
    assert all(claim.caveat for claim in CLAIMS)
    ours = [claim for claim in CLAIMS if claim.at_least]
    assert ours and all("ours" in claim.caveat and not claim.must_hold for claim in ours)


QWEN = "Qwen/Qwen2.5-Coder-7B-Instruct"


def test_published_baselines_of_the_shipped_policy_and_of_the_paper():
    pocket = profile_baselines(load_profile("pocket"))
    assert [(one.decoding, one.published, one.rival) for one in pocket] == [
        ("greedy", 0.49, False),
        ("sampled", 0.35, False),
    ]
    assert [(one.published, one.prompt, one.rival) for one in published_baselines(QWEN, {"HumanEval+": 164})] == [
        (0.86, "harness", False),
        (0.841, "harness", True),
        (0.823, "harness", True),
    ]
    (small,) = published_baselines(load_profile("single-gpu").models.policy, {"HumanEval+": 164})
    assert small.published == 0.573 and not small.rival


def test_a_part_of_a_benchmark_another_model_or_temperature_has_no_baseline(monkeypatch):
    assert published_baselines(QWEN, {"HumanEval+": 163}) == []
    assert published_baselines("Qwen/Qwen2.5-Coder-3B-Instruct", {"HumanEval+": 164}) == []
    whole = load_profile("pocket", {"models.policy": QWEN, "data.benchmark": "evalplus/humanevalplus"})
    problems = [Problem(f"HumanEval/{i}", "?", "f", ("assert f() == 1",), "HumanEval+") for i in range(164)]
    monkeypatch.setattr("acelib.data.baselines.read_benchmark", lambda name: problems)
    asked = [assume(whole, evaluation=assume(whole.evaluation, questions=n)) for n in (16, 164, 200)]
    assert [len(profile_baselines(one)) for one in asked] == [0, 3, 3]
    monkeypatch.undo()
    cooler = load_profile("pocket", {"evaluation.temperature": 0.5})
    assert [one.decoding for one in profile_baselines(cooler)] == ["greedy"]


def test_every_baseline_has_a_source_and_is_a_share():
    content = yaml.safe_load((ROOT / "data" / "baselines.yaml").read_text())
    for entry in content["published"]:
        assert entry["source"] and entry["decoding"] in ("greedy", "sampled") and 0 < entry["tolerance"] < 0.2
        for figures in entry["figures"].values():
            assert all(0 < value < 1 for value in figures.values())
            assert all(name in content["questions"] or name.startswith("data/") for name in figures)


def test_the_estimate_and_not_its_interval_must_reproduce():
    assert reproduces(Interval(0.855, 0.80, 0.91), 0.86, 0.0125)
    assert not reproduces(Interval(0.823, 0.76, 0.88), 0.86, 0.0125)


def test_a_gain_over_a_baseline_that_is_not_reproduced_is_not_claimable():
    large = Interval(0.5, 0.4, 0.6)
    rows = {
        same: {row["key"]: row["verdict"] for row in scorecard({"rule_rl": large, "oracle": large}, same)}
        for same in (True, False, None)
    }
    assert [rows[same]["rule_rl"] for same in (True, False, None)] == ["holds", "not claimable", "holds"]
    assert {rows[same]["oracle"] for same in rows} == {"holds"}
    (claim,) = (one for one in CLAIMS if one.key == "rule_rl")
    assert verdict(claim, Interval(0.1, -0.1, 0.3), False) == "not clear"
    assert {claim.key for claim in CLAIMS if claim.gain} == {
        "rm_average",
        "rm_greedy",
        "rule_rl",
        "rule_rl_greedy",
        "rm_rl",
        "few_steps",
    }


def test_asking_without_a_prefill_is_generate_and_with_one_the_reply_goes_on_from_it():
    folder = ROOT / "data" / "models" / "policy"
    model, tokenizer, problems = load_policy(folder), load_tokenizer(folder), load_benchmark(load_profile("pocket"), 2)
    sampled = SamplingParams(n=2, max_new_tokens=40, batch_size=4, seed=0)
    chats = [solve_messages("{question}", problem.question) for problem in problems]
    for params in (sampled, sampled.greedy()):
        asked = ask(model, tokenizer, problems, Prompt("{question}"), params)
        same = generate(model, tokenizer, chats, params)
        assert asked == [[one.text for one in row] for row in same]
    begun = "```python\ndef build(num):"
    (reply,), _ = ask(model, tokenizer, problems, Prompt("{question}", begun), sampled.greedy())
    assert reply.startswith(begun) and reply.endswith("```") and "return" in reply[len(begun) :]


def test_a_template_that_trims_keeps_the_end_of_the_prefill():
    class Trims:
        pad_token_id = 0

        def apply_chat_template(self, chat, tokenize, add_generation_prompt):
            return "".join(f"<{one['role']}>{one['content'].strip()}</>" for one in chat)

        def __call__(self, text, add_special_tokens):
            raise StopIteration(text)

    with pytest.raises(StopIteration, match="```python\n$") as seen:
        ask(
            None,
            Trims(),
            [Problem("t", "Q", "f", ())],
            EVALPLUS,
            SamplingParams(max_new_tokens=1, batch_size=1, seed=0),
        )
    assert "```\nQ\n```" in str(seen.value)
