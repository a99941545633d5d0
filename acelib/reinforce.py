"""REINFORCE++ (Hu 2025) as AceCoder runs it: a small subclass of TRL's `GRPOTrainer`.

TRL keeps data order, optimiser, checkpoints and distribution; what differs from GRPO is here: the KL penalty is part
of the reward of every token, the advantage of a token is its discount-free return standardised over all response
tokens of the rollout, and there is neither a critic nor a baseline per question.
"""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import PreTrainedModel, PrinterCallback
from transformers.cache_utils import DynamicCache
from trl import GRPOConfig, GRPOTrainer

from acelib.errors import CourseError
from acelib.models import (
    check_room,
    context_length,
    load_policy,
    load_tokenizer,
    pick_device,
    render,
    sample_tokens,
    solve_messages,
    stop_tokens,
)
from acelib.profiles import Reinforce
from acelib.reinforce_log import PHASES, Measure, Watch, log_rows
from acelib.rewards import RewardFunction
from acelib.schema import Problem

LOG_FILE = "training_log.json"
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # `rollout_func` is marked experimental; the pin holds it still


class ReinforceError(CourseError):
    """Training that cannot start, or that must not go on."""


def reinforce_plus_plus_advantages(
    rewards: torch.Tensor, logps: torch.Tensor, ref_logps: torch.Tensor, mask: torch.Tensor, beta: float
) -> torch.Tensor:
    """Advantage of every response token (Hu 2025; AceCoder section 4.3).

    `rewards` (replies,), NaN where a reply could not be judged; `logps` and `ref_logps` (replies, tokens), log-probs
    under the policy that sampled them and under the reference; `mask` (replies, tokens), 1 on response tokens.
    Returns (replies, tokens), 0 outside the mask and on unjudged replies.
    """
    mask = mask * (~torch.isnan(rewards)).unsqueeze(1)
    token_rewards = -beta * (logps - ref_logps) * mask
    last = (mask.cumsum(dim=1) * mask).argmax(dim=1)
    token_rewards[torch.arange(len(rewards)), last] += torch.nan_to_num(rewards)
    returns = token_rewards.flip(1).cumsum(dim=1).flip(1)
    count = mask.sum().clamp(min=1)
    mean = (returns * mask).sum() / count
    variance = ((returns - mean) ** 2 * mask).sum() / count
    return (returns - mean) * variance.clamp(min=1e-8).rsqrt() * mask


