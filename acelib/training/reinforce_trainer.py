"""REINFORCE++ (Hu 2025) as AceCoder runs it, and its relatives: a small subclass of TRL's `GRPOTrainer`.

TRL keeps data order, optimiser, checkpoints and distribution. What the algorithms differ in is a row of
`acelib.advantages.ALGORITHMS`; what they share is here: rollouts with shared prompts, rewards that may be missing, and
updates that are the same however many processes make them.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from acelib.advantages import ALGORITHMS
from acelib.core import Engine, EngineError, Reinforce
from acelib.models import (
    check_room,
    context_length,
    load_policy,
    load_tokenizer,
    pick_device,
    prompt_tokens,
    response_logps,
    solve_messages,
    stop_tokens,
)
from acelib.rewards import RewardFunction, checked
from acelib.schema import Problem
from acelib.training.checkpoints import check_settings
from acelib.training.log import PHASES, Measure, Watch, log_rows
from acelib.training.rollouts import join, mixed, partition, question_order, sample_rollout
from acelib.training.settings import (
    LOCAL,
    adapters,
    check_together,
    for_one_device,
    run_from_last_checkpoint,
    save_trained,
    vllm_arguments,
)

LOG_FILE = "training_log.json"
RESAMPLING = 4  # rollouts at most that dynamic sampling may spend on one
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # `rollout_func` is marked experimental; the pin holds it still


class ReinforceTrainer(GRPOTrainer):
    """`GRPOTrainer` with the advantages of `settings.algorithm` and a sampler that shares prompts.

    `reward` trains the policy; the functions in `watch` are only measured. One optimiser step is one update, and
    `settings.updates_per_rollout` of them use up a rollout.
    """

    def __init__(
        self,
        model,
        tokenizer,
        dataset,
        reward,
        settings: Reinforce,
        args: GRPOConfig,
        watch=(),
        engine: Engine = LOCAL,
        **kwargs,
    ):
        self.settings = settings
        self.algorithm = ALGORITHMS[settings.algorithm]
        self.seconds: dict[str, float] = {}
        self.attempt = 0  # of dynamic sampling, within one rollout
        self.sampled = 0  # replies in the present rollout, those that dynamic sampling dropped included
        self._sampled_logps: torch.Tensor | None = None
        super().__init__(
            model=model,
            processing_class=tokenizer,
            train_dataset=dataset,
            args=args,
            reward_funcs=[checked(f, settings.reward_seconds) for f in (reward, *watch)],
            rollout_func=sample_rollout,
            peft_config=adapters(engine, "CAUSAL_LM"),
            **kwargs,
        )
        check_together(engine, self.accelerator, samples=True)
        self.reward_weights = torch.tensor([1.0] + [0.0] * len(watch))
        self.stop = stop_tokens(self.model, tokenizer)
        # The sampler then runs these very weights, so its log-probs are those of the old policy up to rounding.
        self.samples_exactly = not (args.use_vllm or args.bf16 or engine.lora_rank)
        self._shares_prompts = (
            self.samples_exactly
            and not args.gradient_checkpointing
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
            return self._sampled_logps, None, None
        if not self._shares_prompts:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        rows, width = len(input_ids), input_ids.shape[1] - logits_to_keep
        logps, entropies = response_logps(
            model,
            input_ids[:, :width],
            attention_mask[:, :width],
            input_ids[:, width:],
            attention_mask[:, width:],
            self.temperature,
            chunk=max(1, -(-min(rows, batch_size or rows) // 2)),
        )
        return logps, entropies if compute_entropy else None, None

    def _prepare_inputs(self, generation_batch):
        at = self._step % self.args.steps_per_generation
        if at == 0 or self._buffered_inputs is None:
            self._buffered_inputs = self._deal(self._generate_and_score_completions(generation_batch))
        return self._buffered_inputs[at]

    def _generate_and_score_completions(self, inputs) -> dict[str, torch.Tensor]:
        """The rollout of all processes, with advantages (replies, tokens)."""
        self.sampled = 0
        with self.timed("rollout"):
            rollout = self._sample(inputs)
            if self.algorithm.dynamic_sampling:
                rollout = self._without_unanimous(rollout)
        rollout["advantages"] = self.algorithm.advantages(
            rollout["rewards"],
            rollout["old_per_token_logps"],
            rollout["ref_per_token_logps"],
            rollout["completion_mask"],
            n=self.num_generations,
            beta=self.beta,
        )
        self._metrics["train"]["sampled"].append(self.sampled)
        return rollout

    def _sample(self, inputs) -> dict[str, torch.Tensor]:
        batch = super()._generate_and_score_completions(inputs)
        if "old_per_token_logps" not in batch:
            batch["old_per_token_logps"] = self._old_logps(batch)
        logps = batch["old_per_token_logps"]
        gap = (logps - batch["sampling_per_token_logps"]).nan_to_num().abs() * batch["completion_mask"]
        gaps = self.accelerator.gather(torch.stack([gap.sum(), batch["completion_mask"].sum()])[None]).sum(0)
        self._metrics["train"]["sampler_gap"].append((gaps[0] / gaps[1]).item())
        reference = "ref_per_token_logps" in batch
        batch.setdefault("ref_per_token_logps", logps)
        del batch["num_items_in_batch"], batch["advantages"], batch["sampling_per_token_logps"]
        rollout = {
            name: self.accelerator.gather(
                self.accelerator.pad_across_processes(x.contiguous(), dim=1, pad_first=name.startswith("prompt"))
            )
            for name, x in batch.items()
        }
        rewards = rollout["rewards"] = self._gathered_rewards
        self.sampled += len(rewards)
        kl = (rollout["old_per_token_logps"] - rollout["ref_per_token_logps"]) * rollout["completion_mask"]
        questions, metrics = rewards.view(-1, self.num_generations), self._metrics["train"]
        if reference:
            metrics["kl_per_reply"].append(kl.sum(1).mean().item())
        metrics["mixed"].append(mixed(questions).float().mean().item())
        metrics["unjudged"].append(torch.isnan(questions).float().mean().item())
        return rollout

    @torch.no_grad()
    def _old_logps(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """TRL leaves them out where a rollout makes one update, because they would equal those of the update."""
        if self.samples_exactly:
            return batch["sampling_per_token_logps"]
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        return self._get_per_token_logps_and_entropies(
            self.model, ids, mask, batch["completion_ids"].shape[1], self.args.per_device_train_batch_size
        )[0]

    def _without_unanimous(self, rollout: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """DAPO's dynamic sampling (Yu et al. 2025, section 3.2): questions whose replies all have the same reward are
        replaced by others, until the rollout is full or `RESAMPLING` rollouts were spent on it."""
        n, wanted = self.num_generations, len(rollout["rewards"])
        share = wanted // n // self.accelerator.num_processes
        kept, left = partition(rollout, n)
        for self.attempt in range(1, RESAMPLING):
            if len(kept["rewards"]) >= wanted:
                break
            seed = hash((self.args.seed, self.rollout, self.attempt))
            others = torch.randperm(len(self.train_dataset), generator=torch.Generator().manual_seed(seed))
            mine = others[share * self.accelerator.process_index :][:share].tolist()
            more, unanimous = partition(self._sample([dict(self.train_dataset[i]) for i in mine for _ in range(n)]), n)
            kept, left = join([kept, more]), join([left, unanimous])
        self.attempt = 0
        return {name: x[:wanted] for name, x in join([kept, left]).items()}

    def _deal(self, rollout: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """The rollout's replies in random order, as one batch per step of this process.

        TRL lets every process shuffle and normalise its own replies, so that an update depends on how many there are.
        """
        seed = hash((self.args.seed, self.rollout))
        order = torch.randperm(len(rollout["rewards"]), generator=torch.Generator().manual_seed(seed))
        world, pieces = self.accelerator.num_processes, self.args.gradient_accumulation_steps
        dealt = []
        for update in order.view(self.settings.updates_per_rollout, -1).to(rollout["rewards"].device):
            tokens = rollout["completion_mask"][update].sum()
            for rows in update.view(pieces, world, -1)[:, self.accelerator.process_index]:
                batch = {name: x[rows] for name, x in rollout.items() if name != "rewards"}
                # TRL divides what it takes for the tokens of the whole rollout by the number of updates.
                batch["num_items_in_batch"] = tokens * self.settings.updates_per_rollout
                dealt.append(batch)
        return dealt

    def _compute_loss(self, model, inputs):
        beta = self.beta
        self.beta = beta if self.algorithm.kl == "loss" else 0.0  # elsewhere it is in the reward already, or nowhere
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


def trainer_arguments(
    settings: Reinforce,
    folder: Path,
    seed: int,
    device: torch.device,
    dtype: str,
    checkpoints: int = LOCAL.checkpoints,
    **generation: Any,
) -> GRPOConfig:
    """AceCoder's settings in TRL's words. TRL's own defaults fit another algorithm and a GPU."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    per_update, rest = divmod(
        settings.rollout_questions * settings.samples_per_question, settings.updates_per_rollout * processes
    )
    if rest:
        raise EngineError(
            f"A rollout of {settings.rollout_questions} x {settings.samples_per_question} replies cannot be split into "
            f"{settings.updates_per_rollout} updates on {processes} processes; change reinforce.updates_per_rollout."
        )
    at_once = next(size for size in range(min(per_update, settings.micro_batch), 0, -1) if per_update % size == 0)
    pieces, algorithm = per_update // at_once, ALGORITHMS[settings.algorithm]
    on_gpu = device.type != "cpu"
    bf16 = dtype == "bfloat16"
    return for_one_device(
        GRPOConfig(
            **generation,
            output_dir=str(folder),
            seed=seed,
            use_cpu=not on_gpu,
            report_to="none",
            disable_tqdm=True,
            bf16=bf16,
            model_init_kwargs={"dtype": "bfloat16"} if bf16 else None,  # of the reference alone
            gradient_checkpointing=on_gpu,
            dataloader_pin_memory=on_gpu,
            max_steps=settings.steps * settings.updates_per_rollout,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=pieces,
            steps_per_generation=settings.updates_per_rollout * pieces,
            num_generations=settings.samples_per_question,
            num_iterations=1,
            max_completion_length=settings.max_new_tokens,
            temperature=settings.temperature,
            shuffle_dataset=False,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.1},
            warmup_steps=0.03,
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            beta=0.0 if algorithm.kl == "none" else settings.beta,
            use_bias_correction_kl=False,
            epsilon=settings.epsilon,
            epsilon_high=algorithm.clip_higher or settings.epsilon,
            loss_type=algorithm.loss,
            mask_truncated_completions=algorithm.drop_truncated,
            scale_rewards="none",
            logging_steps=settings.updates_per_rollout,
            save_total_limit=2,
            save_strategy="steps",
            # whole rollouts: a resumed run must start with one
            save_steps=settings.updates_per_rollout * max(1, settings.steps // checkpoints),
        )
    )


