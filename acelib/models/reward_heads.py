"""The three folders in which reward models are passed around, and the way from each to the others.

All hold a backbone and a linear map from the last token's final hidden state to one number; they differ in its name:

    layout         head                                        beside it             written and read by
    trl            score.weight                                the backbone          TRL, transformers, vLLM
    llama-factory  v_head.summary.weight, v_head.summary.bias  a causal LM           LLaMA-Factory, AceCodeRM
    openrlhf       score.weight (older: value_head.weight)     the backbone          OpenRLHF

`trl` is `...ForSequenceClassification` with one label. `llama-factory` is the format of TRL's former
`AutoModelForCausalLMWithValueHead`; LLaMA-Factory itself puts the head into a file of its own, value_head.safetensors,
which is read, too. AceCoder trains its reward models in the second layout and reads them in the third.

Only the second has a bias. It adds the same constant to every score, so no comparison between programs and no gradient
of Eq. 1 depends on it: where there is no place for it, it is dropped, and its value is returned.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    PreTrainedModel,
)

from acelib.core import HUB_ERRORS, ModelError, hub_problem
from acelib.models.generation import load_tokenizer

LAYOUTS = ("trl", "llama-factory", "openrlhf")
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SEPARATE_HEAD = "value_head.safetensors"
SUMMARY = ("v_head.summary.weight", "v_head.summary.bias")
LM_HEAD = "lm_head.weight"
WEIGHT_FILES = {".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack"}


@dataclass(frozen=True)
class RewardHead:
    """What turns a hidden state h (hidden,) into a score, `weight` (1, hidden) @ h + `bias`, and where it was found.

    `layout` is one of `LAYOUTS`; `files` says which file holds each tensor, and those of the backbone begin with
    `prefix`.
    """

    layout: str
    weight: torch.Tensor
    bias: float
    config: Any
    prefix: str
    files: dict[str, Path]


def local_folder(name_or_path: str | Path) -> Path:
    """The folder itself, or that of the hub's snapshot. Raises ModelError when there is neither."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    try:
        return Path(snapshot_download(str(name_or_path), ignore_patterns=["*.bin", "*.pt", "*.pth"]))
    except (*HUB_ERRORS, ValueError) as error:
        raise ModelError(
            hub_problem(error, str(name_or_path))
            or f"{name_or_path} is neither a folder nor a reward model that the hub hands out ({error}); correct the "
            "name."
        ) from error


def read_head(folder: str | Path) -> RewardHead:
    """The head of the reward model in `folder`, which also says in which layout it is.

    Raises ModelError, naming what was found, when the folder has no safetensors weights, when a file of them is
    missing or broken, or when they hold none of the three heads.
    """
    folder = Path(folder)
    config = _read_config(folder)
    classifier = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if classifier is None or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{folder} is no reward model: a {config.model_type} cannot be one; pass a model whose backbone is a "
            "causal language model."
        )
    prefix, files = classifier.base_model_prefix + ".", _read_files(folder)
    outside = sorted(key for key in files if not key.startswith(prefix))
    names = set(outside) - {LM_HEAD}
    if names == {"score.weight"}:
        # Both frameworks chose this name; only the configuration tells them apart.
        stock = "ForSequenceClassification" in str(config.architectures) and not hasattr(config, "value_head_prefix")
        layout = "trl" if stock else "openrlhf"
    elif names in ({"value_head.weight"}, set(SUMMARY)):
        layout = "openrlhf" if "value_head.weight" in names else "llama-factory"
    else:
        raise ModelError(
            f"{folder} is no reward model: beside the backbone ({prefix}*) of its {config.architectures} it holds "
            f"{', '.join(outside) or 'nothing'}, not {' and '.join(SUMMARY)}, score.weight or value_head.weight alone; "
            "pass the folder that notebook 04 wrote, or another of these layouts."
        )
    *bias, weight = (_read_tensors(files, {name})[name] for name in sorted(names))  # bias comes before weight
    if weight.shape != (1, config.hidden_size):
        raise ModelError(
            f"{folder} is no reward model: its head has shape {tuple(weight.shape)} and not (1, {config.hidden_size}); "
            "pass a model with one number as output."
        )
    return RewardHead(layout, weight, bias[0].item() if bias else 0.0, config, prefix, files)


