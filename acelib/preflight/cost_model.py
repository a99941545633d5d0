"""What a run will cost before it starts: stages, hours, memory and dollars of a profile, computed.

Nothing here was measured on a GPU by us. Times are floating-point operations over an assumed share of the card's peak;
the assumptions stand in the profile's `plan` section and are printed with the result, next to the paper's own times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from acelib.core import ModelError, Profile, load_profile
from acelib.engine import processes_per_machine
from acelib.models import is_address
from acelib.training import FULL, HALF, MemoryModel, Shape, shape_of

USABLE = 0.92  # share of a card that a stage may fill; the rest goes to fragments and to CUDA itself
EVALUATES = ("05", "07")  # the notebooks that models others trained go through
ACECODE = 87_149  # questions in AceCode-87K (paper, Table 1)
LARGER = "single-gpu single-gpu-7b single-gpu-7b-base paper"  # profiles that notebooks show beside their own


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


def kept_questions(profile: Profile) -> float:
    """Questions that notebook 03 begins with."""
    if profile.data.adopt != "none":
        return profile.data.adopt_rows or ACECODE
    return profile.synthesis.questions * profile.plan.questions_kept


class CostModel(MemoryModel):
    """Tokens, hours and GiB of a profile's stages; for `questions` after filtering, if given, and RL in proportion; on
    cards of `card` GB, by default those of its plan.

    `asked`, `questions` and `rollouts` are the questions before and after filtering, and the RL steps. Raises
    ModelError for fewer than one question.
    """

    def __init__(self, profile: Profile, questions: int | None = None, card: float | None = None):
        super().__init__(profile, card)
        self.asked, self.questions = profile.synthesis.questions, kept_questions(profile)
        self.adopts, self.rollouts = profile.data.adopt != "none", profile.reinforce.steps
        if questions is not None:
            if questions < 1:
                raise ModelError(f"Cannot plan for {questions} questions; give a number from 1 up.")
            self.rollouts = max(1, round(self.rollouts * questions / self.questions))
            self.asked = round(questions / self.plan.questions_kept)
            self.questions = questions if self.adopts else self.asked * self.plan.questions_kept
        processes, everywhere = processes_per_machine(profile.resolve(self.engine.launch))
        self.here = max(1, self.gpus * processes // everywhere) if self.engine.generation == "vllm" else 1
        self.everywhere = self.gpus if self.engine.cluster != "none" else self.here
        self.length = self.plan.question_tokens + self.plan.program_tokens
        began = [profile.reward_model.base] * 2 + [profile.models.policy] * 2  # in the order of `published`
        names = zip(profile.published.values(), began)
        self.published = {name: shape_of(profile.resolve(name), profile.resolve(old)) for name, old in names}

    def decoding(self, shape: Shape, tokens: float, gpus: int | None = None) -> float:
        """Hours to read and write `tokens`, on the GPUs of one machine where nothing else is said."""
        speed = (gpus or self.here) * self.plan.gpu_tflops * 1e12 * self.plan.generation_utilisation
        return 2 * shape.parameters * tokens / speed / 3600

    def passing(self, shape: Shape, tokens: float, passes: float) -> float:
        """Hours of `passes` forward passes; a backward pass counts as two, or as one below LoRA adapters."""
        speed = self.learners * self.plan.gpu_tflops * 1e12 * self.plan.training_utilisation
        return passes * 2 * shape.parameters * tokens / speed / 3600

    def asking(self, notebook: str, what: str, model: str, read: int, written: int, settings, paper: str = "") -> Stage:
        """A stage in which `model`, or a server that is paid for it, reads and writes so many tokens per question."""
        tokens, price = self.asked * (read + written), self.profile.remote
        if is_address(model):
            each = read * price.dollars_per_million_input + written * price.dollars_per_million_output
            return Stage(notebook, what, tokens, paper=paper, dollars=self.asked / 1e6 * each)
        shape = self.shape(model)
        return Stage(notebook, what, tokens, self.decoding(shape, tokens), self.sampling_gib(shape, settings), paper)

    def passes(self, section: str) -> int:
        """Of a training: forward, recomputed, backward (through weights: twice)."""
        return 2 + self.checkpoints(section) + (not self.engine.lora_rank)

    def reward_model(self, scorer: Shape) -> tuple[float, float, float]:
        """Tokens, hours and GiB of training one: each program of a pair is read once per epoch."""
        programs = self.questions * self.plan.questions_with_pairs * self.programs
        tokens = self.profile.reward_model.epochs * programs * self.length
        gib = self.reward_gib(scorer, self.checkpoints("reward_model"))
        return tokens, self.passing(scorer, tokens, self.passes("reward_model")), gib

    def reinforce(self, policy: Shape, scorer: Shape | None) -> tuple[float, float, float]:
        """Tokens, hours and GiB of one policy; `scorer` is the reward model that judges its replies."""
        rl = self.profile.reinforce
        tokens = self.rollouts * rl.rollout_questions * rl.samples_per_question * self.length
        looks = (self.rollouts // rl.eval_every + 1) * rl.eval_questions * (rl.samples_per_question // 2 + 1)
        hours = self.decoding(policy, tokens + looks * self.length, max(self.here, self.learners))
        # Learning, and a forward pass each for the old policy's log-probs and for the reference's.
        hours += self.passing(policy, tokens, self.passes("reinforce") + 2)
        hours += self.passing(scorer, tokens, 1) if scorer else 0
        return tokens, hours, self.reinforce_gib(policy, scorer, self.checkpoints("reinforce"))

    def stages(self) -> list[Stage]:
        """Every stage in the order of the notebooks, its hours on `plan.gpus` GPUs; without training, those of 05 and
        07. Raises ModelError for models of unknown shape."""
        return [one for one in self._stages() if not self.profile.published or one.notebook in EVALUATES]

    def _stages(self) -> Iterator[Stage]:
        profile, plan, models = self.profile, self.plan, self.profile.models
        policy = self.shape(models.policy)
        scorer = self.published.get(profile.best_of_n.reward_model) or self.shape(profile.reward_model.base)
        sampling = self.sampling_gib(policy, profile.sampling)
        if self.adopts:
            yield from (Stage(number, "adopted", paper=profile.data.adopt) for number in ("01", "02"))
        else:
            taught = plan.program_tokens, plan.reply_tokens, profile.synthesis, "about $300, GPT-4o-mini"
            yield self.asking("01", "teacher imagines tests", models.teacher, *taught)
            filtered = plan.question_tokens, plan.program_tokens, profile.filtering
            yield self.asking("02", "proxy filters tests", models.proxy, *filtered)
        tokens = self.questions * (plan.question_tokens + profile.sampling.n * plan.program_tokens)
        hours = self.decoding(policy, tokens, self.everywhere)
        yield Stage("03", f"policy writes {profile.sampling.n} programs each", tokens, hours, sampling)
        trained = self.reward_model(scorer)
        yield Stage("04", "reward model, filtered tests", *trained, "24 h on 8 x A100")
        if not self.adopts:  # adopted tests have all passed a filter: nothing to compare
            yield Stage("04", "reward model, all tests", *trained)
        tokens = profile.best_of_n.questions * (max(profile.best_of_n.ns) + 1) * self.length
        hours = self.decoding(policy, tokens) + self.passing(scorer, tokens, 1 if self.adopts else 2)
        gib = max(sampling, scorer.parameters * self.size / 2**30)
        yield Stage("05", f"best of {max(profile.best_of_n.ns)}, scored", tokens, hours, gib)
        for what, by in (("RL, rule", None), ("RL, reward model", scorer)):
            yield Stage("06", what, *self.reinforce(policy, by), "6 h on 8 x H100")
        trained = [self.published[name] for name in profile.evaluation.trained] or [policy, policy]
        shapes = [policy, *trained] + ([] if self.adopts or is_address(models.proxy) else [self.shape(models.proxy)])
        tokens = profile.evaluation.questions * (profile.evaluation.samples + 1) * self.length
        hours = sum(self.decoding(one, tokens) for one in shapes)
        gib = self.sampling_gib(max(shapes, key=lambda one: one.parameters), profile.sampling)
        yield Stage("07", f"evaluation of {len(shapes)} models", len(shapes) * tokens, hours, gib)


def fits(stage: Stage, profile: Profile, card: float | None = None) -> bool:
    """On a card of its plan, or of so many GB."""
    return stage.gib <= USABLE * MemoryModel(profile, card).card


def fetched_gb(profile: Profile) -> dict[str, float]:
    """GB of weights from the hub by model: bf16, and fp32 of published ones. Raises ModelError."""
    models = profile.models
    names = [models.policy, *([] if profile.published else [profile.reward_model.base])]
    names += [models.proxy, models.teacher] if profile.data.adopt == "none" else []
    names += [one.model for one in models.proxies] if profile.data.laboratory else []
    far = [name for name in dict.fromkeys(names) if not is_address(name) and not Path(profile.resolve(name)).is_dir()]
    weights = {name: shape_of(name).parameters * HALF for name in far}
    weights |= {name: shape.parameters * FULL for name, shape in CostModel(profile).published.items()}
    return {name: size / 1e9 for name, size in weights.items() if not Path(profile.resolve(name)).is_dir()}


def models_gb(profile: Profile) -> float:
    """GB of the models that a run makes, two policies and two reward models, and of the training in progress: of its
    checkpoints two are kept while a third is written, each with Adam's two moments. Raises ModelError."""
    if profile.published:
        return 0.0
    shapes = [shape_of(profile.resolve(name)) for name in (profile.models.policy, profile.reward_model.base)]
    rank, size = profile.engine.lora_rank, MemoryModel(profile).weight_size
    learning = max(one.adapters(rank) if rank else one.parameters for one in shapes)
    return (2 * sum(one.parameters for one in shapes) * size + 3 * learning * 3 * FULL) / 1e9


def at_scale(notebook: str, keys: str = "", profiles: str = LARGER) -> str:
    """A Markdown table: what a notebook's stages take on larger profiles (computed), and their values of dotted `keys`.

    Raises ProfileError for an unknown profile, AttributeError for an unknown key.
    """
    columns = {}
    for one in map(load_profile, profiles.split()):
        mine = [stage for stage in CostModel(one).stages() if stage.notebook == notebook and stage.hours]
        taken = {stage.what: f"{60 * stage.hours:.0f} minutes, {stage.gib:.0f} GiB per GPU" for stage in mine}
        values = {f"`{key}`": attrgetter(key)(one) for key in keys.split()}
        columns[f"`{one.name}`: {Path(one.models.policy).name}, {one.plan.gpus} x {one.plan.gpu}"] = taken | values
    names = sorted({name: 0 for column in columns.values() for name in column}, key=lambda name: name[0] == "`")
    rows = [["", *columns], ["---"] * (len(columns) + 1)]
    rows += [[name, *(column.get(name, "-") for column in columns.values())] for name in names]
    note = "Computed, a lower bound without loading and judging. GiB: the least a stage works in. `-`: not run there."
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows) + f"\n\n{note}"
