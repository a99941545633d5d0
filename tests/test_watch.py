"""`python -m acelib watch`: what it says of logs made up here, of a real trainer's, and of a run that is not there."""

import json
import re

import pytest
from tiny_models import profile_with, save_tiny_policy

from acelib.__main__ import main
from acelib.core import ROOT, write_rows
from acelib.schema import Problem
from acelib.training import make_reinforce_trainer
from tools import watch

SETTINGS = {"rollout_questions": 10, "samples_per_question": 8, "steps": 8, "updates_per_rollout": 2}


def row(step, reward=0.5, **changes):
    """A row of a finished policy's log."""
    values = {"mixed": 0.6, "truncated": 0.0, "unjudged": 0.0, "sampled": 80.0, "kl": 1.0, "length": 50.0}
    values |= {"clip_fraction": 0.01, "pass_at_1": None, "greedy": None, "reward_rule": reward}
    return {"step": step, "reward": reward} | values | {"seconds_generate": 5.0, "seconds_update": 5.0} | changes


BEFORE = row(0, None, mixed=None, pass_at_1=0.3, greedy=0.4)


def finished(run, rows, name="policy_rule", questions=40):
    folder = run / "artifacts" / name
    folder.mkdir(parents=True)
    (folder / "training_log.json").write_text(json.dumps(rows))
    (folder.with_name(f"{name}.manifest.json")).write_text(json.dumps({"params": {"reinforce": SETTINGS}}))
    if questions:
        write_rows(run / "artifacts" / "hard_questions.parquet", [{"id": str(i)} for i in range(questions)])
    return run


def told(capsys, run):
    assert main(["watch", str(run)]) == 0
    return capsys.readouterr().out


def mark(said, about):
    """How the sentence on something is marked."""
    return re.search(rf"^  (ok|crossed|not yet) +{about}", said, re.M)[1]


def test_a_healthy_run_crosses_nothing(tmp_path, capsys):
    rewards = [0.4, 0.4, 0.4, 0.4, 0.7, 0.7, 0.7, 0.7]
    rows = [BEFORE, *(row(i, one) for i, one in enumerate(rewards, 1))]
    rows[-1] |= {"pass_at_1": 0.5, "greedy": 0.6}
    said = told(capsys, finished(tmp_path, rows))
    assert "policy_rule: 8 of 8 rollouts, finished (artifacts/policy_rule/training_log.json)" in said
    assert len(re.findall(r"^ +\d+ +0\.\d{3} +0\.600", said, re.M)) == 8
    assert "held-out pass@1 and greedy after rollout 0: 0.300, 0.400; 8: 0.500, 0.600" in said
    assert "rollouts 1 to 4 0.400, rollouts 5 to 8 0.700: +30.0 points, standard error at most 4.0" in said  # of 320
    assert "  crossed" not in said and "it learns" in said and said.count("not yet") == 3  # the notebooks' figures


@pytest.mark.parametrize(
    ("about", "changes"),
    [
        ("mixed", {"mixed": 0.05}),
        ("reward", {"reward": lambda i: 0.7 if i < 5 else 0.4}),
        ("truncated", {"truncated": lambda i: 0.05 * i}),
        ("unjudged", {"unjudged": lambda i: 0.1 * (i == 3)}),
        ("kl", {"kl": 0.01}),
        ("kl", {"kl": 6.0, "greedy": lambda i: 0.3 if i == 8 else None}),
        ("clip_fraction", {"clip_fraction": 0.06}),
        ("seconds", {"seconds_generate": 11.0}),
        ("seconds", {"seconds_update": 11.0}),
    ],
)
def test_each_threshold_is_crossed_alone(tmp_path, capsys, about, changes):
    def at(i):
        values = {name: one(i) if callable(one) else one for name, one in changes.items()}
        return row(i, values.pop("reward", 0.5), **values)

    said = told(capsys, finished(tmp_path, [BEFORE, *map(at, range(1, 9))]))
    assert mark(said, about) == "crossed" and len(re.findall("^  crossed", said, re.M)) == 1, said


def test_a_score_that_rises_while_fewer_replies_pass(tmp_path, capsys):
    rows = [row(i, float(i), reward_rule=0.9 if i < 6 else 0.1, reward_reward_model=float(i)) for i in range(1, 11)]
    said = told(capsys, finished(tmp_path, rows, "policy_rm"))
    assert mark(said, "over-optimisation") == "crossed" and "score +5.000, share that passes -80.0 points" in said
    assert " rule " in said and not re.search("^  .*  mixed:", said, re.M)


def test_the_sampler_s_gap_is_shown_where_it_is_logged(tmp_path, capsys):
    assert "sampler_gap" not in told(capsys, finished(tmp_path / "without", [BEFORE, row(1)]))
    said = told(capsys, finished(tmp_path / "with", [BEFORE, *(row(i, sampler_gap=i / 100) for i in range(1, 9))]))
    assert "clip_fraction  sampler_gap" in said and "sampler_gap: 0.06 nats per token between" in said


def test_halves_where_the_questions_are_not_known_and_passes_that_are_not_over(tmp_path, capsys):
    said = told(capsys, finished(tmp_path / "a", [row(i) for i in range(1, 7)], questions=0))
    assert "second half against first, rollouts 1 to 3 0.500, rollouts 4 to 6 0.500" in said and "undecided" in said
    said = told(capsys, finished(tmp_path / "b", [row(i) for i in range(1, 7)]))
    assert mark(said, "reward") == "not yet" and "it has 2 of 4 rollouts" in said
    assert "6 of 8 rollouts, stopped early" in said


