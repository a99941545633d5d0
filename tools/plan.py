"""The plan of a profile as text: stages, hours, memory and dollars by the cost model, and what to type.

python -m acelib plan [--profile NAME] [--set KEY=VALUE] [--questions N]
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from urllib.parse import urlsplit

from acelib.core import Profile, ProfileError, load_profile
from acelib.models import is_address
from acelib.preflight import EVALUATES, CostModel, fetched_gb, fits, for_one_card, models_gb
from acelib.training import NF4
from tools.commands import PROFILE_AND_SET, explained, set_values
from tools.together import misfits

CARDS = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141)  # GB, as they are sold
PLAN = """\
Profile {name} on {plan.gpus} x {plan.gpu} ({plan.gpu_memory_gb:g} GB each), {amount}

    stage                                tokens   hours    GPU-h  dollars  GiB here  would do   the paper
{rows}
    all                                        {hours:>8.1f}{gpu_hours:>9.1f}{dollars:>9}           {card:>9}

Commands
{commands}

Computed, not measured: {plan.gpu_tflops:g} TFLOP/s peak per GPU ({dtype}), of which training gets \
{training:g}% and decoding {decoding:g}%;
{plan.question_tokens} tokens per question, {plan.program_tokens} per program, {plan.reply_tokens} per teacher's \
reply; ${plan.dollars_per_gpu_hour:g} per GPU-hour: all in the profile's `plan`.
GiB here: per GPU, with the share of this card that vLLM takes beside a training. The worst case in training (every \
sequence as long as it may be), for vLLM alone the least it works in: {weights}
{activations}Would do: the smallest card that is sold ({cards} GB) and holds the stage, as many as planned; of a \
smaller card vLLM's share is smaller, too.
Disk: {disk:,.0f} GB, of which {made:,.0f} for the models it makes with their checkpoints, {fetched:,.0f} for \
weights to fetch ({names}).
A lower bound on time, without loading and judging: the paper's own runs took several times as long."""
AUTO = "Activations, as engine.gradient_checkpointing auto decides: {} in notebook 04, {} in 06.\n"
TRAINED = "{:,.0f} questions, {:,} RL rollouts"
ADAPTERS = "{} bytes per frozen weight, 16 per adapter's (fp32, gradient, Adam)."
WEIGHTS = "16 bytes per weight that learns (fp32, gradient, Adam), {} per reference weight."
TOO_LARGE = """
! does not fit: lower reinforce.micro_batch, reward_model.micro_batch or max_new_tokens; take a smaller model, \
engine.lora_rank, or more GPUs (engine.vllm_parallel for sampling)"""
HELD = "; or run what one such card holds: {}"
NO_GPU = (
    "Profile {0} needs no GPU: `make course PROFILE={0}` takes minutes; notebook 00 prints what it took when last "
    "measured."
)


def plan(profile: Profile, questions: int | None = None) -> str:
    """The whole plan of a profile as text, for `questions` after filtering instead of its own number.

    Raises ModelError for models of unknown shape, and for fewer than one question; ProfileError where GPUs are needed
    and not described.
    """
    assumed, model = profile.plan, CostModel(profile, questions)
    _check_described(profile)
    wrong = "".join(f"\n! cannot be run: {one}" for one in misfits(profile, gpus=assumed.gpus and model.here))
    if not assumed.gpus:
        return NO_GPU.format(profile.name) + wrong
    cards = smallest_cards(profile, questions)
    found, price, rows = model.stages(), assumed.dollars_per_gpu_hour, []
    for one, card in zip(found, cards, strict=True):
        spent, mark = one.hours * assumed.gpus, " " if fits(one, profile) else "!"
        row = f"{one.notebook:4}{one.what:34}{_short(one.tokens):>9}{one.hours:>8.1f}{spent:>9.1f}"
        row += f"{_dollars(spent * price + one.dollars):>9}{one.gib:>10.0f}{mark}{_gb(card):>9}   {one.paper}"
        rows.append(row.rstrip())
    frozen = NF4 if profile.engine.quantise == "nf4" else model.size
    hours, made, sizes = sum(one.hours for one in found), models_gb(profile), fetched_gb(profile)
    text = PLAN.format(
        name=profile.name,
        plan=assumed,
        dtype=profile.models.dtype,
        amount="nothing is trained" if profile.published else TRAINED.format(model.questions, model.rollouts),
        rows="\n".join(rows),
        hours=hours,
        card=_gb(max(cards)),
        cards=", ".join(map(str, CARDS)),
        gpu_hours=hours * assumed.gpus,
        dollars=_dollars(hours * assumed.gpus * price + sum(one.dollars for one in found)),
        commands="\n".join(f"  {command:42} # {why}" for command, why in commands(profile)),
        training=100 * assumed.training_utilisation,
        decoding=100 * assumed.generation_utilisation,
        weights=(ADAPTERS if profile.engine.lora_rank else WEIGHTS).format(frozen),
        activations=_activations(model),
        disk=made + sum(sizes.values()),
        made=made,
        fetched=sum(sizes.values()),
        names=", ".join(f"{name} {gb:.1f}" for name, gb in sizes.items()) or "none",
    )
    if not all(fits(one, profile) for one in found):
        held = for_one_card(assumed.gpu_memory_gb * 1e9 / 2**30, profile.models.dtype == "bfloat16")
        text += TOO_LARGE + (HELD.format(held) if held else ".")
    return text + wrong


