"""What a run will cost before it starts: stages, commands, hours, memory and dollars of a profile, computed.

Nothing here was measured on a GPU by us. Times are floating-point operations over an assumed share of the card's peak;
the assumptions stand in the profile's `plan` section and are printed with the result, next to the paper's own times.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from acelib.errors import CourseError
from acelib.profiles import Profile

HALF, ADAM = 2, 16  # bytes per parameter: bf16 weights; fp32 weights, gradients and two moments


class PlanError(CourseError):
    """A model of unknown shape."""


@dataclass(frozen=True)
class Shape:
    """What a decoder of the Qwen2 family looks like. Sizes in elements."""

    layers: int
    hidden: int
    intermediate: int
    key_values: int  # heads x head size of the keys
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Number of weights: attention with biases on q, k and v, gated MLP, norms, embeddings."""
        h, kv = self.hidden, self.key_values
        attention = 2 * h * h + 2 * h * kv + h + 2 * kv
        layer = attention + 3 * h * self.intermediate + 2 * h
        return self.layers * layer + h + self.vocabulary * h * (1 if self.tied else 2)


SHAPES = {  # from the models' config.json
    "0.5B": Shape(24, 896, 4864, 128, 151_936, True),
    "1.5B": Shape(28, 1536, 8960, 256, 151_936, True),
    "3B": Shape(36, 2048, 11_008, 256, 151_936, True),
    "7B": Shape(28, 3584, 18_944, 512, 152_064, False),
    "14B": Shape(48, 5120, 13_824, 1024, 152_064, False),
    "32B": Shape(64, 5120, 27_648, 1024, 152_064, False),
}


def shape_of(name: str) -> Shape:
    """The shape of a local model folder, or of a Qwen2.5 (Coder) model by its name. Raises PlanError."""
    config = Path(name) / "config.json"
    if config.is_file():
        c = json.loads(config.read_text(encoding="utf-8"))
        head = c["hidden_size"] // c["num_attention_heads"]
        return Shape(c["num_hidden_layers"], c["hidden_size"], c["intermediate_size"], c["num_key_value_heads"] * head,
                     c["vocab_size"], c.get("tie_word_embeddings", False))
    for size, shape in SHAPES.items():
        if "Qwen2.5" in name and f"-{size}" in name:
            return shape
    raise PlanError(f"The shape of {name!r} is not known; give a local folder with a config.json, or one of Qwen2.5 "
                    f"with {', '.join(SHAPES)}.")


@dataclass(frozen=True)
class Stage:
    """One line of the plan. `gib` is per GPU, `paper` what the paper says the same took."""

    notebook: str
    what: str
    tokens: float
    hours: float
    gib: float
    paper: str = ""


def training_gib(shape: Shape, gpus: int, sequences: int, tokens: int, reference: bool) -> float:
    """GiB per GPU: sharded fp32 states (ZeRO-3), a sharded bf16 reference, one layer gathered at a time, checkpointed
    activations, and the logits of a micro-batch of `sequences` x `tokens`, in fp32 with their gradient."""
    states = shape.parameters * (ADAM + (HALF if reference else 0)) / gpus
    gathered = 2 * HALF * (shape.parameters / shape.layers if gpus > 1 else 0)
    batch = sequences * tokens
    activations = batch * shape.hidden * shape.layers * HALF + batch * 20 * shape.hidden * HALF
    return (states + gathered + activations + batch * shape.vocabulary * 8) / 2**30


