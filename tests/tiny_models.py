"""Random models and a tokenizer small enough to build inside a test."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from acelib.core import Profile, load_profile

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["def solve(xs):\n    return sorted(xs)\n"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
        padding_side="left",
    )


def tiny_config(tokenizer, **changes) -> Qwen2Config:
    values = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    return Qwen2Config(**(values | changes))


def tiny_policy(seed: int = 0, **changes) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(tiny_config(tokenizer, **changes)).eval(), tokenizer


def save_tiny_policy(folder: Path, seed: int = 0, **changes) -> Path:
    for part in tiny_policy(seed, **changes):
        part.save_pretrained(folder)
    return folder


def profile_with(policy: Path, **sections) -> Profile:
    """Profile pocket with the model in `policy` to start both trainings from, on the CPU. `sections` are changes:
    values of whole sections, or of the profile itself."""
    start = {"models": {"policy": str(policy), "device": "cpu"}, "reward_model": {"base": str(policy)}}
    changes = {name: start.get(name, {}) | one if isinstance(one, dict) else one for name, one in sections.items()}
    return load_profile("pocket", start | changes)


def save_tiny_reward_model(folder: Path, seed: int = 0) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    AutoModelForSequenceClassification.from_config(tiny_config(tokenizer, num_labels=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def judged_rows(programs: Sequence[str], rates: Sequence[float]) -> list[dict]:
    """AceCode rows of four questions, each with the same `programs` and their pass rates."""
    return [
        {
            "id": f"q{i}",
            "source": "",
            "question": f"Write a function `solve(xs)` that returns the {what}.",
            "entry_point": "solve",
            "test_cases": ["assert solve([1, 2]) == 3", "assert solve([0]) == 0"],
            "inferences": [
                {"model_name": "m", "completion": text, "pass_rate": rate}
                for text, rate in zip(programs, rates, strict=True)
            ],
            "context_messages": [],
        }
        for i, what in enumerate(("sum", "total", "sum of the list", "sum of all"))
    ]
