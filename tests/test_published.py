"""The lane without training: published models, in their layouts, stand for those that a run would make."""

import io
import json

import pytest
import torch
from safetensors.torch import load_file
from test_reward_heads import save_reward_model, scores_by_hand
from tiny_models import tiny_policy

from acelib.core import NotebookError, ProfileError, Run
from acelib.core.profiles import load_profile
from acelib.models import reward_heads
from acelib.models.generation import load_policy, load_tokenizer
from acelib.preflight.cost_model import CostModel, fetched_gb
from acelib.reward_model import load_reward_model, score
from runner.course import Course
from tools.plan import plan
from tools.published import adopt_models


def save_checkpoint(folder, seed, dtype):
    """A policy as AceCoder's are: several files of weights, in bfloat16 or in float32."""
    model, tokenizer = tiny_policy(seed)
    model.to(dtype).save_pretrained(folder, max_shard_size="20KB")
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def values(tmp_path):
    rule = save_checkpoint(tmp_path / "rule", 1, torch.bfloat16)
    rm = save_checkpoint(tmp_path / "rm", 2, torch.float32)
    scorer = str(save_reward_model(tmp_path / "scorer", "llama-factory", sharded=True))
    return {"best_of_n.reward_model": scorer, "evaluation.trained": [rule, rm]}


def test_models_that_others_trained_stand_where_the_runs_own_would(tmp_path, values):
    run = Run(tmp_path / "run", load_profile("pocket", values))
    adopt_models(run, "make course")
    model, tokenizer = load_reward_model(run.path("reward_model"), device="cpu")
    found = score(model, tokenizer, ["a?", "bb?"], ["return 1", "pass"])
    by_hand = scores_by_hand(tmp_path / "scorer", 0.0)
    assert found == pytest.approx([by_hand[0], by_hand[3]], abs=1e-5)
    same = {run.manifest(name)["content"] for name in ("reward_model", "reward_model_unfiltered")}
    assert len(same) == 1  # by which notebook 05 sees that they are one
    for seed, name in ((1, "policy_rule"), (2, "policy_rm")):
        weights = load_policy(run.path(name), device="cpu").state_dict()
        expected = tiny_policy(seed)[0].to(torch.bfloat16 if seed == 1 else torch.float32).state_dict()
        assert all(torch.equal(weights[key], expected[key].float()) for key in weights)
        assert load_tokenizer(run.path(name)).chat_template
        assert all(file.is_symlink() for file in run.path(name).iterdir())  # 30 GB are not copied
    assert run.read("imagined") == run.read("filtered") == run.read("rl_log") == run.read("filter_audit") == []
    before = {name: run.manifest(name)["content"] for name in run.profile.published}
    adopt_models(run, "make course")
    assert before == {name: run.manifest(name)["content"] for name in run.profile.published}


def test_notebooks_that_make_what_is_published_are_left_out(tmp_path, values):
    course = Course("pocket", values, tmp_path / "run", out=io.StringIO())
    chosen, left_out = course._chosen(None, None)
    assert [path.name[:2] for path in left_out] == ["01", "02", "03", "04", "06"]
    assert [path.name[:2] for path in chosen] == ["00", "05", "07", "08", "09", "10"]
    with pytest.raises(
        NotebookError, match="04_reward_model makes what profile pocket takes from .*scorer; leave ONLY"
    ):
        course._chosen(None, "04")


def test_one_kind_without_the_other_is_refused(values):
    for name in values:
        with pytest.raises(ProfileError, match="go together: name a reward model and two policies"):
            load_profile("pocket", {name: values[name]})


def test_only_the_weights_that_the_index_names_are_fetched(tmp_path, monkeypatch):
    """AceCodeRM-7B has a second set of the same size beside them."""
    folder = save_reward_model(tmp_path / "a", "llama-factory", sharded=True)
    (folder / "model-00001-of-00007.safetensors").write_bytes(b"an older set")
    asked = []

    def fetch(name, allow_patterns=None, ignore_patterns=None):
        asked.append(allow_patterns or ignore_patterns)
        return str(folder)

    monkeypatch.setattr(reward_heads, "snapshot_download", fetch)
    assert reward_heads.load_classifier("TIGER-Lab/AceCodeRM-7B").config.num_labels == 1
    named = set(json.loads((folder / reward_heads.INDEX).read_text())["weight_map"].values())
    assert "*.safetensors" in asked[0] and named < set(asked[1]) and "model-00001-of-00007.safetensors" not in asked[1]
    assert all(load_file(folder / one) for one in named)


def test_its_plan_is_notebooks_05_and_07_within_hours_on_24_gb():
    profile = load_profile("published")
    found = CostModel(profile).stages()
    assert [one.notebook for one in found] == ["05", "07"] and sum(one.hours for one in found) < 5
    text = plan(profile)
    assert "nothing is trained" in text and "does not fit" not in text and "TIGER-Lab/AceCodeRM-7B 30." in text
    assert "ONLY=05" in text and "ONLY=04" not in text


def test_beside_another_policy_published_models_keep_their_own_size():
    seven, half = (
        load_profile("published", {"models.policy": f"Qwen/Qwen2.5-Coder-{size}-Instruct"}) for size in ("7B", "0.5B")
    )
    theirs = {name: gb for name, gb in fetched_gb(seven).items() if name.startswith("TIGER-Lab/")}
    assert len(theirs) == 3 and theirs.items() <= fetched_gb(half).items()
    (large, alike), (small, mixed) = (CostModel(one).stages() for one in (seven, half))
    assert alike.gib == mixed.gib and alike.hours > mixed.hours > 2 / 3 * alike.hours
    assert 14 < small.gib < large.gib  # the scorer's weights
