import re

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from acelib.__main__ import main
from acelib.models import load_policy
from acelib.plan import SHAPES, PlanError, plan, shape_of, stages, training_gib
from acelib.profiles import ROOT, load_profile


@pytest.mark.parametrize("size", ["0.5B", "7B"])
def test_the_formula_counts_what_transformers_builds(size):
    s = SHAPES[size]
    heads = {"0.5B": 14, "7B": 28}[size]
    config = Qwen2Config(
        num_hidden_layers=s.layers, hidden_size=s.hidden, intermediate_size=s.intermediate, vocab_size=s.vocabulary,
        num_attention_heads=heads, num_key_value_heads=s.key_values * heads // s.hidden, tie_word_embeddings=s.tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == s.parameters


def test_a_local_folder_is_read():
    folder = ROOT / "data" / "models" / "policy"
    assert shape_of(str(folder)).parameters == load_policy(folder, device="cpu").num_parameters()


def test_an_unknown_model_is_an_error_that_names_what_is_known():
    with pytest.raises(PlanError, match="0.5B, 1.5B"):
        shape_of("somebody/else-7B")


def test_sharding_and_a_reference_change_the_memory_as_they_must():
    alone, eight = (training_gib(SHAPES["7B"], gpus, 1, 2048, False) for gpus in (1, 8))
    assert alone > 16 * 7.6e9 / 2**30 and eight < alone / 5
    with_reference = training_gib(SHAPES["7B"], 8, 1, 2048, True)
    assert with_reference - eight == pytest.approx(2 * SHAPES["7B"].parameters / 8 / 2**30)


def test_hours_follow_the_gpus_and_the_rollouts():
    paper = load_profile("paper")
    half = load_profile("paper", {"plan.gpus": 4, "reinforce.steps": 170})
    a, b = ([one for one in stages(p) if one.what == "RL, rule"][0] for p in (paper, half))
    assert b.tokens == 2 * a.tokens and b.hours == pytest.approx(4 * a.hours)


def test_what_does_not_fit_is_marked():
    text = plan(load_profile("paper", {"plan.gpus": 1}))
    assert "does not fit" in text and re.search(r"06  RL, rule.*!", text)
    assert "does not fit" not in plan(load_profile("paper"))


def test_every_profile_has_a_plan(capsys):
    for name in ("pocket", "single-gpu", "paper"):
        assert main(["plan", "--profile", name]) == 0
    said = capsys.readouterr().out
    assert "needs no GPU" in said and said.count("make course PROFILE=paper") == 2 and "not measured" in said
