"""What is measured while a policy trains: held-out pass rates, one row per rollout, and a warning without signal."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, islice
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from acelib.core import Profile, Progress
from acelib.judge import Judge
from acelib.models import Conversation, solve_messages
from acelib.rewards import judge_replies
from acelib.schema import Problem
from acelib.training.rollouts import sample_texts

Sample = Callable[[Sequence[Conversation], int, float], list[list[str]]]  # conversations, replies each, temperature
Measure = Callable[[Sample], dict[str, Any]]
PHASES = ("generate", "reward", "reference", "update", "evaluate")
SAME = ["reward", "reward_std", "entropy", "mixed", "unjudged", "sampled", "sampler_gap"]
SAME += ["loss", "grad_norm", "learning_rate", "pass_at_1", "greedy", "solved"]
RENAMED = {
    "kl": "kl_per_reply",
    "length": "completions/mean_length",
    "truncated": "completions/clipped_ratio",
    "clip_fraction": "clip_ratio/region_mean",
}  # columns of `log_rows` that have another name in the trainer's log
PATIENCE = 5  # rollouts without any signal before the run says so, and over which the KL is averaged


def held_out_pass_rate(profile: Profile, judge: Judge, problems: Sequence[Problem]) -> Measure:
    """A function that measures the true pass rate on problems the policy is not trained on, given how to sample it.

    Gives `pass_at_1` (share of sampled programs that pass every test), `greedy` (the same for greedy programs) and
    `solved` (the first one per question; None where no program could be judged).
    """
    settings, known = profile.reinforce, {problem.id: problem for problem in problems}
    conversations = [solve_messages(profile.prompts.solve, problem.question) for problem in problems]

    def passed(sample: Sample, n: int, temperature: float) -> list[list[bool]]:
        texts = [text for row in sample(conversations, n, temperature) for text in row]
        found = iter(judge_replies(judge, known, [problem.id for problem in problems for _ in range(n)], texts))
        return [[report.passed for report in islice(found, n) if report is not None] for _ in problems]

    def measure(sample: Sample) -> dict[str, Any]:
        sampled = passed(sample, settings.samples_per_question // 2, settings.temperature)
        greedy = passed(sample, 1, 0.0)
        found: dict[str, Any] = {"solved": [fmean(row) if row else None for row in sampled]}
        return found | {"pass_at_1": fmean(chain(*sampled)), "greedy": fmean(chain(*greedy))}

    return measure


class Counting(TrainerCallback):
    """Tells how far training is, within an update, too."""

    parts = 0  # of the update in hand that are done

    def __init__(self, progress: Progress | None):
        self.progress = progress or (lambda done, total: None)

    def tell(self, args, state) -> None:
        self.progress(state.global_step + self.parts / args.gradient_accumulation_steps, state.max_steps)

    def on_substep_end(self, args, state, control, **kwargs):
        self.parts += 1
        self.tell(args, state)

    def on_step_end(self, args, state, control, **kwargs):
        self.parts = 0
        self.tell(args, state)


class RolloutMonitor(Counting):
    """Measures on held-out questions, reports progress, stops a policy that is too far from its reference, and warns
    when there is nothing to learn from."""

    def __init__(self, trainer: Any, measure: Measure | None, progress: Progress | None):
        super().__init__(progress)
        self.trainer, self.settings, self.measure, self.solved = trainer, trainer.settings, measure, None
        trainer.sampled_share = self.tell_share

    def tell_share(self, done: float) -> None:
        """`done`: parts of the rollout in hand, which has its sampling and its updates."""
        share = done / (1 + self.settings.updates_per_rollout)
        self.progress(self.trainer.rollout + share, self.settings.steps)

    def tell(self, args, state) -> None:
        updates = state.global_step % self.settings.updates_per_rollout
        if updates or self.parts:
            self.tell_share(1 + updates + self.parts / args.gradient_accumulation_steps)

    def _measure_held_out(self) -> None:
        if self.measure is None:
            return
        trainer = self.trainer
        with trainer.timed("evaluate"):
            found = self.measure(partial(sample_texts, trainer))
        self.solved = found.pop("solved", None)
        for name, value in found.items():
            trainer._metrics["train"][name].append(value)
        if trainer.is_world_process_zero():
            said = "held-out pass@1 {pass_at_1:.3f}, greedy {greedy:.3f}".format_map(found)
            print(f"  rollout {trainer.rollout}: {said}", flush=True)
        trainer.model.train()  # TRL logs under the mode that the model is in, and before the first step that is eval

    def _is_too_far(self, state) -> bool:
        before = [entry["kl_per_reply"] for entry in state.log_history if "kl_per_reply" in entry]
        recent = [*before, fmean(self.trainer._metrics["train"]["kl_per_reply"])][-PATIENCE:]
        return len(recent) == PATIENCE and fmean(recent) > self.settings.max_kl

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.progress(0, self.settings.steps)
            self._measure_held_out()
            self.trainer.log({})

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control)
        if state.global_step % self.settings.updates_per_rollout:
            return
        done = self.trainer.rollout
        control.should_training_stop |= bool(self.settings.max_kl and self._is_too_far(state))
        if done % self.settings.eval_every == 0 or done == self.settings.steps or control.should_training_stop:
            self._measure_held_out()
        self.progress(done, self.settings.steps)

    def on_log(self, args, state, control, **kwargs):
        state.log_history[-1]["solved"], self.solved = self.solved, None  # a list; the trainer's metrics are numbers
        done, rollouts = self.trainer.rollout, [entry for entry in state.log_history if "mixed" in entry][-PATIENCE:]
        if len(rollouts) < PATIENCE or any(entry["mixed"] for entry in rollouts) or done % PATIENCE:
            return
        if all(entry["unjudged"] == 1 for entry in rollouts):
            why = "no reply could be judged; look at the judge's machine (memory, processes) and start again"
        else:
            why = (
                "all replies to a question got the same reward, so only the KL penalty moves the policy; choose "
                "questions with mixed outcomes, a finer reward (pass rate), or more samples per question"
            )
        warnings.warn(f"Rollouts {done - PATIENCE + 1} to {done}: {why}.", stacklevel=2)


def log_rows(history: Sequence[dict[str, float]], updates_per_rollout: int) -> list[dict[str, Any]]:
    """One row per rollout from the trainer's log (row 0: before training); None where nothing was measured. KL is in
    nats per reply, entropy in nats per token, lengths in tokens, and of the rest most are shares."""
    names = {name: name for name in SAME} | RENAMED
    for key in dict.fromkeys(key for entry in history for key in entry):
        if key.startswith("rewards/") and key.endswith("/mean"):
            names["reward_" + key.split("/")[1]] = key
    names |= {f"seconds_{phase}": f"seconds_{phase}" for phase in PHASES}
    return [
        {"step": entry["step"] // updates_per_rollout} | {name: entry.get(key) for name, key in names.items()}
        for entry in history
        if "train_runtime" not in entry
    ]
