"""What a run will cost before it starts: stages, commands, hours, memory and dollars of a profile, computed.

Nothing here was measured on a GPU by us. Times are floating-point operations over an assumed share of the card's peak;
the assumptions stand in the profile's `plan` section and are printed with the result, next to the paper's own times.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from acelib.core import ModelError, Profile
from acelib.engine import processes_per_machine
from acelib.models import is_address
from acelib.preflight.shapes import FULL, HALF, Shape, shape_of, training_gib
from acelib.training import largest_divisor

BUFFERS = 1.1  # what an engine needs beside weights and cache
USABLE = 0.92  # share of a card that a stage may fill; the rest goes to fragments and to CUDA itself
ACECODE = 87_149  # questions in AceCode-87K (paper, Table 1)


@dataclass(frozen=True)
class Stage:
    """One line of the plan. `hours` on the plan's GPUs, all of which are paid for; `gib` is the peak per GPU; `dollars`
    what somebody else's server charges; `paper` what the paper says the same took."""

    notebook: str
    what: str
    tokens: float = 0.0
    hours: float = 0.0
    gib: float = 0.0
    paper: str = ""
    dollars: float = 0.0


def rescale(profile: Profile, questions: int) -> Profile:
    """The profile with so many questions after filtering, and RL that grows with them. (Profiles themselves are bounded
    to what has a chance of running; this is for reckoning.) Raises ModelError."""
    if questions < 1:
        raise ModelError(f"Cannot plan for {questions} questions; give a number from 1 up.")
    steps = max(1, round(profile.reinforce.steps * questions / kept_questions(profile)))
    asked = round(questions / profile.plan.questions_kept)
    return replace(
        profile,
        data=replace(profile.data, adopt_rows=questions),
        synthesis=replace(profile.synthesis, questions=asked),
        reinforce=replace(profile.reinforce, steps=steps),
    )


def kept_questions(profile: Profile) -> float:
    """Questions that notebook 03 begins with."""
    if profile.data.adopt != "none":
        return profile.data.adopt_rows or ACECODE
    return profile.synthesis.questions * profile.plan.questions_kept


