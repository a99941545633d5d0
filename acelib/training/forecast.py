"""How large a decoder of the Qwen2 family is, and the memory that a profile's stages take with it, computed.

The plan prints it, and `engine.gradient_checkpointing: auto` decides by it: the same profile always trains alike.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from acelib.core import ModelError, Profile

# Bytes per weight. Weights are fp32 wherever they learn (an update at a learning rate of 5e-7 is lost in bf16), and
# autocast computes in a bf16 copy; frozen ones, below LoRA adapters or of a reference, are in `models.dtype`.
HALF, FULL, ADAM = 2, 4, 16  # bf16; fp32; fp32 with gradient and Adam's two moments
NF4 = 0.516  # 4 bits, and 0.127 for scales (QLoRA, section 3)
LOGIT = 12  # bytes: bf16 and fp32, each with its gradient
TILE = 2**25, 2**15, 2**12  # logits that are held at a time: so many in all (ours), or so many words of tokens (TRL)
SIZES = "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"
GATHERED = 10**9  # weights that ZeRO-3 holds whole at a time (its default)
BUFFERS = 1.1  # what an engine needs beside weights and cache
KEPT = 0.8  # share of a card that a training may fill if it keeps its activations: forecasts err by a tenth


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`: the examples of one forward pass, of `number` per process."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)


@dataclass(frozen=True)
class Shape:
    """What a decoder of the Qwen2 family looks like. Sizes in elements."""

    layers: int
    hidden: int
    intermediate: int
    key_values: int  # heads x head size of the keys
    vocabulary: int
    tied: bool
    queries: int = 0  # as key_values, where they are not `hidden` together

    @property
    def parameters(self) -> int:
        """Number of weights: attention with biases on q, k and v, gated MLP, norms, embeddings."""
        h, kv, q = self.hidden, self.key_values, self.queries or self.hidden
        attention = 2 * h * q + 2 * h * kv + q + 2 * kv
        layer = attention + 3 * h * self.intermediate + 2 * h
        return self.layers * layer + h + self.vocabulary * h * (1 if self.tied else 2)

    def held(self, size: int, quantised: bool) -> float:
        """Bytes of weights that do not learn, `size` each, or `quantised` to 4 bits but for the embeddings."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings * size + (self.parameters - embeddings) * (NF4 if quantised else size)

    def adapters(self, rank: int) -> int:
        """Number of weights of LoRA adapters on all linear layers of attention and MLP."""
        h, kv, q, i = self.hidden, self.key_values, self.queries or self.hidden, self.intermediate
        return self.layers * rank * (2 * (h + q) + 2 * (h + kv) + 3 * (h + i))

    def cache(self, tokens: float, size: int = HALF) -> float:
        """Bytes of keys and values for that many tokens."""
        return 2 * self.layers * self.key_values * tokens * size


SHAPES = {  # from the models' config.json
    "0.5B": Shape(24, 896, 4864, 128, 151_936, True),
    "1.5B": Shape(28, 1536, 8960, 256, 151_936, True),
    "3B": Shape(36, 2048, 11_008, 256, 151_936, True),
    "7B": Shape(28, 3584, 18_944, 512, 152_064, False),
    "14B": Shape(48, 5120, 13_824, 1024, 152_064, False),
    "32B": Shape(64, 5120, 27_648, 1024, 152_064, False),
}


