"""Checks before a training run, on a handful of replies that the policy samples as the trainer would.

Each check takes what training itself uses (the trainer's prompts, replies, rewards and reference) and gives a
`Finding`; `preflight_reward_model` and `preflight_reinforce` run the checks of one kind of training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from acelib.core import DataError, ModelError, Profile
from acelib.extraction import extract_program
from acelib.models import Conversation, load_tokenizer, render, solve_messages
from acelib.preflight.findings import Finding, check
from acelib.preflight.machine import check_chat_template, check_eos
from acelib.reward_model import encode, is_held_out, score
from acelib.rewards import RewardFunction
from acelib.schema import Pair, Problem
from acelib.training import ReinforceTrainer, make_reinforce_trainer

QUESTIONS = 16  # looked at by each check: enough to tell one in ten from half, and seconds on two cores
STOP_PROBABILITY = 0.5  # after a complete reply; below it the model would rather go on than stop
CUT_OFF_AT_MOST = 0.1  # of the replies; a program that is cut off fails whatever it would have become
CUT_OFF_NEVER = 0.5
PROGRAMS_AT_LEAST = 0.5  # of the replies; below it the reward mostly tells code from no code
DIFFERING_AT_LEAST = 0.1  # of the questions; below it the KL term alone decides most advantages
SAME_VALUE = 1e-6  # rewards or scores closer than this, relative to their size, differ by rounding in float32
SCORE_NOISE = 0.1  # of the typical difference between two programs; more would turn their ranking around
REFERENCE_GAP = 1e-3  # nats per token; equal weights give 0, or 1e-6 after rounding in float32
QUESTIONS_WITH_PAIRS = 2  # to train on; a single question can be learnt by heart
Ids = Sequence[Sequence[int]]  # tokens of one prompt or reply each


@dataclass(frozen=True)
class Rehearsal:
    """Replies as the trainer samples them in its first rollouts; every list has one entry per reply, and the `n`
    replies of a question follow each other."""

    problems: list[Problem]
    conversations: list[Conversation]
    prompt_ids: list[list[int]]
    reply_ids: list[list[int]]
    texts: list[str]
    n: int


def rehearse(trainer: ReinforceTrainer, problems: Sequence[Problem], questions: int = QUESTIONS) -> Rehearsal:
    """The trainer's own sampler on the first distinct questions of its data; nothing is trained."""
    known, n = {problem.id: problem for problem in problems}, trainer.num_generations
    data = dict(zip(trainer.train_dataset["problem_id"], trainer.train_dataset["prompt"], strict=True))
    chosen = [one for one in islice(data, questions) for _ in range(n)]
    conversations = [data[one] for one in chosen]
    sampled = trainer.rollout_func(conversations, trainer)
    texts = trainer.processing_class.batch_decode(sampled["completion_ids"], skip_special_tokens=True)
    asked, ids = [known[one] for one in chosen], (sampled["prompt_ids"], sampled["completion_ids"])
    return Rehearsal(asked, conversations, *ids, texts, n)


@check(
    "chat template used{where}: a model that is trained on text it was not made for; build inputs with "
    "acelib.models.generation.render, tokenize them with add_special_tokens=False"
)
def check_template_used(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], ids: Ids, where: str = ""
):
    """The tokens that a model reads must be those of its chat template, neither bare text nor special tokens twice."""
    wrong = 0
    for conversation, one in zip(conversations, ids, strict=True):
        asks = conversation[-1]["role"] == "user"
        wrong += list(one) != tokenizer.apply_chat_template(conversation, add_generation_prompt=asks, return_dict=False)
    return not wrong, f"{wrong} of {len(ids)} inputs differ from the template's tokens"


@check(
    "end of reply learnt: replies that go on after the program until they are cut off; fine-tune the policy on replies "
    "that include the end-of-reply token, and do not mask it in the loss (it is masked when it doubles as padding)"
)
@torch.inference_mode()
def check_eos_learnt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: Sequence[int], pairs: Sequence[Pair]
):
    """After a complete reply (the chosen sides of `pairs`) the model must expect a token that ends it."""
    complete = {pair.instruction: pair.chosen for pair in pairs}
    found = []
    for question, reply in islice(complete.items(), QUESTIONS):
        text = render(tokenizer, solve_messages("{question}", question)) + reply
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(model.device)
        found.append(model(input_ids=ids).logits[0, -1].float().softmax(-1)[list(stop)].sum().item())
    middle = median(found)
    return middle >= STOP_PROBABILITY, f"after a complete reply the model stops with probability {middle:.2f}"


