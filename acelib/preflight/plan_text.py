"""The plan of a profile as text, `python -m acelib plan`: what the cost model computes, and what to type."""

from urllib.parse import urlsplit

from acelib.core import Profile
from acelib.models import is_address
from acelib.preflight.cost_model import fetched_gb, fits, kept_questions, models_gb, rescale, stages
from acelib.preflight.shapes import FULL, HALF


def plan(profile: Profile, questions: int | None = None) -> str:
    """The whole plan of a profile as text, for `questions` after filtering instead of its own number."""
    assumed = profile.plan
    if not assumed.gpus:
        return (
            f"Profile {profile.name} needs no GPU: `make course PROFILE={profile.name}` takes minutes; notebook 00 "
            "prints what it took when last measured."
        )
    profile = profile if questions is None else rescale(profile, questions)
    found, price = stages(profile), assumed.dollars_per_gpu_hour
    lines = [
        f"Profile {profile.name} on {assumed.gpus} x {assumed.gpu} ({assumed.gpu_memory_gb:g} GB each), "
        f"{kept_questions(profile):,.0f} questions, {profile.reinforce.steps:,} RL rollouts",
        "",
        f"{'':4}{'stage':34}{'tokens':>9}{'hours':>8}{'GPU-h':>9}{'dollars':>9}{'GiB/GPU':>9}   the paper",
    ]
    for one in found:
        spent = one.hours * assumed.gpus
        lines.append(
            f"{one.notebook:4}{one.what:34}{_short(one.tokens):>9}{one.hours:>8.1f}{spent:>9.1f}"
            f"{spent * price + one.dollars:>9,.0f}{one.gib:>8.0f}{' ' if fits(one, profile) else '!'}"
            f"   {one.paper}".rstrip()
        )
    hours, bought = sum(one.hours for one in found), sum(one.dollars for one in found)
    lines += [
        f"{'':4}{'all':34}{'':9}{hours:>8.1f}{hours * assumed.gpus:>9.1f}"
        f"{hours * assumed.gpus * price + bought:>9,.0f}",
        "",
        *commands(profile),
        "",
        f"Computed, not measured: {assumed.gpu_tflops:g} TFLOP/s peak per GPU (bf16), of which training gets "
        f"{100 * assumed.training_utilisation:g}% and decoding {100 * assumed.generation_utilisation:g}%;",
        f"{assumed.question_tokens} tokens per question, {assumed.program_tokens} per program, "
        f"{assumed.reply_tokens} per teacher's reply; ${price:g} per GPU-hour: all in the profile's `plan`.",
        f"Memory is the worst case (every sequence as long as it may be): {_weights(profile)}",
        _disk(profile),
        "A lower bound on time, without loading and judging: the paper's own runs took several times as long.",
    ]
    if not all(fits(one, profile) for one in found):
        lines.append(
            "! does not fit: lower reinforce.micro_batch, reward_model.micro_batch or max_new_tokens; take a "
            "smaller model, engine.lora_rank, or more GPUs (engine.vllm_parallel for sampling)."
        )
    return "\n".join(lines)


def commands(profile: Profile) -> list[str]:
    """What to type, in order, and what each stage runs under."""
    engine, course = profile.engine, f"make course PROFILE={profile.name}"
    lines = ["Commands"]
    if engine.cluster != "none":
        lines += _row("ray start --head --port=6379", "once, on the first machine; then on every other:")
        lines += _row("ray start --address=<first machine>:6379", "the same checkout and .venv at the same path")
    for model in (profile.models.teacher, profile.models.proxy):
        where = urlsplit(model) if is_address(model) and profile.data.adopt == "none" else None
        if where and where.hostname in ("localhost", "127.0.0.1"):
            lines += _row(
                f"vllm serve {where.fragment} --port {where.port or 80}{_parallel(engine)}",
                "first, for notebooks 01 and 02",
            )
    if engine.generation == "vllm" and engine.vllm_mode == "server":
        lines += _row(
            f"VLLM_SERVER_DEV_MODE=1 vllm serve {profile.models.policy}{_parallel(engine)} --port "
            f"{urlsplit(engine.vllm_server).port or 8000} --weight-transfer-config "
            '\'{"backend": "nccl"}\'',
            "on GPUs of its own, for notebook 06",
        )
    adopted = "" if profile.data.adopt == "none" else f" from the questions of {profile.data.adopt}"
    lines += _row(course, f"everything{adopted}; repeat it after a stop, it goes on")
    sampler = f"vLLM{_parallel(engine)}" if engine.generation == "vllm" else "transformers"
    on_ray = f"{sampler}, on Ray, {engine.shard_questions:,} questions a shard"
    sampler += " on this machine"
    trainer = "in its process" if engine.launch == "none" else f"accelerate launch --config_file {engine.launch}"
    trainer += f", LoRA of rank {engine.lora_rank}" if engine.lora_rank else ""
    both = f"{trainer}; vLLM {engine.vllm_mode}" if engine.generation == "vllm" else trainer
    under = {"01": sampler, "02": sampler} if profile.data.adopt == "none" else {}
    under |= {
        "03": on_ray if engine.cluster != "none" else sampler,
        "04": trainer,
        "05": sampler,
        "06": both,
        "07": sampler,
    }
    for number, what in under.items():
        lines += _row(f"{course} ONLY={number}", what)
    return lines


def _row(command: str, why: str) -> list[str]:
    return [f"  {command:42} # {why}"]


def _parallel(engine) -> str:
    return f" --tensor-parallel-size {engine.vllm_parallel}" if engine.vllm_parallel > 1 else ""


def _weights(profile: Profile) -> str:
    if profile.engine.lora_rank:
        return f"{FULL} bytes per frozen weight (fp32), 16 per adapter's (fp32, gradient, Adam)."
    size = HALF if profile.models.dtype == "bfloat16" else FULL
    return f"16 bytes per weight that learns (fp32, gradient, Adam), {size} per reference weight."


def _disk(profile: Profile) -> str:
    made, sizes = models_gb(profile), fetched_gb(profile)
    fetched = ", ".join(f"{name} {gb:.1f}" for name, gb in sizes.items())
    return (
        f"Disk: {made + sum(sizes.values()):,.0f} GB, of which {made:,.0f} for the models it makes with their "
        f"checkpoints, {sum(sizes.values()):,.0f} for weights to fetch ({fetched or 'none'})."
    )


def _short(tokens: float) -> str:
    if not tokens:
        return "-"
    return f"{tokens / 1e9:,.2f} G" if tokens >= 1e9 else f"{tokens / 1e6:.1f} M"
