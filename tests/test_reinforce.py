import copy
import json
import math
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from tiny_models import profile_with, save_tiny_policy, tiny_policy
from transformers import AutoModelForCausalLM

from acelib.advantages import reinforce_plus_plus_advantages
from acelib.core import ArtifactError, DataError, EngineError, ModelError
from acelib.core.sections import Reinforce
from acelib.judge import Report, Verdict
from acelib.models import prefix
from acelib.models.generation import load_policy, load_tokenizer
from acelib.models.prefix import response_logps
from acelib.schema import Problem
from acelib.training.log import held_out_pass_rate
from acelib.training.reinforce_trainer import make_reinforce_trainer, trainer_arguments
from acelib.training.rollouts import question_order
from acelib.training.settings import LOG_FILE, check_together, common_arguments, merge_adapters, merged_exactly

SETTINGS = Reinforce(
    algorithm="reinforce++",
    learning_rate=3e-3,
    beta=0.05,
    epsilon=0.2,
    rollout_questions=3,
    samples_per_question=4,
    steps=4,
    updates_per_rollout=2,
    micro_batch=6,
    temperature=0.9,
    max_new_tokens=8,
    max_kl=0.0,
    reward_seconds=60.0,
    eval_every=2,
    eval_questions=4,
)
PROBLEMS = [Problem(f"p{i}", "Sort " + "x" * i, "solve", ("assert solve(1) == 1",)) for i in range(5)]


def wordy(completions, **_):
    return [float(len(completion[-1]["content"])) for completion in completions]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("policy"))


def profile(policy, dtype="float32", engine=None, **reinforce):
    """Profile pocket with `SETTINGS`, but for the values in `reinforce`."""
    settings = vars(SETTINGS) | reinforce
    return profile_with(policy, seed=3, models={"dtype": dtype}, engine=engine or {}, reinforce=settings)


def tensors(*rows):
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


# --- the advantage --------------------------------------------------------------------------------


def test_two_episodes_by_hand_without_kl():
    # Returns are 1, 1, 1 and 0: mean 3/4, variance 3/16, so the advantages are 1/sqrt(3) and -sqrt(3).
    rewards, logps, mask = tensors([1, 0], [[0.0] * 3] * 2, [[1, 1, 1], [1, 0, 0]])
    found = reinforce_plus_plus_advantages(rewards, logps, logps, mask, beta=0.01)
    expected = [[1 / math.sqrt(3)] * 3, [-math.sqrt(3), 0, 0]]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))


def test_two_episodes_by_hand_with_kl():
    # beta 1; both replies begin with the same token, so its log-probs are the same in both.
    # Reply 1: KL terms .5, -.5, reward 1: token rewards -.5, 1.5, returns 1, 1.5.
    # Reply 2: KL terms .5, 1, reward 0: token rewards -.5, -1, returns -1.5, -1.
    # Mean 0, squares 1, 2.25, 2.25, 1: variance 1.625.
    rewards, mask = tensors([1, 0], [[1, 1], [1, 1]])
    logps, ref = tensors([[-1.0, -2.0], [-1.0, -1.0]], [[-1.5, -1.5], [-1.5, -2.0]])
    found = reinforce_plus_plus_advantages(rewards, logps, ref, mask, beta=1.0)
    expected = torch.tensor([[1.0, 1.5], [-1.5, -1.0]], dtype=torch.float64) / math.sqrt(1.625)
    assert torch.allclose(found, expected)


def advantages_one_by_one(rewards, logps, ref, lengths, beta):
    """The formulas, token by token, on plain lists."""
    returns = {}
    for i, reward in enumerate(rewards):
        if reward is None:
            continue
        for t in range(lengths[i]):
            later = sum(-beta * (logps[i][s] - ref[i][s]) for s in range(t, lengths[i]))
            returns[i, t] = later + reward
    mean = sum(returns.values()) / len(returns)
    deviation = math.sqrt(sum((g - mean) ** 2 for g in returns.values()) / len(returns))
    return {key: (g - mean) / deviation for key, g in returns.items()}


@pytest.mark.parametrize("seed", range(5))
def test_advantages_equal_an_independent_loop(seed):
    g = torch.Generator().manual_seed(seed)
    logps, ref = torch.randn((6, 7), generator=g), torch.randn((6, 7), generator=g)
    lengths = torch.randint(1, 8, (6,), generator=g).tolist()
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    rewards = torch.randn(6, generator=g)
    rewards[2] = torch.nan
    found = reinforce_plus_plus_advantages(rewards, logps, ref, mask, 0.3)
    as_list = [None if math.isnan(r) else r for r in rewards.tolist()]
    expected = advantages_one_by_one(as_list, logps.tolist(), ref.tolist(), lengths, 0.3)
    for i in range(6):
        for t in range(7):
            assert found[i, t].item() == pytest.approx(expected.get((i, t), 0.0), abs=1e-5)