def _activations(model: CostModel) -> str:
    """What `auto` decides, as a line; none where the profile itself says."""
    if model.engine.gradient_checkpointing != "auto" or model.profile.published:
        return ""
    return AUTO.format(
        *("computed again" if model.checkpoints(one) else "kept" for one in ("reward_model", "reinforce"))
    )


def smallest_cards(profile: Profile, questions: int | None = None) -> list[float]:
    """GB of the smallest of CARDS that holds each stage, 0 where none is needed and infinity where none does."""
    found = []
    for size in CARDS:
        some = CostModel(profile, questions, size).stages()
        found.append([0 if not one.gib else size if fits(one, profile, size) else inf for one in some])
    return [min(sizes) for sizes in zip(*found, strict=True)]


def _gb(card: float) -> str:
    return "-" if not card else f"{card} GB" if card < inf else f"> {max(CARDS)} GB"


def _dollars(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 9.95 or not amount else f"{amount:.1f}"


def _check_described(profile: Profile) -> None:
    """Raises ProfileError where a plan would take a profile for one that needs no GPU, or a GPU for one of 0 GB."""
    assumed, engine = profile.plan, profile.engine
    wanted = {
        "models.device cuda": profile.models.device == "cuda",
        "engine.generation vllm": engine.generation == "vllm",
        f"engine.quantise {engine.quantise}": engine.quantise != "none",
    }
    why = next((one for one, holds in wanted.items() if holds), "plan.gpus above 0")
    lacking = [f"plan.{key}" for key in ("gpus", "gpu_memory_gb") if not getattr(assumed, key)]
    if lacking and (assumed.gpus or any(wanted.values())):
        raise ProfileError(
            f"Profile {profile.name} asks for GPUs ({why}), and its plan has 0 for {' and '.join(lacking)}; set "
            "plan.gpus, plan.gpu_memory_gb and plan.gpu_tflops to those of your cards."
        )


def commands(profile: Profile) -> Iterator[tuple[str, str]]:
    """What to type, in order, each with what it is for or runs under."""
    engine, models, adopts = profile.engine, profile.models, profile.data.adopt != "none"
    course = f"make course PROFILE={profile.name}"
    parallel = f" --tensor-parallel-size {engine.vllm_parallel}" if engine.vllm_parallel > 1 else ""
    if engine.cluster != "none":
        yield "ray start --head --port=6379", "once, on the first machine; then on every other:"
        yield "ray start --address=<first machine>:6379", "the same checkout and .venv at the same path"
    for where in [urlsplit(one) for one in (models.teacher, models.proxy) if is_address(one) and not adopts]:
        if where.hostname in ("localhost", "127.0.0.1"):
            options = (
                f"--port {where.port or 80}{parallel} --generation-config vllm"  # else the hub's top_k and penalties
            )
            yield f"vllm serve {where.fragment} {options}", "first, for notebooks 01 and 02"
    if engine.generation == "vllm" and engine.vllm_mode == "server":
        yield (
            f"VLLM_SERVER_DEV_MODE=1 vllm serve {models.policy}{parallel} --port "
            f'{urlsplit(engine.vllm_server).port or 8000} --weight-transfer-config \'{{"backend": "nccl"}}\'',
            "on GPUs of its own, for notebook 06",
        )
    adopted = f" from the questions of {profile.data.adopt}" if adopts and not profile.published else ""
    yield course, f"everything{adopted}; repeat it after a stop, it goes on"
    vllm = engine.generation == "vllm"
    sampler = f"vLLM{parallel}" if vllm else "transformers"
    here = f"{sampler} on this machine"
    spread = f"{sampler}, on Ray, {engine.shard_questions:,} questions a shard"
    trainer = "in its process" if engine.launch == "none" else f"accelerate launch --config_file {engine.launch}"
    trainer += f", LoRA of rank {engine.lora_rank}" if engine.lora_rank else ""
    under = {} if adopts else {"01": here, "02": here}
    under |= {"03": here if engine.cluster == "none" else spread, "04": trainer, "05": here}
    under |= {"06": f"{trainer}; vLLM {engine.vllm_mode}" if vllm else trainer, "07": here}
    under = {number: what for number, what in under.items() if not profile.published or number in EVALUATES}
    yield from ((f"{course} ONLY={number}", what) for number, what in under.items())


def _short(tokens: float) -> str:
    if not tokens:
        return "-"
    return f"{tokens / 1e9:,.2f} G" if tokens >= 1e9 else f"{tokens / 1e6:.1f} M"


def say(lines: Iterable[str]) -> None:
    """Prints each as it comes, until the end or until who reads has enough (`| head`)."""
    try:
        for line in lines:
            print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m acelib plan", description=__doc__.partition("\n\n")[0], parents=[PROFILE_AND_SET]
    )
    parser.add_argument("--questions", metavar="N", type=int, help="for N filtered questions, and RL in proportion")
    asked = parser.parse_args(words)
    say([plan(load_profile(asked.profile, set_values(asked.overrides)), asked.questions)])
