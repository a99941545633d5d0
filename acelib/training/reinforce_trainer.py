"""REINFORCE++ (Hu 2025) as AceCoder runs it, and its relatives: a small subclass of TRL's `GRPOTrainer`.

TRL keeps data order, optimiser, checkpoints and distribution. What the algorithms differ in is a row of
`acelib.advantages.ALGORITHMS`; what they share is here: rollouts with shared prompts, rewards that may be missing, and
updates that are the same however many processes make them.

A rollout is a dict of tensors, one row per reply, the replies to a question next to each other: `prompt_ids` and
`prompt_mask` (replies, prompt tokens), padded on the left; `completion_ids` and `completion_mask` (replies, tokens),
padded on the right; `old_per_token_logps`, `ref_per_token_logps` and `advantages` (replies, tokens); `rewards`
(replies,), NaN where a reply could not be judged.
"""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from acelib.advantages import ALGORITHMS
from acelib.core import EngineError, Profile, Progress
from acelib.models import (
    check_room,
    load_policy,
    load_tokenizer,
    prompt_tokens,
    response_logps,
    solve_messages,
    stop_tokens,
)
from acelib.rewards import RewardFunction, checked
from acelib.schema import Problem
from acelib.training.checkpoints import check_settings
from acelib.training.log import PHASES, Measure, RolloutMonitor, log_rows
from acelib.training.rollouts import Rollout, by_length, has_signal, join, partition, question_order, sample_rollout
from acelib.training.settings import (
    CommonTrainer,
    adapters,
    check_together,
    common_arguments,
    loaded_dtype,
    merged_exactly,
    precision,
    quantisation,
    vllm_arguments,
)

RESAMPLING = 4  # rollouts at most that dynamic sampling may spend on one
QUIET = 8  # replies at least that are read at once where nothing is learnt
PROMPTS = 4  # micro-batches of replies whose prompts are read at once where nothing is learnt
ROUNDING = 1e-5  # nats by which two computations of one float32 log-prob may differ


