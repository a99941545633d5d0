"""Checks before anything expensive: each names what it found, what it prevents, and what to do when it fails."""

import os
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from transformers import PreTrainedTokenizerBase

from acelib.core import ROOT, CourseError, Profile
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
)
from acelib.preflight.cost_model import USABLE, fetched_gb, models_gb, stages

REQUIREMENTS = ROOT / "requirements.txt"
LOWER = {  # what needs less memory, by the notebook that runs out of it
    "04": "lower reward_model.max_length",
    "06": "lower reinforce.micro_batch or reinforce.max_new_tokens",
}


@dataclass(frozen=True)
class Finding:
    """`prevents` is the symptom a reader would otherwise meet; `remedy` is empty when all is well."""

    check: str
    ok: bool
    found: str
    prevents: str
    remedy: str = ""
    required: bool = True


def finding(check: str, ok: bool, found: str, prevents: str, remedy: str, required: bool = True) -> Finding:
    """A Finding that keeps its remedy only when it is needed."""
    return Finding(check, ok, found, prevents, "" if ok else remedy, required)


def check_versions(requirements: Path = REQUIREMENTS) -> Finding:
    python = platform.python_version_tuple()[:2]
    wrong = [] if python in (("3", "11"), ("3", "12")) else [f"Python {'.'.join(python)} instead of 3.11 or 3.12"]
    pins = re.findall(r"^([\w-]+)==(\S+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    for package, pinned in pins:
        try:
            installed = version(package)
        except PackageNotFoundError:
            installed = "missing"
        if installed.split("+")[0] != pinned:
            wrong.append(f"{package} {installed} instead of {pinned}")
    found = ", ".join(wrong) or f"Python {'.'.join(python)} and all {len(pins)} pinned packages"
    return finding(
        "versions",
        not wrong,
        found,
        "imports that fail, or results that drift from the committed ones",
        "run the course through `make course`, which installs the pins into .venv",
    )


def check_cores(wanted: int = 2, available: int | None = None) -> Finding:
    cores = available or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return finding(
        "cores",
        cores >= wanted,
        f"{cores} usable",
        "a run that takes much longer than the cost card says",
        "expect about twice the time, or allow this process more cores",
        required=False,
    )


def check_memory(wanted_gib: float = 3.0, available_gib: float | None = None) -> Finding:
    free = psutil.virtual_memory().available / GIB if available_gib is None else available_gib
    return finding(
        "memory",
        free >= wanted_gib,
        f"{free:.1f} GiB available",
        "a kernel killed in mid-training",
        f"close other programs until {wanted_gib:.0f} GiB are free",
    )


def check_disk(folder: Path, wanted_gib: float = 1.0, available_gib: float | None = None) -> Finding:
    place = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(place).free / GIB if available_gib is None else available_gib
    return finding(
        "disk",
        free >= wanted_gib,
        f"{free:.1f} GiB free",
        "artefacts that cannot be written",
        f"free {wanted_gib:.0f} GiB there, or choose another place with RUN_DIR=",
    )


def check_judge(limits: Limits | None = None, make_judge: Callable = Judge) -> Finding:
    """One right, one wrong and one endless program must get exactly these verdicts."""
    programs = {"passed": "return x + 1", "failed": "return x", "timeout": "while True: pass"}
    submissions = [Submission(f"def f(x):\n    {body}\n", ["assert f(1) == 2"]) for body in programs.values()]
    limits = limits or Limits(cpu_seconds=0.5, wall_seconds=10.0, memory_mb=512)
    try:
        with make_judge(workers=1, limits=limits) as judge:
            verdicts = [report.verdicts[0].status for report in judge.run(submissions)]
            level = getattr(judge, "level", None)
    except (CourseError, ValueError, RuntimeError, OSError) as error:
        return finding("judge", False, str(error), "every reward being 0, or unsafe", "allow what the message names")
    ok = verdicts == list(programs)
    found = f"tells right, wrong and endless programs apart, isolation {level}"
    found = found if ok else f"verdicts {', '.join(verdicts)}"
    return finding(
        "judge",
        ok,
        found,
        "every reward being 0, or unsafe",
        "run `python -m pytest tests/test_judge.py` and read its first failure",
    )


def check_gpu(machine: Machine, dtype: str, processes: int) -> Finding:
    """A GPU for each of `processes` on this machine, new enough for torch and for `dtype`."""
    what, _, remedy = (gpu_problem(machine, dtype, processes) or "").rstrip(".").partition("; ")
    names = ", ".join(sorted({gpu.name for gpu in machine.gpus}))
    return finding(
        "GPU",
        not what,
        what or f"{len(machine.gpus)} x {names}",
        "a run that fails, or that computes on the CPU for weeks",
        remedy,
    )


def check_gpu_memory(stage: str, notebook: str, needed: float, free: float, total: float) -> Finding:
    """`needed`, `free` and `total` are GiB per GPU: what the cost model computes, and what the fullest card has."""
    remedy = f"{LOWER.get(notebook, 'take a smaller model')}, or take more or larger GPUs (see engine.launch)"
    if needed <= USABLE * total:
        remedy = "end the other programs on the GPU, which `nvidia-smi` lists"
    return finding(
        f"GPU memory for {notebook}, {stage}",
        needed <= USABLE * free,
        f"about {needed:.1f} GiB per GPU needed, {free:.1f} of {total:.1f} GiB free",
        "an out-of-memory error in mid-training",
        remedy,
    )


def preflight_gpu(profile: Profile, *notebooks: str) -> list[Finding]:
    """The GPU itself, and its memory for the stages of `notebooks` ("04"; none named: for all).

    Empty where the profile leaves the device open or names the CPU, as the pocket profile does.
    """
    if profile.models.device != "cuda":
        return []
    try:
        here, everywhere = processes_per_machine(profile.resolve(profile.engine.launch))
    except CourseError as error:
        return [finding_of_error("GPU", error, "a launch that fails")]
    try:
        planned = stages(replace(profile, plan=replace(profile.plan, gpus=everywhere)))
    except CourseError:
        planned = []  # of models whose shape nobody knows, nothing can be computed
    findings = [check_gpu(machine_facts(), profile.models.dtype, here)]
    if not findings[0].ok:
        return findings
    free, total = min(gpu_memory())
    return findings + [
        check_gpu_memory(one.what, one.notebook, one.gib, free, total)
        for one in planned
        if not notebooks or one.notebook in notebooks
    ]


def finding_of_error(check: str, error: CourseError, prevents: str) -> Finding:
    """A failed check from an error whose message reads `what is wrong; remedy`."""
    what, _, remedy = str(error).rstrip(".").partition("; ")
    return finding(check, False, what, prevents, remedy)


QUESTION = "Write a function `solve(xs)` that returns the sum of the list of integers."


def check_chat_template(name: str, template: str = "{question}") -> Finding:
    """The question must come back whole from tokens, and the prompt must end where the assistant begins."""
    check, prevents = f"chat template of {Path(name).name}", "a model that trains on text it will never see again"
    remedy = "use an instruct model's tokenizer, or mend chat_template.jinja in the model folder"
    try:
        tokenizer = load_tokenizer(name)
    except CourseError as error:
        return finding_of_error(check, error, prevents)
    prompt = render(tokenizer, solve_messages(template, QUESTION))
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    silent = tokenizer.apply_chat_template(solve_messages(template, QUESTION), tokenize=False)
    if QUESTION not in prompt:
        found = "the question is lost in the template"
    elif tokenizer.decode(ids) != prompt:
        found = "the prompt changes on its way through the tokenizer"
    elif tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        found = "the prompt has unknown tokens"
    elif prompt == silent:
        found = "the template ignores add_generation_prompt"
    else:
        return finding(check, True, f"round-trips, {len(ids)} tokens for a short question", prevents, remedy)
    return finding(check, False, found, prevents, remedy)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token with which the chat template ends an assistant's turn; None when it adds nothing there."""
    turn = [*solve_messages("{question}", QUESTION), {"role": "assistant", "content": "REPLY"}]
    after = tokenizer.apply_chat_template(turn, tokenize=False).rpartition("REPLY")[2]
    return next(iter(tokenizer(after, add_special_tokens=False)["input_ids"]), None)


def check_eos(name: str) -> Finding:
    """What ends an assistant's turn in the template must be a token that generation stops at."""
    from transformers import GenerationConfig

    check, prevents = f"end of reply of {Path(name).name}", "replies that never stop and are all cut off"
    try:
        tokenizer = load_tokenizer(name)
    except CourseError as error:
        return finding_of_error(check, error, prevents)
    try:
        configured = GenerationConfig.from_pretrained(name).eos_token_id
    except OSError:
        configured = None
    stops = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id} - {None}
    ending = turn_end(tokenizer)
    names = ", ".join(tokenizer.convert_ids_to_tokens(sorted(stops))) or "no token at all"
    end = "nothing" if ending is None else tokenizer.convert_ids_to_tokens(ending)
    found = f"the template ends a reply with {end}; generation stops at {names}"
    return finding(
        check, ending in stops, found, prevents, "put that token into eos_token_id of generation_config.json"
    )


