"""From 87 thousand questions to 10 million: `docs/scaling.md`, made by `python bench/scaling.py`.

What was measured comes from `docs/units.json` (`python bench/units.py`); GPU-hours are those of the cost model. The
words stand in `bench/scaling.template.md`, the figures in `predict`.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from acelib.core import ROOT, DataError, Profile, load_profile
from acelib.preflight import ACECODE, CostModel, models_gb, shape_of

UNITS = ROOT / "docs" / "units.json"
TEMPLATE = Path(__file__).with_name("scaling.template.md")
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
    """Figures for `questions` after filtering, by the words the page uses for them; GPU-hours by number of notebook."""
    model, assumed, tables, judge = CostModel(profile, questions), profile.plan, units["tables"], units["judge"]
    first, hours = {}, Counter()
    for one in model.stages():
        first.setdefault(one.notebook, one)
        hours[one.notebook] += one.hours * assumed.gpus
    gpu, rl = sum(hours.values()), profile.reinforce
    replies = model.rollouts * rl.rollout_questions * rl.samples_per_question
    samples = questions * profile.sampling.n
    programs = model.asked + samples + 2 * replies
    gb = {
        "samples GB": 2 * questions * tables["samples, bytes per question"] / 1e9,
        "tests GB": (model.asked + questions) * tables["questions and tests, bytes per question"] / 1e9,
        "pairs GB": 2 * questions * PAPER_PAIRS * tables["pairs, bytes per pair"] / 1e9,
        "log GB": questions * tables["reply log, bytes per question"] / 1e9,
        "models GB": models_gb(profile),
    }
    pace = 2 * sum(one * questions / ACECODE - hours[number] / 2 for number, one in PAPER_HOURS.items())
    wall = 2 / judge["programs/s with 2 workers, 5% bad"] / profile.judge.workers / 3600  # hours per program
    core_hours = programs * judge["CPU ms per program, 5% bad"] / 3.6e6
    dollars = {
        "GPU dollars": gpu * assumed.dollars_per_gpu_hour,
        "core dollars": core_hours * DOLLARS_PER_CORE_HOUR,
        "storage dollars": sum(gb.values()) * DOLLARS_PER_GB_MONTH,
    }
    return {
        **hours,
        **gb,
        **dollars,
        "05 and 07": hours["05"] + hours["07"],
        "GPU-hours": gpu,
        "GPU-hours, paper's pace": gpu + pace,
        "days": gpu / assumed.gpus / 24,
        "GPUs for a month": gpu / MONTH,
        "dollars": sum(dollars.values()),
        "GPU dollars, paper's pace": (gpu + pace) * assumed.dollars_per_gpu_hour,
        "pace": gpu / (gpu + pace),
        "teacher bought": model.asked * PAPER_TEACHER,
        "teacher own": first["01"].hours * assumed.gpus * assumed.dollars_per_gpu_hour,
        "million programs": programs / 1e6,
        "core-hours, honest": programs * judge["CPU ms per program, honest"] / 3.6e6,
        "core-hours": core_hours,
        "judge hours": programs * wall,
        "judge hours of 03": samples * wall,
        "sampling hours of 03": first["03"].hours,
        "rollouts": model.rollouts,
        "RL hours": first["06"].hours,
        "RL floor": model.rollouts * rl.max_new_tokens * STEP_SECONDS / 3600,
        "TB": sum(gb.values()) / 1000,
        "tables GiB": 2 * questions * tables["samples as Python lists, KiB per question"] / 2**20,
        "reports GiB": samples * units["reports"]["reports of 16 verdicts held, KiB per program"] / 2**20,
    }


ROWS = (  # heading of the row, key of `predict`, digits after the point
    ("**GPU-hours**: teacher (01)", "01", 0),
    ("proxy (02)", "02", 0),
    ("sampling, 16 programs each (03)", "03", 0),
    ("two reward models (04)", "04", 0),
    ("two RL runs (06)", "06", 0),
    ("best of N and evaluation (05, 07)", "05 and 07", 1),
    ("all", "GPU-hours", 0),
    ("all, 04 (A100) and 06 (H100) at the paper's own pace", "GPU-hours, paper's pace", 0),
    ("days on 8 GPUs", "days", 1),
    ("GPUs to be done in a month", "GPUs for a month", 1),
    ("**Judge**: programs, millions", "million programs", 1),
    ("core-hours, honest programs", "core-hours, honest", 1),
    ("core-hours, 5% bad ones", "core-hours", 0),
    ("hours with 32 workers, 5% bad ones", "judge hours", 1),
    ("**Storage, GB**: samples, twice", "samples GB", 1),
    ("questions and tests", "tests GB", 1),
    ("pairs, twice", "pairs GB", 1),
    ("reply log, while sampling", "log GB", 1),
    ("models and checkpoints", "models GB", 0),
    ("**Memory, GiB**: both sample tables in notebook 03", "tables GiB", 0),
    ("all reports of the judge, were they not sharded", "reports GiB", 1),
    ("**Dollars**: GPUs", "GPU dollars", 0),
    ("cores", "core dollars", 0),
    ("storage, a month", "storage dollars", 0),
    ("all of these", "dollars", 0),
    ("GPUs, 04 and 06 at the paper's own pace", "GPU dollars, paper's pace", 0),
    ("the teacher bought instead of run", "teacher bought", 0),
)


def page() -> str:
    """docs/scaling.md as text. Raises DataError when nothing was measured."""
    units, profile = load_units(), load_profile("paper")
    plan, models = profile.plan, profile.models
    small, middle, large = columns = [predict(profile, size, units) for size in SIZES]

    def speed(name: str, share: float, passes: int) -> float:
        return plan.gpu_tflops * 1e12 * share / (2 * passes * shape_of(name).parameters)

    largest = max(("01", "02", "03", "04", "06"), key=lambda number: small[number])
    bound = 10**6 * plan.questions_kept
    table = [f"| {heading} | {' | '.join(f'{one[key]:,.{d}f}' for one in columns)} |" for heading, key, d in ROWS]
    return TEMPLATE.read_text(encoding="utf-8").format(
        units=units,
        plan=plan,
        small=small,
        middle=middle,
        large=large,
        speed={
            "teacher": speed(models.teacher, plan.generation_utilisation, 1),
            "policy": speed(models.policy, plan.generation_utilisation, 1),
            "reward model": speed(profile.reward_model.base, plan.training_utilisation, 4),
        },
        waiting_ms=2000 / units["judge"]["programs/s with 2 workers, 5% bad"],
        rows="\n".join(table),
        workers=profile.judge.workers,
        largest=largest,
        largest_hours=small[largest],
        bound=bound,
        bound_thousands=bound / 1e3,
        full_at_millions=NODE_GIB / large["tables GiB"] * SIZES[-1] / 1e6,
        core_hour=DOLLARS_PER_CORE_HOUR,
        gb_month=DOLLARS_PER_GB_MONTH,
        node_gib=NODE_GIB,
        step_ms=STEP_SECONDS * 1000,
        useful_gpus=plan.gpus * large["RL hours"] / large["RL floor"],
        own_share=large["teacher own"] / large["teacher bought"],
    )


if __name__ == "__main__":
    print(page(), end="")
