"""What of a profile does not go together, as the notebook that minds would say hours after those before it began.

A plan and `make doctor` tell it, and `make course` does not begin.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import yaml

from acelib.core import EngineError, Profile
from acelib.engine import processes_per_machine
from acelib.preflight import EVALUATES

SAMPLE = ("01", "02", "03", "05", "07")  # notebooks; 06 does, too, in its own way


def misfits(profile: Profile, notebooks: Collection[str] = (), gpus: int | None = None) -> list[str]:
    """What any of `notebooks` ("04"; none named: all that the profile runs) would refuse, a sentence each; `gpus` are
    those of one machine, where they are known. Raises EngineError where engine.launch names no configuration."""
    wanted = notebooks or (EVALUATES if profile.published else (*SAMPLE, "04", "06"))
    return [sentence for minds, sentence in _found(profile, gpus) if set(minds) & set(wanted)]


def require_together(profile: Profile, notebooks: Collection[str], gpus: int | None = None) -> None:
    """Raises EngineError for the first of `misfits`."""
    for sentence in misfits(profile, notebooks, gpus):
        raise EngineError(f"Profile {profile.name} cannot be run: {sentence}")


def _found(profile: Profile, gpus: int | None) -> Iterator[tuple[Collection[str], str]]:
    """(the notebooks that mind, what is wrong and what to do)."""
    yield from _launched(profile)
    engine, plan = profile.engine, profile.plan
    if gpus and engine.generation == "vllm" and engine.vllm_parallel > gpus:
        what = f"vLLM would share a model out over engine.vllm_parallel = {engine.vllm_parallel} GPUs"
        yield SAMPLE, f"{what}, and a machine has {gpus}; lower it, or take more GPUs (in a plan: plan.gpus)."
    longest, reply = profile.reward_model.max_length, profile.sampling.max_new_tokens
    if longest < (whole := plan.question_tokens + reply):
        what = f"reward_model.max_length = {longest} is too short for a question of {plan.question_tokens} tokens"
        remedy = f"raise it to {whole:,}, or lower sampling.max_new_tokens"
        yield ["04"], f"{what} (plan.question_tokens) with a reply of up to {reply:,}, of which none is cut; {remedy}."


def _launched(profile: Profile) -> Iterator[tuple[Collection[str], str]]:
    """What speaks against the processes that engine.launch starts, as `_found`."""
    engine, rl, launch = profile.engine, profile.reinforce, f"engine.launch = {profile.engine.launch}"
    _, processes = processes_per_machine(profile.resolve(engine.launch))
    colocated = engine.generation == "vllm" and engine.vllm_mode == "colocate"
    if colocated and engine.launch == "none":
        what = f"with {launch}, vLLM would leave its memory pool in the notebook's process"
        remedy = "set engine.launch to configs/gpu-1.yaml, or engine.generation to transformers"
        yield ["04", "06"], f"{what}; {remedy}."
    elif colocated and processes % engine.vllm_parallel:
        what = f"in RL, vLLM runs in the {processes} process(es) of {launch}"
        parallel = f"engine.vllm_parallel = {engine.vllm_parallel}"
        yield ["06"], f"{what}, whose number {parallel} does not divide; set it to one that does, such as 1."
    if _is_sharded(profile):
        whole = f"set engine.launch to configs/{'ddp-8' if processes > 1 else 'gpu-1'}.yaml"
        if engine.lora_rank:
            yield ["04", "06"], f"{launch} shards weights, and LoRA takes none such; {whole}, or engine.lora_rank to 0."
        if engine.generation != "vllm":
            yield ["06"], f"{launch} shards weights, which cannot sample; {whole}, or engine.generation to vllm."
    replies = rl.rollout_questions * rl.samples_per_question // rl.updates_per_rollout
    shared = (
        ("04", f"reward_model.batch_size = {profile.reward_model.batch_size}", profile.reward_model.batch_size),
        ("06", f"reinforce.rollout_questions = {rl.rollout_questions}", rl.rollout_questions),
        ("06", f"{replies} replies of an update (a rollout's / reinforce.updates_per_rollout)", replies),
    )
    for notebook, what, size in shared:
        if size % processes:
            yield [notebook], f"{processes} processes ({launch}) cannot share {what}; take a multiple of {processes}."


def _is_sharded(profile: Profile) -> bool:
    """Whether no process of the accelerate configuration holds all weights."""
    if profile.engine.launch == "none":
        return False
    values = yaml.safe_load(Path(profile.resolve(profile.engine.launch)).read_text("utf-8"))
    kind, deepspeed = values.get("distributed_type"), values.get("deepspeed_config")
    return kind == "FSDP" or kind == "DEEPSPEED" and isinstance(deepspeed, dict) and deepspeed.get("zero_stage") == 3
