import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from tiny_models import save_tiny_policy, tiny_policy, tiny_tokenizer

from acelib.core import CourseError, ModelError
from acelib.core.profiles import ROOT, load_profile
from acelib.models import decoding
from acelib.models.generation import (
    generate,
    load_policy,
    load_tokenizer,
    render,
    sample_tokens,
    solve_messages,
    stop_tokens,
)
from acelib.models.params import SamplingParams

GREEDY = dict(temperature=0, max_new_tokens=12, batch_size=4, seed=0)
QUESTIONS = ["Sort xs.", "Keep only the even numbers, then return the sum.", "Reverse.", "Sort xs twice, please."]


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


@pytest.fixture
def conversations():
    return [solve_messages("{question}\nReply with code.", q) for q in QUESTIONS]


def prompt_ids(tokenizer, conversations):
    return [tokenizer(render(tokenizer, c), add_special_tokens=False)["input_ids"] for c in conversations]


def common_token(model, tokenizer, prompts):
    """A token that greedy decoding reaches after a few steps, to serve as a second end of sequence."""
    params = SamplingParams(temperature=0, max_new_tokens=12, batch_size=8, seed=0, stop=())
    return sample_tokens(model, tokenizer, prompts, params)[1][0].ids[5]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("with_eos", [False, True])
def test_greedy_equals_transformers_generate(policy, conversations, batch_size, with_eos):
    model, tokenizer = policy
    prompts = prompt_ids(tokenizer, conversations)
    eos = [tokenizer.eos_token_id] + ([common_token(model, tokenizer, prompts)] if with_eos else [])
    params = SamplingParams(n=2, temperature=0, max_new_tokens=40, batch_size=batch_size, seed=0, stop=tuple(eos))
    ours = sample_tokens(model, tokenizer, prompts, params)
    ended = 0
    for prompt, replies in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=40,
            eos_token_id=eos,
            pad_token_id=tokenizer.pad_token_id,
        )[0, len(prompt) :].tolist()
        for reply in replies:
            assert reply.ids == theirs
            assert reply.finished == (theirs[-1] in eos)
            ended += reply.finished and len(theirs) < 40
    assert ended > 0 or not with_eos


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_samples_do_not_depend_on_batching_or_order(policy, conversations, top_p):
    model, tokenizer = policy
    params = SamplingParams(n=5, temperature=0.9, top_p=top_p, max_new_tokens=20, batch_size=64, seed=7)
    together = generate(model, tokenizer, conversations, params)
    apart = generate(model, tokenizer, conversations[::-1], replace(params, batch_size=3))[::-1]
    alone = [generate(model, tokenizer, [c], replace(params, batch_size=2))[0] for c in conversations]

    def ids(replies):
        return [[r.token_ids for r in row] for row in replies]

    assert ids(together) == ids(apart) == ids(alone)
    other = generate(model, tokenizer, conversations, replace(params, seed=8))
    assert ids(together) != ids(other)
    twice = generate(model, tokenizer, [conversations[0]] * 2, params)
    assert ids(twice)[0] != ids(twice)[1]


def test_logprob_is_the_models_own(policy, conversations):
    model, tokenizer = policy
    prompt = prompt_ids(tokenizer, conversations)[0]
    params = SamplingParams(n=4, temperature=0.8, max_new_tokens=15, batch_size=4, seed=1)
    for reply in generate(model, tokenizer, conversations[:1], params)[0]:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + reply.token_ids])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / 0.8, -1).gather(1, torch.tensor(reply.token_ids)[:, None]).sum()
        assert reply.logprob == pytest.approx(expected.item(), abs=1e-3)


def test_frequencies_follow_the_model_and_top_p(policy, conversations):
    model, tokenizer = policy
    prompt = prompt_ids(tokenizer, conversations)[0]
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt])).logits[0, -1], -1)

    def frequencies(top_p):
        params = SamplingParams(n=4000, top_p=top_p, max_new_tokens=1, batch_size=4000, seed=3, stop=())
        replies = sample_tokens(model, tokenizer, [prompt], params)[0]
        return torch.bincount(torch.tensor([r.ids[0] for r in replies]), minlength=len(p)) / 4000

    assert (frequencies(1.0) - p).abs().max() < 0.03
    ordered, order = p.sort(descending=True)
    nucleus = order[: int((ordered.cumsum(0) < 0.5).sum()) + 1]
    expected = torch.zeros_like(p)
    expected[nucleus] = p[nucleus] / p[nucleus].sum()
    assert (frequencies(0.5) - expected).abs().max() < 0.03
    assert frequencies(0.5)[expected == 0].sum() == 0