@check(
    "replies cut off: a reward for short replies instead of right ones; raise reinforce.max_new_tokens, or leave out "
    "the questions with the longest replies"
)
def check_cut_off(stop: Sequence[int], replies: Ids, max_new_tokens: int):
    """A note where some are cut, as a small model's derailed ones are; refused where most are."""
    cut = fmean(not reply or reply[-1] not in stop for reply in replies)
    found = f"{cut:.0%} of {len(replies)} replies are cut at {max_new_tokens} tokens"
    return cut <= CUT_OFF_AT_MOST, found, cut > CUT_OFF_NEVER


@check(
    "programs found: a reward that is 0 for nearly every reply; read some replies, then ask for a fenced Python block "
    "in prompts.solve or take a better policy"
)
def check_extraction(problems: Sequence[Problem], texts: Sequence[str]):
    """`problems` and `texts` have one entry per reply."""
    found = fmean(extract_program(text, one.entry_point) is not None for one, text in zip(problems, texts, strict=True))
    return found >= PROGRAMS_AT_LEAST, f"in {found:.0%} of {len(texts)} replies"


@check(
    "differing rewards ({reward.__name__}): training on noise: with equal rewards only the KL term is left, blown up "
    "to full size; choose questions of middling difficulty (notebook 03), raise reinforce.temperature or "
    "samples_per_question, or reward with the share of passed tests"
)
def check_reward_variance(reward: RewardFunction, rehearsal: Rehearsal):
    """Replies to one question must not all be worth the same; replies that could not be judged do not count. A note
    where few questions differ, for sixteen are few; refused where none does."""
    values = reward(
        prompts=rehearsal.conversations,
        completions=[[{"role": "assistant", "content": text}] for text in rehearsal.texts],
        problem_id=[problem.id for problem in rehearsal.problems],
    )
    judged = [value for value in values if value is not None]
    if not judged or not all(map(math.isfinite, judged)):
        found = "a reward is not a finite number" if judged else "no reply could be judged"
        raise DataError(f"{found}; run the preflight of notebook 00, then check the reward model.")
    groups = [
        [value for value in values[start : start + rehearsal.n] if value is not None]
        for start in range(0, len(values), rehearsal.n)
    ]
    differing = sum(bool(one) and max(one) - min(one) > SAME_VALUE * max(1.0, *map(abs, one)) for one in groups)
    found = f"within {differing} of {len(groups)} questions, {rehearsal.n} replies each"
    return differing >= DIFFERING_AT_LEAST * len(groups), found, not differing


@check("reward model's head: a reward that is noise, or the same for every reply")
def check_reward_head(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]):
    """Scores must tell the sides of `pairs` apart, and change neither from call to call nor with the other programs of
    a batch. (`load_reward_model` makes sure that the head was trained, `score` that its scores are numbers.)"""
    some = list({pair.instruction: pair for pair in pairs}.values())[:QUESTIONS]
    prompts = [pair.instruction for pair in some for _ in range(2)]
    programs = [program for pair in some for program in (pair.chosen, pair.rejected)]
    scores, again = (torch.tensor(score(model, tokenizer, prompts, programs)) for _ in range(2))
    alone = torch.tensor(score(model, tokenizer, prompts, programs, batch_size=1))
    apart = (scores[::2] - scores[1::2]).abs().median().item()
    if apart <= SAME_VALUE * max(1.0, scores.abs().max().item()):
        raise ModelError("different programs get the same score; train again with notebook 04, to a loss below 0.69.")
    for other, how in ((again, "from call to call"), (alone, "with its batch")):
        noise = (other - scores).abs().mean().item()
        if noise > SCORE_NOISE * apart:
            raise ModelError(
                f"the score of one program changes by {noise:.2g} {how}, two programs differ by {apart:.2g}; put the "
                "model in eval mode, and use one pad token in its config and tokenizer; where it computes in bfloat16, "
                "train it for longer, or set models.dtype to float32 if both models fit so."
            )
    found = f"scores of two programs typically {apart:.2g} apart, changes of {noise:.0e} on average"
    return True, f"{found} with the batch"