def _has_any_signal(rewards: torch.Tensor, logps: torch.Tensor, ref_logps: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether rewards differ, or policy and reference by more than rounding (shapes as in `acelib.advantages`).
    Normalised, rounding alone would be advantages, of which Adam makes full steps, in another direction with every
    change of a last digit."""
    equal = len(rewards[~rewards.isnan()].unique()) < 2
    return not equal or bool(((logps - ref_logps) * mask).abs().max() > ROUNDING)


class ReinforceTrainer(CommonTrainer, GRPOTrainer):
    """`GRPOTrainer` with the advantages of `reinforce.algorithm` and a sampler that shares prompts.

    `reward` trains the policy; the functions in `watch` are only measured. One optimiser step is one update, and
    `reinforce.updates_per_rollout` of them use up a rollout.
    """

    section = "reinforce"

    def __init__(self, profile, model, tokenizer, dataset, reward, args, watch=(), **kwargs):
        self.settings, engine = profile.reinforce, profile.engine
        self.algorithm = ALGORITHMS[self.settings.algorithm]
        self.seconds: Counter[str] = Counter()  # of each phase since the last log
        self.attempt = 0  # of dynamic sampling, within one rollout
        self.sampled = 0  # replies in the present rollout, those that dynamic sampling dropped included
        self._sampled_logps: torch.Tensor | None = None
        super().__init__(
            model=model,
            processing_class=tokenizer,
            train_dataset=dataset,
            args=args,
            reward_funcs=[checked(f, self.settings.reward_seconds) for f in (reward, *watch)],
            peft_config=adapters(engine, "CAUSAL_LM"),
            **kwargs,
        )
        self.rollout_func = sample_rollout  # as an argument it is marked experimental; the pin holds it still
        check_together(engine, self.accelerator, samples=True)
        self.reward_weights = torch.tensor([1.0] + [0.0] * len(watch))
        self.stop = self.eos_token_ids = stop_tokens(self.model.generation_config.eos_token_id, tokenizer)
        if args.use_vllm:
            self.vllm_generation.generation_kwargs |= {"stop_token_ids": self.stop}
            # Also where TRL hands the weights over by itself: before each rollout, and when vLLM wakes up.
            self.vllm_generation.sync_weights = merged_exactly(self.model)(self.vllm_generation.sync_weights)
        # The sampler then runs these very weights, so its log-probs are those of the old policy up to rounding.
        self.samples_exactly = not (args.use_vllm or args.bf16 or engine.lora_rank)

    def log_rows(self) -> list[dict[str, float | None]]:
        return log_rows(self.state.log_history, self.settings.updates_per_rollout)

    @contextmanager
    def timed(self, phase: str):
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start

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
        """Log-probs and entropies (replies, logits_to_keep) of the last tokens of `input_ids` (replies, tokens)."""
        old = model is self.model and not torch.is_grad_enabled()
        if old and self._sampled_logps is not None:
            return self._sampled_logps, None, None
        width, rows = input_ids.shape[1] - logits_to_keep, len(input_ids)
        at_once, parts = min(rows, batch_size or rows), []
        if not torch.is_grad_enabled():
            at_once = min(rows, max(at_once, QUIET))
        if not self.shares_prompts:
            usual = super()._get_per_token_logps_and_entropies
            how = dict(compute_entropy=compute_entropy, **kwargs)
            given = input_ids, attention_mask, logits_to_keep, at_once
            return *by_length(lambda *one: usual(model, *one, **how), *given), None
        for start in range(0, rows, PROMPTS * at_once):
            chosen = (x[start : start + PROMPTS * at_once] for x in (input_ids, attention_mask))
            (prompts, replies), (prompt_mask, mask) = (x.split([width, logits_to_keep], dim=1) for x in chosen)
            given = prompts, prompt_mask, replies, mask, self.temperature
            with precision(self):
                parts.append(response_logps(model, *given, chunk=max(-(-at_once // 2), min(at_once, QUIET // 2))))
        logps, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return logps, entropies if compute_entropy else None, None

    def _prepare_inputs(self, generation_batch):
        at = self._step % self.args.steps_per_generation
        if at == 0 or self._buffered_inputs is None:
            self._buffered_inputs = self._split(self._generate_and_score_completions(generation_batch))
        return self._buffered_inputs[at]

    def _generate_and_score_completions(self, inputs) -> Rollout:
        """The rollout of all processes, with advantages."""
        self.sampled = 0
        with self.timed("rollout"):
            rollout = self._sample(inputs)
            if self.algorithm.dynamic_sampling:
                rollout = self._sample_dynamically(rollout)
        names = ("rewards", "old_per_token_logps", "ref_per_token_logps", "completion_mask")
        what = [rollout[name] for name in names]
        rollout["advantages"] = self.algorithm.advantages(*what, n=self.num_generations, beta=self.beta)
        if not _has_any_signal(*what):
            rollout["advantages"].zero_()
        self._metrics["train"]["sampled"].append(self.sampled)
        return rollout

    def _sample(self, inputs) -> Rollout:
        """Replies to the questions in `inputs` and to those of all other processes, still without advantages."""
        batch, metrics = super()._generate_and_score_completions(inputs), self._metrics["train"]
        if "old_per_token_logps" not in batch:
            batch["old_per_token_logps"] = self._old_logps(batch)
        logps, mask = batch["old_per_token_logps"], batch["completion_mask"]
        gap = (logps - batch["sampling_per_token_logps"]).nan_to_num().abs() * mask
        gaps = self.accelerator.gather(torch.stack([gap.sum(), mask.sum()])[None]).sum(0)
        metrics["sampler_gap"].append((gaps[0] / gaps[1]).item())
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
        if reference:
            kl = (rollout["old_per_token_logps"] - rollout["ref_per_token_logps"]) * rollout["completion_mask"]
            metrics["kl_per_reply"].append(kl.sum(1).mean().item())
        metrics["mixed"].append(has_signal(rewards.view(-1, self.num_generations)).float().mean().item())
        metrics["unjudged"].append(torch.isnan(rewards).float().mean().item())
        return rollout

    @torch.no_grad()
    def _old_logps(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(replies, tokens). TRL leaves them out where a rollout makes one update, whose log-probs they would equal."""
        if self.samples_exactly:
            return batch["sampling_per_token_logps"]
        ids, mask = (torch.cat([batch[f"prompt_{x}"], batch[f"completion_{x}"]], dim=1) for x in ("ids", "mask"))
        return self._get_per_token_logps_and_entropies(
            self.model, ids, mask, batch["completion_ids"].shape[1], self.args.per_device_train_batch_size
        )[0]

    def _random(self, count: int, *attempt: int) -> torch.Tensor:
        """A permutation (count,) that depends on the seed and the rollout alone, the same in every process."""
        seed = hash((self.args.seed, self.rollout, *attempt))
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed))

    def _sample_dynamically(self, rollout: Rollout) -> Rollout:
        """DAPO's dynamic sampling (Yu et al. 2025, section 3.2): questions whose replies all have the same reward are
        replaced by others, until the rollout is full or `RESAMPLING` rollouts were spent on it."""
        n, wanted = self.num_generations, len(rollout["rewards"])
        share = wanted // n // self.accelerator.num_processes
        kept, dropped = partition(rollout, n)
        for self.attempt in range(1, RESAMPLING):
            if len(kept["rewards"]) >= wanted:
                break
            others = self._random(len(self.train_dataset), self.attempt)
            mine = others[share * self.accelerator.process_index :][:share].tolist()
            more = partition(self._sample([dict(self.train_dataset[i]) for i in mine for _ in range(n)]), n)
            kept, dropped = join([kept, more[0]]), join([dropped, more[1]])
        self.attempt = 0
        return {name: x[:wanted] for name, x in join([kept, dropped]).items()}

    def _split(self, rollout: Rollout) -> list[dict[str, torch.Tensor]]:
        """The rollout's replies in random order, as one batch per forward pass of this process.

        TRL lets every process shuffle and normalise its own replies, so that an update depends on how many there are.
        """
        order = self._random(len(rollout["rewards"])).to(rollout["rewards"].device)
        world, passes = self.accelerator.num_processes, self.args.gradient_accumulation_steps
        batches = []
        for update in order.view(self.settings.updates_per_rollout, -1):
            if passes > 1:  # next to each other those that share a prompt, or else a length
                alike = update if self.shares_prompts else rollout["completion_mask"][update].sum(1)
                update = update[alike.argsort(stable=True)]
            tokens = rollout["completion_mask"][update].sum()
            for rows in update.view(passes, world, -1)[:, self.accelerator.process_index]:
                batch = {name: x[rows] for name, x in rollout.items() if name != "rewards"}
                # TRL divides what it takes for the tokens of the whole rollout by the number of updates.
                batches.append(batch | {"num_items_in_batch": tokens * self.settings.updates_per_rollout})
        return batches

    def _compute_loss(self, model, inputs):
        beta = self.beta
        self.beta = beta if self.algorithm.kl == "loss" else 0.0  # elsewhere it is in the reward already, or nowhere
        loss = super()._compute_loss(model, inputs)
        self.beta = beta
        return loss

    def training_step(self, *args, **kwargs):
        before = self.seconds["rollout"]
        with self.timed("update"):
            loss = super().training_step(*args, **kwargs)
        self.seconds["update"] -= self.seconds["rollout"] - before
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        spent = self.seconds
        spent["reference"] = max(0.0, spent["rollout"] - spent["generate"] - spent["reward"])
        logs |= {f"seconds_{phase}": spent[phase] for phase in PHASES}
        spent.clear()
        super().log(logs, start_time)