def test_edges_of_the_advantage():
    rewards, logps, mask = tensors([2, 2], [[0.0] * 2] * 2, [[1, 1], [1, 0]])
    assert not reinforce_plus_plus_advantages(rewards, logps, logps, mask, 0.1).any()
    unjudged = torch.full_like(rewards, torch.nan)
    assert not reinforce_plus_plus_advantages(unjudged, logps, logps, mask, 0.1).any()
    single = reinforce_plus_plus_advantages(rewards[:1], logps[:1], logps[:1], mask[:1], 0.1)
    assert not single.any()


# --- log-probs with shared prompts ----------------------------------------------------------------


@pytest.mark.parametrize("chunk, tile", [(1, 2**25), (4, 2**25), (100, 2**25), (100, 2000)])
def test_shared_prompts_give_the_numbers_of_plain_passes(chunk, tile, monkeypatch):
    monkeypatch.setattr(prefix, "TILE", tile)  # 2,000 logits are 7 tokens of this vocabulary
    model, tokenizer = tiny_policy()
    g = torch.Generator().manual_seed(0)
    prompt_lengths, lengths = [5, 5, 9, 9, 9, 3, 5], [4, 6, 1, 6, 2, 3, 5]
    by_length = {n: torch.randint(3, 200, (n,), generator=g) for n in set(prompt_lengths)}
    prompts, replies = torch.zeros((7, 9), dtype=torch.long), torch.zeros((7, 6), dtype=torch.long)
    prompt_mask, reply_mask = torch.zeros_like(prompts), torch.zeros_like(replies)
    for i, (p, n) in enumerate(zip(prompt_lengths, lengths, strict=True)):
        prompts[i, -p:], prompt_mask[i, -p:] = by_length[p], 1
        replies[i, :n], reply_mask[i, :n] = torch.randint(3, 200, (n,), generator=g), 1

    def plain():
        logps, entropies = torch.zeros(7, 6), torch.zeros(7, 6)
        for i, (p, n) in enumerate(zip(prompt_lengths, lengths, strict=True)):
            ids = torch.cat([by_length[p], replies[i, :n]])[None]
            everything = torch.log_softmax(model(ids).logits[0, p - 1 : -1] / 0.7, -1)
            logps[i, :n] = everything.gather(1, replies[i, :n, None])[:, 0]
            entropies[i, :n] = torch.distributions.Categorical(logits=everything).entropy()
        return logps, entropies

    def gradient(logps):
        model.zero_grad()
        (logps * torch.arange(42.0).view(7, 6)).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    ours = response_logps(model, prompts, prompt_mask, replies, reply_mask, 0.7, chunk)
    theirs = plain()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    a, b = gradient(ours[0]), gradient(theirs[0])
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


# --- one update of the trainer --------------------------------------------------------------------


def one_rollout(trainer):
    rows = [
        dict(row)
        for row in trainer.train_dataset.select(range(SETTINGS.rollout_questions))
        for _ in range(SETTINGS.samples_per_question)
    ]
    trainer.model.train()
    return trainer._generate_and_score_completions(rows)


def sequences(batch, i):
    prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()]
    reply = batch["completion_ids"][i][batch["completion_mask"][i].bool()]
    return prompt, reply


def plain_logps(model, prompt, reply):
    logits = model(torch.cat([prompt, reply])[None]).logits[0, len(prompt) - 1 : -1] / SETTINGS.temperature
    return torch.log_softmax(logits, -1).gather(1, reply[:, None])[:, 0]