def response_logps(
    model: PreTrainedModel, prompts: torch.Tensor, prompt_mask: torch.Tensor, replies: torch.Tensor,
    reply_mask: torch.Tensor, temperature: float, chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropies (replies, tokens) of the response tokens, differentiable; 0 outside the mask.

    `prompts` (replies, prompt tokens) are padded on the left, `replies` (replies, tokens) on the right. The same
    numbers as one pass over prompt and reply, for less work: each distinct prompt is read once and its keys and values
    are shared by its replies, and replies of similar length go together (`chunk` at a time), cut to their longest.
    """
    distinct, owner = torch.unique(torch.cat([prompts, prompt_mask], dim=1), dim=0, return_inverse=True)
    width = prompts.shape[1]
    ids, mask = distinct[:, :width], distinct[:, width:]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    first = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                  logits_to_keep=1).logits[:, -1:]

    lengths = reply_mask.sum(dim=1)
    order, parts = lengths.argsort(stable=True), []
    for rows in order.split(chunk):
        longest = max(1, int(lengths[rows].max()))
        tokens, logits, who = replies[rows, :longest], first.index_select(0, owner[rows]), owner[rows]
        if longest > 1:
            shared = DynamicCache(config=model.config)
            for number, layer in enumerate(cache.layers):
                shared.update(layer.keys.index_select(0, who), layer.values.index_select(0, who), number)
            seen = torch.cat([mask[who], mask.new_ones((len(rows), longest - 1))], dim=1)
            steps = positions[who, -1:] + torch.arange(1, longest, device=tokens.device)
            rest = model(input_ids=tokens[:, :-1], attention_mask=seen, position_ids=steps, past_key_values=shared,
                         use_cache=True).logits
            logits = torch.cat([logits, rest], dim=1)
        everything = torch.log_softmax(logits.float() / temperature, dim=-1)
        logps = everything.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        entropies = -(everything.detach().exp() * everything.detach()).sum(-1)
        pad = (0, replies.shape[1] - longest)
        parts.append([torch.nn.functional.pad(x * reply_mask[rows, :longest], pad) for x in (logps, entropies)])
    back = order.argsort()
    logps, entropies = (torch.cat(part)[back] for part in zip(*parts, strict=True))
    return logps, entropies


def _numbers_only(reward: RewardFunction) -> RewardFunction:
    """A NaN must stop the run: None says "could not be judged", and TRL would take NaN for that."""

    def checked(**kwargs) -> list[float | None]:
        values = reward(**kwargs)
        bad = sum(v is not None and not math.isfinite(v) for v in values)
        if bad:
            raise ReinforceError(
                f"The reward {reward.__name__!r} is not a finite number for {bad} of {len(values)} replies; nothing "
                f"was trained on them. Check the reward model (or return None when the infrastructure failed)."
            )
        return values

    checked.__name__ = reward.__name__
    return checked


class ReinforceTrainer(GRPOTrainer):
    """`GRPOTrainer` with REINFORCE++ advantages and a sampler that shares prompts.

    `reward` trains the policy; the functions in `watch` are only measured. One optimiser step is one update, and
    `settings.updates_per_rollout` of them use up a rollout.
    """

    def __init__(self, model, tokenizer, dataset, reward, settings: Reinforce, args: GRPOConfig, watch=(), **kwargs):
        self.settings = settings
        self.seconds: dict[str, float] = {}
        self._sampled_logps: torch.Tensor | None = None
        super().__init__(
            model=model, processing_class=tokenizer, train_dataset=dataset, args=args,
            reward_funcs=[_numbers_only(f) for f in (reward, *watch)], rollout_func=_rollout, **kwargs,
        )
        self.reward_weights = torch.tensor([1.0] + [0.0] * len(watch))
        self.stop = stop_tokens(self.model, tokenizer)
        self._shares_prompts = (
            not args.gradient_checkpointing
            and self.accelerator.distributed_type == DistributedType.NO
            and set(getattr(self.model.config, "layer_types", [None])) == {"full_attention"}
        )

    def _send_telemetry(self):
        pass

    def create_model_card(self, *args, **kwargs):
        pass

    @contextmanager
    def timed(self, phase: str):
        start = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

    @property
    def rollout(self) -> int:
        """Rollouts that have been used up."""
        return self.state.global_step // self.settings.updates_per_rollout

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        with self.timed("reward"):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._gathered_rewards = rewards[:, 0]
        return rewards

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        old = model is self.model and not torch.is_grad_enabled()
        if old and self._sampled_logps is not None:
            # The sampler ran these very weights, so its log-probs are those of the old policy up to rounding.
            return self._sampled_logps, None, None
        if not self._shares_prompts:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        rows, width = len(input_ids), input_ids.shape[1] - logits_to_keep
        logps, entropies = response_logps(
            model, input_ids[:, :width], attention_mask[:, :width], input_ids[:, width:], attention_mask[:, width:],
            self.temperature, chunk=max(1, -(-min(rows, batch_size or rows) // 2)),
        )
        return logps, entropies if compute_entropy else None, None

    def _generate_and_score_completions(self, inputs):
        with self.timed("rollout"):
            batch = super()._generate_and_score_completions(inputs)
        logps = batch.setdefault("old_per_token_logps", batch["sampling_per_token_logps"])
        ref_logps, mask = batch.get("ref_per_token_logps", logps), batch["completion_mask"]
        gathered = [self._gather(x) for x in (logps, ref_logps, mask)]
        advantages = reinforce_plus_plus_advantages(self._gathered_rewards, *gathered, self.beta)
        start = self.accelerator.process_index * len(logps)
        batch["advantages"] = advantages[start : start + len(logps), : logps.shape[1]]

        logps, ref_logps, mask = gathered
        questions = self._gathered_rewards.view(-1, self.num_generations)
        low, high = questions.nan_to_num(math.inf).amin(1), questions.nan_to_num(-math.inf).amax(1)
        metrics = self._metrics["train"]
        metrics["kl_per_reply"].append(((logps - ref_logps) * mask).sum(1).mean().item())
        metrics["mixed"].append((high > low).float().mean().item())
        metrics["unjudged"].append(torch.isnan(questions).float().mean().item())
        return batch

    def _gather(self, x: torch.Tensor) -> torch.Tensor:
        return self.accelerator.gather(self.accelerator.pad_across_processes(x.contiguous(), dim=1))

    def _compute_loss(self, model, inputs):
        # The KL term is in the reward already.
        beta, self.beta = self.beta, 0.0
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.beta = beta

    def training_step(self, *args, **kwargs):
        before = self.seconds.get("rollout", 0.0)
        with self.timed("update"):
            loss = super().training_step(*args, **kwargs)
        self.seconds["update"] -= self.seconds.get("rollout", 0.0) - before
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        for phase in PHASES:
            logs[f"seconds_{phase}"] = self.seconds.get(phase, 0.0)
        logs["seconds_reference"] = max(
            0.0, self.seconds.get("rollout", 0.0) - logs["seconds_generate"] - logs["seconds_reward"]
        )
        self.seconds.clear()
        super().log(logs, start_time)


def _rollout(prompts: list, trainer: ReinforceTrainer) -> dict[str, list]:
    """Sampled replies in TRL's `rollout_func` form; each question arrives repeated once per reply."""
    n, tokenizer = trainer.num_generations, trainer.processing_class
    questions = prompts[::n]
    if [q for q in questions for _ in range(n)] != prompts:
        raise ReinforceError(
            f"A process got {len(prompts)} replies to sample, which are not whole questions of {n}; choose "
            "reinforce.rollout_questions as a multiple of the number of processes."
        )
    ids = [tokenizer(render(tokenizer, q), add_special_tokens=False)["input_ids"] for q in questions]
    model = trainer.accelerator.unwrap_model(trainer.model)
    training = model.training
    model.eval()
    with trainer.timed("generate"):
        replies = sample_tokens(
            model, ids, n=n, temperature=trainer.temperature, max_new_tokens=trainer.max_completion_length,
            batch_size=len(prompts), seed=trainer.args.seed + 1 + trainer.rollout, stop=trainer.stop,
            pad_id=tokenizer.pad_token_id,
        )
    model.train(training)
    flat = [reply for row in replies for reply in row]
    trainer._sampled_logps = None
    if model.dtype == torch.float32:
        rows = [torch.tensor(reply.logprobs) for reply in flat]
        trainer._sampled_logps = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
    return {
        "prompt_ids": [row for row in ids for _ in range(n)],
        "completion_ids": [reply.ids for reply in flat],
        "logprobs": [reply.logprobs for reply in flat],
    }


def question_order(questions: int, needed: int, seed: int) -> list[int]:
    """`needed` indices: random passes over all questions, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    passes = -(-needed // questions)
    return torch.cat([torch.randperm(questions, generator=generator) for _ in range(passes)])[:needed].tolist()


def trainer_arguments(settings: Reinforce, folder: Path, seed: int, device: torch.device, dtype: str) -> GRPOConfig:
    """AceCoder's settings in TRL's words. TRL's own defaults fit another algorithm and a GPU."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    per_update, rest = divmod(settings.rollout_questions * settings.samples_per_question,
                              settings.updates_per_rollout * processes)
    if rest:
        raise ReinforceError(
            f"A rollout of {settings.rollout_questions} x {settings.samples_per_question} replies cannot be split into "
            f"{settings.updates_per_rollout} updates on {processes} processes; change reinforce.updates_per_rollout."
        )
    on_gpu = device.type != "cpu"
    return GRPOConfig(
        output_dir=str(folder), seed=seed, use_cpu=not on_gpu, report_to="none", disable_tqdm=True,
        bf16=on_gpu and dtype == "bfloat16", gradient_checkpointing=on_gpu, dataloader_pin_memory=on_gpu,
        max_steps=settings.steps * settings.updates_per_rollout, steps_per_generation=settings.updates_per_rollout,
        per_device_train_batch_size=per_update, num_generations=settings.samples_per_question, num_iterations=1,
        max_completion_length=settings.max_new_tokens, temperature=settings.temperature, shuffle_dataset=False,
        learning_rate=settings.learning_rate, lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1}, warmup_steps=0.03, adam_beta2=0.95, weight_decay=0.0,
        max_grad_norm=1.0, beta=settings.beta, epsilon=settings.epsilon, loss_type="bnpo", scale_rewards="none",
        logging_steps=settings.updates_per_rollout, save_total_limit=2, save_strategy="steps",
        save_steps=settings.updates_per_rollout * settings.eval_every,  # a resumed run must start with a rollout
    )


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: the trainer's state is written last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """A checkpoint belongs to the settings it was made with."""
    path = folder / "settings.json"
    if path.is_file():
        old = json.loads(path.read_text())
        changed = [key for key in settings if old.get(key) != settings[key]]
        if changed:
            raise ReinforceError(
                f"{folder} holds a checkpoint made with other settings ({', '.join(changed)}); delete that folder to "
                "start anew, or restore the settings."
            )
    path.write_text(json.dumps(settings))


