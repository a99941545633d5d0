"""Each check of the training preflight passes on sound things and catches the thing it is there for."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_policy, save_tiny_reward_model
from transformers import AutoModelForSequenceClassification

from acelib import reward_model as reward_models
from acelib.core import CourseError, ModelError, assume
from acelib.core.profiles import load_profile
from acelib.data.benchmarks import load_benchmark
from acelib.judge import Judge
from acelib.models.generation import load_policy, load_tokenizer, render, solve_messages
from acelib.preflight import training as checks
from acelib.preflight.findings import report, require
from acelib.reward_model import load_reward_model
from acelib.rewards import model_reward, rule_reward
from acelib.schema import Pair
from acelib.training.reinforce_trainer import make_reinforce_trainer

PROFILE = load_profile("pocket", {"models.device": "cpu", "reinforce.steps": 2, "reward_model.max_length": 256})
POLICY = PROFILE.resolve(PROFILE.models.policy)
NF4 = {"quantise": "nf4", "lora_rank": 4}
PROGRAMS = ["return 1", "return xs", "return sorted(xs)", "pass"]
PAIRS = [Pair(f"q{i}", f"question {i}?", PROGRAMS[i % 4], PROGRAMS[(i + 1) % 4], 1.0, 0.3) for i in range(8)]


def learning_from_all(folder=PROFILE.reward_model.base, **settings):
    """`PROFILE` with other settings of the reward model, for which no question is held out."""
    return assume(PROFILE, reward_model=assume(PROFILE.reward_model, held_out=0.0, base=str(folder), **settings))


def wordy(completions, **_):
    return [float(len(completion[-1]["content"])) for completion in completions]


@pytest.fixture(scope="module")
def problems():
    return load_benchmark(PROFILE, 16)


@pytest.fixture(scope="module")
def trainer(problems, tmp_path_factory):
    return make_reinforce_trainer(PROFILE, problems, wordy, tmp_path_factory.mktemp("rl"))


@pytest.fixture(scope="module")
def rehearsal(trainer, problems):
    return checks.rehearse(trainer, problems)


@pytest.fixture(scope="module")
def pairs(rehearsal):
    """Real replies of the policy; a complete one is chosen, whatever it is worth."""
    texts = list(zip(rehearsal.conversations, rehearsal.problems, rehearsal.texts, strict=True))
    sides = zip(texts[:: rehearsal.n], texts[1 :: rehearsal.n], strict=True)
    return [
        Pair(problem.id, conversation[-1]["content"], chosen, rejected, 1.0, 0.2)
        for (conversation, problem, chosen), (_, _, rejected) in sides
        if chosen != rejected
    ]


@pytest.fixture
def scorer(tmp_path):
    return load_reward_model(save_tiny_reward_model(tmp_path / "rm"), device="cpu")


def save_reward_model_of_policy(folder):
    """The shipped policy with a head that knows nothing yet; no reward model is shipped."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(POLICY, num_labels=1).save_pretrained(folder)
    load_tokenizer(POLICY).save_pretrained(folder)
    return folder


def caught(finding, found, remedy):
    """The check fails, says what it found, and stops the run with its remedy."""
    assert not finding.ok and finding.prevents
    assert found in finding.found, finding
    assert remedy in finding.remedy, finding
    with pytest.raises(CourseError) as error:
        require([finding])
    assert remedy in str(error.value)


def test_the_rehearsal_is_what_the_trainer_samples(trainer, rehearsal, problems):
    assert rehearsal.n == PROFILE.reinforce.samples_per_question
    assert len(rehearsal.texts) == len(rehearsal.problems) == rehearsal.n * min(len(problems), checks.QUESTIONS)
    for i in (0, len(rehearsal.texts) - 1):
        asked = solve_messages(PROFILE.prompts.solve, rehearsal.problems[i].question)
        assert rehearsal.conversations[i] == asked
        assert render(trainer.processing_class, asked) == trainer.processing_class.decode(rehearsal.prompt_ids[i])
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(("dtype", "engine"), [("float32", {}), ("bfloat16", {}), ("float32", NF4)])
@pytest.mark.slow
def test_the_shipped_policy_passes_every_check(problems, pairs, tmp_path, dtype, engine):
    if engine:
        pytest.importorskip("bitsandbytes")
    scorer = load_reward_model(save_reward_model_of_policy(tmp_path), device="cpu")
    with Judge.from_settings(PROFILE.judge, workers=1) as judge:
        rewards = [rule_reward(judge, problems), model_reward(*scorer, 64)]
        changed = {"models": replace(PROFILE.models, dtype=dtype), "engine": replace(PROFILE.engine, **engine)}
        findings = checks.preflight_reinforce(replace(PROFILE, **changed), problems, rewards, scorer, pairs)
    assert ("no second model" in report(findings)) == bool(engine)  # in 4 bits two copies would not fit
    require(findings)
    assert all(one.ok for one in findings) and len(findings) == 10, report(findings)
    require(checks.preflight_reward_model(learning_from_all(), {"pairs": pairs}))


