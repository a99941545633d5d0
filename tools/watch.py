"""What a run's training shows so far, and whether it crosses a threshold of docs/hardware.md (*Go on or not*).

python -m acelib watch RUN
"""

import argparse
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from acelib.core import ArtifactError, Row, load_profile, read_json, read_manifest, read_rows
from acelib.preflight import CostModel
from acelib.training import LOG_FILE, last_checkpoint, log_rows
from tools.commands import explained
from tools.plan import say

POLICIES = {"policy_rule": "RL, rule", "policy_rm": "RL, reward model"}  # artefact, and its stage in the plan
COLUMNS = ("reward", "reward_rule", "mixed", "truncated", "unjudged", "kl", "length", "clip_fraction", "sampler_gap")
STATE = "trainer_state.json"
FEW = 5  # rollouts that make a figure of "now"
# The thresholds of docs/hardware.md; tests/test_watch.py holds that page to them.
MIXED, TRUNCATED, CLIPPED, KL, STILL, ACCURACY, PAIR_LOSS, SLOW = 0.1, 0.1, 0.05, 0.1, 0.001, 0.6, 0.68, 2.0
SHOWN = 2.5  # standard errors
PAIRS, AVERAGE, GREEDY = (
    "pair accuracy, gap above 0.4, filtered",
    "reward model - average @16",
    "reward model - greedy @16",
)
GAP = (
    "between the sampler's log-probs and the trainer's. Small, and of one size throughout, it is rounding; where it "
    "grows, or nears 0.2, by which a ratio may move before it is clipped, replies come from another policy than the "
    "one that learns: weights that did not reach vLLM, another dtype."
)
Verdict = tuple[str, str]  # "ok", "crossed" or "not yet", and a sentence


@dataclass(frozen=True)
class Log:
    """What is known of one training: its `rows` (a policy's are those of `log_rows`), from the file `source`."""

    name: str
    source: Path
    finished: bool
    rows: list[Row]
    settings: dict[str, Any]


def find_log(run: Path, name: str) -> Path | None:
    """The newest log of the training of `name`: of the finished model, or of the last checkpoint of one that runs; the
    folder of a training that has none yet; None where nothing has begun."""
    own = re.compile(re.escape(name) + "-[0-9a-f]{12}")
    folders = [one for one in (run / "scratch").glob(f"{name}-*") if own.fullmatch(one.name)]
    found = [one / STATE if (one := last_checkpoint(folder)) else folder for folder in folders]
    found += [one for one in [run / "artifacts" / name / LOG_FILE] if one.is_file()]
    return max((one for one in found if one.exists()), key=lambda one: one.stat().st_mtime, default=None)


def read_log(run: Path, name: str, source: Path) -> Log:
    """Raises ArtifactError for a file that is no log of a training."""
    broken = ArtifactError(
        f"{source} is no whole log of a training; repeat this, or copy the file again if it stays so."
    )
    try:
        found = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise broken from error
    finished, policy = source.name == LOG_FILE, name in POLICIES
    if finished:
        settings = (read_manifest(run / "artifacts" / name) or {}).get("params", {}).get("reinforce", {})
    else:
        settings = read_json(source.parents[1] / "settings.json")
        found = found.get("log_history") if isinstance(found, dict) else None
    if not isinstance(found, list) or not all(isinstance(row, dict) and "step" in row for row in found):
        raise broken
    if policy and not finished:
        found = log_rows(found, settings.get("updates_per_rollout", 1))
    return Log(name, source, finished, found, settings)


