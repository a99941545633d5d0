"""Other worlds: the committed table, a line of it, and the training of a policy."""

import json
from dataclasses import replace
from statistics import fmean

import pytest

from acelib.core import Run, load_profile, read_json, read_rows
from acelib.pocket.train import RECIPES
from experiments.grid import PUBLISHED
from experiments.worlds import WORLDS, World, line, trained_policy

QUESTION = {"id": "q", "question": "Square.", "model": "policy"}


def test_the_published_table_has_a_line_for_every_world_and_a_number_for_every_question():
    rows = read_rows(PUBLISHED / "worlds.jsonl")
    assert [World(row["seed"], row["vote_weight"]) for row in rows] == WORLDS
    for row in rows:
        numbers = {len(row[name]) for name in row if name.startswith(("pick_", "greedy_", "sampled_"))}
        assert numbers == {200}
        assert all(value is None or 0 <= value <= 1 for value in row["auc"])
        assert len(row["reward_rm"]) == len(row["kl_rule"]) == 80 and len(row["looks_rm"]) == 5
        assert fmean(row["pick_oracle"]) >= max(fmean(row["pick_rm"]), fmean(row["pick_average"]))
    assert "worlds" in read_json(PUBLISHED / "provenance.json")


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
    run.adopt(tables, {"source": "a test"})
    found = line(World(1, 0.0), run)
    assert found["seed"] == 1 and found["vote_weight"] == 0
    assert found["auc"] == [0.5, None]
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
    policy = trained_policy(World(2, 0.0), tmp_path)
    recipe = json.loads((policy / "training.json").read_text())["recipe"]
    assert (recipe["seed"], recipe["vote_weight"]) == (2, 0.0) and "step 1/1" in capfd.readouterr().out
    assert trained_policy(World(2, 0.0), tmp_path) == policy and not capfd.readouterr().out


@pytest.mark.parametrize("world", WORLDS)
def test_worlds_have_names_of_their_own(world):
    assert [one for one in WORLDS if one.name == world.name] == [world]
