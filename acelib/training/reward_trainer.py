"""Training the reward model on preference pairs: TRL's trainer, with questions as its batch."""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate.utils import DistributedType, is_peft_model
from datasets import Dataset
from torch.nn import functional as F
from transformers import PrinterCallback, TrainerCallback
from trl import RewardConfig, RewardTrainer

from acelib.core import Engine, ModelError
from acelib.models import load_tokenizer, pick_device
from acelib.reward_model import (
    bradley_terry_loss,
    can_share_prefix,
    is_held_out,
    question_rows,
    regression_loss,
    score_questions,
)
from acelib.schema import Pair
from acelib.training.checkpoints import check_settings
from acelib.training.settings import (
    LOCAL,
    adapters,
    check_together,
    for_one_device,
    run_from_last_checkpoint,
    save_trained,
)

LOG_FILE = "training_log.json"


class QuestionRewardTrainer(RewardTrainer):
    """TRL's `RewardTrainer` with questions instead of pairs as its batch.

    The stock trainer encodes a program again for every pair it appears in. Here each distinct program is encoded once
    and all pairs of its question are read off the scores: the same gradient for less work. The loss is the mean of
    Eq. 1 over the questions of the batch, however many processes and passes share it; `n` is the number of programs
    sampled per question. With `loss="regression"` the same programs are regressed on their pass rates instead. The
    dataset has the columns of `question_rows`.
    """

    def __init__(self, *args, n: int, loss: str = "bradley_terry", **kwargs):
        self.n, self.loss = n, loss
        # Since the last log: loss and number of questions; loss, right order and number of pairs.
        self._totals = {mode: torch.zeros(5, dtype=torch.float64) for mode in ("train", "eval")}
        super().__init__(*args, data_collator=lambda rows: {"questions": rows}, **kwargs)
        self.model_accepts_loss_kwargs = True  # `compute_loss` divides by the number of questions itself
        self.share_prefix = (
            not (self.args.gradient_checkpointing or self.args.bf16 or is_peft_model(self.model))
            and self.accelerator.distributed_type == DistributedType.NO
            and can_share_prefix(self.model)
        )

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _send_telemetry(self):
        pass

    def create_model_card(self, *args, **kwargs):
        pass

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
        real = inputs.get("real", len(inputs["questions"]))
        rows = inputs["questions"][: max(1, real)]  # every process has to run the model
        sequences = [row["sequences"] for row in rows]
        scores = score_questions(model, sequences, self.processing_class.pad_token_id, self.share_prefix)
        questions = [(s, torch.tensor(row["pairs"], device=s.device)) for s, row in zip(scores, rows, strict=True)]
        if self.loss == "regression":
            losses = [regression_loss(s, s.new_tensor(row["rates"])) for s, row in zip(scores, rows, strict=True)]
        else:
            losses = [bradley_terry_loss(s, pairs, self.n) for s, pairs in questions]
        total = torch.stack(losses)[:real].sum()
        if not torch.isfinite(total):
            raise ModelError(
                "The reward model's loss is not a number any more; lower reward_model.learning_rate "
                "or train in float32."
            )
        gaps = [(s[pairs[:, 0]] - s[pairs[:, 1]]).detach() for s, pairs in questions[:real]]
        gaps = torch.cat(gaps) if gaps else total.new_empty(0)
        self._totals["train" if self.model.training else "eval"] += (
            torch.stack(
                [
                    total.detach(),
                    total.new_tensor(real),
                    -F.logsigmoid(gaps).sum(),
                    (gaps > 0).sum(),
                    total.new_tensor(len(gaps)),
                ]
            )
            .double()
            .cpu()
        )
        # Processes average their gradients, so each must contribute its share of the mean over all questions.
        share = self.accelerator.num_processes / num_items_in_batch if num_items_in_batch else 1 / max(1, real)
        return (total * share, {"scores": torch.cat(scores)}) if return_outputs else total * share

    def log(self, logs, start_time=None):
        mode = "train" if self.model.training else "eval"
        totals = self.accelerator.reduce(self._totals[mode].to(self.args.device))
        self._totals[mode].zero_()
        loss, questions, pair_loss, right, pairs = totals.tolist()
        if pairs:
            self._metrics[mode] |= {"pair_loss": [pair_loss / pairs], "accuracy": [right / pairs]}
            if mode == "eval":
                logs["eval_loss"] = loss / questions
        super().log(logs, start_time)