def shape_of(name: str, like: str | None = None) -> Shape:
    """The shape of a local model folder, or of a Qwen2.5 (Coder) model by its name; that of `like`, if given, where a
    name tells nothing. Raises ModelError."""
    give = f"give the folder of a dense decoder like Qwen2, or one of Qwen2.5 with {', '.join(SHAPES)}."
    if (config := Path(name) / "config.json").is_file():
        try:
            c = json.loads(config.read_text(encoding="utf-8"))
            layers, hidden, inner, words, heads = (int(c[key]) for key in SIZES)
            size, groups = int(c.get("head_dim") or hidden // heads), int(c.get("num_key_value_heads") or heads)
            if any("experts" in key for key in c):
                raise ValueError("a mixture of experts")
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise ModelError(f"The shape of {name!r} is not known ({error!r} in its config.json); {give}") from error
        return Shape(layers, hidden, inner, groups * size, words, bool(c.get("tie_word_embeddings")), heads * size)
    for size, shape in SHAPES.items():
        if "Qwen2.5" in name and f"-{size}" in name:
            return shape
    if like is not None:
        return shape_of(like)
    raise ModelError(f"The shape of {name!r} is not known; {give}")


class MemoryModel:
    """GiB per GPU of a profile's stages, on cards of `card` GB, by default those of its plan. A section (`settings`)
    says how much is read and written at a time."""

    def __init__(self, profile: Profile, card: float | None = None):
        self.profile, self.plan, self.engine = profile, profile.plan, profile.engine
        self.card = (self.plan.gpu_memory_gb if card is None else card) * 1e9 / 2**30
        self.gpus = max(1, self.plan.gpus)
        self.learners = self.gpus if self.engine.launch != "none" else 1
        self.size = HALF if profile.models.dtype == "bfloat16" else FULL  # bytes per weight that does not learn
        self.weight_size = self.size if self.engine.lora_rank else FULL  # of a model that is trained
        self.programs = min(profile.sampling.n, 2 * profile.pairs.max_pairs_per_question)  # of a question, in its pairs

    def shape(self, name: str) -> Shape:
        return shape_of(self.profile.resolve(name))

    def checkpoints(self, section: str) -> bool:
        """Whether the training of a section, `reward_model` or `reinforce`, computes its activations again. `auto`:
        where they would not fit on the plan's card and need more, or nobody knows; for RL with either reward alike."""
        if (asked := self.engine.gradient_checkpointing) != "auto":
            return asked
        try:
            shapes = [self.shape(name) for name in (self.profile.models.policy, self.profile.reward_model.base)]
        except ModelError:
            return True
        here = MemoryModel(self.profile)
        kept, again = (
            here.reinforce_gib(*shapes, one) if section == "reinforce" else here.reward_gib(shapes[1], one)
            for one in (False, True)
        )
        return kept > max(again, KEPT * here.card)

    def sampling_gib(self, shape: Shape, settings) -> float:
        """vLLM: the least it can work in, one full reply at a time (it takes what it gets). transformers: all replies
        of a batch at full length. `settings` has `max_new_tokens` and, for transformers, `batch_size`."""
        tokens = self.plan.question_tokens + settings.max_new_tokens
        if self.engine.generation == "vllm":
            return (shape.parameters * HALF * BUFFERS + shape.cache(tokens)) / self.engine.vllm_parallel / 2**30
        cache = shape.cache(tokens * settings.batch_size, self.size)
        return (shape.parameters * self.size * BUFFERS + cache) / 2**30

    def reward_gib(self, scorer: Shape, checkpointing: bool) -> float:
        """Of training a reward model."""
        settings = self.profile.reward_model
        at_once = largest_divisor(max(1, settings.batch_size // self.learners), settings.micro_batch) * self.programs
        return self.training_gib(scorer, at_once, settings.max_length, checkpointing)

    def reinforce_gib(self, policy: Shape, scorer: Shape | None, checkpointing: bool) -> float:
        """Of RL; `scorer` is the reward model that judges the policy's replies, which every process holds whole."""
        rl, engine = self.profile.reinforce, self.engine
        rollout, longest = rl.rollout_questions * rl.samples_per_question, self.plan.question_tokens + rl.max_new_tokens
        at_once = largest_divisor(max(1, rollout // rl.updates_per_rollout // self.learners), rl.micro_batch)
        step = self.training_gib(policy, at_once, longest, checkpointing, rl.beta > 0, rl.max_new_tokens)
        sampling = self.training_gib(policy, 0, 0, checkpointing, rl.beta > 0)
        if engine.generation == "transformers":  # all replies of this process at once, in the precision of the weights
            sampling += policy.cache(rollout / self.learners * longest, self.weight_size) / 2**30
        elif engine.vllm_mode == "colocate":
            least = self.sampling_gib(policy, rl) / engine.vllm_memory  # of a card whose share suffices
            sampling = max(sampling + engine.vllm_memory * self.card, least)
        return max(step, sampling) + (scorer.parameters * self.size / 2**30 if scorer else 0)

    def training_gib(
        self, shape: Shape, rows: int, tokens: int, checkpointing: bool, reference=False, logits=0
    ) -> float:
        """Of a training step on `rows` x `tokens`, of which the last `logits` tokens go through the head.

        States (weights, gradients, moments) and a `reference` are sharded over the GPUs; below adapters the weights
        take the size of the passes' dtype instead, or 4 bits, and then one matrix is whole. To them come the bf16 copy
        of weights that learn, activations for the backward pass (all, or with `checkpointing` each layer's input and
        one layer's recomputed), and logits.
        """
        h, i, size, rank = shape.hidden, shape.intermediate, self.size, self.engine.lora_rank
        half, mask, quantised = size == HALF, size * tokens, self.engine.quantise != "none"  # padded sequences have one
        if rank:  # activations as one layer of Qwen2 keeps them: norms in fp32, every adapter's input once
            states, in_use = shape.adapters(rank) * ADAM + shape.held(size, quantised), size * h * i * quantised
            entry, layer = size * h, mask + (20 * h + 8 * i if half else 32 * h + 16 * i)
        else:  # fp32 between the layers, and in bf16 a copy of it for each matrix, and of each matrix
            states = shape.parameters * (ADAM + size * reference)
            in_use = HALF * (shape.parameters if self.learners == 1 else min(shape.parameters, GATHERED)) * half
            entry, layer = FULL * h, mask + (34 * h + 8 * i if half else 40 * h + 16 * i)
        kept = shape.layers * entry + layer if checkpointing else shape.layers * layer
        scored = rows * logits
        tile = LOGIT * min(scored * shape.vocabulary, max(TILE[0], min(scored, TILE[2]) * TILE[1]))
        return (states / self.learners + in_use + rows * tokens * kept + tile) / 2**30
