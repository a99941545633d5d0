"""What `bench/gpu.py` runs: Qwen2.5's architectures with random weights, a tokenizer of words, and the operations that
a pass needs, a multiplication and an addition counted as two (bench/README.md has the formulas)."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from acelib.core import CourseError
from acelib.pocket.train import save
from acelib.training import Shape

HEADS = {"0.5B": 14, "1.5B": 12, "7B": 28}  # query heads, from the models' config.json
TINY = Shape(layers=2, hidden=64, intermediate=128, key_values=32, vocabulary=512, tied=True)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "user", "assistant"]
CHATML = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
TURN, OPENING = 3, 2  # tokens that the template adds to a message, and before a reply


class BenchError(CourseError):
    """A measurement that cannot be made here, or that measured something else than it says."""


def forward_flop(shape: Shape, start: float, end: float, logits: float) -> float:
    """Operations of running positions `start` to `end` of one sequence, and the output head at `logits` of them."""
    table = shape.vocabulary * shape.hidden
    weights = shape.parameters - table * (1 if shape.tied else 2)
    attention = 2 * shape.layers * shape.hidden * (end**2 - start**2)
    return 2 * weights * (end - start) + 2 * table * logits + attention


def update_flop(shape: Shape, length: float, logits: float, lora: bool) -> float:
    """Operations of forward and backward of one sequence."""
    forward = forward_flop(shape, 0, length, logits)
    return 2 * forward + 2 * shape.layers * shape.hidden * length**2 if lora else 3 * forward


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token per word, for every id of the vocabulary, so that texts of any exact length can be written."""
    words = SPECIAL + [f"w{i}" for i in range(vocabulary - len(SPECIAL))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        chat_template=CHATML,
        model_max_length=32_768,
    )


def words(rng: random.Random, count: int, vocabulary: int) -> str:
    return " ".join(f"w{rng.randrange(vocabulary - len(SPECIAL))}" for _ in range(count))


def configuration(shape: Shape, heads: int, **tokens: int) -> Qwen2Config:
    """The configuration of a Qwen2.5 model of this shape."""
    return Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=heads,
        num_key_value_heads=shape.key_values * heads // shape.hidden,
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        **tokens,
    )


def random_model(shape: Shape, heads: int, folder: Path, device: torch.device) -> Path:
    """A folder with random bf16 weights of this shape, as the hub's are stored; made once. Raises BenchError."""
    if (folder / "tokenizer_config.json").is_file():
        return folder
    tokenizer = word_tokenizer(shape.vocabulary)
    config = configuration(shape, heads, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if model.num_parameters() != shape.parameters:
        raise BenchError(
            f"The model has {model.num_parameters():,} weights and its shape says {shape.parameters:,}; "
            "mend acelib.training.forecast.SHAPES."
        )
    save(model, tokenizer, folder)
    return folder
