"""The recipe as one script, on pocket models: the steps that a real model takes on a GPU."""

import pytest

from acelib.core import ROOT, DataError, Run, load_profile, write_rows
from acelib.schema import Pair
from experiments.real_recipe import STEPS, adopt_mbpp, main

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


def test_of_mbpp_on_the_hub_the_training_split_is_taken(tmp_path):
    def row(number):
        lines = {"test_list": ["assert f(1) == 2"], "code": "def f(x): return x + 1", "test_setup_code": ""}
        return {"task_id": number, "text": f"Write a function f, {number}."} | lines

    (tmp_path / "mbpp").mkdir()
    for split, numbers in {"train": range(601, 605), "test": range(11, 14)}.items():
        write_rows(tmp_path / "mbpp" / f"{split}.jsonl", [row(number) for number in numbers])
    write_rows(tmp_path / "all.jsonl", [row(number) for number in (11, 601, 602, 603, 604)])
    for name in ("mbpp", "all.jsonl"):
        run = Run(tmp_path / f"run-{name}", load_profile(str(PROFILE)))
        adopt_mbpp(run, str(tmp_path / name), 3)
        assert [one["id"] for one in run.read("filtered")] == ["MBPP/601", "MBPP/602", "MBPP/603"]
    write_rows(tmp_path / "none.jsonl", [row(11)])
    with pytest.raises(DataError, match="none of MBPP's tasks 601 to 974"):
        adopt_mbpp(run, str(tmp_path / "none.jsonl"), 3)
