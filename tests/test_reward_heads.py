import json
from itertools import permutations

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_policy, save_tiny_reward_model, tiny_config, tiny_policy, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Qwen2Model

from acelib.core import ModelError
from acelib.models import reward_heads
from acelib.models.generation import load_tokenizer
from acelib.models.reward_heads import read_head
from acelib.reward_model import encode, load_reward_model, score
from tools import convert_reward_model as converter
from tools.convert_reward_model import LAYOUTS, convert_reward_model

BIAS = 0.625
PROMPTS, PROGRAMS = ["a?", "a?", "bb?", "bb?"], ["return 1", "return sorted(xs)", "", "pass"]


def weights(folder):
    return {key: tensor for file in folder.glob("*.safetensors") for key, tensor in load_file(file).items()}


def save_reward_model(folder, layout, sharded=False, head="score", **changes):
    """A random reward model, written by hand as the framework of that layout would write it."""
    policy, tokenizer = tiny_policy(initializer_range=0.1, **changes)
    tensors = {key: tensor.clone() for key, tensor in policy.state_dict().items() if key != "lm_head.weight"}
    weight = torch.randn(1, policy.config.hidden_size)
    config = policy.config.to_dict()
    if layout == "llama-factory":
        tensors |= {"v_head.summary.weight": weight, "v_head.summary.bias": torch.tensor([BIAS])}
        config["architectures"] = ["Qwen2ForCausalLM"]
        if not policy.config.tie_word_embeddings:
            tensors["lm_head.weight"] = policy.lm_head.weight.detach().clone()
    elif layout == "openrlhf":
        tensors[f"{head}.weight"] = weight
        config |= {"architectures": ["RewardModel"], "value_head_prefix": head}
    else:
        tensors["score.weight"] = weight
        config |= {"architectures": ["Qwen2ForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    folder.mkdir()
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    names, places = sorted(tensors), {}
    cuts = 3 if sharded else 1
    for number in range(cuts):
        name = f"model-{number + 1:05}-of-{cuts:05}.safetensors" if sharded else "model.safetensors"
        save_file({key: tensors[key] for key in names[number::cuts]}, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(names[number::cuts], name))
    if sharded:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@torch.no_grad()
def scores_by_hand(folder, bias):
    """weight @ h + bias of each conversation's last token, straight from the files."""
    tokenizer, tensors = tiny_tokenizer(), weights(folder)
    backbone = Qwen2Model(tiny_config(tokenizer)).eval()
    backbone.load_state_dict({key[6:]: tensor for key, tensor in tensors.items() if key.startswith("model.")})
    names = ("score.weight", "value_head.weight", "v_head.summary.weight")
    weight = next(tensors[name] for name in names if name in tensors)
    hidden = [backbone(torch.tensor([ids])).last_hidden_state[0, -1] for ids in encode(tokenizer, PROMPTS, PROGRAMS)]
    return [(weight @ h + bias).item() for h in hidden]


@torch.no_grad()
def check_scores(folder, by_hand, dropped):
    """Text by text they agree to 1e-6; batches that share their prefix add rounding of their own."""
    model, tokenizer = load_reward_model(folder)
    alone = [model(input_ids=torch.tensor([ids])).logits.item() for ids in encode(tokenizer, PROMPTS, PROGRAMS)]
    assert [s + dropped for s in alone] == pytest.approx(by_hand, rel=0, abs=1e-6)
    together = score(model, tokenizer, PROMPTS, PROGRAMS)
    assert [s + dropped for s in together] == pytest.approx(by_hand, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sharded", [False, True])
def test_each_layout_is_found_and_scores_as_its_weights_say(tmp_path, layout, sharded):
    folder = save_reward_model(tmp_path / "rm", layout, sharded)
    bias = BIAS if layout == "llama-factory" else 0.0
    head = read_head(folder)
    assert (head.layout, head.bias, head.weight.shape) == (layout, bias, (1, 32))
    assert type(load_reward_model(folder)[0]).__name__ == "Qwen2ForSequenceClassification"
    by_hand = scores_by_hand(folder, bias)
    assert len(set(by_hand)) == 4
    check_scores(folder, by_hand, bias)


@pytest.mark.parametrize("there, back", permutations(LAYOUTS, 2))
@pytest.mark.parametrize("sharded", [False, True])
def test_there_and_back_every_bit_is_the_same(tmp_path, there, back, sharded):
    original = save_reward_model(tmp_path / "a", there, sharded)
    dropped = convert_reward_model(original, tmp_path / "b", back)
    assert dropped == (BIAS if there == "llama-factory" else 0.0)
    assert read_head(tmp_path / "b").layout == back
    assert convert_reward_model(tmp_path / "b", tmp_path / "c", there) == 0.0
    assert read_head(tmp_path / "c").layout == there
    before, after = weights(original), weights(tmp_path / "c")
    assert before.keys() == after.keys()
    for name in before.keys() - {"v_head.summary.bias"}:
        assert torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype
    files = [sorted(file.name for file in (tmp_path / name).iterdir()) for name in "abc"]
    assert files[1] == files[2] and (sharded or files[0] == files[1])  # a shard is as large as the hub's tools make it
    by_hand = scores_by_hand(original, BIAS if there == "llama-factory" else 0.0)
    for name in "bc":
        check_scores(tmp_path / name, by_hand, dropped)


def test_half_precision_is_copied_bit_by_bit(tmp_path):
    folder = save_tiny_reward_model(tmp_path / "a")
    AutoModelForSequenceClassification.from_pretrained(folder).bfloat16().save_pretrained(folder)
    convert_reward_model(folder, tmp_path / "b", "llama-factory")
    found, original = weights(tmp_path / "b"), weights(folder)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert torch.equal(found["v_head.summary.weight"], original["score.weight"])


def test_a_head_in_a_file_of_its_own_is_found(tmp_path):
    folder = save_reward_model(tmp_path / "a", "llama-factory")
    whole = scores_by_hand(folder, BIAS)
    tensors = weights(folder)
    head = {name: tensors.pop(name) for name in reward_heads.SUMMARY}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(head, folder / "value_head.safetensors", metadata={"format": "pt"})
    assert convert_reward_model(folder, tmp_path / "b", "trl") == BIAS
    for name in "ab":
        check_scores(tmp_path / name, whole, BIAS)
    assert [file.name for file in (tmp_path / "b").glob("*.safetensors")] == ["model.safetensors"]


def test_the_older_name_of_openrlhfs_head(tmp_path):
    folder = save_reward_model(tmp_path / "a", "openrlhf", head="value_head")
    assert read_head(folder).layout == "openrlhf"
    convert_reward_model(folder, tmp_path / "b", "openrlhf")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["value_head_prefix"] == "score"
    assert torch.equal(weights(tmp_path / "b")["score.weight"], weights(folder)["value_head.weight"])
    check_scores(folder, scores_by_hand(folder, 0.0), 0.0)


def test_what_is_written_opens_with_the_stock_classes_and_keeps_its_tokenizer(tmp_path):
    folder = save_reward_model(tmp_path / "a", "openrlhf")
    (folder / "modeling_x.py").write_text("raise SystemExit")
    (folder / "README.md").write_text("a card")
    for layout, stock in (("trl", AutoModelForSequenceClassification), ("llama-factory", AutoModelForCausalLM)):
        target = tmp_path / layout
        convert_reward_model(folder, target, layout)
        model, info = stock.from_pretrained(target, output_loading_info=True)
        assert not info["missing_keys"]
        assert type(model).__name__ in model.config.architectures
        assert load_tokenizer(target).chat_template == tiny_tokenizer().chat_template
        assert (target / "README.md").read_text() == "a card" and not (target / "modeling_x.py").exists()
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "trl").config
    assert config.num_labels == 1 and not hasattr(config, "value_head_prefix")


def test_a_language_model_head_of_its_own_stays_only_where_it_has_a_place(tmp_path):
    folder = save_reward_model(tmp_path / "a", "llama-factory", tie_word_embeddings=False)
    assert "lm_head.weight" in weights(folder)
    convert_reward_model(folder, tmp_path / "same", "llama-factory")
    assert torch.equal(weights(tmp_path / "same")["lm_head.weight"], weights(folder)["lm_head.weight"])
    assert weights(tmp_path / "same")["v_head.summary.bias"].item() == BIAS
    convert_reward_model(folder, tmp_path / "trl", "trl")
    assert "lm_head.weight" not in weights(tmp_path / "trl")
    convert_reward_model(tmp_path / "trl", tmp_path / "back", "llama-factory")
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not info["missing_keys"]


def test_a_padding_token_is_set_where_texts_are_batched(tmp_path):
    folder = save_reward_model(tmp_path / "a", "openrlhf")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    convert_reward_model(folder, tmp_path / "b", "trl")
    expected = tiny_tokenizer().pad_token_id
    assert json.loads((tmp_path / "b" / "config.json").read_text())["pad_token_id"] == expected
    assert load_reward_model(folder)[0].config.pad_token_id == expected


def test_a_hub_name_is_fetched_first(tmp_path, monkeypatch):
    folder = save_reward_model(tmp_path / "a", "llama-factory")
    monkeypatch.setattr(reward_heads, "snapshot_download", lambda name, **_: str(folder))
    assert read_head(reward_heads.local_folder("someone/model")).layout == "llama-factory"
    assert reward_heads.load_classifier("someone/model").config.num_labels == 1


def test_a_hub_name_out_of_reach_is_an_error():
    with pytest.raises(ModelError, match="is not in .*hub, and HF_HUB_OFFLINE keeps"):
        reward_heads.load_classifier("someone/nothing")


def test_a_target_in_use_is_left_alone(tmp_path):
    folder = save_reward_model(tmp_path / "a", "openrlhf")
    (tmp_path / "empty").mkdir()
    convert_reward_model(folder, tmp_path / "empty", "trl")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for place in (tmp_path / "empty", tmp_path / "mine", tmp_path / "mine" / "thesis.tex", folder, tmp_path):
        with pytest.raises(ModelError, match="is not empty; name another folder"):
            convert_reward_model(folder, place, "llama-factory")
    assert read_head(tmp_path / "empty").layout == "trl"
    assert converter.main([str(folder), str(tmp_path / "empty"), "trl"]) == 1
    assert converter.main([str(folder), str(tmp_path / "new"), "trl"]) == 0
    with pytest.raises(ModelError, match="no layout 'vllm'; take one of trl"):
        convert_reward_model(folder, tmp_path / "x", "vllm")


def test_a_conversion_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    folder = save_reward_model(tmp_path / "a", "openrlhf")

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(converter, "save_torch_state_dict", full)
    with pytest.raises(OSError, match="no space left"):
        convert_reward_model(folder, tmp_path / "b", "trl")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def spoil(folder, **changes):
    tensors = weights(folder)
    for name, tensor in changes.items():
        tensors[name.replace("__", ".")] = tensor
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / "model.safetensors")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"score__weight": torch.ones(2, 32)}, r"its head has shape \(2, 32\) and not \(1, 32\)"),
        ({"score__weight": None, "score__0__weight": torch.ones(4, 32)}, "it holds score.0.weight, not v_head"),
        ({"score__weight": None}, "it holds nothing, not"),
        ({"score__bias": torch.ones(1)}, "it holds score.bias, score.weight, not"),
        ({"v_head__summary__weight": torch.ones(1, 32)}, "it holds score.weight, v_head.summary.weight, not"),
    ],
)
def test_other_heads_are_refused_by_name(tmp_path, change, said):
    folder = save_reward_model(tmp_path / "rm", "trl")
    spoil(folder, **change)
    with pytest.raises(ModelError, match=said):
        read_head(folder)


