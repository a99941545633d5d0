"""From 87 thousand questions to 10 million: `docs/scaling.md`, made by `python bench/scaling.py`.

What was measured comes from `docs/units.json` (`python bench/units.py`); GPU-hours are those of the cost model.
"""

import json
from collections import Counter
from typing import Any

from acelib.core import ROOT, DataError, Profile, load_profile
from acelib.preflight import ACECODE, Stage, models_gb, rescale, shape_of, stages

UNITS = ROOT / "docs" / "units.json"
SIZES = (ACECODE, 10**6, 10**7)
MONTH = 720  # hours
DOLLARS_PER_CORE_HOUR = 0.04  # assumed
DOLLARS_PER_GB_MONTH = 0.02  # assumed
NODE_GIB = 512  # memory of the machine that runs the notebooks, assumed
STEP_SECONDS = 0.01  # for one more token of every reply, however many GPUs share them; assumed
PAPER_PAIRS = 307_509 / ACECODE  # per question (Table 1)
PAPER_TEACHER = 300 / 124_006  # dollars per question asked for, GPT-4o-mini
PAPER_HOURS = {"04": 24 * 8, "06": 6 * 8}  # GPU-hours of one training, A100 and H100


def load_units() -> dict[str, Any]:
    """Raises DataError."""
    if not UNITS.exists():
        raise DataError(
            f"There is no {UNITS.name} in {UNITS.parent}; measure it with `python bench/units.py --to docs/units.json`."
        )
    return json.loads(UNITS.read_text(encoding="utf-8"))


def predict(profile: Profile, questions: int, units: dict[str, Any]) -> dict[str, float]:
    """Figures for `questions` after filtering, by the words the page uses for them."""
    at, assumed, tables = rescale(profile, questions), profile.plan, units["tables"]
    found, hours = stages(at), Counter()
    for one in found:
        hours[one.notebook] += one.hours * assumed.gpus
    gpu, rl = sum(hours.values()), at.reinforce
    rollouts = rl.steps * rl.rollout_questions * rl.samples_per_question
    programs = at.synthesis.questions + questions * at.sampling.n + 2 * rollouts
    gb = {
        "samples": 2 * questions * tables["samples, bytes per question"] / 1e9,
        "tests": (at.synthesis.questions + questions) * tables["questions and tests, bytes per question"] / 1e9,
        "pairs": 2 * questions * PAPER_PAIRS * tables["pairs, bytes per pair"] / 1e9,
        "log": questions * tables["reply log, bytes per question"] / 1e9,
    }
    models = models_gb(profile)
    honest, bad = units["judge"]["CPU ms per program, honest"], units["judge"]["CPU ms per program, 5% bad"]
    waiting = 2 / units["judge"]["programs/s with 2 workers, 5% bad"]
    core_hours, per_report = programs * bad / 3.6e6, units["reports"]["reports of 16 verdicts held, KiB per program"]
    return {
        **{number: hours[number] for number in sorted(hours)},
        "GPU-hours": gpu,
        "GPU-hours, paper's pace": gpu
        + 2 * sum(one * questions / ACECODE - hours[number] / 2 for number, one in PAPER_HOURS.items()),
        "days": gpu / assumed.gpus / 24,
        "GPUs for a month": gpu / MONTH,
        "GPU dollars": gpu * assumed.dollars_per_gpu_hour,
        "dollars": gpu * assumed.dollars_per_gpu_hour
        + core_hours * DOLLARS_PER_CORE_HOUR
        + (sum(gb.values()) + models) * DOLLARS_PER_GB_MONTH,
        "teacher bought": at.synthesis.questions * PAPER_TEACHER,
        "teacher own": _stage(found, "01").hours * assumed.gpus * assumed.dollars_per_gpu_hour,
        "million programs": programs / 1e6,
        "core-hours, honest": programs * honest / 3.6e6,
        "core-hours": core_hours,
        "judge hours": programs * waiting / profile.judge.workers / 3600,
        "judge hours of 03": questions * at.sampling.n * waiting / profile.judge.workers / 3600,
        "sampling hours of 03": _stage(found, "03").hours,
        "core dollars": core_hours * DOLLARS_PER_CORE_HOUR,
        "rollouts": rl.steps,
        "RL hours": _stage(found, "06").hours,
        "RL floor": rl.steps * rl.max_new_tokens * STEP_SECONDS / 3600,
        **{f"{name} GB": value for name, value in gb.items()},
        "models GB": models,
        "GB": sum(gb.values()) + models,
        "storage dollars": (sum(gb.values()) + models) * DOLLARS_PER_GB_MONTH,
        "tables GiB": 2 * questions * tables["samples as Python lists, KiB per question"] / 2**20,
        "reports GiB": questions * at.sampling.n * per_report / 2**20,
    }