def test_sliding_window_models_work(conversations):
    model, tokenizer = tiny_policy(use_sliding_window=True, sliding_window=8, max_window_layers=1)
    prompts = prompt_ids(tokenizer, conversations)
    params = SamplingParams(temperature=0, max_new_tokens=20, batch_size=64, seed=0)
    ours = sample_tokens(model, tokenizer, prompts, params)
    for prompt, (reply,) in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=20,
        )[0, len(prompt) :].tolist()
        assert reply.ids == theirs


def test_every_end_of_sequence_token_stops():
    tokenizer = tiny_tokenizer()
    assert stop_tokens([5, 9], tokenizer) == sorted({5, 9, tokenizer.eos_token_id})


def test_progress_reaches_the_total(policy, conversations):
    seen = []
    params = SamplingParams(n=3, max_new_tokens=2, batch_size=5, seed=0)
    generate(*policy, conversations, params, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12) and seen == sorted(set(seen))


def test_progress_moves_within_a_batch_by_tokens(policy, conversations, monkeypatch):
    monkeypatch.setattr(decoding, "REPORT_SECONDS", 0.0)
    seen = []
    params = SamplingParams(n=2, max_new_tokens=10, batch_size=4, seed=0, stop=())
    generate(*policy, conversations, params, lambda done, total: seen.append((done, total)))
    assert seen == [(round(4 * step / 10, 1), 8) for step in range(1, 21)]


@pytest.mark.slow
@pytest.mark.parametrize("large", [0, 10**8], ids=["joining", "batch by batch"])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_replies_that_end_make_room_for_the_next(policy, conversations, batch_size, large, monkeypatch):
    """Mixed lengths: whatever joins a batch, and whenever, each reply is the one it would be alone."""
    monkeypatch.setattr(decoding, "LARGE", large)
    model, tokenizer = policy
    prompts = prompt_ids(tokenizer, conversations)
    stop = (common_token(model, tokenizer, prompts), tokenizer.eos_token_id)
    params = SamplingParams(n=4, temperature=1.3, max_new_tokens=40, batch_size=batch_size, seed=2, stop=stop)
    rows, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda **kw: rows.append(kw["input_ids"].shape) or forward(**kw))
    completed = []
    together = sample_tokens(model, tokenizer, prompts, params, complete=lambda i, row: completed.append((i, row)))
    assert max(shape[0] for shape in rows) <= batch_size
    alone = [sample_tokens(model, tokenizer, [one], replace(params, batch_size=1))[0] for one in prompts]
    assert [[reply.ids for reply in row] for row in together] == [[reply.ids for reply in row] for row in alone]
    assert len({len(reply.ids) for row in together for reply in row}) > 3
    assert sorted(completed, key=lambda one: one[0]) == list(enumerate(together))


@pytest.mark.parametrize(
    ("ids", "circles"),
    [
        ([*range(40)], False),
        ([*range(16)] * 3, True),
        ([*range(16)] * 3 + [99], False),
        ([7, 8, *range(20), *range(20), *range(20)], True),
        ([*range(20)] * 2, False),
        ([5] * 48, True),
        ([5] * 47, False),
        ([*range(15)] * 3, False),
        ([*range(15)] * 6, True),
    ],
)
def test_circles_are_blocks_of_sixteen_tokens_or_more_in_a_row(ids, circles):
    assert decoding.runs_in_circles(ids, 3) == circles


def test_a_reply_that_runs_in_circles_is_cut_and_not_finished(conversations):
    model, tokenizer = tiny_policy(max_position_embeddings=512)
    for layer in model.model.layers:  # the next token then follows from the last one, so circles there will be
        layer.self_attn.o_proj.weight.data.zero_()
    prompts = prompt_ids(tokenizer, conversations)
    params = SamplingParams(temperature=0, max_new_tokens=320, batch_size=3, seed=0, stop=())
    ends = []
    free = sample_tokens(model, tokenizer, prompts, params)
    for row, whole in zip(sample_tokens(model, tokenizer, prompts, replace(params, repeats=3)), free, strict=True):
        ids = whole[0].ids
        ends.append(next((n for n in range(16, 321, 16) if decoding.runs_in_circles(ids[:n], 3)), None))
        assert row[0].ids == ids[: ends[-1]] and not row[0].finished
    assert all(ends)
    with pytest.raises(ModelError, match="make repeats 2 or more"):
        replace(params, repeats=1)


def test_braces_in_a_question_survive():
    assert solve_messages("Q: {question}", "return {1: 2}")[0]["content"] == "Q: return {1: 2}"


