"""A reward model in another framework's layout: `python -m tools.convert_reward_model SOURCE TARGET LAYOUT`.

The layouts of TRL, LLaMA-Factory and OpenRLHF are described in `acelib/models/reward_heads.py`.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from acelib.core import ModelError, atomic
from acelib.models import LM_HEAD, SUMMARY, load_tokenizer, read_head
from tools.commands import explained

LAYOUTS = ("trl", "llama-factory", "openrlhf")
WEIGHT_FILES = {".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack"}


def convert_reward_model(source: str | Path, target: str | Path, layout: str) -> float:
    """Writes the reward model in `source` to `target` in another layout; returns the bias that was dropped.

    score by the original = score by the copy + returned constant (0.0 when nothing was dropped), for every text. All
    tensors of the backbone and the head's weight are copied bit by bit, in their own data type, one weight file at a
    time; tokenizer, chat template and other small files go along. On the way to `llama-factory` the bias is 0. A
    language-model head does not touch the score and leaves with the layout; where one is missing afterwards, the
    configuration ties it to the embeddings. OpenRLHF's optional normalisation (`mean` and `std` in its configuration)
    is not applied.

    `target` appears only when it is complete. Raises ModelError when `source` is no reward model (see
    `read_head`), on an unknown layout, and when `target` is there and not empty.
    """
    source, target = Path(source), Path(target)
    if layout not in LAYOUTS:
        raise ModelError(f"There is no layout {layout!r}; take one of {', '.join(LAYOUTS)}.")
    head = read_head(source)
    if target.is_file() or target.is_dir() and any(target.iterdir()):
        raise ModelError(f"{target} is not empty; name another folder.")
    stays = (head.prefix, LM_HEAD) if layout == "llama-factory" else head.prefix
    tensors = {name: tensor for name, tensor in head.tensors.items() if name.startswith(stays)}
    values = _converted_config(source, head.config, layout, tied=LM_HEAD not in tensors)
    if layout == "llama-factory":
        tensors |= zip(SUMMARY, (head.weight, torch.tensor([head.bias], dtype=head.weight.dtype)))
    else:
        tensors |= {"score.weight": head.weight}
    with atomic(target) as folder:
        folder.mkdir()
        for file in source.iterdir():
            if file.is_file() and file.suffix not in {*WEIGHT_FILES, ".py"} and not file.name.endswith(".index.json"):
                shutil.copyfile(file, folder / file.name)
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        save_torch_state_dict(tensors, folder)
    return 0.0 if layout == "llama-factory" else head.bias


def _converted_config(source: Path, config: Any, layout: str, tied: bool) -> dict[str, Any]:
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for name in ("id2label", "label2id", "num_labels", "value_head_prefix", "auto_map"):
        values.pop(name, None)
    if layout == "openrlhf":
        return values | {"architectures": ["RewardModel"], "value_head_prefix": "score"}
    if layout == "llama-factory":
        values |= {"architectures": [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]}
        return values | ({"tie_word_embeddings": True} if tied else {})
    if values.get("pad_token_id") is None:  # without it transformers refuses to score more than one text at once
        values["pad_token_id"] = load_tokenizer(source).pad_token_id
    architectures = [MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].__name__]
    return values | {"architectures": architectures, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.convert_reward_model", description=__doc__)
    parser.add_argument("source", type=Path, help="folder of the reward model")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("layout", choices=LAYOUTS)
    asked = parser.parse_args(words)
    dropped = convert_reward_model(asked.source, asked.target, asked.layout)
    print(f"{asked.target}: written; its scores are {dropped:g} lower than the original's, for every text")


if __name__ == "__main__":
    sys.exit(main())