def _stage(found: list[Stage], notebook: str) -> Stage:
    return next(one for one in found if one.notebook == notebook)


ROWS = (  # heading of the row, key of `predict`, format
    ("**GPU-hours**: teacher (01)", "01", "{:,.0f}"),
    ("proxy (02)", "02", "{:,.0f}"),
    ("sampling, 16 programs each (03)", "03", "{:,.0f}"),
    ("two reward models (04)", "04", "{:,.0f}"),
    ("two RL runs (06)", "06", "{:,.0f}"),
    ("best of N and evaluation (05, 07)", ("05", "07"), "{:,.1f}"),
    ("all", "GPU-hours", "{:,.0f}"),
    ("all, 04 (A100) and 06 (H100) at the paper's own pace", "GPU-hours, paper's pace", "{:,.0f}"),
    ("days on 8 GPUs", "days", "{:,.1f}"),
    ("GPUs to be done in a month", "GPUs for a month", "{:,.1f}"),
    ("**Judge**: programs, millions", "million programs", "{:,.1f}"),
    ("core-hours, honest programs", "core-hours, honest", "{:,.1f}"),
    ("core-hours, 5% bad ones", "core-hours", "{:,.0f}"),
    ("hours with 32 workers, 5% bad ones", "judge hours", "{:,.1f}"),
    ("**Storage, GB**: samples, twice", "samples GB", "{:,.1f}"),
    ("questions and tests", "tests GB", "{:,.1f}"),
    ("pairs, twice", "pairs GB", "{:,.1f}"),
    ("reply log, while sampling", "log GB", "{:,.1f}"),
    ("models and checkpoints", "models GB", "{:,.0f}"),
    ("**Memory, GiB**: both sample tables in notebook 03", "tables GiB", "{:,.0f}"),
    ("all reports of the judge, were they not sharded", "reports GiB", "{:,.1f}"),
    ("**Dollars**: GPUs", "GPU dollars", "{:,.0f}"),
    ("cores", "core dollars", "{:,.0f}"),
    ("storage, a month", "storage dollars", "{:,.0f}"),
    ("all of these", "dollars", "{:,.0f}"),
    ("the teacher bought instead of run", "teacher bought", "{:,.0f}"),
)


def page() -> str:
    """docs/scaling.md as text. Raises DataError when nothing was measured."""
    units, profile = load_units(), load_profile("paper")
    columns = [predict(profile, size, units) for size in SIZES]
    lines = [
        *_head(units, profile),
        "",
        "## Prediction",
        "",
        f"| profile `{profile.name}`, {profile.plan.gpus} x {profile.plan.gpu} | 87,149 questions | 1 million | "
        "10 million |",
        "|---|---:|---:|---:|",
    ]
    for heading, key, form in ROWS:
        values = [sum(one[k] for k in key) if isinstance(key, tuple) else one[key] for one in columns]
        lines.append(f"| {heading} | {' | '.join(form.format(value) for value in values)} |")
    return "\n".join([*lines, "", *_bottlenecks(units, profile, columns)])


def _head(units: dict[str, Any], profile: Profile) -> list[str]:
    assumed, judge, tables = profile.plan, units["judge"], units["tables"]
    speeds = {}
    for what, name, share, passes in (
        ("teacher and proxy decode", profile.models.teacher, assumed.generation_utilisation, 1),
        ("policy decodes", profile.models.policy, assumed.generation_utilisation, 1),
        ("reward model learns", profile.reward_model.base, assumed.training_utilisation, 4),
    ):
        speeds[what] = assumed.gpu_tflops * 1e12 * share / (2 * passes * shape_of(name).parameters)
    rows = [
        (f"{what}, tokens/s per {assumed.gpu}", f"{speed:,.0f}", "computed: data sheet x assumed share")
        for what, speed in speeds.items()
    ]
    rows += [
        (
            "pocket policy (about 1M parameters) decodes, tokens/s on one core",
            f"{units['pocket']['policy, tokens/s on one core']:,.0f}",
            "measured; an example",
        )
    ]
    for kind in ("honest", "5% bad"):
        rows += [
            (f"judge, CPU ms per program, {kind}", f"{judge[f'CPU ms per program, {kind}']:.2f}", "measured"),
            (
                f"judge, verdicts per core-second, {kind}",
                f"{judge[f'verdicts per core-second, {kind}']:,.0f}",
                "measured",
            ),
        ]
    rows += [
        (
            "a worker's time per program, 5% bad, ms",
            f"{2000 / judge['programs/s with 2 workers, 5% bad']:.0f}",
            "measured by the wall clock, on the shared machine",
        )
    ]
    rows += [(what, f"{value:,.1f}" if value < 1000 else f"{value:,.0f}", "measured") for what, value in tables.items()]
    rows += [(what, f"{value:.2f}", "measured") for what, value in units["reports"].items()]
    rows += [("RL log, bytes per rollout", f"{units['pocket']['RL log, bytes per rollout']:.0f}", "measured, pocket")]
    return [
        "# Beyond one cluster: 87 thousand to 10 million questions",
        "",
        "Made by `python bench/scaling.py`; a test holds this page to it. **No GPU figure here was measured by "
        "us.** Tokens per second of a GPU are data-sheet operations times the shares assumed in `profiles/paper.yaml`, "
        "a lower bound on time: the paper's own trainings took several times as long, so one row has their pace. "
        f"Everything else was measured with `python bench/units.py` on {units['measured']} ({units['machine']}; "
        f"programs: {units['programs']}, {judge['tests per program']:.0f} tests each; the machine was shared, which "
        "wall-clock figures show and CPU figures do not) and is multiplied out. *5% bad*: every twentieth program "
        "loops, calls `sleep`, exits, recurses or fills memory, a pessimistic assumption.",
        "",
        "## Unit costs",
        "",
        "| | | |",
        "|---|---:|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Prices: ${assumed.dollars_per_gpu_hour:g} per GPU-hour, ${DOLLARS_PER_CORE_HOUR:g} per core-hour, "
        f"${DOLLARS_PER_GB_MONTH:g} per GB and month, all assumed; a bought teacher at the paper's $300 for 124,006 "
        "calls. RL grows with the questions (one pass over the hard quarter).",
    ]


