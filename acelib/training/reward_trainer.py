"""Training the reward model on preference pairs: TRL's trainer, with questions as its batch."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, set_seed
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import suppress_seqcls_warning

from acelib.core import ModelError, Profile, Progress
from acelib.models import check_room, load_tokenizer, load_weights
from acelib.reward_model import bradley_terry_loss, is_held_out, question_rows, regression_loss, score_questions
from acelib.schema import Pair
from acelib.training.checkpoints import check_settings
from acelib.training.log import Counting
from acelib.training.settings import (
    CommonTrainer,
    adapters,
    check_together,
    common_arguments,
    loaded_dtype,
    precision,
    quantisation,
)


class QuestionRewardTrainer(CommonTrainer, RewardTrainer):
    """TRL's `RewardTrainer` with questions instead of pairs as its batch.

    The stock trainer encodes a program again for every pair it appears in. Here each distinct program is encoded once
    and all pairs of its question are read off the scores: the same gradient for less work. The loss is the mean of
    Eq. 1 over the questions of the batch, however many processes and passes share it; `n` is the number of programs
    sampled per question. With `loss="regression"` the same programs are regressed on their pass rates instead. The
    dataset has the columns of `question_rows`.
    """

    section = "reward_model"

    def __init__(self, *args, n: int, loss: str = "bradley_terry", **kwargs):
        self.n, self.loss = n, loss
        # Since the last log: loss and number of questions; loss, right order and number of pairs.
        self._totals = {mode: torch.zeros(5, dtype=torch.float64) for mode in ("train", "eval")}
        super().__init__(*args, data_collator=lambda rows: {"questions": rows}, **kwargs)
        self.model_accepts_loss_kwargs = True  # `compute_loss` divides by the number of questions itself

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of one optimiser step, and how many questions they hold on all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            batches[-1] |= self._real_questions(len(self.train_dataset), self.args.train_batch_size)
        count = sum(min(len(batch["questions"]), batch.get("real", math.inf)) for batch in batches)
        return batches, self.accelerator.reduce(torch.tensor(count, device=device)).item()

    def prediction_step(self, model, inputs, *args, **kwargs):
        inputs |= self._real_questions(len(self.eval_dataset), self.args.eval_batch_size)
        return super().prediction_step(model, inputs, *args, **kwargs)

    def _real_questions(self, length: int, batch_size: int) -> dict[str, int]:
        """`real`, how many questions of this process's batch count. In the last batch of an epoch accelerate gives
        processes that would get too little questions from the epoch's beginning again."""
        here = self.accelerator
        rest = length % (batch_size * here.num_processes)
        if not (rest and here.gradient_state.end_of_dataloader):
            return {}
        return {"real": min(max(rest - batch_size * here.process_index, 0), batch_size)}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of `inputs["questions"]`, rows of `question_rows`; with `return_outputs` also the scores (programs,)
        of all their programs. Raises ModelError."""
        real = inputs.get("real", len(inputs["questions"]))
        rows = inputs["questions"][: max(1, real)]  # every process has to run the model
        sequences = [row["sequences"] for row in rows]
        with precision(self):
            scores = score_questions(model, sequences, self.processing_class.pad_token_id, self.shares_prompts)
        if self.loss == "regression":
            losses = [regression_loss(s, s.new_tensor(row["rates"])) for s, row in zip(scores, rows, strict=True)]
        else:
            pairs = [torch.tensor(row["pairs"], device=scores[0].device) for row in rows]
            losses = [bradley_terry_loss(s, each, self.n) for s, each in zip(scores, pairs, strict=True)]
        total = torch.stack(losses)[:real].sum()
        if not torch.isfinite(total):
            raise ModelError(
                "The reward model's loss is not a number any more; lower reward_model.learning_rate "
                "or train in float32."
            )
        values = [s.detach().tolist() for s in scores[:real]]
        gaps = total.new_tensor([s[i] - s[j] for s, row in zip(values, rows) for i, j in row["pairs"]])
        self._totals["train" if self.model.training else "eval"] += torch.tensor(
            [total.item(), real, -F.logsigmoid(gaps).sum(), (gaps.sign() + 1).sum() / 2, len(gaps)], dtype=torch.float64
        )
        # Processes average their gradients, so each must contribute its share of the mean over all questions.
        share = self.accelerator.num_processes / num_items_in_batch if num_items_in_batch else 1 / max(1, real)
        return (total * share, {"scores": torch.cat(scores)}) if return_outputs else total * share

    def log(self, logs, start_time=None):
        mode = "train" if self.model.training else "eval"
        loss, questions, pair_loss, right, pairs = self.accelerator.reduce(
            self._totals[mode].to(self.args.device)
        ).tolist()
        self._totals[mode].zero_()
        if pairs:
            self._metrics[mode] |= {"pair_loss": [pair_loss / pairs], "accuracy": [right / pairs]}
            if mode == "eval":
                logs["eval_loss"] = loss / questions
        super().log(logs, start_time)


class _Report(Counting):
    """Says how well held-out pairs are ranked, too."""

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        found = state.log_history[-1]
        if state.is_world_process_zero and "eval_accuracy" in found:
            right, loss = found["eval_accuracy"], found["eval_pair_loss"]
            said = f"{right:.1%} of held-out pairs ranked right, loss {loss:.3f} per pair"
            print(f"  update {state.global_step}: {said}", flush=True)


def _arguments(profile: Profile, folder: Path, kept: int, held_out: int) -> RewardConfig:
    """AceCoder's settings in TRL's words, for `kept` questions to train on and `held_out` ones."""
    settings = profile.reward_model
    common = common_arguments(profile, "reward_model", settings.batch_size, settings.batch_size, folder)
    steps = int(-(-kept // settings.batch_size) * settings.epochs)
    return RewardConfig(
        **common,
        data_seed=profile.seed,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_eval_batch_size=common["per_device_train_batch_size"],
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,
        max_length=settings.max_length,
        center_rewards_coefficient=None,
        logging_steps=max(1, steps // 40),
        logging_first_step=True,
        remove_unused_columns=False,
        eval_strategy="steps" if held_out else "no",
        eval_steps=max(1, steps // 6),
        eval_on_start=bool(held_out),
        save_steps=max(1, steps // profile.engine.checkpoints),
        save_total_limit=1,
    )


def make_reward_trainer(
    profile: Profile, pairs: Sequence[Pair], scratch: Path, progress: Progress | None = None
) -> QuestionRewardTrainer:
    """The trainer of a reward model on the backbone `reward_model.base`; its `train_and_save` starts it.

    `profile.sampling.n` is the number of programs per question; `progress` is called with the steps done and their
    total. Questions for which `is_held_out` is true only serve the accuracy that is logged on the way. `scratch` keeps
    checkpoints.

    Raises ModelError when there are no pairs to train on, or programs are longer than `reward_model.max_length` or
    than the base can read; EngineError when processes cannot share a batch equally; ArtifactError for checkpoints of
    other settings.
    """
    settings, engine, n = profile.reward_model, profile.engine, profile.sampling.n
    tokenizer = load_tokenizer(base := profile.resolve(settings.base))
    rows = question_rows(pairs, tokenizer, settings.max_length)
    held_out = [row for row in rows if is_held_out(row["id"], settings.held_out)]
    kept = [row for row in rows if not is_held_out(row["id"], settings.held_out)]
    if not kept:
        raise ModelError(
            f"No question has a valid pair to train on ({len(pairs)} pairs in all, {len(held_out)} questions held "
            "out); lower pairs.min_gap, or sample more programs per question."
        )
    args = _arguments(profile, scratch, len(kept), len(held_out))
    how = dict(num_labels=1, dtype=loaded_dtype(profile), quantization_config=quantisation(profile))
    set_seed(profile.seed)  # the head is random
    with suppress_seqcls_warning():  # after the arguments: with ZeRO-3 they decide how it is loaded
        model = load_weights(AutoModelForSequenceClassification, base, **how)
    check_room(model, [ids for row in rows for ids in row["sequences"]])
    trainer = QuestionRewardTrainer(
        model=model,
        args=args,
        n=n,
        loss=settings.loss,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(kept),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        callbacks=[_Report(progress)],
        peft_config=adapters(engine, "SEQ_CLS"),
    )
    check_together(engine, trainer.accelerator, samples=False)
    made_with = {"seed": profile.seed, "n": n, "dtype": profile.models.dtype, "lora_rank": engine.lora_rank}
    made_with["quantise"] = engine.quantise
    check_settings(scratch, made_with | vars(settings))
    return trainer