def test_a_model_without_chat_template_stops_both_preflights(problems, tmp_path):
    folder = save_tiny_policy(tmp_path)
    for file in folder.glob("chat_template*"):
        file.unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": None}))
    bare = replace(PROFILE, models=replace(PROFILE.models, policy=str(folder)))
    for findings in (
        checks.preflight_reinforce(bare, problems, [wordy], (None, None), PAIRS),
        checks.preflight_reward_model(learning_from_all(folder), {"pairs": PAIRS}),
    ):
        caught(findings[0], "no chat template", "use an instruct model")


def test_inputs_that_bypass_the_chat_template_are_caught(trainer, rehearsal):
    tokenizer, some = trainer.processing_class, rehearsal.conversations[:2]
    assert checks.check_template_used(tokenizer, some, rehearsal.prompt_ids[:2]).ok
    bare = [tokenizer(conversation[-1]["content"])["input_ids"] for conversation in some]
    twice = [[tokenizer.eos_token_id, *ids] for ids in rehearsal.prompt_ids[:2]]
    for wrong in (bare, twice):
        caught(
            checks.check_template_used(tokenizer, some, wrong),
            "2 of 2 inputs differ",
            "acelib.models.generation.render",
        )


def test_a_reward_model_that_reads_bare_text_is_caught(monkeypatch):
    monkeypatch.setattr(checks, "encode", lambda tokenizer, prompts, programs: tokenizer(programs)["input_ids"])
    findings = checks.preflight_reward_model(learning_from_all(), {"mine": PAIRS})
    caught(next(one for one in findings if one.check == "chat template used in mine"), "inputs differ", "render")


class Endless(torch.nn.Module):
    """The head of a policy that has never learnt to stop."""

    def __init__(self, head, stop):
        super().__init__()
        self.head, self.stop = head, stop

    def forward(self, hidden):
        logits = self.head(hidden)
        logits[..., self.stop] = -1e9
        return logits


def test_a_policy_that_never_ends_a_reply_is_caught(problems, pairs, tmp_path):
    trainer = make_reinforce_trainer(PROFILE, problems[:4], wordy, tmp_path)
    tokenizer, stop = trainer.processing_class, trainer.stop
    assert checks.check_eos_learnt(trainer.model, tokenizer, stop, pairs).ok
    trainer.model.lm_head = Endless(trainer.model.lm_head, stop)
    caught(checks.check_eos_learnt(trainer.model, tokenizer, stop, pairs), "with probability 0.00", "fine-tune")
    endless = checks.rehearse(trainer, problems)
    caught(checks.check_cut_off(stop, endless.reply_ids, 100), "100% of 32 replies are cut at 100", "max_new_tokens")


def test_a_limit_that_is_too_low_is_no_fault_of_the_policy(problems, pairs, tmp_path):
    short = replace(PROFILE, reinforce=replace(PROFILE.reinforce, max_new_tokens=12))
    # Whatever trains later, the checks run in this process.
    short = replace(short, engine=replace(short.engine, generation="vllm", lora_rank=4, gradient_checkpointing=True))
    with Judge.from_settings(PROFILE.judge, workers=1) as judge:
        scorer = load_reward_model(save_reward_model_of_policy(tmp_path), device="cpu")
        findings = checks.preflight_reinforce(short, problems, [rule_reward(judge, problems)], scorer, pairs)
    named = {one.check: one for one in findings}
    assert named["end of reply learnt"].ok
    caught(named["replies cut off"], "cut at 12 tokens", "raise reinforce.max_new_tokens")
    caught(named["differing rewards (rule)"], "within 0 of", "notebook 03")


def test_replies_without_programs_are_caught(rehearsal):
    assert checks.check_extraction(rehearsal.problems, rehearsal.texts).ok
    chat = ["I would sort the list."] * len(rehearsal.texts)
    caught(checks.check_extraction(rehearsal.problems, chat), "in 0% of", "prompts.solve")


def constant(completions, **_):
    return [0.0] * len(completions)


def per_question(problem_id, **_):
    return [float(sum(one.encode())) for one in problem_id]


def unjudged(completions, **_):
    return [None] * len(completions)


def nan(completions, **_):
    return [float("nan"), *[0.0] * (len(completions) - 1)]


def broken(**_):
    raise ModelError("The scores are not numbers; train it again.")


@pytest.mark.parametrize(
    ("reward", "found", "remedy"),
    [
        (constant, "within 0 of 16 questions, 8 replies each", "notebook 03"),
        (per_question, "within 0 of 16", "temperature"),
        (unjudged, "no reply could be judged", "preflight of notebook 00"),
        (nan, "not a finite number", "check the reward model"),
        (broken, "The scores are not numbers", "train it again"),
    ],
)
def test_rewards_without_a_difference_are_caught(rehearsal, reward, found, remedy):
    caught(checks.check_reward_variance(reward, rehearsal), found, remedy)


