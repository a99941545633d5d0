"""Train the models in `data/models` from nothing: ``python -m acelib.pocket.train`` (`make pocket-models`)."""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from acelib.pocket import corpus

DATA = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True)
class Recipe:
    """How one pocket model is trained.

    Attributes:
        examples: the conversation stream, a function of `acelib.pocket.corpus`.
        hidden, layers, heads: Qwen2 shape; two heads share one key-value head.
        steps: optimiser steps, each on about `batch_tokens` tokens.
        learning_rate: peak of a cosine schedule with 3% warm-up.
        also: intermediate checkpoints to keep, {model name: step}; they are not annealed.
        vote_weight: of a vote's token in the loss; 0 means that votes are not learnt.
    """

    examples: str
    hidden: int
    layers: int
    heads: int
    steps: int
    batch_tokens: int
    learning_rate: float
    also: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    vote_weight: float = 10.0


RECIPES = {
    "policy": Recipe("forum_examples", 128, 4, 4, steps=3500, batch_tokens=2048, learning_rate=3e-3),
    "proxy": Recipe(
        "solve_examples",
        160,
        5,
        4,
        steps=1500,
        batch_tokens=2048,
        learning_rate=3e-3,
        also={"proxy_weak": 450, "proxy_medium": 900},
        seed=1,
    ),
    "teacher": Recipe("teacher_examples", 192, 5, 6, steps=2200, batch_tokens=4096, learning_rate=2e-3, seed=2),
}


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    torch.manual_seed(recipe.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=3 * recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads // 2,
            max_position_embeddings=tokenizer.model_max_length,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: list[corpus.Message], vote_weight: float
) -> tuple[list[int], list[float]]:
    """Token ids of a conversation and the weight of each in the loss: 0 in the question, 1 in the answer.

    A third message is a vote on the answer. It follows the answer's end at once, where a reward model will read. With
    the policy's weight this one token says as much about a program as all of its own.
    """
    question, answer, *votes = messages
    parts = [
        (tokenizer.apply_chat_template([question], add_generation_prompt=True, tokenize=False), 0.0),
        (answer["content"] + tokenizer.eos_token, 1.0),
        *((vote["content"], vote_weight) for vote in votes),
    ]
    ids, weights = [], []
    for text, weight in parts:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += tokens
        weights += [weight] * len(tokens)
    return ids, weights


def batches(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input_ids, loss weights) of similar lengths, each at most `batch_tokens` tokens with padding."""
    rng, examples = random.Random(recipe.seed), getattr(corpus, recipe.examples)(recipe.seed + 100)
    while True:
        conversations = islice(examples, 512)
        pool = sorted((encode(tokenizer, m, recipe.vote_weight) for m in conversations), key=lambda e: len(e[0]))
        groups, group = [], []
        for example in pool:
            if len(example[0]) > tokenizer.model_max_length:
                continue
            if (len(group) + 1) * len(example[0]) > recipe.batch_tokens:
                groups.append(group)
                group = []
            group.append(example)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.full((len(group), width), tokenizer.pad_token_id)
            weights = torch.zeros(len(group), width)
            for row, (tokens, token_weights) in enumerate(group):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                weights[row, : len(tokens)] = torch.tensor(token_weights)
            yield ids, weights


def new_optimizers(model: Qwen2ForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the layers, AdamW for embeddings, norms and biases."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def train(
    name: str, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, out: Path, device: str | torch.device = "cpu"
) -> dict:
    """Train one model, save it (and its `also` checkpoints) under `out`, return what it took."""
    model = new_model(recipe, tokenizer).to(device)
    optimizers = new_optimizers(model, recipe.learning_rate)
    warmup = max(1, int(0.03 * recipe.steps))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            o, lambda s: min((s + 1) / warmup, 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1, s / recipe.steps))))
        )
        for o in optimizers
    ]
    stream = batches(tokenizer, recipe)
    wall, cpu, tokens, smooth = time.time(), time.process_time(), 0, None
    model.train()
    for step in range(1, recipe.steps + 1):
        ids, weights = (tensor.to(device) for tensor in next(stream))
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        targets, weights = ids[:, 1:], weights[:, 1:]
        keep = weights > 0
        losses = F.cross_entropy(model.lm_head(hidden[keep]), targets[keep], reduction="none")
        loss = (losses * weights[keep]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in (*optimizers, *schedules):
            stepper.step()
        model.zero_grad()
        tokens += ids.numel()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 100 == 0 or step == recipe.steps:
            print(
                f"{name}: step {step}/{recipe.steps}  loss {smooth:.4f}  {tokens / 1e6:.2f}M tokens  "
                f"{time.time() - wall:.0f} s  {time.process_time() - cpu:.0f} CPU-s",
                flush=True,
            )
        for other, at in recipe.also.items():
            if step == at:
                save(model, tokenizer, out / other)
    save(model, tokenizer, out / name)
    return {
        "recipe": asdict(recipe),
        "parameters": model.num_parameters(),
        "tokens": tokens,
        "loss": round(smooth, 4),
        "seconds": round(time.time() - wall),
        "cpu_seconds": round(time.process_time() - cpu),
    }


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    # transformers 5.17 gives every qwen2 folder Qwen's own pre-tokenizer, whatever tokenizer.json says, and splits our
    # words differently from training; it leaves a folder alone that names a class of its own (never loaded).
    file = folder / "tokenizer_config.json"
    config = {**json.loads(file.read_text()), "auto_map": {"AutoTokenizer": ["none", "none.Tokenizer"]}}
    file.write_text(json.dumps(config, indent=2) + "\n")


def write_problems(folder: Path) -> None:
    """`seeds.jsonl`, and `benchmark.jsonl` and `validation.jsonl` without a common composition; the same everywhere."""
    held_out = corpus.benchmark_problems(600, seed=0)
    for name, rows in (
        ("seeds", corpus.seed_programs(3000, seed=0)),
        ("benchmark", held_out[:400]),
        ("validation", [row | {"task_id": row["task_id"].replace("bench", "validation")} for row in held_out[400:]]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"which of {', '.join(RECIPES)} (default: all)")
    parser.add_argument(
        "--out",
        type=Path,
        default=DATA.parent / "runs" / "pocket-models",
        help="where the retrained models go (default: %(default)s)",
    )
    parser.add_argument(
        "--ship", action="store_true", help="replace what data/ ships by the retrained models and problems"
    )
    args = parser.parse_args()
    names = args.models or list(RECIPES)
    if unknown := set(names) - set(RECIPES):
        parser.error(f"no recipe for {', '.join(sorted(unknown))}; choose from {', '.join(RECIPES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    # One process and one thread each: two models of this size train faster side by side than on two threads in turn.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(train_and_report, name, args.out) for name in sorted(names, key=list(RECIPES)[::-1].index)]
        for job in jobs:
            job.result()
    from acelib.pocket.measure import compare

    print(compare(DATA / "models", args.out))
    if args.ship:
        shutil.copytree(args.out, DATA / "models", dirs_exist_ok=True)
        write_problems(DATA)


def train_and_report(name: str, out: Path) -> None:
    torch.set_num_threads(1)
    report = train(name, RECIPES[name], corpus.train_tokenizer(), out)
    (out / name / "training.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