class _Progress(TrainerCallback):
    def __init__(self, report: Callable[[int, int], None]):
        self.report = report

    def on_step_end(self, args, state, control, **kwargs):
        self.report(state.global_step, state.max_steps)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if state.is_world_process_zero and "eval_accuracy" in state.log_history[-1]:
            right, loss = (state.log_history[-1][name] for name in ("eval_accuracy", "eval_pair_loss"))
            print(
                f"  step {state.global_step}: {right:.1%} of held-out pairs ranked right, loss {loss:.3f} per pair",
                flush=True,
            )


def make_reward_trainer(
    pairs: Sequence[Pair],
    base: str | Path,
    scratch: Path,
    *,
    settings,
    n: int,
    seed: int,
    dtype: str = "float32",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    engine: Engine = LOCAL,
) -> QuestionRewardTrainer:
    """The trainer behind `train_reward_model`, ready to start. Raises as that does."""
    tokenizer = load_tokenizer(base)
    kept, held_out = [], []
    for row in question_rows(pairs, tokenizer, settings.max_length):
        (held_out if is_held_out(row["id"], settings.held_out) else kept).append(row)
    if not kept:
        raise ModelError(
            f"No question has a valid pair to train on ({len(pairs)} pairs in all, {len(held_out)} questions held "
            "out); lower pairs.min_gap, or sample more programs per question."
        )
    steps = -(-len(kept) // settings.batch_size) * settings.epochs
    checks = max(1, int(steps) // 6)
    gpu = pick_device(device).type == "cuda"
    processes = int(os.environ.get("WORLD_SIZE", 1))
    per_device, rest = divmod(settings.batch_size, processes)
    if rest:
        raise ModelError(
            f"A batch of {settings.batch_size} questions cannot be shared by {processes} processes; choose "
            "reward_model.batch_size as a multiple of the number of processes."
        )
    micro = next(size for size in range(min(per_device, settings.micro_batch), 0, -1) if per_device % size == 0)
    args = for_one_device(
        RewardConfig(
            output_dir=str(scratch),
            seed=seed,
            data_seed=seed,
            learning_rate=settings.learning_rate,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=micro,
            per_device_eval_batch_size=micro,
            gradient_accumulation_steps=per_device // micro,
            lr_scheduler_type="cosine",
            warmup_steps=settings.warmup_ratio,
            max_length=settings.max_length,
            center_rewards_coefficient=None,
            # TRL turns bf16 and gradient checkpointing on by default; on a CPU the second only costs time.
            bf16=dtype == "bfloat16",
            gradient_checkpointing=gpu,
            use_cpu=not gpu,
            report_to="none",
            logging_steps=max(1, int(steps) // 40),
            logging_first_step=True,
            disable_tqdm=True,
            dataloader_pin_memory=gpu,
            remove_unused_columns=False,
            eval_strategy="steps" if held_out else "no",
            eval_steps=checks,
            eval_on_start=bool(held_out),
            save_strategy="steps",
            save_steps=max(1, int(steps) // engine.checkpoints),
            save_total_limit=1,
            model_init_kwargs={"dtype": "float32"},
        )
    )
    trainer = QuestionRewardTrainer(
        model=str(base),
        args=args,
        n=n,
        loss=settings.loss,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(kept),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        callbacks=[_Progress(progress)] if progress is not None else None,
        peft_config=adapters(engine, "SEQ_CLS"),
    )
    check_together(engine, trainer.accelerator, samples=False)
    trainer.remove_callback(PrinterCallback)
    scratch.mkdir(parents=True, exist_ok=True)  # the trainer makes it on the main process only
    check_settings(
        scratch,
        {"base": str(base), "seed": seed, "n": n, "dtype": dtype, "lora_rank": engine.lora_rank, **vars(settings)},
    )
    return trainer


def train_reward_model(pairs: Sequence[Pair], base: str | Path, path: Path, scratch: Path, **options) -> list[dict]:
    """Trains a reward model on the backbone `base` and saves it in `path`; returns the training log.

    Options (`make_reward_trainer`): `settings` and `engine`, the profile's sections; `n`, the number of programs
    per question; `seed`, `dtype`, `device`; `progress`, called with the steps done and their total. Questions for which
    `is_held_out` is true only serve the accuracy that is logged on the way. `scratch` keeps checkpoints: a training
    that was interrupted goes on from the last one.

    Raises ModelError when there are no pairs to train on, programs are longer than `settings.max_length`, or the
    processes cannot share a batch equally; ArtifactError, EngineError, DeviceError and FullDiskError.
    """
    trainer = make_reward_trainer(pairs, base, scratch, **options)
    run_from_last_checkpoint(trainer, scratch, "reward_model")
    log = trainer.state.log_history
    if trainer.is_world_process_zero():
        path.mkdir(parents=True, exist_ok=True)
        (path / LOG_FILE).write_text(json.dumps(log, indent=1), encoding="utf-8")
    save_trained(trainer, path)
    return log