def _bottlenecks(units: dict[str, Any], profile: Profile, columns: list[dict[str, float]]) -> list[str]:
    small, middle, large = columns
    per_question = 2 * units["tables"]["samples as Python lists, KiB per question"] / 2**20
    bound = 10**6 * profile.plan.questions_kept
    largest = max(("01", "02", "03", "04", "06"), key=lambda number: small[number])
    useful = profile.plan.gpus * large["RL hours"] / large["RL floor"]
    return [
        "## Where the bottleneck moves",
        "",
        f"1. **87 thousand: GPU-hours, and then the judge.** The most expensive stage is notebook {largest} "
        f"({small[largest]:.0f} of {small['GPU-hours']:.0f} GPU-hours). Judging the samples of notebook 03 keeps "
        f"{profile.judge.workers} workers busy for {small['judge hours of 03']:.1f} hours if 5% of the programs "
        f"misbehave, against {small['sampling hours of 03']:.1f} hours of sampling on {profile.plan.gpus} GPUs: more "
        "workers (they mostly wait) or a shorter `judge.wall_seconds` come before more GPUs. Honest programs alone "
        f"cost {small['core-hours, honest']:.0f} core-hours.",
        f"2. **{bound / 1e3:,.0f} thousand: a bound of ours.** `synthesis.questions` stops at 10^6 seeds, "
        f"{bound:,.0f} questions after the filter; raise it in `acelib/core/profiles.py`.",
        f"3. **{NODE_GIB / per_question / 1e6:.1f} million: memory of the machine that runs the notebooks.** A table "
        f"comes back as Python lists, {units['tables']['samples as Python lists, KiB per question']:.0f} KiB per "
        "question with its samples, and notebook 03 holds two of them: "
        f"{small['tables GiB']:.0f} GiB at 87 thousand, {middle['tables GiB']:,.0f} at 1 million, "
        f"{large['tables GiB']:,.0f} at 10 million, and {NODE_GIB} GiB (assumed) are full in between. This is the "
        "first thing that breaks. Shards (`engine.shard_questions`) bound what sampling and judging hold, not what "
        "reads their result: pairs and the hard quarter would have to stream the Parquet files.",
        f"4. **10 million: sequence, not size, in RL.** {large['rollouts']:,.0f} rollouts follow each other, and each "
        f"waits for its longest reply: at {STEP_SECONDS * 1000:g} ms per token (assumed) {large['RL floor']:,.0f} "
        f"hours per run, whatever the number of GPUs. More than about {useful:.0f} GPUs buy nothing for RL unless "
        "rollouts grow; all other stages share out evenly.",
        f"5. **Dollars.** GPUs are nearly all of it: at 10 million ${large['GPU dollars']:,.0f}, against "
        f"${large['core dollars']:,.0f} for the judge and ${large['storage dollars']:,.0f} a month for "
        f"{large['GB'] / 1000:.1f} TB. A teacher of one's own (${large['teacher own']:,.0f}) is cheaper than a bought "
        f"one (${large['teacher bought']:,.0f}) as long as it runs at more than "
        f"{large['teacher own'] / large['teacher bought']:.0%} of the computed speed.",
    ]


if __name__ == "__main__":
    print(page())