def test_a_rollout_of_two_passes_counts_for_neither():
    rows = list(range(1, 33))
    for questions, first, second in ((4000, (1, 15), (17, 31)), (1024, (1, 4), (5, 8)), (1000, (1, 4), (5, 8))):
        kind, one, two, needed = watch.passes(rows, questions, 256)
        assert (one[0], one[-1], two[0], two[-1]) == (*first, *second) and needed == len(one) and kind == "pass"
    kind, one, two, _ = watch.passes(rows[:16], 125, 16)  # colab
    assert (one[0], one[-1], two[0], two[-1]) == (1, 8, 9, 16)


def test_the_reward_model_and_the_notebooks(tmp_path, capsys):
    losses = [{"step": i, "pair_loss": 0.69} for i in range(8)]
    rows = [*losses, {"step": 8, "eval_accuracy": 0.55, "eval_pair_loss": 0.7}]
    finished(tmp_path, rows, "reward_model")
    said = told(capsys, tmp_path)
    assert mark(said, "loss per pair") == mark(said, "held-out pairs") == "crossed" and said.count("not yet") == 3
    interval = {"value": -0.1, "low": -0.2, "high": -0.05}
    metrics = {watch.PAIRS: interval | {"value": 0.7}, watch.AVERAGE: interval, watch.GREEDY: interval}
    (tmp_path / "metrics.json").write_text(json.dumps({"notebooks": {"04": {"metrics": metrics}}}))
    said = told(capsys, tmp_path)
    assert [mark(said, re.escape(name)) for name in metrics] == ["ok", "crossed", "ok"]
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "05_best_of_n.json").write_text(json.dumps({watch.AVERAGE: interval | {"high": 0.1}}))
    assert mark(told(capsys, tmp_path), re.escape(watch.AVERAGE)) == "ok"


def test_before_the_first_checkpoint_it_says_when_that_comes(tmp_path, capsys):
    (tmp_path / "scratch" / "policy_rule-0123456789ab").mkdir(parents=True)
    assert "no checkpoint yet; repeat this when it has one" in told(capsys, tmp_path)
    (tmp_path / "profile.yaml").write_text((ROOT / "profiles" / "single-gpu.yaml").read_text())
    said = told(capsys, tmp_path)
    assert "no checkpoint yet; the first comes after rollout 4 of 64, " in said and "minutes as computed" in said


@pytest.mark.parametrize("broken", ["", "{", "7", "[7]", '{"log_history": 1}'])
def test_errors_are_one_sentence(tmp_path, capsys, broken):
    def error():
        assert main(["watch", str(tmp_path)]) == 1
        return capsys.readouterr().err.strip()

    assert re.fullmatch("There is no run in .*; name the folder of one, such as .*", error())
    (tmp_path / "artifacts").mkdir()
    assert re.fullmatch("Nothing is trained yet in .*: notebook 04 trains .*; repeat this then.", error())
    finished(tmp_path / "x", [])  # makes the folders
    (tmp_path / "x").joinpath("artifacts").rename(tmp_path / "artifacts" / "x")
    (tmp_path / "artifacts" / "x" / "policy_rule").rename(tmp_path / "artifacts" / "policy_rule")
    (tmp_path / "artifacts" / "policy_rule" / "training_log.json").write_text(broken)
    assert re.fullmatch(".*training_log.json is no whole log of a training; repeat this, .*", error())


@pytest.mark.slow
def test_the_checkpoint_of_a_real_trainer_and_then_its_policy(tmp_path, capsys):
    run, scratch = tmp_path / "run", tmp_path / "run" / "scratch" / "policy_rule-0123456789ab"
    scratch.mkdir(parents=True)
    values = SETTINGS | {"rollout_questions": 2, "samples_per_question": 2, "steps": 2, "max_new_tokens": 8}
    changes = {"reinforce": values | {"micro_batch": 2, "eval_every": 2}, "engine": {"checkpoints": 2}}
    profile = profile_with(save_tiny_policy(tmp_path / "policy"), **changes)

    def rule(completions, **_):
        return [float(len(one[-1]["content"]) % 2) for one in completions]

    trainer = make_reinforce_trainer(profile, [Problem(name, name, "f", ()) for name in "ab"], rule, scratch)
    trainer.train_and_save(run / "artifacts" / "policy_rule")
    (log,) = run.glob("artifacts/*/training_log.json")
    log.rename(tmp_path / "log")
    said = told(capsys, run)
    assert "policy_rule: 2 of 2 rollouts, still training (scratch/policy_rule-0123456789ab/checkpoint-4" in said
    lines = [line for line in said.splitlines() if re.match(r" +\d ", line)]
    assert len(lines) == 2 and "s:generate" in said and "-" not in lines[1].split()[:8]
    (tmp_path / "log").rename(log)
    log.touch()
    after = told(capsys, run)
    assert "2 rollouts, finished" in after.replace("2 of 2", "2")
    assert [line for line in after.splitlines() if re.match(r" +\d ", line)] == lines


def test_the_page_has_these_thresholds():
    page = (ROOT / "docs" / "hardware.md").read_text()
    table = page[page.index("## Go on or not") :].partition("\n## ")[0]
    for said in (
        f"below {watch.MIXED}",
        f"above {watch.TRUNCATED:.0%} and rising",
        f"above {watch.CLIPPED:.0%}",
        f"more than {watch.KL}",
        f"below {watch.STILL}",
        f"below {watch.ACCURACY:.0%}",
        f"above {watch.PAIR_LOSS}",
        f"{watch.SHOWN} standard errors",
        f"more than {watch.SLOW:g} times",
        watch.PAIRS.rpartition(", ")[0].partition(", ")[2],
        watch.AVERAGE.partition(" @")[0],
    ):
        assert said in table, said
