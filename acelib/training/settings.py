"""What the profile's `engine` section means for a trainer: adapters, vLLM, sharded weights, the folder at the end.

Trained weights are float32 on every device, and bfloat16 is left to autocast (or to DeepSpeed, which keeps float32
copies of its own): at a learning rate of 5e-7 nearly every update of a bfloat16 weight would be rounded away.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, is_peft_model
from peft import LoraConfig

from acelib.core import Engine, EngineError, full_disk_explained
from acelib.models import out_of_memory_explained
from acelib.training.checkpoints import last_checkpoint
from acelib.training.memory import MemoryWatch

LOCAL = Engine(
    launch="none",
    lora_rank=0,
    generation="transformers",
    vllm_mode="colocate",
    vllm_server="none",
    vllm_memory=0.3,
    vllm_parallel=1,
    checkpoints=6,
    cluster="none",
    shard_questions=1000,
)


# accelerate calls the CPU of several processes cpu:0, a place from which torch.load knows no way: a checkpoint's
# optimiser could not be read there.
torch.serialization.register_package(
    11, lambda storage: None, lambda storage, place: storage if place == "cpu:0" else None
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
    where = (
        {"vllm_server_base_url": engine.vllm_server}
        if engine.vllm_mode == "server"
        else {
            "vllm_gpu_memory_utilization": engine.vllm_memory,
            "vllm_enable_sleep_mode": True,
            "vllm_tensor_parallel_size": engine.vllm_parallel,
            "vllm_max_model_length": longest,
        }
    )
    return {"use_vllm": True, "vllm_mode": engine.vllm_mode, "vllm_importance_sampling_correction": False} | where


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


def for_one_device(arguments: Any) -> Any:
    """TrainingArguments of a process that uses one GPU at most. Over several that it sees the Trainer would otherwise
    spread the model (`DataParallel`), which then has no `device` and gets batches of another size."""
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def run_from_last_checkpoint(trainer: Any, scratch: Path, section: str) -> None:
    """Train to the end, from the newest whole checkpoint in `scratch` where there is one.

    `section` of the profile is where `micro_batch` stands, for the remedy when a GPU has too little memory. Raises
    DeviceError then, and FullDiskError.
    """
    checkpoint, remedy = last_checkpoint(scratch), f"lower {section}.micro_batch"
    trainer.add_callback(MemoryWatch(remedy))
    with full_disk_explained(scratch / "checkpoint"), out_of_memory_explained(remedy):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def save_trained(trainer: Any, path: str | Path) -> None:
    """The model as one ordinary folder with its tokenizer: gathered from all processes, adapters merged.

    Whoever returns finds it there.
    """
    model, accelerator = trainer.accelerator.unwrap_model(trainer.model), trainer.accelerator
    if is_peft_model(model):
        if accelerator.is_main_process:
            model.merge_and_unload().save_pretrained(path)
    else:
        if accelerator.distributed_type == DistributedType.FSDP:
            accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(path))
    if accelerator.is_main_process:
        trainer.processing_class.save_pretrained(path)
        (Path(path) / "training_args.bin").unlink(missing_ok=True)  # names paths of this machine
    accelerator.wait_for_everyone()