def make_trainer(
    policy: str | Path, problems: Sequence[Problem], reward: RewardFunction, scratch: Path, *, settings: Reinforce,
    prompt: str, seed: int, dtype: str = "float32", device: str = "auto", watch: Sequence[RewardFunction] = (),
    measure: Measure | None = None, progress: Callable[[int, int], None] | None = None,
) -> ReinforceTrainer:
    """The trainer behind `train`, ready to start. Raises as `train` does."""
    if not problems:
        raise ReinforceError("There are no questions to train on; look at the hard questions that notebook 03 chose.")
    where = pick_device(device)
    model, tokenizer = load_policy(policy, dtype, where.type), load_tokenizer(policy)
    conversations = [solve_messages(prompt, problem.question) for problem in problems]
    tokens = [tokenizer(render(tokenizer, c), add_special_tokens=False)["input_ids"] for c in conversations]
    check_room(tokens, settings.max_new_tokens, context_length(model))
    order = question_order(len(problems), settings.steps * settings.rollout_questions, seed)
    dataset = Dataset.from_dict({
        "prompt": [conversations[i] for i in order],
        "problem_id": [problems[i].id for i in order],
    })
    args = trainer_arguments(settings, scratch, seed, where, dtype)
    scratch.mkdir(parents=True, exist_ok=True)
    _check_settings(scratch, {"policy": str(policy), "reward": reward.__name__, "seed": seed, "dtype": dtype,
                              **vars(settings)})
    callback = Watch(settings, measure, progress)
    trainer = ReinforceTrainer(model, tokenizer, dataset, reward, settings, args, watch, callbacks=[callback])
    callback.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(
    policy: str | Path, problems: Sequence[Problem], reward: RewardFunction, path: Path, scratch: Path, **options
) -> list[dict[str, float | None]]:
    """Train the model at `policy` with REINFORCE++ on `problems`, save it to `path`, and return `log_rows`.

    `reward` trains. Options (see `make_trainer`): `settings`, `prompt` (the template of the user's message), `seed`,
    `dtype`, `device`; `watch`, rewards that are only logged; `measure`, which looks at the policy every
    `settings.eval_every` rollouts (see `reinforce_log.held_out_pass_rate`); `progress`, called with the rollouts done
    and their total.
    Checkpoints go to `scratch`: called again after a crash, the run goes on from the last one and ends as it would
    have without the crash. Raises ReinforceError, or ModelError when a prompt does not fit the context.
    """
    trainer = make_trainer(policy, problems, reward, scratch, **options)
    checkpoint = _last_checkpoint(scratch)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.model.save_pretrained(path)
    trainer.processing_class.save_pretrained(path)
    rows = log_rows(trainer.state.log_history, trainer.settings.updates_per_rollout)
    (path / LOG_FILE).write_text(json.dumps(rows), encoding="utf-8")
    return rows
