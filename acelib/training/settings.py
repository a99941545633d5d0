"""What both trainers make of a profile: arguments, adapters, vLLM, sharded weights, the folder at the end.

Weights that learn are float32 on every device, and bfloat16 is left to autocast (or to DeepSpeed, which keeps float32
copies of its own): at a learning rate of 5e-7 nearly every update of a bfloat16 weight would be rounded away. Those
that stay frozen below LoRA adapters are held in the precision of the passes, or in 4 bits (QLoRA).
"""

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, is_peft_model
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from transformers import BitsAndBytesConfig, PreTrainedModel, PrinterCallback

from acelib.core import DeviceError, Engine, EngineError, Profile, full_disk_explained
from acelib.models import out_of_memory_explained, pick_device
from acelib.reward_model import can_share_prefix
from acelib.training.checkpoints import fitting, last_checkpoint, shrink
from acelib.training.forecast import MemoryModel, largest_divisor

LOG_FILE = "training_log.json"  # beside the weights


@cache  # torch keeps what is registered
def _read_numbered_cpus() -> None:
    """accelerate calls the CPU of several processes cpu:0, a place from which torch.load knows no way: a checkpoint's
    optimiser could not be read there."""
    torch.serialization.register_package(
        11, lambda storage: None, lambda storage, place: storage if place == "cpu:0" else None
    )


class CommonTrainer:
    """Mixed into TRL's trainers: they save one ordinary folder in the end, print no log lines, write no model card,
    report to nobody, and use one GPU per process. Over several that it sees the Trainer would spread the model
    (`DataParallel`), which then has no `device` and gets batches of another size.

    `section` is that of the profile, which says what each training does.
    `shares_prompts`: whether each prompt is read once for all that follows it. Not where the model is wrapped for
    several processes or checkpoints its activations, nor with anything but full attention.
    """

    section: str

    def __init__(self, *rest, args, **kwargs):
        args._n_gpu = min(1, args.n_gpu)
        super().__init__(*rest, args=args, **kwargs)
        self.remove_callback(PrinterCallback)
        for parameter in self.model.parameters():  # peft leaves what is saved beside its adapters in the frozen dtype
            if parameter.requires_grad and isinstance(self.model, PeftModel):
                parameter.data = parameter.data.float()
        alone = self.accelerator.distributed_type == DistributedType.NO
        self.shares_prompts = alone and not args.gradient_checkpointing and can_share_prefix(self.model)

    def _send_telemetry(self):
        pass

    def create_model_card(self, *args, **kwargs):
        pass

    def log_rows(self) -> list[dict]:
        """What is kept of the log."""
        return self.state.log_history

    def train_and_save(self, path: Path) -> list[dict]:
        """Train to the end, from the newest whole checkpoint where there is one: called again after a crash, the run
        ends as it would have without (or with other samples, where vLLM draws them). Then `path` gets the model and
        LOG_FILE, which holds `log_rows`; returns these.

        Raises DeviceError when a GPU has too little memory, having noted that fewer examples at a time are to be read,
        and FullDiskError.
        """
        scratch = Path(self.args.output_dir)
        checkpoint, remedy = last_checkpoint(scratch), f"lower {self.section}.micro_batch"
        remedy += " or engine.vllm_memory" if getattr(self.args, "use_vllm", False) else ""
        _read_numbered_cpus()
        try:
            with full_disk_explained(scratch / "checkpoint"), out_of_memory_explained(remedy):
                self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except DeviceError:
            shrink(scratch, self.args.per_device_train_batch_size)
            raise
        if self.is_world_process_zero():
            path.mkdir(parents=True, exist_ok=True)
            (path / LOG_FILE).write_text(json.dumps(self.log_rows(), indent=1), encoding="utf-8")
        self._save_whole(path)
        return self.log_rows()

    def _save_whole(self, path: Path) -> None:
        """The model as one ordinary folder with its tokenizer: gathered from all processes, adapters merged. It is
        there when any of them returns."""
        model, accelerator = self.accelerator.unwrap_model(self.model), self.accelerator
        if is_peft_model(model):
            if accelerator.is_main_process:
                merge_adapters(_unquantised(model, path)).save_pretrained(path)
        else:
            if accelerator.distributed_type == DistributedType.FSDP:
                accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
            self.save_model(str(path))
        if accelerator.is_main_process:
            self.processing_class.save_pretrained(path)
            (path / "training_args.bin").unlink(missing_ok=True)  # names paths of this machine
        accelerator.wait_for_everyone()