def trainer_arguments(profile: Profile, folder: Path, longest: int | None = None) -> GRPOConfig:
    """AceCoder's settings in TRL's words. TRL's own defaults fit another algorithm and a GPU.

    `longest` is the number of tokens of the longest prompt with its reply. Raises EngineError and DeviceError.
    """
    settings, updates = profile.reinforce, profile.reinforce.updates_per_rollout
    replies, algorithm = settings.rollout_questions * settings.samples_per_question, ALGORITHMS[settings.algorithm]
    common = common_arguments(profile, "reinforce", settings.rollout_questions, replies // updates, folder)
    return GRPOConfig(
        **common,
        **vllm_arguments(profile.engine, longest),
        model_init_kwargs={"device_map": None} | ({"dtype": "bfloat16"} if common["bf16"] else {}),  # of the reference
        max_steps=settings.steps * updates,
        steps_per_generation=updates * common["gradient_accumulation_steps"],
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
        logging_steps=updates,
        save_total_limit=2,
        # whole rollouts: a resumed run starts with one
        save_steps=updates * max(1, settings.steps // profile.engine.checkpoints),
    )


def make_reinforce_trainer(
    profile: Profile,
    problems: Sequence[Problem],
    reward: RewardFunction,
    scratch: Path,
    *,
    watch: Sequence[RewardFunction] = (),
    measure: Measure | None = None,
    progress: Progress | None = None,
    dtype: str | None = None,
) -> ReinforceTrainer:
    """The trainer of the profile's policy with REINFORCE++ (or another `reinforce.algorithm`) on `problems`; its
    `train_and_save` starts it and returns `log_rows`.

    `reward` trains, the rewards in `watch` are only logged. `measure` looks at the policy every `reinforce.eval_every`
    rollouts (see `log.held_out_pass_rate`); `progress` is called with the rollouts done and their total. `scratch`
    keeps checkpoints. `dtype` is what the policy is held in; by default, what it can learn in.

    Raises ModelError when a prompt does not fit the context; ArtifactError for checkpoints of other settings;
    EngineError and DeviceError. Training raises DataError as `checked` does.
    """
    if not problems:
        raise EngineError("There are no questions to train on; look at the hard questions that notebook 03 chose.")
    settings, policy = profile.reinforce, profile.resolve(profile.models.policy)
    tokenizer = load_tokenizer(policy)
    conversations = [solve_messages(profile.prompts.solve, problem.question) for problem in problems]
    tokens = prompt_tokens(tokenizer, conversations)
    order = question_order(len(problems), settings.steps * settings.rollout_questions, profile.seed)
    dataset = Dataset.from_dict(
        {"prompt": [conversations[i] for i in order], "problem_id": [problems[i].id for i in order]}
    )
    args = trainer_arguments(profile, scratch, max(map(len, tokens)) + settings.max_new_tokens)
    # After the arguments: with ZeRO-3 they decide how it is loaded.
    model = load_policy(policy, dtype or loaded_dtype(profile), "cpu", quantised=quantisation(profile))
    check_room(model, tokens, settings.max_new_tokens)
    engine, made_with = profile.engine, {"policy": policy, "reward": reward.__name__, "seed": profile.seed}
    made_with |= {"dtype": profile.models.dtype, "lora_rank": engine.lora_rank, "quantise": engine.quantise}
    check_settings(scratch, made_with | vars(settings))
    trainer = ReinforceTrainer(profile, model, tokenizer, dataset, reward, args, watch)
    trainer.add_callback(RolloutMonitor(trainer, measure, progress))
    return trainer