def make_reinforce_trainer(
    policy: str | Path,
    problems: Sequence[Problem],
    reward: RewardFunction,
    scratch: Path,
    *,
    settings: Reinforce,
    prompt: str,
    seed: int,
    dtype: str = "float32",
    device: str = "auto",
    watch: Sequence[RewardFunction] = (),
    measure: Measure | None = None,
    progress: Callable[[int, int], None] | None = None,
    engine: Engine = LOCAL,
    weights: str = "float32",
) -> ReinforceTrainer:
    """The trainer behind `train`, ready to start. Raises as `train` does.

    `weights` is what the policy is held in: other than float32 only where it does not learn.
    """
    if not problems:
        raise EngineError("There are no questions to train on; look at the hard questions that notebook 03 chose.")
    where, tokenizer = pick_device(device), load_tokenizer(policy)
    conversations = [solve_messages(prompt, problem.question) for problem in problems]
    tokens = prompt_tokens(tokenizer, conversations)
    order = question_order(len(problems), settings.steps * settings.rollout_questions, seed)
    dataset = Dataset.from_dict(
        {"prompt": [conversations[i] for i in order], "problem_id": [problems[i].id for i in order]}
    )
    generation = vllm_arguments(engine, max(map(len, tokens)) + settings.max_new_tokens)
    args = trainer_arguments(settings, scratch, seed, where, dtype, engine.checkpoints, **generation)
    model = load_policy(policy, weights, "cpu")  # after the arguments: with ZeRO-3 they decide how it is loaded
    check_room(tokens, settings.max_new_tokens, context_length(model))
    scratch.mkdir(parents=True, exist_ok=True)
    check_settings(
        scratch,
        {
            "policy": str(policy),
            "reward": reward.__name__,
            "seed": seed,
            "dtype": dtype,
            "lora_rank": engine.lora_rank,
            **vars(settings),
        },
    )
    callback = Watch(settings, measure, progress)
    trainer = ReinforceTrainer(model, tokenizer, dataset, reward, settings, args, watch, engine, callbacks=[callback])
    callback.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(
    policy: str | Path, problems: Sequence[Problem], reward: RewardFunction, path: Path, scratch: Path, **options
) -> list[dict[str, float | None]]:
    """Train the model at `policy` with REINFORCE++ on `problems`, save it to `path`, and return `log_rows`.

    `reward` trains. Options (`make_reinforce_trainer`): `settings`, `prompt` (template of the message), `seed`,
    `dtype`, `device`; `watch`, rewards that are only logged; `measure`, which looks at the policy every
    `settings.eval_every` rollouts (see `reinforce_log.held_out_pass_rate`); `progress`, called with the rollouts done
    and their total; `engine`, the profile's section.
    Checkpoints go to `scratch`: called again after a crash, the run goes on from the last one and ends as it would
    have without the crash. Raises EngineError, ModelError when a prompt does not fit the context, and
    ArtifactError, EngineError, DeviceError and FullDiskError.
    """
    trainer = make_reinforce_trainer(policy, problems, reward, scratch, **options)
    run_from_last_checkpoint(trainer, scratch, "reinforce")
    rows = log_rows(trainer.state.log_history, trainer.settings.updates_per_rollout)
    if trainer.is_world_process_zero():
        path.mkdir(parents=True, exist_ok=True)
        (path / LOG_FILE).write_text(json.dumps(rows), encoding="utf-8")
    save_trained(trainer, path)
    return rows
