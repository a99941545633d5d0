"""How large a decoder of the Qwen2 family is: weights, cache, and the memory that learning takes."""

import json
from dataclasses import dataclass
from pathlib import Path

from acelib.core import ModelError

# Bytes per weight. Weights are fp32 wherever they learn (an update at a learning rate of 5e-7 is lost in bf16), and
# autocast computes in a bf16 copy; frozen ones, below LoRA adapters or of a reference, are in `models.dtype`.
HALF, FULL, ADAM = 2, 4, 16  # bf16; fp32; fp32 with gradient and Adam's two moments
NF4 = 0.516  # 4 bits, and 0.127 for scales (QLoRA, section 3)
LOGIT = 12  # bytes: bf16 and fp32, each with its gradient
TILE = 2**25, 2**15, 2**12  # logits that are held at a time: so many in all (ours), or so many words of tokens (TRL)
SIZES = "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"
GATHERED = 10**9  # weights that ZeRO-3 holds whole at a time (its default)


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


def training_gib(
    shape: Shape,
    gpus: int,
    sequences: int,
    tokens: int,
    *,
    reference: int = 0,
    logits: int = 0,
    lora_rank: int = 0,
    frozen: int = HALF,
    quantised: bool = False,
    checkpointing: bool = True,
) -> float:
    """GiB per GPU of a training step on `sequences` x `tokens`, of which the last `logits` tokens go through the head.

    States (weights, gradients, moments) and a reference of `reference` bytes per weight are sharded over the GPUs;
    below adapters of `lora_rank` the weights take `frozen` bytes (the size of the passes' dtype) instead, or 4 bits
    where `quantised`, and one matrix is whole. To them come the bf16 copy of weights that learn, activations for the
    backward pass (all, or with `checkpointing` each layer's input and one layer's recomputed), and logits.
    """
    h, i, half, mask = shape.hidden, shape.intermediate, frozen == HALF, frozen * tokens  # padded sequences have one
    if lora_rank:  # activations as one layer of Qwen2 keeps them: norms in fp32, every adapter's input once
        states, in_use = shape.adapters(lora_rank) * ADAM + shape.held(frozen, quantised), frozen * h * i * quantised
        entry, layer = frozen * h, mask + (20 * h + 8 * i if half else 32 * h + 16 * i)
    else:  # fp32 between the layers, and in bf16 a copy of it for each matrix, and of each matrix
        states = shape.parameters * (ADAM + reference)
        in_use = HALF * (shape.parameters if gpus == 1 else min(shape.parameters, GATHERED)) * half
        entry, layer = FULL * h, mask + (34 * h + 8 * i if half else 40 * h + 16 * i)
    kept = shape.layers * entry + layer if checkpointing else shape.layers * layer
    scored = sequences * logits
    tile = LOGIT * min(scored * shape.vocabulary, max(TILE[0], min(scored, TILE[2]) * TILE[1]))
    return (states / gpus + in_use + sequences * tokens * kept + tile) / 2**30
