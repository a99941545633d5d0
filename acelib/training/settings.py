"""What the profile's `engine` section means for a trainer: adapters, vLLM, sharded weights, the folder at the end.

Weights that learn are float32 on every device, and bfloat16 is left to autocast (or to DeepSpeed, which keeps float32
copies of its own): at a learning rate of 5e-7 nearly every update of a bfloat16 weight would be rounded away. Those
that stay frozen below LoRA adapters are held in the precision of the passes, or in 4 bits (QLoRA).
"""

import copy
import json
from collections.abc import Callable, Iterator
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
from transformers import BitsAndBytesConfig, PrinterCallback

from acelib.core import DeviceError, Engine, EngineError, full_disk_explained
from acelib.models import out_of_memory_explained
from acelib.reward_model import can_share_prefix
from acelib.training.batches import largest_divisor
from acelib.training.checkpoints import fitting, last_checkpoint, shrink
from acelib.training.memory import MemoryWatch

LOCAL = Engine(
    launch="none",
    lora_rank=0,
    quantise="none",
    gradient_checkpointing=False,
    generation="transformers",
    vllm_mode="colocate",
    vllm_server="none",
    vllm_memory=0.3,
    vllm_parallel=1,
    checkpoints=6,
    cluster="none",
    shard_questions=1000,
)
LOG_FILE = "training_log.json"  # beside the weights


class Quiet:
    """Mixed into TRL's trainers: they print no log lines, write no model card, report to nobody, and use one GPU per
    process. Over several that it sees the Trainer would spread the model (`DataParallel`), which then has no `device`
    and gets batches of another size."""

    def __init__(self, *rest, args, **kwargs):
        args._n_gpu = min(1, args.n_gpu)
        super().__init__(*rest, args=args, **kwargs)
        self.remove_callback(PrinterCallback)
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # peft leaves what is saved beside its adapters, a head, in the frozen dtype
                parameter.data = parameter.data.float()

    def _send_telemetry(self):
        pass

    def create_model_card(self, *args, **kwargs):
        pass


def frozen_dtype(engine: Engine, dtype: str) -> str:
    """What a model that is to be trained is loaded in: `dtype` below adapters, which are float32 themselves."""
    return dtype if engine.lora_rank else "float32"


def quantisation(engine: Engine, dtype: str) -> BitsAndBytesConfig | None:
    """How linear layers below adapters are held in 4 bits and multiplied in `dtype`: NF4, whose scales are quantised,
    too. Raises EngineError when bitsandbytes is missing."""
    if engine.quantise == "none":
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
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head", "score"],
    )


@contextmanager
def precision(trainer: Any) -> Iterator[None]:
    """The precision of the trainer's forward passes, for a model that is called below the trainer's wrapper."""
    half, device = trainer.args.bf16, trainer.args.device.type
    # Without the second, peft makes a float32 copy of every input of an adapter.
    with torch.autocast(device, torch.bfloat16, enabled=half), disable_input_dtype_casting(trainer.model, active=half):
        yield


def common_arguments(
    folder: Path, seed: int, device: torch.device, dtype: str, per_process: int, micro_batch: int, engine: Engine
) -> dict[str, Any]:
    """TrainingArguments of both trainings; a process has `per_process` examples of a batch, and reads `micro_batch` of
    them at a time, or the largest number below that divides them. TRL's own defaults fit a GPU."""
    at_once, gpu = largest_divisor(per_process, fitting(folder, micro_batch)), device.type != "cpu"
    return dict(
        output_dir=str(folder),
        seed=seed,
        bf16=dtype == "bfloat16",
        gradient_checkpointing=engine.gradient_checkpointing,
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
    """Arguments of `GRPOConfig`; `longest` is the number of tokens of the longest prompt and its reply.

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


def shares_prompts(trainer: Any) -> bool:
    """Whether each prompt can be read once for all that follows it: not where the model is wrapped for several
    processes or checkpoints its activations, nor with anything but full attention."""
    alone = trainer.accelerator.distributed_type == DistributedType.NO
    return alone and not trainer.args.gradient_checkpointing and can_share_prefix(trainer.model)


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


@cache  # torch keeps what is registered
def _read_numbered_cpus() -> None:
    """accelerate calls the CPU of several processes cpu:0, a place from which torch.load knows no way: a checkpoint's
    optimiser could not be read there."""
    torch.serialization.register_package(
        11, lambda storage: None, lambda storage, place: storage if place == "cpu:0" else None
    )


def train_and_save(
    trainer: Any, path: Path, scratch: Path, section: str, rows: Callable[[list[dict]], list[dict]] = list
) -> list[dict]:
    """Train to the end, from the newest whole checkpoint in `scratch` where there is one; then `path` gets the model
    and LOG_FILE, which holds what `rows` makes of the trainer's log. Returns that.

    `section` of the profile is where `micro_batch` stands, for the remedy when a GPU has too little memory. Raises
    DeviceError then, having noted in `scratch` that fewer examples at a time are to be read, and FullDiskError.
    """
    checkpoint, remedy = last_checkpoint(scratch), f"lower {section}.micro_batch"
    _read_numbered_cpus()
    trainer.add_callback(MemoryWatch(remedy))
    try:
        with full_disk_explained(scratch / "checkpoint"), out_of_memory_explained(remedy):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except DeviceError:
        shrink(scratch, trainer.args.per_device_train_batch_size)
        raise
    log = rows(trainer.state.log_history)
    if trainer.is_world_process_zero():
        path.mkdir(parents=True, exist_ok=True)
        (path / LOG_FILE).write_text(json.dumps(log, indent=1), encoding="utf-8")
    save_trained(trainer, path)
    return log


def _whole(model: PeftModel, path: Path) -> PeftModel:
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
        return PeftModel.from_pretrained(plain, folder)


def save_trained(trainer: Any, path: Path) -> None:
    """The model as one ordinary folder with its tokenizer: gathered from all processes, adapters merged. It is there
    when any of them returns."""
    model, accelerator = trainer.accelerator.unwrap_model(trainer.model), trainer.accelerator
    if is_peft_model(model):
        if accelerator.is_main_process:
            _whole(model, path).merge_and_unload().save_pretrained(path)
    else:
        if accelerator.distributed_type == DistributedType.FSDP:
            accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(path))
    if accelerator.is_main_process:
        trainer.processing_class.save_pretrained(path)
        (path / "training_args.bin").unlink(missing_ok=True)  # names paths of this machine
    accelerator.wait_for_everyone()