def stages(profile: Profile) -> list[Stage]:
    """The stages of a profile with their hours on `plan.gpus` GPUs. Raises PlanError for models of unknown shape."""
    assumed, rl = profile.plan, profile.reinforce
    peak = max(1, assumed.gpus) * assumed.gpu_tflops * 1e12
    sizes = {name: shape_of(profile.resolve(getattr(profile.models, name))) for name in ("proxy", "policy")}
    scorer = shape_of(profile.resolve(profile.reward_model.base))

    def decoding(shape: Shape, tokens: float) -> float:
        return 2 * shape.parameters * tokens / (peak * assumed.generation_utilisation) / 3600

    def training(shape: Shape, tokens: float, passes: float) -> float:
        return passes * 2 * shape.parameters * tokens / (peak * assumed.training_utilisation) / 3600

    def weights(shape: Shape) -> float:
        cards = max(1, assumed.gpus)
        return shape.parameters * HALF / min(cards, 8 if shape.parameters > 20e9 else 1) / 2**30

    asked, kept = profile.synthesis.questions, profile.synthesis.questions * assumed.questions_kept
    read, write = assumed.question_tokens, assumed.program_tokens
    found = []
    try:
        teacher = shape_of(profile.resolve(profile.models.teacher))
        tokens = asked * (write + assumed.reply_tokens)
        found.append(Stage("01", "teacher imagines tests", tokens, decoding(teacher, tokens), weights(teacher) * 1.3))
    except PlanError:  # an API: dollars, not hours
        found.append(Stage("01", "teacher imagines tests", asked * (write + assumed.reply_tokens), 0.0, 0.0,
                           "about $300 with GPT-4o-mini"))
    tokens = asked * (read + write)
    found.append(Stage("02", "proxy filters tests", tokens, decoding(sizes["proxy"], tokens),
                       weights(sizes["proxy"]) * 1.3))
    tokens = kept * (read + profile.sampling.n * write)
    found.append(Stage("03", f"policy writes {profile.sampling.n} programs each", tokens,
                       decoding(sizes["policy"], tokens), weights(sizes["policy"]) * 1.3))
    programs = min(profile.sampling.n, 2 * profile.pairs.max_pairs_per_question) * kept * assumed.questions_with_pairs
    tokens = profile.reward_model.epochs * programs * (read + write)
    found.append(Stage("04", "reward model", tokens, training(scorer, tokens, 4), training_gib(
        scorer, max(1, assumed.gpus), 1, profile.reward_model.max_length, False), "24 h on 8 x A100"))
    tokens = profile.best_of_n.questions * max(profile.best_of_n.ns) * (read + write)
    found.append(Stage("05", f"best of {max(profile.best_of_n.ns)}", tokens, decoding(sizes["policy"], tokens),
                       weights(sizes["policy"]) * 1.3))
    replies = rl.steps * rl.rollout_questions * rl.samples_per_question
    tokens = replies * (read + write)
    # Forward, backward (2) and recomputation, reference, and the old policy's log-probs.
    hours = decoding(sizes["policy"], tokens) + training(sizes["policy"], tokens, 6)
    gib = training_gib(sizes["policy"], max(1, assumed.gpus), rl.micro_batch, read + rl.max_new_tokens, True)
    for reward in ("rule", "reward model"):
        extra = training(scorer, tokens, 1) if reward == "reward model" else 0.0
        more = scorer.parameters * HALF / max(1, assumed.gpus) / 2**30 if reward == "reward model" else 0.0
        found.append(Stage("06", f"RL, {reward}", tokens, hours + extra, gib + more, "6 h on 8 x H100"))
    tokens = 4 * profile.evaluation.questions * (profile.evaluation.samples + 1) * (read + write)
    found.append(Stage("07", "evaluation of four models", tokens, decoding(sizes["policy"], tokens),
                       weights(sizes["policy"]) * 1.3))
    return found


def plan(profile: Profile) -> str:
    """The whole plan of a profile as text."""
    assumed = profile.plan
    if not assumed.gpus:
        return (f"Profile {profile.name} needs no GPU: `make course PROFILE={profile.name}` takes minutes; notebook 00 "
                "prints what it took when last measured.")
    found = stages(profile)
    lines = [f"Profile {profile.name} on {assumed.gpus} x {assumed.gpu} ({assumed.gpu_memory_gb:g} GB each)", "",
             f"{'':4}{'stage':34}{'tokens':>9}{'hours':>8}{'GPU-h':>8}{'dollars':>9}{'GiB/GPU':>9}   the paper"]
    for one in found:
        spent = one.hours * assumed.gpus
        room = "!" if one.gib > 0.92 * assumed.gpu_memory_gb * 1e9 / 2**30 else " "
        lines.append(f"{one.notebook:4}{one.what:34}{_short(one.tokens):>9}{one.hours:>8.1f}{spent:>8.1f}"
                     f"{spent * assumed.dollars_per_gpu_hour:>9,.0f}{one.gib:>8.0f}{room}   {one.paper}")
    hours = sum(one.hours for one in found)
    lines += [f"{'':4}{'all':34}{'':9}{hours:>8.1f}{hours * assumed.gpus:>8.1f}"
              f"{hours * assumed.gpus * assumed.dollars_per_gpu_hour:>9,.0f}", "",
              f"make course PROFILE={profile.name}            everything; repeat it after a stop, it goes on",
              f"make course PROFILE={profile.name} FROM=04    from a notebook on", "",
              f"Computed, not measured: {assumed.gpu_tflops:g} TFLOP/s peak per GPU (bf16), of which training gets "
              f"{assumed.training_utilisation:.0%} and decoding {assumed.generation_utilisation:.0%};",
              f"{assumed.question_tokens} tokens per question, {assumed.program_tokens} per program, "
              f"{assumed.reply_tokens} per teacher's reply; ${assumed.dollars_per_gpu_hour:g} per GPU-hour. Change "
              "them in the profile's `plan`.",
              "A lower bound: the paper's own runs took several times as long as this reckons for them."]
    if any(one.gib > 0.92 * assumed.gpu_memory_gb * 1e9 / 2**30 for one in found):
        lines.append("! does not fit: lower reinforce.micro_batch or max_new_tokens; a smaller model; more GPUs.")
    return "\n".join(lines)


def _short(tokens: float) -> str:
    return f"{tokens / 1e9:.2f} G" if tokens >= 1e9 else f"{tokens / 1e6:.1f} M"
