import json
import math

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny_models import profile_with, save_tiny_policy, save_tiny_reward_model
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from acelib import reward_model
from acelib.core import EngineError, ModelError
from acelib.reward_model import (
    bradley_terry_loss,
    encode,
    is_held_out,
    load_reward_model,
    question_rows,
    regression_loss,
    score,
    score_questions,
)
from acelib.schema import Pair
from acelib.training.reward_trainer import QuestionRewardTrainer, make_reward_trainer

PROGRAMS = ["return 1", "return xs", "return sorted(xs)", "pass"]


SETTINGS = {
    "learning_rate": 1e-2,
    "epochs": 4.0,
    "batch_size": 4,
    "warmup_ratio": 0.1,
    "max_length": 64,
    "held_out": 0.25,
    "loss": "bradley_terry",
    "micro_batch": 8,
}


def profile(base, dtype="float32", engine=None, **settings):
    """Profile pocket with 4 programs per question and `SETTINGS`, but for the values in `settings`."""
    changes = {"models": {"dtype": dtype}, "engine": engine or {}, "sampling": {"n": 4}}
    return profile_with(base, reward_model=SETTINGS | settings, **changes)


def some_pairs(questions=24):
    better = [(2, 0), (2, 1), (2, 3), (1, 3)]
    return [
        Pair(f"q{i}", f"question {i % 5}?", PROGRAMS[a], PROGRAMS[b], 1.0, 0.3)
        for i in range(questions)
        for a, b in better[: 1 + i % 4]
    ]


def test_loss_of_a_question_worked_by_hand():
    scores = torch.tensor([2.0, 0.0, -1.0])
    loss = bradley_terry_loss(scores, torch.tensor([[0, 1], [0, 2]]), n=3)
    by_hand = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(-3.0))) / 6
    assert loss.item() == pytest.approx(by_hand)


def test_equal_scores_cost_log_2_and_only_differences_count():
    pairs = torch.tensor([[0, 1]])
    assert bradley_terry_loss(torch.zeros(2), pairs, 2).item() == pytest.approx(math.log(2) / 2)
    scores = torch.tensor([0.3, -0.8])
    torch.testing.assert_close(bradley_terry_loss(scores, pairs, 2), bradley_terry_loss(scores + 8, pairs, 2))


def test_a_huge_difference_neither_overflows_nor_loses_its_gradient():
    scores = torch.tensor([-500.0, 500.0], requires_grad=True)
    loss = bradley_terry_loss(scores, torch.tensor([[0, 1]]), n=2)
    loss.backward()
    assert loss.item() == pytest.approx(500.0)
    assert scores.grad.tolist() == pytest.approx([-0.5, 0.5])


def test_regression_on_the_pass_rate_worked_by_hand():
    scores = torch.tensor([0.0, math.log(3.0)], requires_grad=True)  # their sigmoids are 1/2 and 3/4
    loss = regression_loss(scores, torch.tensor([1.0, 0.5]))
    loss.backward()
    assert loss.item() == pytest.approx((0.5**2 + 0.25**2) / 2)
    # d/ds of (sigmoid - rate)^2 / 2 programs is (sigmoid - rate) sigmoid (1 - sigmoid)
    assert scores.grad.tolist() == pytest.approx([-0.5 * 0.25, 0.25 * 0.1875])


def config(folder, **changes):
    return RewardConfig(
        output_dir=str(folder),
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        max_length=64,
        **changes,
    )


@pytest.mark.parametrize("share_prefix", [False, True])
def test_questions_give_the_loss_and_gradient_of_trls_pairwise_trainer(tmp_path, share_prefix):
    folder = save_tiny_reward_model(tmp_path / "rm")
    model, tokenizer = load_reward_model(folder)
    pairs, n = some_pairs(6), 16
    conversational = [
        {
            side: [{"role": "user", "content": p.instruction}, {"role": "assistant", "content": getattr(p, side)}]
            for side in ("chosen", "rejected")
        }
        for p in pairs
    ]
    stock = RewardTrainer(
        model=model,
        args=config(tmp_path / "a"),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(conversational),
    )
    theirs = stock.compute_loss(model, stock.data_collator(list(stock.train_dataset)))
    theirs.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    rows = question_rows(pairs, tokenizer, 64)
    assert sum(len(row["sequences"]) for row in rows) < 2 * len(pairs)
    ours = QuestionRewardTrainer(
        model=model, args=config(tmp_path / "b"), n=n, processing_class=tokenizer, train_dataset=Dataset.from_list(rows)
    )
    assert ours.shares_prompts
    ours.shares_prompts = share_prefix
    loss = ours.compute_loss(model, ours.data_collator(list(ours.train_dataset)))
    loss.backward()
    # TRL takes the mean over pairs, Eq. 1 their sum over n(n-1) and the mean over questions.
    factor = len(pairs) / (n * (n - 1) * len(rows))
    torch.testing.assert_close(loss, theirs * factor)
    assert gradients.keys() == {name for name, p in model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name] * factor, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.slow