def first_checkpoint(run: Path, name: str) -> str:
    """When a training that has begun can be looked at."""
    if not (run / "profile.yaml").is_file():
        return "repeat this when it has one"
    profile = load_profile(str(run / "profile.yaml"))
    parts, steps = profile.engine.checkpoints, profile.reinforce.steps
    if name not in POLICIES:
        return f"the first comes after a {parts}th of the training"
    rollouts = max(1, steps // parts)
    said = f"the first comes after rollout {rollouts} of {steps}"
    if profile.plan.gpus:
        hours = next(one.hours for one in CostModel(profile).stages() if one.what == POLICIES[name])
        said += f", {60 * hours * rollouts / steps:.0f} minutes as computed, up to five times that at the paper's pace"
    return said


def passes(rows: Sequence[Row], questions: int, per_rollout: int) -> tuple[str, Sequence[Row], Sequence[Row], int]:
    """What to compare: the rollouts of the first pass over all questions and those of the second, as far as they go, or
    two halves where the number of questions is not known. With the number of rollouts that each should have."""
    around = questions / per_rollout if per_rollout else 0.0
    whole = math.floor(around + 0.2)  # a rollout may belong to both passes, and then counts for neither
    if whole:
        second = math.ceil(around - 0.2)
        return "pass", rows[:whole], rows[second : second + whole], whole
    half = len(rows) // 2
    return "half", rows[:half], rows[len(rows) - half :], half


def share(row: Row) -> float:
    """The share of replies that pass all tests, whatever was trained on."""
    return row["reward"] if row.get("reward_rule") is None else row["reward_rule"]


def mean(rows: Sequence[Row], of: str | Any) -> float:
    values = [row.get(of) if isinstance(of, str) else of(row) for row in rows]
    return fmean(one for one in values if one is not None) if any(one is not None for one in values) else math.nan


def on_reward(run: Path, log: Log, rows: Sequence[Row]) -> tuple[Verdict, bool]:
    """First pass against second, and whether the second is shown to be higher."""
    table = run / "artifacts" / "hard_questions.parquet"
    questions = len(read_rows(table)) if table.is_file() else 0
    kind, first, second, needed = passes(rows, questions, log.settings.get("rollout_questions", 0))
    if not second or len(second) < needed:
        more = f"; it has {len(second)} of {needed} rollouts" if second else ""
        return (
            "not yet",
            f"reward: no second {kind} to hold against the first ({mean(first, share):.3f}){more}.",
        ), False
    default = log.settings.get("rollout_questions", 0) * log.settings.get("samples_per_question", 0)
    replies = min(sum(row.get("sampled") or default for row in part) for part in (first, second))
    error = math.sqrt(0.5 / replies) if replies else math.nan
    gain = mean(second, share) - mean(first, share)
    where = ", ".join(
        f"rollouts {part[0]['step']} to {part[-1]['step']} {mean(part, share):.3f}" for part in (first, second)
    )
    sign = "within" if not abs(gain) > SHOWN * error else "higher by more than" if gain > 0 else "lower by more than"
    then = {"w": "undecided: go on", "h": "it learns (partly by memory)", "l": "it does not learn: do not go on"}
    if kind == "half":
        where += " (halves, perhaps of other questions)"
    said = f"reward: second {kind} against first, {where}: {100 * gain:+.1f} points, standard error at most "
    said += f"{100 * error:.1f}; {sign} {SHOWN} of these, so {then[sign[0]]}."
    return ("crossed" if sign[0] == "l" else "ok", said), sign[0] == "h"


def on_kl(rows: Sequence[Row], held: Sequence[Row], rises: bool, second: bool) -> Verdict:
    now = rows[-FEW:]
    per_token = mean(now, "kl") / max(1.0, mean(now, "length"))
    said = f"kl: {per_token:.2g} nats per token over the last {len(now)} rollouts"
    if per_token > KL:
        fell = len(held) > 1 and held[-1]["greedy"] <= held[0]["greedy"]
        end = "have not risen" if fell else "have risen or were not measured again"
        return "crossed" if fell else "ok", f"{said}, more than {KL}, and held-out greedy figures {end}."
    if per_token < STILL and second and not rises:
        return "crossed", f"{said}, less than {STILL}, and the reward is no higher: the learning rate is too low."
    return "ok", f"{said} (by the end of a run 0.01 to {KL})."


def on_score(rows: Sequence[Row]) -> Verdict:
    """Over-optimisation, where the reward model's score is what trains."""
    before, now = rows[-2 * FEW : -FEW], rows[-FEW:]
    if len(before) < FEW:
        return "not yet", f"over-optimisation: it takes {2 * FEW} rollouts to tell."
    score, passing = (mean(now, one) - mean(before, one) for one in ("reward", share))
    replies = sum(row.get("sampled") or 0 for row in before)
    bad = score > 0 and passing < -SHOWN * math.sqrt(0.5 / max(1.0, replies))
    said = (
        f"over-optimisation: the last {FEW} rollouts against the {FEW} before, of other questions: score {score:+.3f}, "
    )
    said += f"share that passes {100 * passing:+.1f} points"
    return ("crossed", f"{said}; stop, and keep the rule's policy.") if bad else ("ok", f"{said}.")


def verdicts(run: Path, log: Log, rows: Sequence[Row]) -> Iterator[Verdict]:
    """A sentence for each threshold on a policy's training."""
    first, scored = rows[: FEW + 3], "reward_reward_model" in rows[-1]
    if scored:
        yield on_score(rows)
    else:
        mixed = mean(first, "mixed")
        low, said = mixed < MIXED, f"mixed: {mixed:.2f} in the first {len(first)} rollouts"
        yield "crossed" if low else "ok", f"{said}, {'below' if low else 'not below'} {MIXED}."
    reward, rises = on_reward(run, log, rows)
    yield reward
    few = max(1, min(FEW, len(rows) // 2))
    cut, before = mean(rows[-few:], "truncated"), mean(rows[:few], "truncated")
    high, rising = cut > TRUNCATED, cut > before
    said = f"truncated: {cut:.1%} of the last {few} rollouts' replies, {before:.1%} of the first {few}'s"
    told = f"{'above' if high else 'not above'} {TRUNCATED:.0%}, {'rising' if rising else 'not rising'}"
    yield "crossed" if high and rising else "ok", f"{said}: {told}."
    lost = [row["step"] for row in rows if row.get("unjudged")]
    where = f"in {len(lost)} of {len(rows)} rollouts, first in {lost[0]}" if lost else "none"
    yield "crossed" if lost else "ok", f"unjudged: {where}."
    held = [row for row in log.rows if row.get("greedy") is not None]
    yield on_kl(rows, held, rises, reward[0] != "not yet")
    clipped = mean(rows, "clip_fraction")
    high = clipped > CLIPPED
    yield (
        "crossed" if high else "ok",
        f"clip_fraction: {clipped:.2%} on average, {'' if high else 'not '}above {CLIPPED:.0%}.",
    )
    sampling, updates = mean(rows, "seconds_generate"), mean(rows, "seconds_update")
    high = max(sampling, updates) > SLOW * min(sampling, updates)
    said = f"seconds: sampling {sampling:.3g}, updates {updates:.3g} on average"
    yield "crossed" if high else "ok", f"{said}, one {'' if high else 'not '}more than {SLOW:g} times as long."


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def show_policy(run: Path, log: Log) -> Iterator[str]:
    """The lines on one policy."""
    rows = [row for row in log.rows if row.get("reward") is not None]
    planned = log.settings.get("steps", len(rows))
    state = (
        "still training"
        if not log.finished
        else "finished"
        if len(rows) >= planned
        else "stopped early, by reinforce.max_kl"
    )
    yield f"{log.name}: {len(rows)} of {planned} rollouts, {state} ({log.source.relative_to(run)})"
    if not rows:
        return
    gaps = [row for row in rows if row.get("sampler_gap") is not None]
    left_out = {"reward_rule": "reward_reward_model" not in rows[-1], "sampler_gap": not gaps}
    names = [name for name in COLUMNS if not left_out.get(name)]
    names += [name for name in rows[-1] if name.startswith("seconds_")]
    heads = [name.replace("seconds_", "s:").replace("reward_rule", "rule") for name in names]
    yield "  rollout " + "".join(f"{head:>{max(9, len(head) + 2)}}" for head in heads)
    for row in rows:
        cells = (f"{figure(row.get(name)):>{max(9, len(head) + 2)}}" for name, head in zip(names, heads, strict=True))
        yield f"  {row['step']:7} " + "".join(cells)
    held = [row for row in log.rows if row.get("greedy") is not None]
    told = (f"{row['step']}: {figure(row.get('pass_at_1'))}, {row['greedy']:.3f}" for row in held)
    if held:
        yield "  held-out pass@1 and greedy after rollout " + "; ".join(told)
    few = min(4, len(rows) // 2)
    if few:
        first, last = mean(rows[:few], share), mean(rows[-few:], share)
        yield f"  share that passes: first {few} rollouts {first:.3f}, last {few} {last:.3f}"
    if gaps:
        yield f"  sampler_gap: {mean(gaps[-FEW:], 'sampler_gap'):.2g} nats per token {GAP}"
    yield from (f"  {mark:8} {said}" for mark, said in verdicts(run, log, rows))


def show_reward_model(run: Path, log: Log) -> Iterator[str]:
    """The lines on the reward model."""
    yield f"{log.name}: {'finished' if log.finished else 'still training'} ({log.source.relative_to(run)})"
    looks = [row for row in log.rows if row.get("eval_accuracy") is not None]
    losses = [row["pair_loss"] for row in log.rows if row.get("pair_loss") is not None]
    for row in looks:
        said = f"{row['eval_accuracy']:.1%} of held-out pairs ranked right, loss {row['eval_pair_loss']:.3f} per pair"
        yield f"  update {row['step']:5}: {said}"
    sure = "crossed" if log.finished else "not yet"  # while it trains there is time to learn
    if len(losses) > 3:
        loss = fmean(losses[-(len(losses) // 4) :])
        end = f"above {PAIR_LOSS}: nothing is learnt" if loss > PAIR_LOSS else f"not above {PAIR_LOSS}"
        mark = sure if loss > PAIR_LOSS else "ok"
        yield f"  {mark:8} loss per pair: {losses[0]:.3f} at first, {loss:.3f} now, {end}."
    if looks:
        right = looks[-1]["eval_accuracy"]
        mark, word = ("ok", "not below") if right >= ACCURACY else (sure, "below")
        yield f"  {mark:8} held-out pairs ranked right: {right:.1%}, {word} {ACCURACY:.0%}."


def show_notebooks(run: Path) -> Iterator[str]:
    """What notebooks 04 and 05 measured of the reward model: in metrics.json, or as they left it where the report is
    not written yet."""
    books = read_json(run / "metrics.json").get("notebooks", {})
    found = {name: one for book in books.values() for name, one in (book.get("metrics") or {}).items()}
    for path in sorted((run / "metrics").glob("0[45]_*.json")):
        found |= read_json(path)
    yield "notebooks 04 and 05, with 95% intervals"
    for name in (PAIRS, AVERAGE, GREEDY):
        if name not in found:
            yield f"  {'not yet':8} {name}."
            continue
        value, low, high = (found[name][end] for end in ("value", "low", "high"))
        if name == PAIRS:
            bad, word = value < ACCURACY, f"below {ACCURACY:.0%}"
        else:
            bad, word = name == AVERAGE and high < 0, "all of it below 0"
        end = f"{word}: take the rule alone" if bad else f"not {word}"
        if name == GREEDY:
            end = "which decides nothing: on one benchmark it may well be below 0"
        yield f"  {'crossed' if bad else 'ok':8} {name}: {value:+.3f} [{low:+.3f}, {high:+.3f}], {end}."


def watch(run: Path) -> Iterator[str]:
    """All lines on the run in a folder. Raises ArtifactError where there is none, or nothing to see."""
    if not any((run / one).is_dir() for one in ("artifacts", "scratch")):
        raise ArtifactError(f"There is no run in {run}; name the folder of one, such as runs/single-gpu-7b.")
    shown = False
    for name in ("reward_model", *POLICIES):
        source = find_log(run, name)
        if source is None:
            continue
        shown = True
        if source.is_dir():
            yield f"{name}: training has begun, and there is no checkpoint yet; {first_checkpoint(run, name)}."
        else:
            yield from (show_policy if name in POLICIES else show_reward_model)(run, read_log(run, name, source))
        yield ""
    if not shown:
        raise ArtifactError(
            f"Nothing is trained yet in {run}: notebook 04 trains the reward model, 06 the policies; repeat this then."
        )
    yield from show_notebooks(run)
    yield "\nWhat to do about a crossed threshold: docs/hardware.md, *Go on or not*."


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m acelib watch", description=__doc__.partition("\n\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/single-gpu-7b")
    say(watch(parser.parse_args(words).run))
