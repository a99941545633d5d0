"""Other worlds: the committed table, a line of it, and the training of a policy."""

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import pytest
from in_notebooks import notebook_function
from tiny_models import judged_rows
from transformers import AutoModelForSequenceClassification

from acelib.core import ROOT, Run, load_profile, read_json, read_rows
from acelib.models import load_tokenizer, solve_messages
from acelib.pocket.train import RECIPES
from acelib.reward_model import load_reward_model
from acelib.rewards import model_reward
from acelib.stats import crossed_bootstrap
from experiments.grid import PUBLISHED
from experiments.worlds import WORLDS, World, control, line, models_of, untrained_score

QUESTION = {"id": "q", "question": "Square.", "model": "policy"}


def test_the_published_table_has_a_line_for_every_world_and_a_number_for_every_question():
    rows = read_rows(PUBLISHED / "worlds.jsonl")
    assert [World(row["seed"], row["vote_weight"], row["others"]) for row in rows] == WORLDS
    for row in rows:
        numbers = {len(row[name]) for name in row if name.startswith(("pick_", "greedy_", "sampled_"))}
        assert numbers == {200} and row["kl_control"] > 0
        assert all(value is None or 0 <= value <= 1 for value in row["auc"]) and row["valid"] < row["valid_kept"] <= 1
        assert len(row["reward_rm"]) == len(row["kl_rule"]) == 80 and len(row["looks_rm"]) == 5
        assert fmean(row["pick_oracle"]) >= max(fmean(row["pick_rm"]), fmean(row["pick_average"]))
    assert "worlds" in read_json(PUBLISHED / "provenance.json")


