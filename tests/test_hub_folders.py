"""Folders as the hub hands them out, with all that is odd in them: right behaviour, or a sentence with a remedy."""

import json
import os
import shutil

import pytest
import torch
from fake_server import Behaviour, serving
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_checkpoints import PAIRS, PROBLEMS, SCORER_SETTINGS, SETTINGS, wordy
from test_remote import ask, questions
from tiny_models import profile_with, save_tiny_policy, save_tiny_reward_model, tiny_config, tiny_policy, tiny_tokenizer
from transformers import Qwen2ForCausalLM

from acelib.core import ModelError, load_profile
from acelib.models.generation import (
    generate,
    load_policy,
    load_tokenizer,
    prompt_tokens,
    render,
    sample_tokens,
    solve_messages,
    stop_tokens,
)
from acelib.models.params import SamplingParams
from acelib.preflight.machine import check_eos
from acelib.reward_model import load_reward_model, score
from acelib.training import make_reinforce_trainer, make_reward_trainer
from acelib.training.settings import vllm_arguments

PARAMS = SamplingParams(n=3, temperature=1.2, max_new_tokens=12, batch_size=4, seed=0)
CHATS = [solve_messages("{question}", one) for one in ("Sort xs.", "Return the sum of the even numbers.")]
HUB = {"do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "top_p": 0.8}  # Qwen2.5-Coder's


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def folder(tmp_path):
    """As the hub has Qwen2.5-Coder: several files of weights with an index, and settings for sampling."""
    model, tokenizer = tiny_policy()
    model.save_pretrained(tmp_path / "policy", max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path / "policy")
    change(tmp_path / "policy" / "generation_config.json", **HUB)
    return tmp_path / "policy"


def load(folder):
    return load_policy(folder, device="cpu"), load_tokenizer(folder)


def test_weights_in_several_files_and_settings_for_sampling_change_no_reply(folder):
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    for params in (PARAMS, PARAMS.greedy()):
        assert generate(*load(folder), CHATS, params) == generate(*tiny_policy(), CHATS, params)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.slow
def test_settings_for_sampling_that_cannot_be_saved_are_left_out(tmp_path, rank):
    folder = save_tiny_policy(tmp_path / "policy")
    odd = {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "early_stopping": True, "pad_token_id": -1}
    change(folder / "generation_config.json", **odd)
    profile = profile_with(folder, reinforce=SETTINGS | {"steps": 1, "eval_every": 1}, engine={"lora_rank": rank})
    trainer = make_reinforce_trainer(profile, PROBLEMS, wordy, tmp_path / "scratch")
    trainer.train_and_save(tmp_path / "trained")
    said = json.loads((tmp_path / "trained" / "generation_config.json").read_text())
    assert not odd.keys() - {"pad_token_id"} & said.keys() and said["eos_token_id"] == trainer.stop


def reweigh(folder, rewrite):
    """All weights of a folder by the names and values that `rewrite` gives to its own."""
    tensors = load_file(folder / "model.safetensors")
    save_file(rewrite(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def cut(name, size):
    return lambda folder: os.truncate(folder / name, size)


def wrote(name, text):
    return lambda folder: (folder / name).write_text(text)


def changed(name, **values):
    return lambda folder: change(folder / name, **values)


def drop(tensors):
    return {name: one for name, one in tensors.items() if "layers.1." not in name}


def junk_instead(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"junk")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n"
REMOTE = {"model_type": "odd", "auto_map": {"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"}}
BROKEN = {
    "cut": (cut("model.safetensors", 20_000), r"holds no .*\(Error while deserializing header"),
    "empty": (cut("model.safetensors", 0), r"holds no .*\(Error while deserializing header"),
    "pointer": (wrote("model.safetensors", POINTER), r"holds no .*\(Error while deserializing header"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "holds no .*no file named model.safetensors",
    ),
    "pickle": (junk_instead, "holds no causal language model"),
    "a list": (wrote("config.json", "[1]"), "config.json"),
    "size": (changed("config.json", hidden_size=64), "incomplete: it lacks model.embed_tokens.weight.* size"),
    "field": (changed("config.json", hidden_size="x"), "expected int, got str"),
    "layers": (changed("config.json", num_hidden_layers=9), r"\(9\) must be equal"),
    "kernel": (changed("config.json", attn_implementation="flash_attention_2"), "FlashAttention2.*take another model"),
    "code": (changed("config.json", **REMOTE), "custom code .*; mend"),
    "layer": (lambda folder: reweigh(folder, drop), "incomplete: it lacks model.layers.1.*; fetch"),
    "names": (
        lambda folder: reweigh(folder, lambda t: {f"x.{name}": one for name, one in t.items()}),
        "incomplete: it lacks .*model.embed_tokens.weight",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_one_sentence_to_both_trainers(tmp_path, monkeypatch, name):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks for leave to run code"))
    folder, (spoil, said) = save_tiny_policy(tmp_path / "policy"), BROKEN[name]
    spoil(folder)
    profile = profile_with(folder, reward_model=SCORER_SETTINGS)
    for read in (lambda: load_policy(folder), lambda: make_reward_trainer(profile, PAIRS, tmp_path / "scratch")):
        with pytest.raises(ModelError, match=said) as caught:
            read()
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value) and "; " in str(caught.value)


NO_QUESTION = "has a chat template that renders no question with its reply"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (wrote("chat_template.jinja", "{% for m in messages %}"), f"{NO_QUESTION} .*endfor"),
        (wrote("chat_template.jinja", "{{ raise_exception('needs a system') }}"), rf"{NO_QUESTION} \(needs a system\)"),
        (wrote("tokenizer.json", "[1]"), "has no tokenizer that can be loaded .*; mend"),
        (changed("tokenizer_config.json", pad_token=None, eos_token=None), "neither a pad_token nor an eos_token"),
    ],
)
def test_a_broken_tokenizer_is_one_sentence(tmp_path, spoil, said):
    spoil(save_tiny_policy(tmp_path / "policy"))
    with pytest.raises(ModelError, match=f"policy {said}" if said.startswith("has") else said):
        load_tokenizer(tmp_path / "policy")


@pytest.mark.parametrize("eos", ["x", {}, [[1]], 2.5])
def test_an_end_that_is_no_token_is_told(tmp_path, eos):
    folder = save_tiny_policy(tmp_path / "policy")
    change(folder / "generation_config.json", eos_token_id=eos)
    with pytest.raises(ModelError, match="policy stops at .*; mend eos_token_id in its generation_config.json"):
        generate(*load(folder), CHATS, PARAMS)
    assert "stops at" in check_eos(str(folder)).found
    (folder / "generation_config.json").write_text("[1]")
    assert "generation_config.json that cannot be read" in check_eos(str(folder)).found


def test_weights_that_are_no_numbers_are_told(tmp_path):
    folder = save_tiny_policy(tmp_path / "policy")
    reweigh(folder, lambda t: {name: one * float("nan") if "norm" in name else one for name, one in t.items()})
    for params in (PARAMS, PARAMS.greedy()):
        with pytest.raises(ModelError, match="policy gives logits that are not numbers; fetch"):
            generate(*load(folder), CHATS, params)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told(tmp_path):
    folder = save_tiny_policy(tmp_path / "policy")
    folder.chmod(0)
    for read in (load_policy, load_tokenizer):
        with pytest.raises(ModelError, match="policy .*Permission denied"):
            read(folder)
    folder.chmod(0o755)


def test_texts_that_a_reward_models_base_cannot_read_are_told_before_training(tmp_path):
    folder = save_tiny_policy(tmp_path / "policy", max_position_embeddings=32)
    profile = profile_with(folder, reward_model=SCORER_SETTINGS)
    with pytest.raises(
        ModelError, match=r"Texts of up to \d+ tokens, with 0 to come, do not fit the model's context of 32; lower"
    ):
        make_reward_trainer(profile, PAIRS, tmp_path / "scratch")
    tokenizer = load_tokenizer(save_tiny_policy(folder))
    tokenizer.add_tokens(["return"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="makes token .* and the model knows"):
        make_reward_trainer(profile, PAIRS, tmp_path / "scratch")


def test_a_file_of_weights_that_is_missing_is_named(folder):
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(ModelError, match="model-00002.*; mend .* fetch them again"):
        load_policy(folder)


def test_a_served_model_is_asked_for_its_own_distribution(tmp_path):
    seen = Behaviour()
    with serving(seen) as url:
        ask(url, tmp_path / "log", questions(1))
    neutral = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "frequency_penalty": 0.0}
    assert neutral.items() <= seen.requests[0].items()


def test_a_server_that_knows_fewer_settings_gets_fewer_and_a_top_p_that_is_asked_for_stays(tmp_path):
    def refuse(body):
        strange = body.keys() & {"top_k", "repetition_penalty", "stop_token_ids"}
        return f"Unrecognized request arguments supplied: {', '.join(sorted(strange))}" if strange else ""

    seen = Behaviour(refuse=refuse)
    with serving(seen) as url:
        assert len(ask(url, tmp_path / "log", questions(4), concurrency=1, top_p=0.9)) == 4
    assert len(seen.requests) == 6 and {body["top_p"] for body in seen.requests} == {0.9}
    assert seen.requests[-1]["frequency_penalty"] == 0 and "top_k" not in seen.requests[-1]


def test_vllm_in_the_trainer_is_told_every_setting():
    """TRL names them all in each request; here it must not be told others."""
    told = vllm_arguments(load_profile("pocket").engine, 10)
    assert not {"top_p", "top_k", "repetition_penalty", "generation_kwargs"} & told.keys()


def test_a_base_model_stops_at_the_end_of_its_templates_turn_too(folder):
    """Qwen2.5-Coder-7B: <|endoftext|> by its files, <|im_end|> by its template."""
    change(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    model, tokenizer = load(folder)
    both = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert stop_tokens(both[0], tokenizer) == sorted(both)
    model.generation_config.eos_token_id = both[0]
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))  # untied: each token as likely
    row = sample_tokens(model, tokenizer, [[5]], SamplingParams(n=300, max_new_tokens=60, batch_size=300, seed=0))[0]
    ends = {reply.ids[-1] for reply in row if reply.finished}
    assert ends == set(both) and not any(one in reply.ids[:-1] for reply in row for one in both)


def test_tied_embeddings_survive_adapters(folder, tmp_path):
    model, tokenizer = load(folder)
    torch.manual_seed(0)
    learnt = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    expected = generate(learnt, tokenizer, CHATS, PARAMS)
    merged = learnt.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    again, _ = load(tmp_path / "merged")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert [[one.text for one in row] for row in generate(again, tokenizer, CHATS, PARAMS)] == [
        [one.text for one in row] for row in expected
    ]


def test_a_token_that_the_model_does_not_know_is_named(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["sorted"])
    tokenizer.save_pretrained(folder)
    model, tokenizer = load(folder)
    known = model.config.vocab_size
    asked = solve_messages("{question}", "Use sorted.")
    generate(model, tokenizer, CHATS, PARAMS)
    with pytest.raises(
        ModelError, match=rf"makes token {known} and the model knows {known} tokens; take the tokenizer"
    ):
        generate(model, tokenizer, [asked], PARAMS)


def test_a_vocabulary_with_room_that_the_tokenizer_does_not_use_is_sampled_without_a_fall():
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(tiny_config(tokenizer, vocab_size=len(tokenizer) + 64, initializer_range=0.02)).eval()
    replies = generate(model, tokenizer, CHATS, PARAMS)
    assert any(token >= len(tokenizer) for row in replies for one in row for token in one.token_ids)


@pytest.mark.parametrize("name", ["policy", "Qwen2.5-Coder-0.5B-Instruct-GGUF"])
def test_a_folder_with_a_gguf_file_alone_says_what_to_take(tmp_path, name):
    (tmp_path / name).mkdir()
    if name == "policy":
        (tmp_path / name / "qwen2.5-coder-0.5b-instruct-q4_k_m.GGUF").write_bytes(b"GGUF")
    for load in (load_policy, load_tokenizer):
        with pytest.raises(ModelError, match="holds GGUF weights, which cannot be trained; take the repository"):
            load(tmp_path / name)
    with pytest.raises(ModelError, match="holds GGUF weights"):
        load_policy("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF")


def test_a_gguf_file_beside_whole_weights_is_passed_over(folder):
    (folder / "q4_k_m.gguf").write_bytes(b"GGUF")
    assert generate(*load(folder), CHATS, PARAMS) == generate(*tiny_policy(), CHATS, PARAMS)


STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_that_takes_no_system_prompt_is_never_given_one(tmp_path):
    folder = save_tiny_reward_model(tmp_path / "reward")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = STRICT
    tokenizer.save_pretrained(folder)
    assert render(load_tokenizer(folder), CHATS[0]) == render(tiny_tokenizer(), CHATS[0])
    model, tokenizer = load_reward_model(folder, device="cpu")
    assert len(score(model, tokenizer, ["a?", "a?"], ["return 1", "pass"])) == 2


def test_a_text_longer_than_the_context_is_told_by_every_reader(tmp_path):
    long = "Sort xs. " * 40
    with pytest.raises(ModelError, match="do not fit the model's context of 128"):
        generate(*tiny_policy(), [solve_messages("{question}", long)], PARAMS)
    with pytest.raises(ModelError, match="do not fit the model's context of 128"):
        score(*load_reward_model(save_tiny_reward_model(tmp_path / "reward"), device="cpu"), [long], ["pass"])


def test_a_reward_model_reads_replies_by_a_vocabulary_of_its_own(tmp_path):
    """Notebook 05 and RL hand it text, so its base may be of another family than the policy's."""
    folder = save_tiny_reward_model(tmp_path / "reward")
    expected = score(*load_reward_model(folder, device="cpu"), ["a?", "a?"], ["return 1", "pass"])
    policy = save_tiny_policy(tmp_path / "policy")
    other = load_tokenizer(policy)
    other.add_tokens(["return"])
    assert prompt_tokens(other, [solve_messages("{question}", "return 1")]) != prompt_tokens(
        load_tokenizer(folder), [solve_messages("{question}", "return 1")]
    )
    assert score(*load_reward_model(folder, device="cpu"), ["a?", "a?"], ["return 1", "pass"]) == expected
    shutil.rmtree(policy)
