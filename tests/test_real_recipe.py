"""The recipe as one script, on pocket models: the steps that a real model takes on a GPU."""

import pytest

from acelib.core import ROOT, Run, load_profile
from acelib.schema import Pair
from experiments.real_recipe import STEPS, main

PROFILE = ROOT / "tests" / "smoke.yaml"
# On real benchmarks; one training is enough.
LEFT_OUT = ("scores", "baselines", "evaluation_start", "evaluation_rule", "evaluation_rm", "policy_rule")


@pytest.mark.slow
def test_the_recipe_makes_what_the_notebooks_make(tmp_path, capsys):
    steps = [step for step in STEPS if step not in LEFT_OUT]
    given = [
        "synthesised",
        "--profile",
        str(PROFILE),
        "--run-dir",
        str(tmp_path),
        "--seeds",
        str(ROOT / "data/seeds.jsonl"),
    ]
    main([*given, "--steps", *steps])
    run = Run(tmp_path, load_profile(PROFILE))
    assert {step for step in steps if run.path(step).exists()} == set(steps)
    assert all(pair.chosen_rate - pair.rejected_rate > run.profile.pairs.min_gap for pair in run.read("pairs", Pair))
    audit = run.read("reward_audit")
    assert all(len(row["score"]) == len(row["pass_rate"]) == run.profile.sampling.n for row in audit)
    capsys.readouterr()
    assert (run.path("policy_rm") / "model.safetensors").exists()

    main([*given, "--steps", *steps, "--set", "sampling.batch_size=7", "engine.checkpoints=1", "judge.workers=1"])
    assert "made in" not in capsys.readouterr().out  # all is kept
    main([*given, "--steps", "pairs", "--set", "pairs.max_pairs_per_question=2"])
    assert "pairs: made in" in capsys.readouterr().out


def test_a_step_says_what_it_lacks(tmp_path, capsys):
    assert main(["synthesised", "--profile", str(PROFILE), "--run-dir", str(tmp_path), "--steps", "policy_rule"]) == 1
    assert "There is no 'hard_questions'" in capsys.readouterr().err


def test_a_missing_card_is_told_before_anything_is_fetched(tmp_path, capsys):
    assert main(["mbpp", "--profile", "real-gpu", "--run-dir", str(tmp_path), "--mbpp", "nobody/nothing"]) == 1
    assert "GPU" in capsys.readouterr().err and not list(tmp_path.iterdir())