def disk_gib(profile: Profile) -> float:
    """What a run needs, at most: on a second run the fetched weights are there already."""
    try:
        return 1.0 + (models_gb(profile) + sum(fetched_gb(profile).values())) * 1e9 / GIB
    except CourseError:  # of models whose shape nobody knows
        return 1.0


def preflight(profile: Profile, run_dir: Path, memory_gib: float = 3.0) -> list[Finding]:
    """Every check of the course's start. Of models on the hub the tokenizer and few settings are fetched."""
    findings = [
        check_versions(),
        check_cores(),
        check_memory(memory_gib),
        check_disk(run_dir, disk_gib(profile)),
        check_judge(),
    ]
    findings += preflight_gpu(profile)
    models = profile.models
    names = {models.policy} | ({models.teacher, models.proxy} if profile.data.adopt == "none" else set())
    for name in sorted(profile.resolve(name) for name in names if not is_address(name)):
        findings += [check_chat_template(name), check_eos(name)]
    return findings


def report(findings: list[Finding]) -> str:
    """One line per finding; failures with what they would lead to and the remedy."""
    lines = []
    for one in findings:
        mark = "ok  " if one.ok else "FAIL" if one.required else "note"
        lines.append(f"{mark}  {one.check}: {one.found}")
        if not one.ok:
            lines.append(f"      would lead to {one.prevents}; {one.remedy}")
    return "\n".join(lines)


def require(findings: list[Finding]) -> None:
    """Raise CourseError when a required check failed."""
    failed = [one for one in findings if not one.ok and one.required]
    if failed:
        first = failed[0]
        raise CourseError(
            f"{len(failed)} preflight check(s) failed. First: {first.check}: {first.found}; {first.remedy}."
        )