@pytest.mark.parametrize("shares", [True, False])
def test_an_update_equals_an_independent_loop(policy, tmp_path, shares):
    trainer = make_reinforce_trainer(profile(policy), PROBLEMS, wordy, tmp_path)
    assert trainer.shares_prompts
    trainer.shares_prompts = shares
    reference = load_policy(policy, device="cpu")
    with torch.no_grad():  # move the policy away from its reference before the rollout
        for parameter in trainer.model.parameters():
            parameter.add_(0.02 * torch.sin(torch.arange(parameter.numel()).view_as(parameter).float()))
    batch = one_rollout(trainer)
    old = load_policy(policy, device="cpu")
    old.load_state_dict(trainer.model.state_dict())
    tokenizer = load_tokenizer(policy)

    pairs = [sequences(batch, i) for i in range(12)]
    with torch.no_grad():
        logps = [plain_logps(old, *pair).tolist() for pair in pairs]
        ref = [plain_logps(reference, *pair).tolist() for pair in pairs]
    rewards = [float(len(tokenizer.decode(reply, skip_special_tokens=True))) for _, reply in pairs]
    lengths = [len(reply) for _, reply in pairs]
    expected = advantages_one_by_one(rewards, logps, ref, lengths, SETTINGS.beta)
    for i in range(12):
        for t in range(batch["advantages"].shape[1]):
            assert batch["advantages"][i, t].item() == pytest.approx(expected.get((i, t), 0.0), abs=1e-4)

    with torch.no_grad():  # the policy after some update, so that ratios differ from 1 and some are clipped
        for parameter in trainer.model.parameters():
            parameter.add_(0.02 * torch.cos(torch.arange(parameter.numel()).view_as(parameter).float()))
    new = load_policy(policy, device="cpu")
    new.load_state_dict(trainer.model.state_dict())
    terms, clipped = [], 0
    for i, pair in enumerate(pairs):
        ratios = torch.exp(plain_logps(new, *pair) - torch.tensor(logps[i]))
        for t, ratio in enumerate(ratios):
            a = expected[i, t]
            terms.append(-torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a))
            clipped += not 0.8 < ratio.item() < 1.2
    loss = torch.stack(terms).mean()
    loss.backward()
    trainer.current_gradient_accumulation_steps = 1  # set by `Trainer.train`
    batch["num_items_in_batch"] = batch["completion_mask"].sum() * SETTINGS.updates_per_rollout
    found = trainer._compute_loss(trainer.model, batch)
    found.backward()
    assert clipped > 5
    assert found.item() == pytest.approx(loss.item(), abs=1e-5)
    for a, b in zip(trainer.model.parameters(), new.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5 * max(1.0, b.grad.abs().max().item()))


def test_no_reward_no_signal(policy, tmp_path):
    def broken_machinery(completions, **_):
        return [None] * len(completions)

    trainer = make_reinforce_trainer(profile(policy), PROBLEMS, broken_machinery, tmp_path)
    batch = one_rollout(trainer)
    assert not batch["advantages"].any()
    assert trainer._metrics["train"]["unjudged"] == [1.0]


def test_one_unjudged_reply_leaves_the_others_alone(policy, tmp_path):
    def sometimes(completions, **_):
        return [None, 0.0, 0.0, 1.0] * (len(completions) // 4)

    batch = one_rollout(make_reinforce_trainer(profile(policy), PROBLEMS, sometimes, tmp_path))
    assert not batch["advantages"][::4].any()
    assert (batch["advantages"][1::4, 0] < 0).all() and (batch["advantages"][3::4, 0] > 0).all()


# --- whole runs -----------------------------------------------------------------------------------


def without_seconds(rows):
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def measure(sample):
    texts = sample([[{"role": "user", "content": "Sort"}]], 8, 0.9)[0]
    return {"pass_at_1": sum(map(len, texts)) / 8, "greedy": 0.0, "solved": [0.25, None]}


@pytest.mark.parametrize(("killed_in", "rank"), [(1, 0), (2, 0), (3, 0), (4, 0), (3, 4)])
@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(policy, tmp_path, killed_in, rank):
    class Killed(BaseException):
        pass

    calls = []

    def killer(completions, **kwargs):
        calls.append(1)
        if len(calls) == killed_in:
            raise Killed
        return wordy(completions)

    killer.__name__ = wordy.__name__
    seen, engine = [], {"lora_rank": rank}
    whole = make_reinforce_trainer(profile(policy, engine=engine), PROBLEMS, wordy, tmp_path / "a", measure=measure)
    whole = whole.train_and_save(tmp_path / "whole")
    often = profile(policy, engine=engine | {"checkpoints": 2})
    arguments = dict(measure=measure, progress=lambda done, total: done % 1 or not done or seen.append((done, total)))
    with pytest.raises(Killed):
        make_reinforce_trainer(often, PROBLEMS, killer, tmp_path / "b", **arguments).train_and_save(tmp_path / "cut")
    assert seen == [(done, 4) for done in range(1, killed_in)]
    (tmp_path / "b" / "checkpoint-99").mkdir()  # what a kill in the middle of saving leaves behind
    again = make_reinforce_trainer(often, PROBLEMS, wordy, tmp_path / "b", **arguments).train_and_save(tmp_path / "cut")
    kept = (killed_in - 1) // 2 * 2  # two checkpoints of four rollouts
    assert seen[killed_in - 1 :] == [(done, 4) for done in range(kept + 1, 5)]
    assert without_seconds(again) == without_seconds(whole)
    a, b = (load_policy(tmp_path / name, device="cpu").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    load_tokenizer(tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / LOG_FILE).read_text()) == again


def test_progress_moves_while_a_rollout_is_sampled_and_with_each_pass_of_its_updates(policy, tmp_path):
    seen, small = [], profile(policy, steps=2, micro_batch=1)
    make_reinforce_trainer(
        small, PROBLEMS, wordy, tmp_path / "s", progress=lambda done, total: seen.append(done)
    ).train_and_save(tmp_path / "out")
    updates = small.reinforce.updates_per_rollout
    replies = small.reinforce.rollout_questions * small.reinforce.samples_per_question
    assert seen == sorted(seen) and seen[-1] == 2 and {1, 2} <= set(seen)
    assert seen[0] <= 1 / (1 + updates)  # sampled, nothing learnt yet
    assert len({done for done in seen if 1 / (1 + updates) < done <= 1}) == replies


def test_rows_of_the_log(policy, tmp_path):
    def long_winded(completions, **_):
        return [10.0] * len(completions)

    rows = make_reinforce_trainer(
        profile(policy), PROBLEMS, wordy, tmp_path / "s", watch=[long_winded], measure=measure
    ).train_and_save(tmp_path / "out")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["pass_at_1"] is not None for row in rows] == [True, False, True, False, True]
    assert [row["solved"] for row in rows] == [[0.25, None], None, [0.25, None], None, [0.25, None]]
    assert rows[0]["reward"] is None and len({tuple(row) for row in rows}) == 1
    for row in rows[1:]:
        assert row["reward"] == row["reward_wordy"] and row["reward_long_winded"] == 10.0
        assert all(isinstance(row[name], float) for name in ("kl", "entropy", "length", "mixed", "clip_fraction"))
        assert row["seconds_generate"] > 0 and row["seconds_update"] > 0
    assert rows[1]["kl"] == pytest.approx(0, abs=1e-3) and rows[-1]["kl"] > 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.slow