def convert_reward_model(source: str | Path, target: str | Path, layout: str, overwrite: bool = False) -> float:
    """Writes the reward model in `source` to `target` in another layout; returns the bias that was dropped.

    score by the original = score by the copy + returned constant (0.0 when nothing was dropped), for every text. All
    tensors of the backbone and the head's weight are copied bit by bit, in their own data type, one weight file at a
    time; tokenizer, chat template and other small files go along. On the way to `llama-factory` the bias is 0. A
    language-model head does not touch the score and leaves with the layout; where one is missing afterwards, the
    configuration ties it to the embeddings. OpenRLHF's optional normalisation (`mean` and `std` in its configuration)
    is not applied.

    `target` appears only when it is complete. Raises ModelError when `source` is no reward model (see
    `read_head`), on an unknown layout, or when `target` is not empty: with `overwrite` another model folder is
    replaced, but never `source`, nor a folder that holds no model.
    """
    source, target = Path(source), Path(target)
    if layout not in LAYOUTS:
        raise ModelError(f"There is no layout {layout!r}; take one of {', '.join(LAYOUTS)}.")
    head = read_head(source)
    _check_target(source, target, overwrite)
    lm_head = LM_HEAD if layout == "llama-factory" and LM_HEAD in head.files else None
    keep = {key: file for key, file in head.files.items() if key.startswith(head.prefix) or key == lm_head}
    tensors = {"score.weight": head.weight}
    if layout == "llama-factory":
        tensors = dict(zip(SUMMARY, (head.weight, torch.tensor([head.bias], dtype=head.weight.dtype))))
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        for file in source.iterdir():
            if file.is_file() and file.suffix not in {*WEIGHT_FILES, ".py"} and not file.name.endswith(".index.json"):
                shutil.copyfile(file, folder / file.name)
        values = _converted_config(source, head.config, layout, tied=not lm_head)
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        _write_weights(folder, keep, tensors)
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    return 0.0 if layout == "llama-factory" else head.bias


def load_classifier(name_or_path: str | Path, dtype: str = "float32") -> PreTrainedModel:
    """A reward model of any layout as `...ForSequenceClassification` with one label, on the CPU.

    A bias is dropped (see the top of this module). Raises ModelError when there is no reward model or when its
    weights do not fit its configuration.
    """
    folder = local_folder(name_or_path)
    head = read_head(folder)
    head.config.num_labels = 1
    name, weights = str(folder), None
    if head.layout != "trl":
        backbone = {key for key in head.files if key.startswith(head.prefix)}
        name, weights = None, _read_tensors(head.files, backbone) | {"score.weight": head.weight}
    model, info = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(head.config)].from_pretrained(
        name, config=head.config, state_dict=weights, dtype=getattr(torch, dtype), output_loading_info=True
    )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"{folder} is incomplete: it lacks {', '.join(missing[:3])}; fetch or convert it again.")
    return model


def _read_config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no reward model: it has no config.json; correct the path.")
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} has a config.json that transformers cannot read ({error}); fetch it again."
        ) from error


def _read_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor."""
    names = [SINGLE]
    try:
        if (folder / INDEX).is_file():
            names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder / INDEX} is no index of weights ({error}); fetch it again.") from error
    if SEPARATE_HEAD not in names and (folder / SEPARATE_HEAD).is_file():
        names.append(SEPARATE_HEAD)
    if missing := [name for name in names if not (folder / name).is_file()]:
        found = ", ".join(sorted(file.name for file in folder.iterdir() if file.suffix in WEIGHT_FILES)) or "none"
        raise ModelError(
            f"{folder} lacks the weights {', '.join(missing[:3])} (weight files found: {found}); fetch it again, or "
            "save it as safetensors."
        )
    files = {}
    for name in names:
        try:
            with safe_open(folder / name, "pt") as tensors:
                files |= dict.fromkeys(tensors.keys(), folder / name)
        except SafetensorError as error:
            raise ModelError(f"{folder / name} is no safetensors file ({error}); fetch it again.") from error
    return files


def _read_tensors(files: dict[str, Path], keys: set[str]) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted({files[key] for key in keys}):
        with safe_open(file, "pt") as tensors:
            found |= {key: tensors.get_tensor(key) for key in sorted(keys) if files[key] == file}
    return found


def _write_weights(target: Path, keep: dict[str, Path], head: dict[str, torch.Tensor]) -> None:
    """One new file for each old one that holds something to keep; the head goes into the last."""
    sources, places, size = sorted(set(keep.values())), {}, 0
    for number, file in enumerate(sources, start=1):
        tensors = _read_tensors(keep, {key for key in keep if keep[key] == file})
        tensors |= head if number == len(sources) else {}
        name = SINGLE if len(sources) == 1 else f"model-{number:05}-of-{len(sources):05}.safetensors"
        save_file(tensors, target / name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if len(sources) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


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


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise ModelError(f"{target} holds the model that is to be converted; name another folder.")
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target} is a file; name a folder.")
    if target.exists() and any(target.iterdir()):
        if not overwrite:
            raise ModelError(f"{target} is not empty; name another folder, or pass overwrite=True.")
        if not (target / "config.json").is_file():
            raise ModelError(f"{target} is not empty and holds no model that could be replaced; name another folder.")