def test_the_page_of_results_says_what_the_table_says():
    """Its figures are typed; intervals as in notebook 10, over trainings and questions."""
    rows, said = read_rows(PUBLISHED / "worlds.jsonl"), (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    said = " ".join(said.split())
    policies = [row for row in rows if not row["others"]]

    def difference(after, before, some):
        return 100 * np.array(crossed_bootstrap([np.subtract(row[after], row[before]) for row in some], 0))

    for weight, votes in ((10, "votes at ten times the weight"), (1, "votes that weigh as any token"), (0, "no votes")):
        some = [row for row in policies if row["vote_weight"] == weight]
        value, low, high = difference("sampled_policy_rm", "sampled_policy", some)
        assert f"| the score, {votes} | {value:+.1f} ({low:.1f} to {high:.1f}) |" in said
        known = [fmean(one for one in row["auc"] if one is not None) for row in some]
        assert re.search(rf"AUC [^)]*\b{fmean(known):.2f}\b", said)
    for name in ("policy_rule", "control"):
        gains = [100 * (fmean(row[f"sampled_{name}"]) - fmean(row["sampled_policy"])) for row in policies]
        assert f"{min(gains):+.0f} to {max(gains):+.0f}, nine policies" in said
    value, low, high = difference("pick_rm", "pick_rm_unfiltered", rows)
    assert f"{value:.1f} points of best-of-16 ({low:.1f} to {high:.1f})" in said
    short = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (
        "gains 21 to 25 points from each of nine" in short and "gains 7 to 15 points. Without them it loses 15" in short
    )


def test_a_line_says_what_the_run_says(tmp_path):
    run = Run(tmp_path, load_profile("pocket"))
    right = [True] + [False] * 15
    best = QUESTION | {"greedy": True, "correct": right, "score": [1.0, *[0.0] * 15], "score_unfiltered": [0.0] * 16}
    audit = [{"id": "a", "score": [2.0, 1.0, 3.0], "true_rate": [1.0, 0.5, 0.0]}]
    audit.append({"id": "b", "score": [2.0, 1.0], "true_rate": [1.0, 1.0]})  # nothing to tell apart
    answers = {"greedy": False, "correct": [True, False], "completions": ["first", "second"]}
    evaluation = [QUESTION | answers | {"model": name} for name in ("policy", "policy_rm")]
    log = [
        {"run": name, "step": step, "pass_at_1": look, "reward": score, "reward_rule": 0.5, "kl": step / 2}
        for name in ("rule", "rm")
        for step, look, score in ((0, 0.25, None), (1, None, 0.125), (2, 0.75, 0.375))
    ]
    tables = {"best_of_n": [best], "reward_audit": audit, "evaluation": evaluation, "rl_log": log}
    tests = ((True, True), (False, False), (None, True))
    tables["filter_audit"] = [{"valid": right, "kept": kept} for right, kept in tests]
    run.adopt(tables, {"source": "a test"})
    found = line(World(1, 0.0), run)
    assert found["seed"] == 1 and found["vote_weight"] == 0
    assert found["auc"] == [0.5, None] and (found["valid"], found["valid_kept"]) == (0.5, 1.0)
    assert (found["pick_rm"], found["pick_rm_unfiltered"], found["pick_average"]) == ([1.0], [1 / 16], [1 / 16])
    assert (found["greedy_policy"], found["sampled_policy"]) == ([0], [0.5])
    assert (found["looks_rm"], found["reward_rm"], found["kl_rule"]) == (
        [[0, 0.25], [2, 0.75]],
        [0.125, 0.375],
        [0.5, 1.0],
    )
    assert found["replies_rm"] == [["Square.", "first"]]


def test_a_policy_is_trained_once_and_without_votes_when_they_weigh_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(RECIPES, "policy", replace(RECIPES["policy"], steps=1, hidden=16, layers=1, heads=2))
    policy = Path(models_of(World(2, 0.0), tmp_path)["models.policy"])
    recipe = json.loads((policy / "training.json").read_text())["recipe"]
    assert (recipe["seed"], recipe["vote_weight"]) == (2, 0.0) and "step 1/1" in capfd.readouterr().out
    again = models_of(World(2, 0.0), tmp_path)
    assert again == {"models.policy": str(policy), "reward_model.base": str(policy)} and not capfd.readouterr().out


def test_a_teacher_and_proxies_of_their_own(tmp_path, monkeypatch):
    for role in ("policy", "teacher", "proxy"):
        also = {"proxy_weak": 1, "proxy_medium": 1} if role == "proxy" else {}
        small = replace(RECIPES[role], steps=1, hidden=16, layers=1, heads=2, batch_tokens=512, also=also)
        monkeypatch.setitem(RECIPES, role, small)
    values = models_of(World(0, 10.0, others=1), tmp_path)
    assert load_profile("pocket", values).models.proxies[1].model == str(tmp_path / "proxy_medium")
    assert all((Path(one.model) / "config.json").exists() for one in load_profile("pocket", values).models.proxies)
    recipe = json.loads((Path(values["models.teacher"]) / "training.json").read_text())["recipe"]
    assert recipe["seed"] == RECIPES["teacher"].seed + 10


@pytest.mark.parametrize("world", WORLDS)
def test_worlds_have_names_of_their_own(world):
    assert [one for one in WORLDS if one.name == world.name] == [world]


@pytest.fixture
def scored(tmp_path):
    """A run with four judged questions and a reward model on the pocket policy, its head drawn at random."""
    values = {"models.device": "cpu", "evaluation.questions": 2, "reinforce.eval_questions": 2, "threads": 1}
    run = Run(tmp_path / "run", load_profile(str(ROOT / "tests" / "smoke.yaml"), values))
    base = run.profile.resolve(run.profile.models.policy)

    def made(folder, scratch):
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        model.score.weight.data.mul_(3.0)
        model.save_pretrained(folder)
        load_tokenizer(base).save_pretrained(folder)

    texts = [f"```python\ndef solve(xs):\n    return {body}\n```" for body in ("sum(xs)", "len(xs)", "xs", "0")]
    rows = judged_rows(texts, (1, 0.5, 0, 0.5))
    run.table("samples", lambda scratch: rows)
    run.folder("reward_model", made)
    return run


def test_the_untrained_score_spreads_as_the_reward_model_and_depends_on_its_seed(scored):
    rows = scored.read("samples")
    prompts = [solve_messages(scored.profile.prompts.solve, row["question"]) for row in rows for _ in row["inferences"]]
    replies = [[{"role": "assistant", "content": one["completion"]}] for row in rows for one in row["inferences"]]
    trained = model_reward(*load_reward_model(scored.path("reward_model"), "float32", "cpu"), 8)
    found = [
        reward(prompts=prompts, completions=replies)
        for reward in (trained, *(untrained_score(scored, k) for k in (0, 0, 1)))
    ]
    spreads = [fmean(pstdev(one[4 * i :][:4]) for i in range(4)) for one in found]
    assert spreads[1:] == pytest.approx([spreads[0]] * 3, rel=1e-3)
    assert found[1] == found[2] and np.corrcoef(found[1], found[3])[0, 1] < 0.99


@pytest.mark.slow
def test_the_control_is_trained_and_evaluated_once(scored):
    found = control(scored, 0)
    assert len(found["sampled_control"]) == len(found["greedy_control"]) == 2 and found["kl_control"] >= 0
    assert control(scored, 0) == found


def test_the_intervals_and_verdicts_of_notebook_10():
    verdict = notebook_function("10", "verdict", "over_both")
    verdict.__globals__.update(seed=0, draws=400)
    both = verdict.__globals__["over_both"]
    same = np.tile(np.linspace(-1, 1, 50), (3, 1))
    shifted = same + np.array([[0.0], [0.3], [0.6]])
    wide, narrow = both(shifted), both(same)
    assert narrow.low < 0 < narrow.high and wide.high - wide.low > narrow.high - narrow.low
    assert verdict(same) == "not clear" and verdict(same + 3) == verdict(-same - 3) == "clear"
    trainings = np.array([[-0.1]] + [[1.0]] * 10) + np.zeros(50)
    assert verdict(trainings) == verdict(-trainings) == "clear, but not all seeds alike"
