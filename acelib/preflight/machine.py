"""Checks of the machine, the judge and the models' tokenizers, before anything expensive."""

import os
import platform
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
from huggingface_hub import CacheNotFound, scan_cache_dir

from acelib.core import ROOT, CourseError, DeviceError, Profile, installed, load_explained
from acelib.engine import processes_per_machine
from acelib.judge import Judge, Limits, Submission
from acelib.models import (
    GIB,
    Machine,
    gpu_memory,
    gpu_problem,
    is_address,
    load_tokenizer,
    machine_facts,
    render,
    solve_messages,
    stop_tokens,
    turn_end,
)
from acelib.preflight.cost_model import USABLE, CostModel, fetched_gb, models_gb
from acelib.preflight.costs import for_one_card
from acelib.preflight.findings import Finding, check, failure
from acelib.synthesis import load_seeds

REQUIREMENTS = ROOT / "requirements.txt"
# What needs less memory, by the notebook that runs out of it.
LOWER = {"04": "lower reward_model.max_length", "06": "lower reinforce.micro_batch or reinforce.max_new_tokens"}
QUESTION = "Write a function `solve(xs)` that returns the sum of the list of integers."


@check(
    "versions: imports that fail, or results that drift from the committed ones; run `make course`, which installs the "
    "course's pins into .venv, and for a GPU's `.venv/bin/pip install -r {requirements.name}`"
)
def check_versions(requirements: Path = REQUIREMENTS):
    python = ".".join(platform.python_version_tuple()[:2])
    wrong = [] if python in ("3.11", "3.12") else [f"Python {python} instead of 3.11 or 3.12"]
    pins = re.findall(r"^([\w-]+)==(\S+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    found = [(package, installed(package), pinned) for package, pinned in pins]
    wrong += [f"{name} {mine} instead of {pinned}" for name, mine, pinned in found if mine.split("+")[0] != pinned]
    return not wrong, ", ".join(wrong) or f"Python {python} and all {len(pins)} pinned packages"


@check("cores: a run that takes about twice what the cost card says; allow this process more cores")
def check_cores(wanted: int = 2, available: int | None = None):
    cores = available or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return cores >= wanted, f"{cores} usable", False


@check("memory: a kernel killed in mid-training; close other programs until {wanted_gib:.0f} GiB are free")
def check_memory(wanted_gib: float = 3.0, available_gib: float | None = None):
    memory = psutil.virtual_memory()
    free = memory.available / GIB if available_gib is None else available_gib
    return free >= wanted_gib, f"{free:.1f} of {memory.total / GIB:.1f} GiB available"


@check("disk: artefacts that cannot be written; free {wanted_gib:.0f} GiB there, or choose another place with RUN_DIR=")
def check_disk(folder: Path, wanted_gib: float = 1.0, available_gib: float | None = None):
    place = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(place).free / GIB if available_gib is None else available_gib
    return free >= wanted_gib, f"{free:.1f} GiB free"


@check(
    "judge: every reward being 0, or unsafe; allow what it names, or run `python -m pytest tests/test_judge.py` and "
    "read its first failure"
)
def check_judge(make_judge: Callable[..., Judge] = Judge):
    """One right, one wrong and one endless program must get exactly these verdicts."""
    programs = {"passed": "return x + 1", "failed": "return x", "timeout": "while True: pass"}
    submissions = [Submission(f"def f(x):\n    {body}\n", ["assert f(1) == 2"]) for body in programs.values()]
    try:
        with make_judge(workers=1, limits=Limits(cpu_seconds=0.5, wall_seconds=10.0, memory_mb=512)) as judge:
            verdicts = [report.verdicts[0].status for report in judge.run(submissions)]
            level = getattr(judge, "level", None)
    except (ValueError, RuntimeError, OSError) as error:
        return False, str(error)
    if verdicts != list(programs):
        return False, f"verdicts {', '.join(verdicts)}"
    return True, f"tells right, wrong and endless programs apart, isolation {level}"


@check("GPU: a run that fails, or that computes on the CPU for weeks")
def check_gpu(machine: Machine, dtype: str, processes: int):
    """A GPU for each of `processes` on this machine, new enough for torch and for `dtype`."""
    if problem := gpu_problem(machine, dtype, processes):
        raise DeviceError(problem)
    return True, f"{len(machine.gpus)} x {', '.join(sorted({gpu.name for gpu in machine.gpus}))}"


@check("GPU memory for {notebook}, {stage}: an out-of-memory error in mid-training")
def check_gpu_memory(stage: str, notebook: str, needed: float, free: float, total: float, bfloat16: bool = True):
    """GiB per GPU: `needed` by the cost model, `free` and in `total` on the fullest card, which may lack `bfloat16`."""
    found = f"about {needed:.1f} GiB per GPU needed, {free:.1f} of {total:.1f} GiB free"
    if USABLE * free < needed <= USABLE * total:
        raise DeviceError(f"{found}; end the other programs on the GPU, which `nvidia-smi` lists.")
    if needed > USABLE * total:
        lower, fitting = LOWER.get(notebook, "take a smaller model"), for_one_card(total, bfloat16)
        lower += f", or run what this card holds ({fitting})" if fitting else ""
        raise DeviceError(f"{found}; {lower}, or take more or larger GPUs (see engine.launch).")
    return True, found


def preflight_gpu(profile: Profile, *notebooks: str) -> list[Finding]:
    """The GPU itself, and its memory for the stages of `notebooks` ("04"; none named: for all).

    Empty where the profile leaves the device open or names the CPU, as the pocket profile does.
    """
    if profile.models.device != "cuda":
        return []
    try:
        here, everywhere = processes_per_machine(profile.resolve(profile.engine.launch))
    except CourseError as error:
        return [failure("GPU", error, "a launch that fails")]
    gpu = check_gpu(facts := machine_facts(), profile.models.dtype, here)
    if not gpu.ok:
        return [gpu]
    try:
        planned = CostModel(replace(profile, plan=replace(profile.plan, gpus=everywhere))).stages()
    except CourseError:  # of models whose shape nobody knows, nothing can be computed
        return [gpu]
    fullest = *min(gpu_memory()), not gpu_problem(facts, "bfloat16")
    mine = [one for one in planned if not notebooks or one.notebook in notebooks]
    return [gpu, *(check_gpu_memory(one.what, one.notebook, one.gib, *fullest) for one in mine)]


@check(
    "chat template of {name}: a model that trains on text it will never see again; use an instruct model's tokenizer, "
    "or mend chat_template.jinja in the model folder"
)
def check_chat_template(name: str, template: str = "{question}"):
    """The question must come back whole from tokens, and the prompt must end where the assistant begins."""
    tokenizer = load_tokenizer(name)
    messages = solve_messages(template, QUESTION)
    prompt = render(tokenizer, messages)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if QUESTION not in prompt:
        return False, "the question is lost in the template"
    if tokenizer.decode(ids) != prompt:
        return False, "the prompt changes on its way through the tokenizer"
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        return False, "the prompt has unknown tokens"
    if prompt == tokenizer.apply_chat_template(messages, tokenize=False):
        return False, "the template ignores add_generation_prompt"
    return True, f"round-trips, {len(ids)} tokens for a short question"


@check(
    "end of reply of {name}: replies that never stop and are all cut off; put that token into eos_token_id of "
    "generation_config.json"
)
def check_eos(name: str):
    """What ends an assistant's turn in the template must be a token that generation stops at."""
    from transformers import GenerationConfig

    tokenizer = load_tokenizer(name)
    configured = None
    with load_explained(name, "has a generation_config.json that cannot be read", "mend it"), suppress(OSError):
        configured = GenerationConfig.from_pretrained(name).eos_token_id
    stops, ending = stop_tokens(configured, tokenizer), turn_end(tokenizer)
    names = ", ".join(tokenizer.convert_ids_to_tokens(stops)) or "no token at all"
    end = "nothing" if ending is None else tokenizer.convert_ids_to_tokens(ending)
    return ending in stops, f"the template ends a reply with {end}; generation stops at {names}"


def disk_gib(profile: Profile) -> float:
    """What a run has yet to write, at most: models, and the weights that the hub's cache does not hold."""
    there: dict[str, int] = {}
    with suppress(CacheNotFound):
        there = {one.repo_id: one.size_on_disk for one in scan_cache_dir().repos}
    try:
        missing = sum(max(0.0, gb * 1e9 - there.get(name, 0)) for name, gb in fetched_gb(profile).items())
        return 1.0 + (models_gb(profile) * 1e9 + missing) / GIB
    except CourseError:  # of models whose shape nobody knows
        return 1.0


def check_machine(profile: Profile, run_dir: Path) -> list[Finding]:
    """Versions, cores, memory, disk and GPUs against what the profile needs."""
    on_gpu = profile.models.device == "cuda" and profile.engine.generation == "vllm"
    versions = map(check_versions, [REQUIREMENTS, ROOT / "requirements-gpu.txt"][: 1 + on_gpu])
    machine = [check_cores(), check_memory(), check_disk(run_dir, disk_gib(profile))]
    return [*versions, *machine, *preflight_gpu(profile)]


def preflight(profile: Profile, run_dir: Path) -> list[Finding]:
    """Every check of the course's start. Of models on the hub the tokenizer and few settings are fetched."""
    names = [profile.models.policy, *([] if profile.published else [profile.reward_model.base])]
    if profile.data.adopt == "none":
        load_seeds(profile.resolve(profile.data.seeds))
        names += [profile.models.teacher, profile.models.proxy]
    local = sorted({profile.resolve(name) for name in names if not is_address(name)})
    tokenizers = [look(name) for name in local for look in (check_chat_template, check_eos)]
    return [*check_machine(profile, run_dir), check_judge(), *tokenizers]