def test_the_reward_rises(policy, tmp_path, dtype):
    def likes_a(completions, **_):
        return [min(5, completion[-1]["content"].count("a")) / 5 for completion in completions]

    rows = make_reinforce_trainer(
        profile(policy, dtype=dtype, steps=25, learning_rate=1e-2, beta=0.001, eval_every=100, samples_per_question=8),
        PROBLEMS,
        likes_a,
        tmp_path / "s",
    ).train_and_save(tmp_path / "out")
    first, last = ([row["reward"] for row in part] for part in (rows[1:6], rows[-5:]))
    assert sum(last) / 5 > sum(first) / 5 + 0.2
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {one.dtype for one in stored.values()} == {torch.float32}  # computing in bfloat16 changes no weight's type


def test_held_out_pass_rate():
    class EvenJudge:
        """Every second distinct program is right."""

        def run(self, submissions):
            return [
                Report((Verdict("passed" if i % 2 else "failed"), Verdict("passed"))) for i, _ in enumerate(submissions)
            ]

    def sample(conversations, n, temperature):
        return [["x"] * n for _ in conversations]

    values = held_out_pass_rate(profile("."), EvenJudge(), PROBLEMS)(sample)
    assert set(values) == {"pass_at_1", "greedy", "solved"} and len(values["solved"]) == len(PROBLEMS)
    assert values["pass_at_1"] == pytest.approx(fmean(values["solved"]))  # as many samples of each question


# --- guards ---------------------------------------------------------------------------------------