def test_folders_that_hold_no_reward_model_are_refused(tmp_path):
    with pytest.raises(ModelError, match="Qwen2ForCausalLM.*it holds nothing"):
        read_head(save_tiny_policy(tmp_path / "tied"))
    with pytest.raises(ModelError, match="it holds lm_head.weight, not"):
        read_head(save_tiny_policy(tmp_path / "untied", tie_word_embeddings=False))
    with pytest.raises(ModelError, match="has no config.json"):
        read_head(tmp_path)
    folder = save_reward_model(tmp_path / "rm", "trl", sharded=True)
    (folder / "model-00002-of-00003.safetensors").rename(folder / "model-2.bin")
    with pytest.raises(ModelError, match="no whole safetensors weights .*model-00002-of-00003.safetensors"):
        read_head(folder)
    (folder / "model-00002-of-00003.safetensors").write_text("<!DOCTYPE html>")
    with pytest.raises(ModelError, match="no whole safetensors weights .*header"):
        read_head(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="no whole safetensors weights .*'weight_map'"):
        read_head(folder)
    config = json.loads((folder / "config.json").read_text())
    for model_type, said in (("clip_text_model", "a clip_text_model cannot be one"), ("x", "cannot read")):
        (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
        with pytest.raises(ModelError, match=said):
            read_head(folder)
    for text in ("[1]", json.dumps(config | {"num_hidden_layers": "x"})):
        (folder / "config.json").write_text(text)
        with pytest.raises(
            ModelError, match=r"rm has a config.json that transformers cannot read \(.*; fetch it again"
        ):
            read_head(folder)


def test_missing_backbone_weights_are_not_filled_in_at_random(tmp_path):
    for layout in LAYOUTS:
        folder = save_reward_model(tmp_path / layout, layout)
        spoil(folder, model__norm__weight=None)
        with pytest.raises(ModelError, match="is incomplete: it lacks .*norm.weight"):
            load_reward_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 7}))
    with pytest.raises(ModelError, match="is incomplete: it lacks model.layers.0.mlp.* in the size"):
        load_reward_model(folder)