@torch.inference_mode()
def _logps(model: PreTrainedModel, prompt: Sequence[int], reply: Sequence[int]) -> torch.Tensor:
    """Log-probs (tokens,) of the reply's tokens."""
    ids = torch.tensor([[*prompt, *reply]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).squeeze(-1).cpu()


@check(
    "reference equals policy: a KL penalty that pulls the policy to another model from the start; the trainer loads "
    "the reference from the policy's folder: save the policy there (model.save_pretrained) and start from that folder"
)
def check_reference(policy: PreTrainedModel, reference: PreTrainedModel | None, prompts: Ids, replies: Ids):
    """Before the first update both must give the sampled tokens the same log-probs. None is right when beta is 0."""
    if reference is None:
        return True, "no second model: beta is 0, or the reference is the policy without its adapters"
    gaps = [(_logps(policy, *one) - _logps(reference, *one)).abs() for one in zip(prompts, replies, strict=True)]
    gap = torch.cat(gaps).mean().item()
    return gap <= REFERENCE_GAP, f"log-probs {gap:.1e} nats per token apart on {len(replies)} replies"


@check(
    "lengths of {name}: a reward model that never sees how a long program ends; raise reward_model.max_length, or "
    "lower sampling.max_new_tokens"
)
def check_lengths(name: str, lengths: Sequence[int], max_length: int):
    """`lengths` are tokens of prompt and program. No program may be cut: its end is what decides most often."""
    long, most = sum(length > max_length for length in lengths), max(lengths, default=0)
    return not long, f"{long} of {len(lengths)} programs exceed {max_length} tokens (longest: {most})"


@check(
    "variance of {name}: a reward model that learns nothing, or the opposite; build the pairs again with notebook 03; "
    "for more, lower pairs.min_gap, or sample more programs per question"
)
def check_pairs(name: str, pairs: Sequence[Pair], held_out: float):
    """A pair's sides must differ in text, the chosen one pass more tests, and questions must be left to train on."""
    same = sum(pair.chosen == pair.rejected for pair in pairs)
    wrong = sum(pair.chosen_rate <= pair.rejected_rate for pair in pairs)
    questions = len({pair.problem_id for pair in pairs if not is_held_out(pair.problem_id, held_out)})
    found = f"{len(pairs)} pairs, {same} of equal text, {wrong} whose chosen side passes no more tests; {questions}"
    return not same and not wrong and questions >= QUESTIONS_WITH_PAIRS, f"{found} questions to train on"


def preflight_reward_model(profile: Profile, pairs: Mapping[str, Sequence[Pair]]) -> list[Finding]:
    """Every check before the profile's reward model is trained, for each named list of pairs."""
    settings, base = profile.reward_model, profile.resolve(profile.reward_model.base)
    findings = [check_chat_template(base, profile.prompts.solve), check_eos(base)]
    if not all(one.ok for one in findings):  # the rest would fail for the same reason
        return findings
    tokenizer = load_tokenizer(base)
    for name, some in pairs.items():
        distinct = list(dict.fromkeys((one.instruction, text) for one in some for text in (one.chosen, one.rejected)))
        ids = encode(tokenizer, [prompt for prompt, _ in distinct], [program for _, program in distinct])
        conversations = [solve_messages("{question}", *one) for one in distinct[:QUESTIONS]]
        findings += [
            check_pairs(name, some, settings.held_out),
            check_lengths(name, list(map(len, ids)), settings.max_length),
            check_template_used(tokenizer, conversations, ids[:QUESTIONS], f" in {name}"),
        ]
    return findings


def preflight_reinforce(
    profile: Profile,
    problems: Sequence[Problem],
    rewards: Sequence[RewardFunction],
    scorer: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    pairs: Sequence[Pair],
) -> list[Finding]:
    """Every check before the profile's policy is trained on `problems` with each of `rewards`.

    `scorer` is the reward model with its tokenizer; `pairs` are what it was trained on. Raises as
    `acelib.training.make_reinforce_trainer` does.
    """
    policy = profile.resolve(profile.models.policy)
    findings = [check_chat_template(policy, profile.prompts.solve), check_eos(policy)]
    if not all(one.ok for one in findings):
        return findings
    # In this process, which vLLM would not leave clean. Nothing learns here, so the policy may be as the reference is:
    # equal weights then give equal log-probs, and the three models fit where the training itself takes several GPUs. In
    # 4 bits the reference is the policy without its adapters: there is no second copy.
    usual = dict(generation="transformers", gradient_checkpointing=False)
    usual |= {} if profile.engine.quantise == "nf4" else {"lora_rank": 0}
    here, dtype = replace(profile, engine=replace(profile.engine, **usual)), profile.models.dtype
    with TemporaryDirectory() as folder:
        trainer = make_reinforce_trainer(here, problems, rewards[0], Path(folder), dtype=dtype)
        tokenizer, stop = trainer.processing_class, trainer.stop
        run = rehearse(trainer, problems)
        firsts = slice(None, None, run.n)
        return [
            *findings,
            check_template_used(tokenizer, run.conversations[firsts], run.prompt_ids[firsts]),
            check_eos_learnt(trainer.model, tokenizer, stop, pairs),
            check_cut_off(stop, run.reply_ids, profile.reinforce.max_new_tokens),
            check_extraction(run.problems, run.texts),
            check_reward_head(*scorer, pairs),
            *(check_reward_variance(reward, run) for reward in rewards),
            check_reference(trainer.model, trainer.ref_model, run.prompt_ids[firsts], run.reply_ids[firsts]),
        ]