class _Reckoner:
    """Hours and GiB of a profile's engines."""

    def __init__(self, profile: Profile):
        self.profile, self.assumed, self.engine = profile, profile.plan, profile.engine
        self.gpus = max(1, self.assumed.gpus)
        self.learners = self.gpus if self.engine.launch != "none" else 1
        processes, everywhere = processes_per_machine(profile.resolve(self.engine.launch))
        self.here = max(1, self.gpus * processes // everywhere) if self.engine.generation == "vllm" else 1
        self.everywhere = self.gpus if self.engine.cluster != "none" else self.here
        self.size = HALF if profile.models.dtype == "bfloat16" else FULL

    def shape(self, name: str) -> Shape:
        return shape_of(self.profile.resolve(name))

    def decoding(self, shape: Shape, tokens: float, gpus: int | None = None) -> float:
        """Hours to read and write `tokens`, on the GPUs of one machine where nothing else is said."""
        speed = (gpus or self.here) * self.assumed.gpu_tflops * 1e12 * self.assumed.generation_utilisation
        return 2 * shape.parameters * tokens / speed / 3600

    def passing(self, shape: Shape, tokens: float, passes: float) -> float:
        """Hours of `passes` forward passes; a backward pass counts as two, or as one below LoRA adapters."""
        speed = self.learners * self.assumed.gpu_tflops * 1e12 * self.assumed.training_utilisation
        return passes * 2 * shape.parameters * tokens / speed / 3600

    def sampling_gib(self, shape: Shape, reply: int, batch: int) -> float:
        """vLLM: the least it can work in, one full reply at a time (it takes what it gets). transformers: all replies
        of a batch at full length."""
        tokens = self.assumed.question_tokens + reply
        if self.engine.generation == "vllm":
            return (shape.parameters * HALF * BUFFERS + shape.cache(tokens)) / self.engine.vllm_parallel / 2**30
        return (shape.parameters * self.size * BUFFERS + shape.cache(tokens * batch, self.size)) / 2**30

    def scoring_gib(self, shape: Shape) -> float:
        """Weights, and the logits of a batch of full replies (`acelib.selectors.policy_confidence`)."""
        replies = self.profile.reward_model.score_batch * self.profile.sampling.max_new_tokens
        return self.size * (shape.parameters * BUFFERS + replies * shape.vocabulary) / 2**30

    def imagined(self) -> Stage:
        """Notebook 01: reads a program, writes a question and tests."""
        profile, assumed, teacher = self.profile, self.assumed, self.profile.models.teacher
        asked, what = profile.synthesis.questions, "teacher imagines tests"
        tokens = asked * (assumed.program_tokens + assumed.reply_tokens)
        if is_address(teacher):
            price = profile.remote
            dollars = (
                asked
                / 1e6
                * (
                    assumed.program_tokens * price.dollars_per_million_input
                    + assumed.reply_tokens * price.dollars_per_million_output
                )
            )
            return Stage("01", what, tokens, paper="about $300, GPT-4o-mini", dollars=dollars)
        shape = self.shape(teacher)
        return Stage(
            "01",
            what,
            tokens,
            self.decoding(shape, tokens),
            self.sampling_gib(shape, profile.synthesis.max_new_tokens, profile.synthesis.batch_size),
            "about $300, GPT-4o-mini",
        )

    def filtered(self) -> Stage:
        profile, assumed = self.profile, self.assumed
        tokens = profile.synthesis.questions * (assumed.question_tokens + assumed.program_tokens)
        if is_address(profile.models.proxy):
            price = profile.remote
            dollars = (
                profile.synthesis.questions
                / 1e6
                * (
                    assumed.question_tokens * price.dollars_per_million_input
                    + assumed.program_tokens * price.dollars_per_million_output
                )
            )
            return Stage("02", "proxy filters tests", tokens, dollars=dollars)
        shape = self.shape(profile.models.proxy)
        return Stage(
            "02",
            "proxy filters tests",
            tokens,
            self.decoding(shape, tokens),
            self.sampling_gib(shape, profile.filtering.max_new_tokens, profile.filtering.batch_size),
        )

    def reward_model(self, scorer: Shape) -> tuple[float, float, float]:
        """Tokens, hours and GiB of training one: each program of a pair is read once per epoch."""
        profile, assumed, settings = self.profile, self.assumed, self.profile.reward_model
        programs = min(profile.sampling.n, 2 * profile.pairs.max_pairs_per_question)
        together = kept_questions(profile) * assumed.questions_with_pairs * programs
        tokens = settings.epochs * together * (assumed.question_tokens + assumed.program_tokens)
        at_once = largest_divisor(max(1, settings.batch_size // self.learners), settings.micro_batch)
        gib = training_gib(
            scorer, self.learners, at_once * programs, settings.max_length, lora_rank=self.engine.lora_rank
        )
        return tokens, self.passing(scorer, tokens, self._learning()), gib

    def reinforce(self, policy: Shape, scorer: Shape | None) -> tuple[float, float, float]:
        """Tokens, hours and GiB of one policy; `scorer` is the reward model that judges its replies."""
        assumed, rl, engine = self.assumed, self.profile.reinforce, self.engine
        length = assumed.question_tokens + assumed.program_tokens
        rollout = rl.rollout_questions * rl.samples_per_question
        tokens = rl.steps * rollout * length
        looks = (rl.steps // rl.eval_every + 1) * rl.eval_questions * (rl.samples_per_question // 2 + 1)
        # Learning, and a forward pass each for the old policy's log-probs and for the reference's.
        both = max(self.here, self.learners)
        hours = self.decoding(policy, tokens + looks * length, both)
        hours += self.passing(policy, tokens, self._learning() + 2)
        reference = self.size if rl.beta > 0 and not engine.lora_rank else 0
        longest = assumed.question_tokens + rl.max_new_tokens
        at_once = largest_divisor(max(1, rollout // rl.updates_per_rollout // self.learners), rl.micro_batch)
        step = training_gib(
            policy,
            self.learners,
            at_once,
            longest,
            reference=reference,
            logits=rl.max_new_tokens,
            lora_rank=engine.lora_rank,
        )
        asleep = training_gib(policy, self.learners, 0, 0, reference=reference, lora_rank=engine.lora_rank)
        if engine.generation == "transformers":  # in the weights that learn, all replies of this process at once
            sampling = asleep + policy.cache(rollout / self.learners * longest, FULL) / 2**30
        elif engine.vllm_mode == "colocate":
            sampling = asleep + max(
                engine.vllm_memory * assumed.gpu_memory_gb * 1e9 / 2**30,
                self.sampling_gib(policy, rl.max_new_tokens, 1),
            )
        else:
            sampling = asleep
        gib = max(step, sampling)
        if scorer:  # every process holds it whole, in bf16
            hours += self.passing(scorer, tokens, 1)
            gib += scorer.parameters * self.size / 2**30
        return tokens, hours, gib

    def _learning(self) -> int:
        """Forward, recomputation, and a backward pass through weights (below adapters: through activations alone)."""
        return 3 if self.engine.lora_rank else 4


def stages(profile: Profile) -> list[Stage]:
    """The stages of a profile with their hours on `plan.gpus` GPUs. Raises ModelError for models of unknown shape."""
    assumed, reckon = profile.plan, _Reckoner(profile)
    policy, scorer = reckon.shape(profile.models.policy), reckon.shape(profile.reward_model.base)
    length = assumed.question_tokens + assumed.program_tokens
    sampling = reckon.sampling_gib(policy, profile.sampling.max_new_tokens, profile.sampling.batch_size)
    if profile.data.adopt != "none":
        found = [Stage(number, "adopted", paper=profile.data.adopt) for number in ("01", "02")]
    else:
        found = [reckon.imagined(), reckon.filtered()]
    tokens = kept_questions(profile) * (assumed.question_tokens + profile.sampling.n * assumed.program_tokens)
    found.append(
        Stage(
            "03",
            f"policy writes {profile.sampling.n} programs each",
            tokens,
            reckon.decoding(policy, tokens, reckon.everywhere),
            sampling,
        )
    )
    tokens, hours, gib = reckon.reward_model(scorer)
    found.append(Stage("04", "reward model, filtered tests", tokens, hours, gib, "24 h on 8 x A100"))
    trained = 1 if profile.data.adopt != "none" else 2  # adopted tests have all passed a filter: nothing to compare
    if trained == 2:
        found.append(Stage("04", "reward model, all tests", tokens, hours, gib))
    tokens = profile.best_of_n.questions * (max(profile.best_of_n.ns) + 1) * length
    hours = reckon.decoding(policy, tokens) + reckon.passing(policy, tokens, 1)
    hours += trained * reckon.passing(scorer, tokens, 1)
    found.append(
        Stage(
            "05",
            f"best of {max(profile.best_of_n.ns)}, with scores",
            tokens,
            hours,
            max(sampling, reckon.scoring_gib(policy)),
        )
    )
    for what, by in (("RL, rule", None), ("RL, reward model", scorer)):
        found.append(Stage("06", what, *reckon.reinforce(policy, by), "6 h on 8 x H100"))
    tokens, shapes = profile.evaluation.questions * (profile.evaluation.samples + 1) * length, [policy] * 3
    if profile.data.adopt == "none" and not is_address(profile.models.proxy):
        shapes.append(reckon.shape(profile.models.proxy))
    largest = max(shapes, key=lambda one: one.parameters)
    found.append(
        Stage(
            "07",
            f"evaluation of {len(shapes)} models",
            len(shapes) * tokens,
            sum(reckon.decoding(one, tokens) for one in shapes),
            reckon.sampling_gib(largest, profile.sampling.max_new_tokens, profile.sampling.batch_size),
        )
    )
    return found


def fits(stage: Stage, profile: Profile) -> bool:
    return stage.gib <= USABLE * profile.plan.gpu_memory_gb * 1e9 / 2**30


def fetched_gb(profile: Profile) -> dict[str, float]:
    """GB of bf16 weights that a run takes from the hub, by model. Raises ModelError."""
    models = profile.models
    names = [models.policy, profile.reward_model.base]
    names += [models.proxy, models.teacher] if profile.data.adopt == "none" else []
    names += [one.model for one in models.proxies] if profile.data.laboratory else []
    far = [name for name in dict.fromkeys(names) if not is_address(name) and not Path(profile.resolve(name)).is_dir()]
    return {name: shape_of(name).parameters * HALF / 1e9 for name in far}


def models_gb(profile: Profile) -> float:
    """GB of the models that a run makes, two policies and two reward models, and of the training in progress: of its
    checkpoints two are kept while a third is written, each with Adam's two moments. Raises ModelError."""
    shapes = [shape_of(profile.resolve(name)) for name in (profile.models.policy, profile.reward_model.base)]
    rank = profile.engine.lora_rank
    learning = max(one.adapters(rank) if rank else one.parameters for one in shapes)
    return (2 * sum(one.parameters for one in shapes) * FULL + 3 * learning * 3 * FULL) / 1e9