@torch.no_grad()
def merge_adapters(model: PeftModel) -> PreTrainedModel:
    """The model with its LoRA adapters added to its weights, layer by layer, in the dtype of these."""
    merge_layers([layer for layer in model.modules() if isinstance(layer, LoraLayer)])
    return model.unload()


def merge_layers(layers: Sequence[LoraLayer]) -> None:
    """Add adapters to the weights below them, in place.

    In bfloat16 the nearest number to a sum is the old weight wherever an adapter moved it by less than half of the
    distance to the next. So one of the two neighbours is drawn, which is right on average (stochastic rounding, as in
    Gupta et al. 2015, arXiv 1502.02551), and the same in each run.
    """
    for number, layer in enumerate(layers):
        weight = layer.get_base_layer().weight
        moved = weight.float() + layer.get_delta_weight("default").float()
        if weight.dtype == torch.bfloat16:  # the first 16 of 32 bits: what is below them, and chance, may carry
            chance = torch.Generator(weight.device).manual_seed(number)
            low = torch.randint(0, 2**16, moved.shape, dtype=torch.int32, device=weight.device, generator=chance)
            moved = ((moved.view(torch.int32) + low) >> 16 << 16).view(torch.float32)
        weight.data.copy_(moved)


@contextmanager
@torch.no_grad()
def merged_exactly(model: torch.nn.Module) -> Iterator[None]:
    """Adapters added to the weights below them (`merge_layers`); afterwards these are as before. For vLLM, TRL adds
    and subtracts in bfloat16, which loses much of what was learnt: only quantised or sharded layers let it."""
    layers = [one for one in model.modules() if isinstance(one, LoraLayer)]
    kept = [layer.get_base_layer().weight.to("cpu", copy=True) for layer in layers]
    whole = [one for one in layers if one.get_base_layer().weight.shape == (one.out_features, one.in_features)]
    merge_layers(whole)
    for layer in whole:
        layer.merge = layer.unmerge = lambda **_: None
    try:
        yield
    finally:
        for layer in whole:
            del layer.merge, layer.unmerge
        for layer, before in zip(layers, kept, strict=True):
            layer.get_base_layer().weight.data.copy_(before)


def _unquantised(model: PeftModel, path: Path) -> PeftModel:
    """The model itself, or its adapters on its base as that was before it went into 4 bits, on the CPU."""
    base = model.get_base_model()
    if not getattr(base, "is_quantized", False):
        return model
    with TemporaryDirectory(dir=path.parent) as folder:
        model.save_pretrained(folder)
        config = copy.deepcopy(base.config)
        for name in ("quantization_config", "_is_quantized", "_pre_quantization_dtype"):
            vars(config).pop(name, None)
        plain = type(base).from_pretrained(base.name_or_path, config=config, dtype=base.dtype)
        if hasattr(base, "generation_config"):
            plain.generation_config = base.generation_config  # which can be saved
        return PeftModel.from_pretrained(plain, folder)


def loaded_dtype(profile: Profile) -> str:
    """What a model to train is loaded in: `models.dtype` below adapters, which are float32 themselves."""
    return profile.models.dtype if profile.engine.lora_rank else "float32"


def quantisation(profile: Profile) -> BitsAndBytesConfig | None:
    """How linear layers below adapters are held in 4 bits and multiplied in `models.dtype`: NF4, whose scales are
    quantised, too. Raises EngineError when bitsandbytes is missing."""
    if profile.engine.quantise == "none":
        return None
    if not find_spec("bitsandbytes"):
        raise EngineError(
            "engine.quantise is nf4, which takes bitsandbytes; run `pip install -r requirements-gpu.txt`, or set it to "
            "none."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=profile.models.dtype,
        llm_int8_skip_modules=["lm_head", "score"],
    )


