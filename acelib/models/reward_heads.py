"""The three folders in which reward models are passed around, read as one kind of model.

All hold a backbone and a linear map from the last token's final hidden state to one number; they differ in its name:

    layout         head                                        beside it             written and read by
    trl            score.weight                                the backbone          TRL, transformers, vLLM
    llama-factory  v_head.summary.weight, v_head.summary.bias  a causal LM           LLaMA-Factory, AceCodeRM
    openrlhf       score.weight (older: value_head.weight)     the backbone          OpenRLHF

`trl` is `...ForSequenceClassification` with one label. `llama-factory` is the format of TRL's former
`AutoModelForCausalLMWithValueHead`; LLaMA-Factory itself puts the head into a file of its own, value_head.safetensors,
which is read, too. AceCoder trains its reward models in the second layout and reads them in the third.

Only the second has a bias. It adds the same constant to every score, so no comparison between programs and no gradient
of Eq. 1 depends on it, and it is dropped. `tools/convert_reward_model.py` writes a model in another layout.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    PreTrainedModel,
)

from acelib.core import ModelError, load_explained
from acelib.models.generation import load_weights

SUMMARY = ("v_head.summary.weight", "v_head.summary.bias")
HEADS = {"score.weight": "trl", "value_head.weight": "openrlhf", SUMMARY[0]: "llama-factory"}
LM_HEAD = "lm_head.weight"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SEPARATE_HEAD = "value_head.safetensors"


@dataclass(frozen=True)
class RewardHead:
    """What turns a hidden state h (hidden,) into a score, `weight` (1, hidden) @ h + `bias`, and where it was found.

    `layout` is "trl", "llama-factory" or "openrlhf"; `tensors` are all of the model, memory-mapped, and those of the
    backbone begin with `prefix`.
    """

    layout: str
    weight: torch.Tensor
    bias: float
    config: Any
    prefix: str
    tensors: dict[str, torch.Tensor]


def local_folder(name_or_path: str | Path) -> Path:
    """The folder itself, or that of the hub's snapshot, whose weights are those of the index: AceCodeRM-7B has two sets
    of 30 GB. Raises ModelError when there is neither."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    weights = ["*.bin", "*.pt", "*.pth", "*.safetensors", "*.gguf"]
    with load_explained(name_or_path, "is no folder, and no model that the hub hands out", "correct the name"):
        folder = Path(snapshot_download(str(name_or_path), ignore_patterns=weights))
        return Path(snapshot_download(str(name_or_path), allow_patterns=[*_weight_files(folder), SEPARATE_HEAD]))


def read_head(folder: str | Path) -> RewardHead:
    """The head of the reward model in `folder`, which also says in which layout it is.

    Raises ModelError, naming what was found, when the folder has no safetensors weights, when a file of them is
    missing or broken, or when they hold none of the three heads.
    """
    folder = Path(folder)
    config, tensors = _read_config(folder), _read_tensors(folder)
    prefix = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].base_model_prefix + "."
    outside = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    names = sorted(outside.keys() - {LM_HEAD, SUMMARY[1]})
    layout = HEADS.get(names[0]) if len(names) == 1 else None
    if layout is None:
        raise ModelError(
            f"{folder} is no reward model: beside the backbone ({prefix}*) of its {config.architectures} it holds "
            f"{', '.join(sorted(outside)) or 'nothing'}, not {' and '.join(SUMMARY)}, score.weight or "
            "value_head.weight alone; pass the folder that notebook 04 wrote, or another of these layouts."
        )
    # OpenRLHF and TRL chose the same name; only the configuration tells them apart.
    if "ForSequenceClassification" not in str(config.architectures) or hasattr(config, "value_head_prefix"):
        layout = layout.replace("trl", "openrlhf")
    weight, bias = outside[names[0]], outside.get(SUMMARY[1], torch.zeros(1)).item()
    if weight.shape != (1, config.hidden_size):
        raise ModelError(
            f"{folder} is no reward model: its head has shape {tuple(weight.shape)} and not (1, {config.hidden_size}); "
            "pass a model with one number as output."
        )
    return RewardHead(layout, weight, bias, config, prefix, tensors)


def load_classifier(name_or_path: str | Path, dtype: str = "float32") -> PreTrainedModel:
    """A reward model of any layout as `...ForSequenceClassification` with one label, on the CPU.

    A bias is dropped (see the top of this module). Raises ModelError when there is no reward model or when its
    weights do not fit its configuration.
    """
    folder = local_folder(name_or_path)
    head = read_head(folder)
    head.config.num_labels = 1
    weights = None
    if head.layout != "trl":
        weights = {name: one for name, one in head.tensors.items() if name.startswith(head.prefix)}
        weights["score.weight"] = head.weight
    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(head.config)]
    return load_weights(kind, folder, config=head.config, state_dict=weights, dtype=dtype)


def _read_config(folder: Path) -> Any:
    with load_explained(folder, "has a config.json that transformers cannot read", "fetch it again"):
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is no reward model: it has no config.json; correct the path.")
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    if not (type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING):
        raise ModelError(
            f"{folder} is no reward model: a {config.model_type} cannot be one; pass a model whose backbone is a "
            "causal language model."
        )
    return config


def _weight_files(folder: Path) -> set[str]:
    index = folder / INDEX
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else {SINGLE}


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    with load_explained(folder, "has no whole safetensors weights", "fetch it again, or save it as safetensors"):
        names = _weight_files(folder) | {SEPARATE_HEAD} & {file.name for file in folder.iterdir()}
        return {key: tensor for name in names for key, tensor in load_file(folder / name).items()}