def test_round_trip_through_a_folder(tmp_path, conversations):
    folder = save_tiny_policy(tmp_path / "policy")
    model, tokenizer = load_policy(folder, device="cpu"), load_tokenizer(folder)
    assert not model.training and model.dtype == torch.float32
    params = SamplingParams(max_new_tokens=5, batch_size=2, seed=0, temperature=0)
    assert generate(model, tokenizer, conversations, params) == generate(*tiny_policy(), conversations, params)


def test_hubs_defaults_for_sampling_change_nothing(tmp_path, conversations):
    folder = save_tiny_policy(tmp_path / "policy")
    path = folder / "generation_config.json"
    hub = {"do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
    path.write_text(json.dumps(json.loads(path.read_text()) | hub))
    model, tokenizer = load_policy(folder, device="cpu"), load_tokenizer(folder)
    assert model.generation_config.repetition_penalty is None and model.generation_config.top_k is None
    for params in (SamplingParams(n=3, max_new_tokens=12, batch_size=4, seed=0), SamplingParams(**GREEDY)):
        assert generate(model, tokenizer, conversations, params) == generate(*tiny_policy(), conversations, params)


def test_padding_that_is_the_end_of_a_reply_too_changes_nothing(conversations):
    params = SamplingParams(n=3, temperature=1.2, max_new_tokens=30, batch_size=4, seed=0)
    model, tokenizer = tiny_policy()
    stop = stop_tokens(None, tokenizer)
    usual = generate(model, tokenizer, conversations, params)
    tokenizer.pad_token = tokenizer.eos_token
    assert generate(model, tokenizer, conversations, params) == usual and stop_tokens(None, tokenizer) == stop


def test_no_folder_names_the_profile(tmp_path):
    for load in (load_policy, load_tokenizer):
        with pytest.raises(ModelError, match="no model folder.*profile"):
            load(tmp_path / "nowhere")
    assert issubclass(ModelError, CourseError)


def test_folder_without_weights_tokenizer_or_template(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="config.json"):
        load_policy(empty)
    folder = save_tiny_policy(tmp_path / "policy")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no causal language model"):
        load_policy(folder)

    shutil.copytree(save_tiny_policy(tmp_path / "full"), tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load_tokenizer(tmp_path / "bare")

    silent = tmp_path / "full"
    (silent / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((silent / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (silent / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no chat template"):
        load_tokenizer(silent)


def test_prompt_that_does_not_fit(policy, conversations):
    with pytest.raises(ModelError, match="do not fit the model's context of 128"):
        generate(*policy, conversations, SamplingParams(max_new_tokens=120, batch_size=2, seed=0))


@pytest.mark.parametrize("bad", [{"n": 0}, {"top_p": 0.0}, {"temperature": -1.0}, {"batch_size": 0}])
def test_impossible_requests(bad):
    with pytest.raises(ModelError, match="Cannot sample .*; make counts positive"):
        SamplingParams(**({"max_new_tokens": 2, "batch_size": 2, "seed": 0} | bad))


def test_what_a_profile_says_becomes_one_object():
    profile = load_profile("pocket")
    params = SamplingParams.of(profile.sampling, profile.best_of_n, n=3, seed=5)
    assert (params.n, params.temperature, params.top_p) == (3, profile.best_of_n.temperature, profile.best_of_n.top_p)
    assert (params.max_new_tokens, params.batch_size) == (profile.sampling.max_new_tokens, profile.sampling.batch_size)
    assert params.greedy() == replace(params, n=1, temperature=0.0, top_p=1.0)


DIGESTS = ["fae01f57ca8bdb2c", "303f5ae949e9124d"]


def test_what_the_shipped_policy_samples_stays_the_same():
    """Digests of token ids; should another processor round differently, compare two commits on it instead."""
    folder = ROOT / "data" / "models" / "policy"
    model, tokenizer = load_policy(folder, device="cpu"), load_tokenizer(folder)
    asked = "Write a function `f(xs)` that returns the sum of the even numbers of a list."
    chats = [solve_messages("{question}", asked), solve_messages("{question}", "Sort a list.")]
    params = SamplingParams(n=3, temperature=0.9, top_p=0.95, max_new_tokens=50, batch_size=4, seed=5)
    ids = [
        [[one.token_ids for one in row] for row in generate(model, tokenizer, chats, how)]
        for how in (params, params.greedy())
    ]
    assert [hashlib.sha256(json.dumps(one).encode()).hexdigest()[:16] for one in ids] == DIGESTS


def test_no_conversations_no_replies(policy):
    assert generate(*policy, [], SamplingParams(max_new_tokens=2, batch_size=2, seed=0)) == []
