"""The grid's plan and its tables; that its trainings run is seen at the end of the smoke run (test_notebooks.py)."""

import pytest

from acelib.advantages import ALGORITHMS
from acelib.grid import (
    CHOICES,
    PUBLISHED,
    REWARDS,
    SEEDS,
    VARIANTS,
    GridError,
    artefact,
    chosen_questions,
    policies,
    read_table,
    scorers,
)

RATES = [[1.0, 1.0], [0.0, 0.0], [0.5, 1.0], [0.2, 0.4], [0.9, 0.1], [1.0, 0.0], [0.3, 0.3], [0.6, 0.5]]


def test_every_training_has_a_name_of_its_own():
    names = [artefact(spec) for spec in [*policies(), *scorers()]]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in names)


def test_the_plan_compares_at_equal_budgets_on_three_seeds():
    short = [spec for spec in policies() if 0 < spec.steps < 80]
    assert {spec.steps for spec in short if spec.algorithm != "dapo"} == {24}
    for reward in REWARDS:
        assert {spec.seed for spec in short if spec.reward == reward} == set(SEEDS)
    assert {(spec.reward, spec.algorithm) for spec in short} >= {("rule", one) for one in ALGORITHMS}
    assert len(scorers()) == len(VARIANTS) * len(SEEDS)


def test_choices_of_questions_are_equally_large():
    chosen = {choice: chosen_questions(RATES, choice, seed=1) for choice in CHOICES}
    assert len({len(indices) for indices in chosen.values()}) == 1
    assert all(len({rate == 1.0 for rate in RATES[i]}) == 2 for i in chosen["mixed"])
    assert chosen["random"] == chosen_questions(RATES, "random", seed=1)


def test_published_tables_are_whole():
    base = [row for row in read_table("rl") if row["steps"] == 0]
    assert len(base) == 1
    for row in read_table("rl"):
        assert len(row["correct"]) == len(row["greedy"]) == len(base[0]["correct"])
        assert max(row["correct"]) <= row["samples"] and set(row["greedy"]) <= {0, 1}
    made = {(row["reward"], row["algorithm"], row["questions"], row["steps"], row["max_kl"], row["seed"])
            for row in read_table("rl")}
    assert made == {(s.reward, s.algorithm, s.questions, s.steps, s.max_kl, s.seed) for s in policies()}
    assert {(row["variant"], row["seed"]) for row in read_table("rm")} == {(s.variant, s.seed) for s in scorers()}
    assert (PUBLISHED / "provenance.json").is_file()


def test_a_missing_table_says_how_to_make_it(tmp_path):
    with pytest.raises(GridError, match="make grid"):
        read_table("rl", tmp_path)