@contextmanager
def precision(trainer: Any) -> Iterator[None]:
    """The precision of the trainer's forward passes, for a model that is called below the trainer's wrapper."""
    half, device = trainer.args.bf16, trainer.args.device.type
    # Without the second, peft makes a float32 copy of every input of an adapter.
    with torch.autocast(device, torch.bfloat16, enabled=half), disable_input_dtype_casting(trainer.model, active=half):
        yield


def common_arguments(profile: Profile, section: str, questions: int, examples: int, folder: Path) -> dict[str, Any]:
    """TrainingArguments of both trainings. A batch is about so many `questions`, an update takes so many `examples`, of
    which a process reads `micro_batch` of the profile's `section` at a time, or the largest number below that divides
    its share. TRL's own defaults fit a GPU.

    Raises EngineError when the processes cannot share either, and DeviceError.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if questions % processes or examples % processes:
        raise EngineError(
            f"{questions} questions of a batch and {examples} examples of an update cannot be shared by {processes} "
            f"processes; change the sizes in {section} so that the number of processes divides both."
        )
    per_process, gpu = examples // processes, pick_device(profile.models.device).type != "cpu"
    at_once = largest_divisor(per_process, fitting(folder, getattr(profile, section).micro_batch))
    return dict(
        output_dir=str(folder),
        seed=profile.seed,
        bf16=profile.models.dtype == "bfloat16",
        gradient_checkpointing=MemoryModel(profile).checkpoints(section),
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=per_process // at_once,
        save_strategy="steps",
        report_to="none",
        disable_tqdm=True,
    )


def adapters(engine: Engine, task: str) -> LoraConfig | None:
    """LoRA (Hu et al. 2021) on every linear layer; None for full fine-tuning. `task`: CAUSAL_LM or SEQ_CLS."""
    if not engine.lora_rank:
        return None
    return LoraConfig(
        task_type=task,
        r=engine.lora_rank,
        lora_alpha=2 * engine.lora_rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        modules_to_save=["score"] if task == "SEQ_CLS" else None,
    )


def vllm_arguments(engine: Engine, longest: int) -> dict[str, Any]:
    """Arguments of `GRPOConfig`; `longest` is the number of tokens of the longest prompt with its reply.

    The log-probs of the old policy are computed by the trainer, so vLLM's, which differ a little, correct nothing.
    Raises EngineError when vLLM is asked for and not installed.
    """
    if engine.generation != "vllm":
        return {}
    if not find_spec("vllm"):
        raise EngineError(
            "engine.generation is vllm, which is not installed; run `pip install -r requirements-gpu.txt` on a machine "
            "with a GPU, or set engine.generation to transformers."
        )
    arguments = {"use_vllm": True, "vllm_mode": engine.vllm_mode, "vllm_importance_sampling_correction": False}
    if engine.vllm_mode == "server":
        return arguments | {"vllm_server_base_url": engine.vllm_server}
    return arguments | {
        "vllm_gpu_memory_utilization": engine.vllm_memory,
        "vllm_enable_sleep_mode": True,
        "vllm_tensor_parallel_size": engine.vllm_parallel,
        "vllm_max_model_length": longest,
    }


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether no process holds all weights."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return accelerator.distributed_type == DistributedType.FSDP or plugin is not None and plugin.zero_stage == 3


def check_together(engine: Engine, accelerator: Accelerator, samples: bool) -> None:
    """Raises EngineError for combinations that would hang or save half a model; `samples`: the trainer generates."""
    if is_sharded(accelerator) and engine.lora_rank:
        raise EngineError(
            "LoRA with sharded weights (ZeRO-3, FSDP) is not supported; set engine.launch to "
            "configs/ddp-8.yaml, or engine.lora_rank to 0."
        )
    if is_sharded(accelerator) and samples and engine.generation != "vllm":
        raise EngineError(
            "Processes that each hold a part of the weights (ZeRO-3, FSDP) cannot sample replies of "
            "different lengths; set engine.generation to vllm."
        )