def test_nan_reward_stops_the_run(policy, tmp_path):
    def divided_by_zero(completions, **_):
        return [float("nan")] * len(completions)

    with pytest.raises(DataError, match="'divided_by_zero' is not a finite number for 12 of 12"):
        make_reinforce_trainer(profile(policy), PROBLEMS, divided_by_zero, tmp_path / "s").train_and_save(
            tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_all_equal_rewards_warn(policy, tmp_path):
    def flat(completions, **_):
        return [1.0] * len(completions)

    with pytest.warns(UserWarning, match="Rollouts 1 to 5: all replies to a question got the same reward"):
        make_reinforce_trainer(profile(policy, steps=5), PROBLEMS, flat, tmp_path / "s").train_and_save(
            tmp_path / "out"
        )


@pytest.mark.parametrize("algorithm", ["reinforce++", "rloo"])
def test_rounding_is_no_signal(policy, tmp_path, algorithm):
    """Equal rewards and a policy that is its reference: nothing is learnt from the last digits of two computations."""

    def flat(completions, **_):
        return [1.0] * len(completions)

    rows = make_reinforce_trainer(
        profile(policy, algorithm=algorithm, steps=2), PROBLEMS, flat, tmp_path / "s"
    ).train_and_save(tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (policy, tmp_path / "out"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [row["grad_norm"] for row in rows[1:]] == [0.0, 0.0]


def test_prompt_longer_than_the_context(policy, tmp_path):
    long = [*PROBLEMS, Problem("long", "word " * 200, "solve", ())]
    with pytest.raises(ModelError, match="do not fit the model's context of 128"):
        make_reinforce_trainer(profile(policy), long, wordy, tmp_path / "s").train_and_save(tmp_path / "out")


def test_nothing_to_train_on(policy, tmp_path):
    with pytest.raises(EngineError, match="no questions"):
        make_reinforce_trainer(profile(policy), [], wordy, tmp_path / "s").train_and_save(tmp_path / "out")


@pytest.mark.parametrize("sizes, processes", [((3, 2), 2), ((4, 8), 4)], ids=["questions", "replies"])
def test_a_rollout_that_processes_cannot_share(tmp_path, monkeypatch, sizes, processes):
    questions, updates = sizes
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    cannot = f"{questions} questions of a batch and .* cannot be shared by {processes} processes; .* in reinforce"
    with pytest.raises(EngineError, match=cannot):
        trainer_arguments(profile(".", rollout_questions=questions, updates_per_rollout=updates), tmp_path)


def test_checkpoint_of_other_settings(policy, tmp_path):
    make_reinforce_trainer(profile(policy), PROBLEMS, wordy, tmp_path)
    make_reinforce_trainer(profile(policy), PROBLEMS, wordy, tmp_path)
    with pytest.raises(ArtifactError, match="other settings.*beta"):
        make_reinforce_trainer(profile(policy, beta=0.5), PROBLEMS, wordy, tmp_path)
    shutil.rmtree(tmp_path)
    make_reinforce_trainer(profile(policy, beta=0.5), PROBLEMS, wordy, tmp_path)


def test_question_order_repeats_nothing_within_a_pass():
    order = question_order(5, 13, seed=1)
    assert len(order) == 13
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4] and len(set(order[10:])) == 3
    assert order == question_order(5, 13, seed=1) != question_order(5, 13, seed=2)


# --- the other algorithms -------------------------------------------------------------------------


def in_updates(trainer, policy, how):
    """Loss and gradient of one update after the policy has moved, and a copy of the policy for a loop of our own."""
    batch = one_rollout(trainer)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.02 * torch.cos(torch.arange(parameter.numel()).view_as(parameter).float()))
    new = load_policy(policy, device="cpu")
    new.load_state_dict(trainer.model.state_dict())
    trainer.current_gradient_accumulation_steps = 1
    batch["num_items_in_batch"] = batch["completion_mask"].sum() * SETTINGS.updates_per_rollout
    loss = trainer._compute_loss(trainer.model, batch)
    ours = how(batch, new)
    loss.backward()
    ours.backward()
    assert loss.item() == pytest.approx(ours.item(), abs=1e-5)
    for a, b in zip(trainer.model.parameters(), new.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5 * max(1.0, b.grad.abs().max().item()))


def token_terms(batch, new, i, low, high, beta):
    """Clipped objective and k3 penalty of each token of reply i."""
    prompt, reply = sequences(batch, i)
    logps = plain_logps(new, prompt, reply)
    ratio = torch.exp(logps - batch["old_per_token_logps"][i, : len(reply)])
    a = batch["advantages"][i, : len(reply)]
    gap = batch["ref_per_token_logps"][i, : len(reply)] - logps
    return -torch.minimum(ratio * a, ratio.clamp(1 - low, 1 + high) * a) + beta * (gap.exp() - gap - 1)


def test_grpo_averages_over_replies_and_has_its_penalty_in_the_loss(policy, tmp_path):
    trainer = make_reinforce_trainer(profile(policy, algorithm="grpo"), PROBLEMS, wordy, tmp_path)
    in_updates(
        trainer,
        policy,
        lambda batch, new: torch.stack(
            [token_terms(batch, new, i, 0.2, 0.2, SETTINGS.beta).mean() for i in range(12)]
        ).mean(),
    )


def test_dr_grpo_divides_by_a_constant(policy, tmp_path):
    trainer = make_reinforce_trainer(profile(policy, algorithm="dr_grpo"), PROBLEMS, wordy, tmp_path)
    in_updates(
        trainer,
        policy,
        lambda batch, new: (
            sum(token_terms(batch, new, i, 0.2, 0.2, SETTINGS.beta).sum() for i in range(12))
            / (12 * SETTINGS.max_new_tokens)
        ),
    )


def test_dapo_clips_higher_without_penalty(policy, tmp_path):
    trainer = make_reinforce_trainer(profile(policy, algorithm="dapo", max_new_tokens=60), PROBLEMS, wordy, tmp_path)
    assert trainer.ref_model is None
    in_updates(
        trainer,
        policy,
        lambda batch, new: torch.cat(
            [token_terms(batch, new, i, 0.2, 0.28, 0.0) for i in range(12) if batch["completion_mask"][i].any()]
        ).mean(),
    )


def test_dapo_drops_replies_that_were_cut_off(policy, tmp_path):
    batch = one_rollout(make_reinforce_trainer(profile(policy, algorithm="dapo"), PROBLEMS, wordy, tmp_path))
    ended = (batch["completion_ids"] == load_tokenizer(policy).eos_token_id).any(dim=1)
    assert torch.equal(batch["completion_mask"].any(dim=1), ended) and not ended.all()


def test_dynamic_sampling_replaces_questions_without_a_difference(policy, tmp_path):
    def splits_two(completions, problem_id, **_):
        return [float(one in ("p0", "p1") and i % 2) for i, one in enumerate(problem_id)]

    trainer = make_reinforce_trainer(
        profile(policy, algorithm="dapo", max_new_tokens=60), PROBLEMS, splits_two, tmp_path
    )
    batch = one_rollout(trainer)
    groups = batch["rewards"].view(3, 4)
    assert (groups.amax(1) > groups.amin(1)).all()
    assert batch["prompt_ids"].shape[0] == batch["advantages"].shape[0] == 12
    metrics = trainer._metrics["train"]
    assert metrics["sampled"] == [12 * len(metrics["mixed"])] and metrics["sampled"][0] > 12
    again = one_rollout(
        make_reinforce_trainer(profile(policy, algorithm="dapo", max_new_tokens=60), PROBLEMS, splits_two, tmp_path)
    )
    assert torch.equal(batch["completion_ids"], again["completion_ids"])


def test_dynamic_sampling_gives_up_without_losing_the_rollout(policy, tmp_path):
    def same(completions, **_):
        return [1.0] * len(completions)

    trainer = make_reinforce_trainer(profile(policy, algorithm="dapo"), PROBLEMS, same, tmp_path)
    batch = one_rollout(trainer)
    assert len(batch["rewards"]) == 12 and not batch["advantages"].any()
    assert trainer._metrics["train"]["sampled"] == [48]


@pytest.mark.parametrize("algorithm", ["reinforce++", "rloo", "dr_grpo"])
@pytest.mark.slow
def test_pieces_of_an_update_make_the_same_update(algorithm, policy, tmp_path):
    folders = {}
    for size in (6, 2):
        folders[size] = tmp_path / f"{size}"
        make_reinforce_trainer(
            profile(policy, algorithm=algorithm, micro_batch=size, steps=2), PROBLEMS, wordy, tmp_path / f"s{size}"
        ).train_and_save(folders[size])
    a, b = (load_policy(folder, device="cpu").state_dict() for folder in folders.values())
    assert all(torch.allclose(a[key], b[key], atol=1e-5) for key in a)


def test_where_prompts_are_not_shared_no_pass_is_wider_than_its_longest_reply(policy, tmp_path):
    """A rollout is padded to its longest reply: read as it is, most of a pass would be padding."""
    rows, passes = {}, []
    for again in (False, True):
        how = dict(micro_batch=2, steps=1, updates_per_rollout=1, max_new_tokens=32)
        asked = profile(policy, engine={"gradient_checkpointing": again}, **how)
        trainer = make_reinforce_trainer(asked, PROBLEMS, wordy, tmp_path / f"s{again}")
        trainer.samples_exactly = False  # so that the old policy's log-probs are computed, too
        for model in (trainer.model, trainer.ref_model) if again else ():
            model.register_forward_pre_hook(lambda _, args, kwargs: passes.append(kwargs), with_kwargs=True)
        rows[again] = trainer.train_and_save(tmp_path / f"{again}")[1]
    masks = [one["attention_mask"] for one in passes if "labels" in one]
    assert len(masks) == 6 + 2 * 2 and len({mask.shape for mask in masks}) > 2  # an update; old policy and reference
    assert all(mask.any(0).all() for mask in masks)
    for name in ("loss", "grad_norm", "kl", "length"):  # of an update: Adam makes whole steps of rounding
        assert rows[True][name] == pytest.approx(rows[False][name], rel=1e-3, abs=1e-5), name


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_stops_when_the_policy_is_too_far_away(policy, tmp_path):
    drift = dict(steps=12, learning_rate=1e-2, beta=1e-6, eval_every=100)
    rows = make_reinforce_trainer(
        profile(policy, **drift), PROBLEMS, wordy, tmp_path / "sa", measure=measure
    ).train_and_save(tmp_path / "a")
    kl = [row["kl"] for row in rows[1:]]
    means = [sum(kl[i - 5 : i]) / 5 for i in range(5, 13)]
    limit = (means[2] + means[3]) / 2
    stop = next(i for i, mean in enumerate(means, start=5) if mean > limit)
    cut = make_reinforce_trainer(
        profile(policy, max_kl=limit, **drift), PROBLEMS, wordy, tmp_path / "sb", measure=measure
    ).train_and_save(tmp_path / "b")
    assert len(cut) - 1 == stop < 12
    assert cut[-1]["pass_at_1"] is not None and [row["kl"] for row in cut[1:]] == kl[:stop]


def test_a_reward_that_hangs_stops_the_run(policy, tmp_path):
    def hangs(completions, **_):
        time.sleep(60)

    with pytest.raises(DataError, match="'hangs' gave no answer within 0.3 s"):
        make_reinforce_trainer(profile(policy, reward_seconds=0.3), PROBLEMS, hangs, tmp_path / "s").train_and_save(
            tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_a_reward_that_raises_shows_its_own_error_and_keeps_the_checkpoints(policy, tmp_path):
    calls = []

    def breaks(completions, **_):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the reward server is gone")
        return wordy(completions)

    with pytest.raises(OSError, match="reward server is gone"):
        make_reinforce_trainer(profile(policy), PROBLEMS, breaks, tmp_path / "s").train_and_save(tmp_path / "out")
    assert (tmp_path / "s" / "checkpoint-4" / "trainer_state.json").is_file()


def test_what_adapters_learn_survives_the_merge_into_bfloat16(policy):
    """A move of a weight by less than half of the distance to its neighbour is rounded away by `merge_and_unload`."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.bfloat16)
    before = {name: weight.float().clone() for name, weight in base.state_dict().items()}
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear")).requires_grad_(False)
    moves = {}
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            layer.lora_B["default"].weight.normal_(0, 1e-4)
            moves[name.removeprefix("base_model.model.")] = layer.get_delta_weight("default")
    copies = [
        merge(copy.deepcopy(adapted)) for merge in (merge_adapters, merge_adapters, lambda one: one.merge_and_unload())
    ]

    def kept(model) -> float:
        """The share of the moves that is found in the weights."""
        found = {name: model.get_submodule(name).weight.float() - before[f"{name}.weight"] for name in moves}
        along = sum((found[name] * move).sum() for name, move in moves.items())
        return float(along / sum(move.square().sum() for move in moves.values()))

    with torch.no_grad(), merged_exactly(adapted):  # for vLLM, TRL merges, and unmerges before and after it reads
        for _ in range(2):
            adapted.merge_adapter()
            for_vllm = copy.deepcopy(adapted.get_base_model().state_dict())
            adapted.unmerge_adapter()
    assert all(
        torch.equal(one.get_base_layer().weight.float(), before[f"{name.removeprefix('base_model.model.')}.weight"])
        for name, one in adapted.named_modules()
        if isinstance(one, LoraLayer)
    )
    drawn, again, nearest = copies
    assert all(torch.equal(for_vllm[f"{name}.base_layer.weight"], drawn.get_submodule(name).weight) for name in moves)
    assert kept(drawn) == pytest.approx(1, abs=0.2) and kept(nearest) < 0.7
    assert all(torch.equal(a, b) for a, b in zip(drawn.parameters(), again.parameters(), strict=True))
    assert {weight.dtype for weight in drawn.parameters()} == {torch.bfloat16} and not isinstance(drawn, PeftModel)


def test_adapters_are_trained_against_their_base_and_merged(policy, tmp_path):
    rows = make_reinforce_trainer(
        profile(policy, engine=dict(lora_rank=4), steps=3, learning_rate=1e-2), PROBLEMS, wordy, tmp_path / "s"
    ).train_and_save(tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (policy, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("proj" in name for name in changed)
    # The reference is the base without adapters: nothing at first, something once they have moved.
    assert rows[1]["kl"] == pytest.approx(0, abs=1e-5) and abs(rows[3]["kl"]) > 1e-4
    assert max(row["sampler_gap"] for row in rows[1:]) < 1e-4


def test_below_adapters_in_bfloat16_weights_are_frozen_as_they_are_and_prompts_read_once(policy, tmp_path):
    engine = {"lora_rank": 4}
    trainer = make_reinforce_trainer(
        profile(policy, engine=engine, dtype="bfloat16", micro_batch=3), PROBLEMS, wordy, tmp_path
    )
    held = {(one.requires_grad, one.dtype) for one in trainer.model.parameters()}
    assert held == {(False, torch.bfloat16), (True, torch.float32)} and trainer.ref_model is None
    assert trainer.shares_prompts
    rollout = one_rollout(trainer)
    old, reference = (rollout[f"{name}_per_token_logps"] for name in ("old", "ref"))
    assert torch.equal(old, reference)  # before the first update adapters add nothing
    batches = trainer._split(rollout)
    assert len({tuple(row) for row in batches[0]["prompt_ids"].tolist()}) < len(batches[0]["prompt_ids"])

    found, trainer.current_gradient_accumulation_steps = {}, 1
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # which is 0 at first, and lets no gradient through to lora_A
            parameter.data.fill_(0.01)
    for trainer.shares_prompts in (True, False):
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, batches[0]).backward()
        found[trainer.shares_prompts] = torch.cat(
            [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad]
        )
    assert torch.nn.functional.cosine_similarity(found[True], found[False], dim=0) > 0.99

    before = {name: one.clone() for name, one in trainer.model.named_parameters()}
    for keeps in (nullcontext, merged_exactly):  # what TRL does to hand vLLM the weights
        with keeps(trainer.model):
            trainer.model.merge_adapter()
            trainer.model.unmerge_adapter()
        same = all(torch.equal(one, before[name]) for name, one in trainer.model.named_parameters())
        assert same == (keeps is merged_exactly)
        for name, one in trainer.model.named_parameters():
            one.data.copy_(before[name])


class StandInForVLLM:
    """Hands weights over as TRL's engine does: on request, and again whenever it wakes up to generate."""

    def __init__(self, model, **settings):
        self.model, self.generation_kwargs, self.temperature, self.pushed = model, {}, None, []

    def sync_weights(self):
        self.model.merge_adapter()
        self.pushed.append({name: one.data.clone() for name, one in self.model.named_parameters()})
        self.model.unmerge_adapter()

    def generate(self, prompts, images, num_generations):
        self.sync_weights()
        return prompts, [[5, 6] for _ in prompts], [[[-1.0], [-2.0]] for _ in prompts], None


def test_vllm_always_gets_adapters_merged_exactly(policy, tmp_path, monkeypatch):
    """In bfloat16, where TRL's own merge rounds off what was learnt and its unmerge moves the weights below."""
    monkeypatch.setattr("acelib.training.settings.find_spec", lambda name: True)
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", StandInForVLLM)
    engine = dict(generation="vllm", lora_rank=4)
    trainer = make_reinforce_trainer(profile(policy, engine=engine, dtype="bfloat16"), PROBLEMS, wordy, tmp_path)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 1e-4)
    before = {name: one.clone() for name, one in trainer.model.named_parameters()}
    with merged_exactly(trainer.model):
        merged = {name: one.data.clone() for name, one in trainer.model.named_parameters()}
    one_rollout(trainer)
    pushed = trainer.vllm_generation.pushed
    assert len(pushed) >= 2 and all(torch.equal(one[name], merged[name]) for one in pushed for name in merged)
    assert all(torch.equal(one, before[name]) for name, one in trainer.model.named_parameters())


def test_vllm_that_is_not_installed(policy, tmp_path):
    with pytest.raises(EngineError, match="not installed; run `pip install -r requirements-gpu.txt`"):
        make_reinforce_trainer(profile(policy, engine=dict(generation="vllm")), PROBLEMS, wordy, tmp_path)


@pytest.mark.parametrize(("gb", "again"), [(8, False), (0.001, True), (0, True)])
def test_activations_are_kept_as_the_profile_s_plan_decides(policy, tmp_path, gb, again):
    """Not by what is free at the moment: a run that goes on trains as it began."""
    asked = profile(policy, engine=dict(gradient_checkpointing="auto"))
    asked = replace(asked, plan=replace(asked.plan, gpu_memory_gb=gb))
    trainer = make_reinforce_trainer(asked, PROBLEMS, wordy, tmp_path)
    assert trainer.args.gradient_checkpointing is again and trainer.shares_prompts is not again
    common = common_arguments(asked, "reward_model", 8, 8, tmp_path)
    assert common["gradient_checkpointing"] is again


def test_vllm_in_the_words_of_trl(monkeypatch):
    monkeypatch.setattr("acelib.training.settings.find_spec", lambda name: True)
    engine = dict(generation="vllm", vllm_memory=0.45)
    args = trainer_arguments(profile(".", engine=engine), Path("x"), longest=4096)
    assert args.use_vllm and args.vllm_mode == "colocate" and args.vllm_enable_sleep_mode
    assert (args.vllm_gpu_memory_utilization, args.vllm_max_model_length) == (0.45, 4096)
    assert not args.vllm_importance_sampling_correction
    engine = dict(generation="vllm", vllm_mode="server", vllm_server="http://h:1")
    args = trainer_arguments(profile(".", engine=engine), Path("x"), longest=9)
    assert (args.vllm_mode, args.vllm_server_base_url) == ("server", "http://h:1")


class Sharded:
    distributed_type = DistributedType.FSDP
    state = None


@pytest.mark.parametrize(
    "changes, says",
    [
        ({}, "cannot sample replies of different lengths; set engine.generation to vllm"),
        ({"lora_rank": 8}, "LoRA with sharded weights .* set engine.launch to configs/ddp-8.yaml"),
    ],
)
def test_sharded_weights_go_with_vllm_and_without_adapters(changes, says):
    with pytest.raises(EngineError, match=says):
        check_together(profile(".", engine=changes).engine, Sharded, samples=True)
    check_together(profile(".").engine, Sharded, samples=False)


@pytest.mark.parametrize("algorithm, updates", [("reinforce++", 1), ("reinforce++", 2), ("grpo", 1)])
def test_old_log_probs_are_the_trainers_where_the_sampler_is_another(policy, tmp_path, algorithm, updates):
    changes = dict(algorithm=algorithm, updates_per_rollout=updates)
    trainer = make_reinforce_trainer(profile(policy, **changes), PROBLEMS, wordy, tmp_path)
    exact = one_rollout(trainer)
    trainer.samples_exactly = False
    other = one_rollout(trainer)
    torch.testing.assert_close(other["old_per_token_logps"], exact["old_per_token_logps"], rtol=1e-4, atol=1e-5)
