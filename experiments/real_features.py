"""What a real model's hidden states say about its recorded programs (`data/real/laboratory.parquet`).

    python -m experiments.real_features --humaneval humaneval.jsonl.gz [--model FOLDER]

makes `data/real/features.parquet`: per question and layer the hidden state at the last token of each program (the
greedy one first, then the samples), minus the question's mean, in the first 128 principal components. A reward model is
such a state and a linear head; here the backbone stays as it is, so that a head can be trained in seconds anywhere.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

from acelib.core import ROOT, load_profile, read_rows, write_rows
from acelib.data import read_benchmark
from acelib.models import load_tokenizer, pad, read_on, read_prompts, solve_messages
from acelib.reward_model import encode

LAYERS = (8, 12, 16, 20, 24)  # of 24, counted from the input
COMPONENTS = 128
AFTER = 2  # tokens of the chat template after a reply


@torch.inference_mode()
def hidden_states(model, tokenizer, rows, questions) -> dict[int, np.ndarray]:
    """(questions, programs, width) in float16 for each layer; `questions` are the user's messages by id."""
    seen, found, start = {}, {layer: [] for layer in LAYERS}, time.monotonic()
    for layer in LAYERS[:-1]:
        model.layers[layer - 1].register_forward_hook(lambda _, __, out, layer=layer: seen.update({layer: out}))
    for number, row in enumerate(rows):
        texts = [f"```python\n{one}\n```" if one else "" for one in (row["greedy_program"], *row["programs"])]
        question = encode(tokenizer, [questions[row["id"]]], [""])[0][: -AFTER - 1]
        sequences = encode(tokenizer, [questions[row["id"]]] * len(texts), texts)
        ids, mask = pad([one[len(question) :] for one in sequences], tokenizer.pad_token_id, side="right")
        read = read_prompts(model, *pad([question], tokenizer.pad_token_id))
        last = read_on(model, read, torch.zeros(len(ids), dtype=torch.long), ids, mask).last_hidden_state
        at = torch.arange(len(ids)), mask.sum(-1) - 1 - AFTER
        for layer in LAYERS:
            states = last if layer == LAYERS[-1] else seen[layer]
            found[layer].append((states[0] if isinstance(states, tuple) else states)[at].float().numpy())
        if number % 8 == 0:
            print(f"{time.monotonic() - start:.0f} s, {number} of {len(rows)} questions", flush=True)
    return {layer: np.stack(states).astype(np.float16) for layer, states in found.items()}


def components(states: np.ndarray) -> np.ndarray:
    """(questions, programs, COMPONENTS), scaled so that the first has standard deviation 1."""
    centred = states.astype(np.float64) - states.astype(np.float64).mean(axis=1, keepdims=True)
    flat = centred.reshape(-1, centred.shape[-1])
    _, sizes, axes = np.linalg.svd(flat, full_matrices=False)
    return centred @ axes[:COMPONENTS].T / (sizes[0] / len(flat) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=load_profile("real").models.policy, help="folder or hub name")
    parser.add_argument("--humaneval", default="openai/openai_humaneval")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs" / "real-features.npz")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "real" / "features.parquet")
    args = parser.parse_args()
    torch.set_num_threads(load_profile("real").threads)
    rows = read_rows(ROOT / "data" / "real" / "laboratory.parquet")
    if not args.scratch.exists():
        model, tokenizer = (
            AutoModel.from_pretrained(args.model, dtype=torch.bfloat16).eval(),
            load_tokenizer(args.model),
        )
        solve = load_profile("real").prompts.solve
        problems = read_benchmark(args.humaneval)
        questions = {one.id: solve_messages(solve, one.question)[-1]["content"] for one in problems}
        found = hidden_states(model, tokenizer, rows, questions)
        np.savez(args.scratch, **{str(layer): states for layer, states in found.items()})
    with np.load(args.scratch) as found:
        table = [
            {"id": row["id"], "layer": layer, "programs": len(one), "features": one.astype(np.float16).tobytes()}
            for layer in LAYERS
            for row, one in zip(rows, components(found[str(layer)]), strict=True)
        ]
    write_rows(args.out, table)
    print(f"{args.out}: {len(table)} rows")


if __name__ == "__main__":
    main()