def test_one_question_in_ten_must_have_differing_rewards(rehearsal):
    def first(completions, **_):
        return [1.0] + [0.0] * (len(completions) - 1)

    def first_and_last(completions, **_):
        return [1.0] + [0.0] * (len(completions) - 2) + [1.0]

    few = checks.check_reward_variance(first, rehearsal)
    assert not few.ok and not few.required  # sixteen questions are few: a note
    assert checks.check_reward_variance(lambda completions, **_: [0.5] * len(completions), rehearsal).required
    assert checks.check_reward_variance(first_and_last, rehearsal).ok
    assert checks.check_reward_variance(wordy, rehearsal).ok


def test_a_sound_reward_model(scorer):
    finding = checks.check_reward_head(*scorer, PAIRS)
    assert finding.ok, finding


@pytest.mark.parametrize(
    ("spoil", "found", "remedy"),
    [
        (lambda head: head.fill_(torch.nan), "scores that are not numbers", "lower reward_model.learning_rate"),
        (lambda head: head.zero_(), "different programs get the same score", "notebook 04"),
        (lambda head: head.mul_(1e-12), "different programs get the same score", "below 0.69"),
    ],
)
def test_a_broken_head_is_caught(tmp_path, spoil, found, remedy):
    folder = save_tiny_reward_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    spoil(weights["score.weight"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    caught(checks.check_reward_head(*load_reward_model(folder, device="cpu"), PAIRS), found, remedy)


def test_a_head_that_was_not_saved_is_caught(tmp_path):
    folder = save_tiny_reward_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="is no reward model"):
        load_reward_model(folder, device="cpu")


def test_dropout_in_a_reward_model_is_caught(scorer):
    model, tokenizer = scorer
    model.base_model.norm.register_forward_hook(lambda _, args, out: torch.nn.functional.dropout(out, 0.3))
    caught(checks.check_reward_head(model, tokenizer, PAIRS), "from call to call", "eval mode")


def test_padding_that_the_config_names_otherwise_changes_no_score(scorer, monkeypatch):
    model, tokenizer = scorer
    monkeypatch.setattr(reward_models, "can_share_prefix", lambda model: False)
    assert checks.check_reward_head(model, tokenizer, PAIRS).ok
    model.config.pad_token_id = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert checks.check_reward_head(model, tokenizer, PAIRS).ok


@pytest.mark.slow
def test_a_reference_that_is_not_the_policy_is_caught(trainer, rehearsal, problems, pairs, monkeypatch, tmp_path):
    ids = rehearsal.prompt_ids[:4], rehearsal.reply_ids[:4]
    assert checks.check_reference(trainer.model, trainer.ref_model, *ids).ok
    assert checks.check_reference(trainer.model, None, *ids).ok

    def changed_after_loading(*args, **kwargs):
        model = load_policy(*args, **kwargs)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.005 * torch.randn_like(parameter))
        return model

    monkeypatch.setattr("acelib.training.reinforce_trainer.load_policy", changed_after_loading)
    scorer = load_reward_model(save_reward_model_of_policy(tmp_path), device="cpu")
    findings = checks.preflight_reinforce(PROFILE, problems, [wordy], scorer, pairs)
    caught(findings[-1], "nats per token apart", "save the policy there")


def test_programs_longer_than_the_limit_are_caught():
    assert checks.check_lengths("pairs", [3, 8], 8).ok
    findings = checks.preflight_reward_model(learning_from_all(max_length=5), {"pairs": PAIRS})
    caught(
        next(one for one in findings if one.check == "lengths of pairs"),
        "exceed 5 tokens",
        "raise reward_model.max_length",
    )


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([*PAIRS, replace(PAIRS[0], rejected=PAIRS[0].chosen)], "1 of equal text"),
        ([*PAIRS, replace(PAIRS[0], chosen_rate=0.3)], "1 whose chosen side passes no more tests"),
        (PAIRS[:1], "1 questions to train on"),
        ([], "0 pairs"),
    ],
)
def test_pairs_without_a_difference_are_caught(pairs, found):
    assert checks.check_pairs("pairs", PAIRS, 0.0).ok
    caught(checks.check_pairs("pairs", pairs, 0.0), found, "notebook 03")
    findings = checks.preflight_reward_model(learning_from_all(), {"a": pairs})
    assert not all(one.ok for one in findings)


def test_questions_that_are_all_held_out_are_caught():
    caught(checks.check_pairs("pairs", PAIRS, 1.0), "0 questions to train on", "sample more programs")


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_in_bfloat16_the_policy_is_held_as_its_reference_is(lora_rank, problems, pairs, tmp_path):
    """In float32 its log-probs would differ from the reference's by more than equal weights may."""
    half = load_profile(
        "pocket",
        {"models.device": "cpu", "models.dtype": "bfloat16", "engine.lora_rank": lora_rank, "reinforce.steps": 2},
    )
    scorer = load_reward_model(save_reward_model_of_policy(tmp_path), device="cpu")
    findings = checks.preflight_reinforce(half, problems, [wordy], scorer, pairs)
    assert "log-probs 0.0e+00 nats" in findings[-1].found and findings[-1].ok, findings[-1]