def test_training_learns_saves_a_standard_folder_and_logs(tmp_path, dtype):
    base = save_tiny_policy(tmp_path / "base")
    seen = []
    log = make_reward_trainer(
        profile(base, dtype=dtype),
        some_pairs(),
        tmp_path / "scratch",
        progress=lambda done, total: seen.append((done, total)),
    ).train_and_save(tmp_path / "rm")
    losses = [entry["pair_loss"] for entry in log if "pair_loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert any("eval_accuracy" in entry for entry in log)
    assert seen[-1][0] == seen[-1][1]
    assert json.loads((tmp_path / "rm" / "training_log.json").read_text()) == log
    standard = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    assert standard.config.num_labels == 1 and standard.config.pad_token_id is not None
    model, tokenizer = load_reward_model(tmp_path / "rm")
    good, bad = score(model, tokenizer, ["question 1?"] * 2, [PROGRAMS[2], PROGRAMS[3]])
    assert good > bad


@pytest.mark.slow
def test_regression_learns_the_pass_rates_of_the_programs_in_pairs(tmp_path):
    rates = dict(zip(PROGRAMS, (0.2, 0.5, 1.0, 0.1)))
    pairs = [
        Pair(f"q{i}", f"question {i % 5}?", PROGRAMS[a], PROGRAMS[b], rates[PROGRAMS[a]], rates[PROGRAMS[b]])
        for i in range(24)
        for a, b in [(2, 0), (2, 1), (1, 3)]
    ]
    base = save_tiny_policy(tmp_path / "base")
    rows = question_rows(pairs[:3], load_reward_model(save_tiny_reward_model(tmp_path / "any"))[1], 64)
    assert rows[0]["rates"] == [1.0, 0.2, 0.5, 0.1] and rows[0]["pairs"] == [[0, 1], [0, 2], [2, 3]]
    log = make_reward_trainer(profile(base, loss="regression", epochs=8.0), pairs, tmp_path / "scratch").train_and_save(
        tmp_path / "rm"
    )
    model, tokenizer = load_reward_model(tmp_path / "rm")
    scores = torch.tensor(score(model, tokenizer, ["question 1?"] * 4, PROGRAMS))
    torch.testing.assert_close(scores.sigmoid(), torch.tensor(list(rates.values())), rtol=0, atol=0.1)
    last = [entry for entry in log if "eval_loss" in entry][-1]
    assert last["eval_loss"] < 0.01 and last["eval_accuracy"] == 1.0


def test_what_is_logged_of_held_out_questions_is_theirs_alone(tmp_path):
    model, tokenizer = load_reward_model(save_tiny_reward_model(tmp_path / "rm"))
    rows = question_rows(some_pairs(8), tokenizer, 64)
    trainer = QuestionRewardTrainer(
        model=model,
        args=config(tmp_path / "t", per_device_eval_batch_size=2, remove_unused_columns=False),
        n=4,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows[:3]),
        eval_dataset=Dataset.from_list(rows[3:]),
    )
    trainer.model.train()
    trainer.compute_loss(model, trainer.data_collator(rows[:3]))
    found = trainer.evaluate()
    with torch.no_grad():
        whole = trainer.compute_loss(model.eval(), trainer.data_collator(rows[3:]))
    logged = trainer.state.log_history[-1]
    assert logged["eval_loss"] == pytest.approx(whole.item()) and found["eval_loss"] == pytest.approx(whole.item())
    total = sum(len(row["pairs"]) for row in rows[3:])
    assert logged["eval_pair_loss"] == pytest.approx(whole.item() * 5 * 12 / total)


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.slow
def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path, rank):
    base = save_tiny_policy(tmp_path / "base")

    def stop_at(step):
        def report(done, total):
            if done == step:
                raise KeyboardInterrupt

        return report

    def train(folder, scratch, progress=None):
        small = profile(base, engine={"lora_rank": rank})
        return make_reward_trainer(small, some_pairs(), tmp_path / scratch, progress).train_and_save(tmp_path / folder)

    train("whole", "s1")
    with pytest.raises(KeyboardInterrupt):
        train("cut", "s2", stop_at(10))
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    steps = []
    train("cut", "s2", lambda done, total: steps.append(done))
    assert steps[0] > 1
    whole, cut = (load_reward_model(tmp_path / name)[0].state_dict() for name in ("whole", "cut"))
    for name in whole:
        torch.testing.assert_close(whole[name], cut[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_batch_in_pieces_is_the_same_batch(tmp_path):
    base, weights = save_tiny_policy(tmp_path / "base"), []
    for at_once in (16, 4):
        make_reward_trainer(
            profile(base, batch_size=16, epochs=2.0, micro_batch=at_once), some_pairs(), tmp_path / f"s{at_once}"
        ).train_and_save(tmp_path / f"rm{at_once}")
        weights.append(load_reward_model(tmp_path / f"rm{at_once}")[0].state_dict())
    for name, whole in weights[0].items():
        torch.testing.assert_close(weights[1][name], whole, rtol=1e-3, atol=1e-4)


def test_scores_do_not_depend_on_batch_or_order(tmp_path):
    model, tokenizer = load_reward_model(save_tiny_reward_model(tmp_path / "rm"))
    prompts = ["a?", "bb bb?", "a?", "c?", "a?"]
    programs = ["x", "y" * 30, "zz", "", "x"]
    together = score(model, tokenizer, prompts, programs)
    alone = [score(model, tokenizer, [q], [p], batch_size=1)[0] for q, p in zip(prompts, programs)]
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert together[0] == together[4]
    assert score(model, tokenizer, [], []) == []


def test_a_gpu_that_is_too_small_scores_fewer_at_a_time(tmp_path, monkeypatch):
    model, tokenizer = load_reward_model(save_tiny_reward_model(tmp_path / "rm"), device="cpu")
    given, told, usual = (["question?"] * 4, PROGRAMS), [], reward_model.score_questions

    def small(model, questions, *rest):
        if sum(map(len, questions)) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return usual(model, questions, *rest)

    expected = score(model, tokenizer, *given)
    monkeypatch.setattr(reward_model, "score_questions", small)
    room = 1
    found = score(model, tokenizer, *given, progress=lambda done, total: told.append((done, total)))
    assert found == pytest.approx(expected, abs=1e-5) and told == [(done, 4) for done in (1, 2, 3, 4)]
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        score(model, tokenizer, *given)


def test_a_shared_prefix_changes_no_score(tmp_path):
    model, tokenizer = load_reward_model(save_tiny_reward_model(tmp_path / "rm"))
    questions = [
        encode(tokenizer, [q] * len(ps), ps)
        for q, ps in [("a?", PROGRAMS), ("a much longer question?", PROGRAMS[:1]), ("b?", ["x", "xx", ""])]
    ]
    questions.append([[5, 6, 7], [8, 9]])  # nothing in common
    questions.append([[5, 6], [5, 6, 7]])  # one begins like the other ends
    plain = score_questions(model, questions, tokenizer.pad_token_id, False)
    shared = score_questions(model, questions, tokenizer.pad_token_id, True)
    assert [len(s) for s in shared] == [4, 1, 3, 2, 2]
    torch.testing.assert_close(torch.cat(shared), torch.cat(plain), rtol=1e-4, atol=1e-5)


def test_what_is_scored_is_the_models_own_chat_template(tmp_path):
    _, tokenizer = load_reward_model(save_tiny_reward_model(tmp_path / "rm"))
    text = tokenizer.decode(encode(tokenizer, ["q?"], ["code"])[0])
    assert text == "<|im_start|>user\nq?<|im_end|>\n<|im_start|>assistant\ncode<|im_end|>\n"


def test_questions_are_split_by_id_alone():
    ids = [f"q{i}" for i in range(4000)]
    share = sum(is_held_out(i, 0.1) for i in ids) / len(ids)
    assert 0.08 < share < 0.12
    assert {i for i in ids if is_held_out(i, 0.1)} <= {i for i in ids if is_held_out(i, 0.2)}


def test_no_pairs_is_an_error_with_a_remedy(tmp_path):
    base = save_tiny_policy(tmp_path / "base")
    with pytest.raises(ModelError, match="lower pairs.min_gap"):
        make_reward_trainer(profile(base), [], tmp_path / "s").train_and_save(tmp_path / "rm")


def test_a_long_program_is_an_error_that_names_its_length(tmp_path):
    base = save_tiny_policy(tmp_path / "base")
    pairs = [*some_pairs(), Pair("long", "q?", "x" * 200, "pass", 1.0, 0.2)]
    with pytest.raises(ModelError, match="1 of .* longer than 64 .*raise reward_model.max_length"):
        make_reward_trainer(profile(base), pairs, tmp_path / "s").train_and_save(tmp_path / "rm")


def test_scores_and_losses_that_are_no_numbers_are_errors(tmp_path):
    model, tokenizer = load_reward_model(save_tiny_reward_model(tmp_path / "rm"))
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not numbers"):
        score(model, tokenizer, ["q?"], ["x"])
    rows = question_rows(some_pairs(2), tokenizer, 64)
    trainer = QuestionRewardTrainer(
        model=model, args=config(tmp_path / "t"), n=4, processing_class=tokenizer, train_dataset=Dataset.from_list(rows)
    )
    with pytest.raises(ModelError, match="lower reward_model.learning_rate"):
        trainer.compute_loss(model, trainer.data_collator(rows))


def test_a_policy_is_not_mistaken_for_a_reward_model(tmp_path):
    with pytest.raises(ModelError, match="is no reward model"):
        load_reward_model(save_tiny_policy(tmp_path / "policy"))


def test_a_batch_that_processes_cannot_share_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    base = save_tiny_policy(tmp_path / "base")
    with pytest.raises(EngineError, match="4 examples of an update cannot be shared by 3 processes.* in reward_model"):
        make_reward_trainer(profile(base), some_pairs(), tmp_path / "s").train_and_save(tmp_path / "rm")


def test_below_adapters_in_bfloat16_the_head_learns_and_scores_in_float32(tmp_path):
    base = save_tiny_policy(tmp_path / "base")
    adapted = profile(base, engine={"lora_rank": 4}, dtype="bfloat16")
    trainer = make_reward_trainer(adapted, some_pairs(), tmp_path / "s")
    held = {(one.requires_grad, one.dtype) for one in trainer.model.parameters()}
    assert held == {(False, torch.bfloat16), (True, torch.float32)} and trainer.shares_prompts
    rows = list(trainer.train_dataset)[:2]
    loss, found = trainer.compute_loss(trainer.model, {"questions": rows}, return_outputs=True)
    loss.backward()
    assert found["scores"].dtype == torch.float32 and trainer.model.get_base_model().score.weight.grad.any()
    trainer.shares_prompts = False
    _, plain = trainer.compute_loss(trainer.model, {"questions": rows}, return_outputs=True)
    torch.testing.assert_close(found["scores"], plain["scores"], atol=0.05, rtol=0.05)
    for scores in (found["scores"], plain["scores"]):
        assert not scores.equal(scores.bfloat16().float())  # as bfloat16 they would have two digits


def test_two_programs_of_one_score_are_half_a_pair_ranked_right(tmp_path):
    trainer = make_reward_trainer(profile(save_tiny_policy(tmp_path / "base")), some_pairs(), tmp_path / "s")
    torch.nn.init.zeros_(trainer.model.train().score.weight)
    trainer.compute_loss(trainer.model, {"questions": list(trainer.train_dataset)[:4]})
    trainer.log({})
    entry = trainer.state.log_history[-1]
    assert entry["accuracy"] == 0.5 and entry["pair_loss"] == pytest.approx(math.log(2))


def test_padding_that_is_the_last_token_too_changes_no_score(tmp_path):
    model, _ = load_reward_model(save_tiny_reward_model(tmp_path / "rm"), device="cpu")
    questions, found = [[[5, 6, 7, 9], [5, 6, 8, 11, 9]], [[4, 6, 9]]], []
    for pad_id in (0, 9):
        model.config.pad_token_id = pad_id
        found += [torch.cat(score_questions(model, questions, pad_id, share)) for share in (True, False)]
        assert model.config.pad_token_id == pad_id
    for one in found[1:]:
        torch.testing.assert_close(one, found[0])


@pytest.mark.slow
def test_adapters_are_trained_and_merged(tmp_path):
    base = save_tiny_policy(tmp_path / "base")
    make_reward_trainer(profile(base, engine={"lora_rank": 4}), some_pairs(), tmp_path / "s").train_and_save(
        tmp_path / "rm"
    )
    before, after = (load_file(path / "model.safetensors") for path in (base, tmp_path / "rm"))
    assert after.keys() - before.keys() == {"score.weight"} and not any("lora" in name for name in after)
    changed = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    assert changed and all("proj" in name for name in changed)
    log = json.loads((tmp_path / "rm" / "training_log.json").read_text())
    losses = [row["pair_loss"] for row in log if "pair_loss" in row]
    assert losses[-1] < losses[0]
    assert load_reward_model(tmp_path / "rm")[0].score.weight.shape[0] == 1
