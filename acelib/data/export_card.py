"""The dataset card of an exported run: what is in it, how it was made, and what it does not promise."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from acelib.core import Run
from acelib.data.publish import dataset_card, sources_list
from acelib.data.seeds import counts_table

SECTIONS = ("prompts", "synthesis", "filtering", "sampling", "pairs", "judge")  # of the profile, shown in full

COLUMNS = """### `questions`, as in TIGER-Lab/AceCode-87K

| column | |
|---|---|
| `id`, `source` | of the seed program (or adopted row) and the set it came from |
| `question` | what a program is asked for |
| `entry_point` | name of the function that the tests call (AceCode-87K leaves it to the tests) |
| `test_cases` | assert statements that survived the filter |
| `inferences` | sampled programs, below |
| `context_messages` | empty; there for the sake of the layout |

Of each inference: `completion_id` (its number), `model_name` (who wrote it), `completion` (the whole reply), `program`
(the code found in it, null when there is none; not in AceCode-87K), `test_results` (passed or not, in the order of
`test_cases`) and `pass_rate` (their mean, over the surviving tests as in the paper).

### `pairs`, as in TIGER-Lab/AceCodePair-300K

| column | |
|---|---|
| `id` | of the question: split by it, not by row |
| `instruction`, `input` | the user's message; `input` is empty |
| `chosen`, `rejected` | two replies to it, the better one first |
| `chosen_rate`, `rejected_rate` | their pass rates (not in AceCodePair-300K) |"""

WORLD = """- The questions are compositions of a few list and string operations, made to fit models of a million
  parameters. They are for studying the method, not for training a model that is to be used.
"""


def data_card(run: Run, counts: dict[str, int]) -> str:
    """README.md of an export, with the YAML that the hub and `load_dataset` read; `counts` are those of `export`."""
    profile, origins = run.profile, _Origins(run)
    shown = [name for name in SECTIONS if not (origins.questions and name == "synthesis")]
    values = {name: profile.to_dict()[name] for name in shown}
    versions = ", ".join(f"{name} {number}" for name, number in run.manifest("samples")["versions"].items())
    text = f"""# Questions with tests, judged programs and preference pairs

Python questions, each with tests that a model imagined and a filter kept, programs that a model wrote for them with the
verdict of every test, and pairs of a better and a worse program, as in AceCoder (arXiv 2502.01718). Made by
`python -m acelib export` from a run of profile `{profile.name}`, seed {profile.seed} ({versions}).

```python
from datasets import load_dataset

questions = load_dataset("FOLDER OR OWNER/NAME", "questions", split="train")
pairs = load_dataset("FOLDER OR OWNER/NAME", "pairs", split="train")
```

A copy on disk starts a run of the course: `data.adopt: FOLDER/questions` in a profile, or

```bash
python -m acelib adopt FOLDER/questions --pairs FOLDER/pairs --run-dir runs/mine
```

## Counts

{_counts(counts, origins)}

## Columns

{COLUMNS}

## How it was made

{origins.steps(counts)}

The values of the profile:

````yaml
{yaml.safe_dump(values, sort_keys=False, width=110).strip()}
````

## What it was kept apart from

{origins.apart()}

## Licence

**None is stated yet**: whoever publishes this replaces `license: other` above. What may be stated depends on the
sources below, and on the terms of the models that wrote questions, tests and programs; some providers forbid to train
other models on what theirs write.

{origins.sources_text()}

## Limits

- The tests come from a model. One that survives may still be wrong (the paper found 3 of 200 invalid), and a program
  that passes all tests of its question may still be wrong. {_truth(counts)}
- The programs were written by a model and read by nobody. Run them in a sandbox only.
- Pass rates come from {counts["tests"] / counts["questions"]:.1f} tests per question on average, and a program that is
  right but too slow for the judge counts as wrong.
- Pairs tell apart programs of the models named above; how far that carries to others was not measured here.
{"" if origins.questions or not profile.data.laboratory else WORLD}"""
    rows = counts["questions"] + counts["pairs"]
    configs = [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/train-*.parquet"}]}
        for name in ("questions", "pairs")
    ]
    configs[0]["default"] = True
    more = {
        "tags": ["code", "synthetic", "unit-tests", "preference"],
        "task_categories": ["text-generation"],
        "size_categories": [size_category(rows)],
    }
    return dataset_card(text, [name for name, _ in origins.sources], configs=configs, **more)


def size_category(rows: int) -> str:
    """The hub's name for that many rows."""
    bounds = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    place = min(len(str(rows)) - 4, len(bounds) - 2)
    return "n<1K" if place < 0 else f"{bounds[place]}<n<{bounds[place + 1]}"


class _Origins:
    """Where questions, programs and pairs came from: the run itself, or what it adopted."""

    def __init__(self, run: Run):
        self.profile = run.profile
        manifests = {name: run.manifest(name) or {} for name in ("filtered", "samples", "pairs")}
        self.questions, self.programs, self.pairs = (one.get("adopted") for one in manifests.values())
        self.seeds = {} if self.questions else self._seeds_report()
        adopted, made_of = self.questions or {}, self.seeds.get("made_of", {})
        self.sources = [(one[0], one[1]) for one in made_of.get("sources", ())]
        for name, at in (("source", "version"), ("pairs", "pairs_version")):
            self.sources += [(adopted[name], adopted[at])] if name in adopted else []

    def _seeds_report(self) -> dict[str, Any]:
        """What `python -m acelib seeds` wrote beside the seeds; empty where they were made otherwise."""
        path = Path(self.profile.resolve(self.profile.data.seeds)).with_name("report.json")
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            return report if "benchmark questions" in report else {}
        except (OSError, ValueError):
            return {}

    def steps(self, counts: dict[str, int]) -> str:
        return "\n".join(f"{n}. {step}" for n, step in enumerate((self._asked(), self._sampled(), self._paired()), 1))

    def _asked(self) -> str:
        models, least = self.profile.models, self.profile.filtering.min_tests
        if self.questions:
            return (
                f"Questions and tests were adopted from `{self.questions['source']}`; those with fewer than "
                f"{least} tests went. {self.questions['note']}"
            )
        return (
            f"Teacher `{models.teacher}` rewrote up to {self.profile.synthesis.questions:,} seed programs into "
            f"questions with tests. A test survived when the program of proxy `{models.proxy}` passed it, a "
            f"question when it kept at least {least}."
        )

    def _sampled(self) -> str:
        sampling = self.profile.sampling
        if self.programs:
            return (
                f"Programs, and verdicts where it has them, were adopted from `{self.programs['source']}`, "
                f"{sampling.n} per question; `model_name` says whose they are."
            )
        return (
            f"Policy `{self.profile.models.policy}` wrote {sampling.n} programs per question at temperature "
            f"{sampling.temperature:g}, top-p {sampling.top_p:g}; each was run in a sandbox on every test."
        )

    def _paired(self) -> str:
        if self.pairs:
            return f"Pairs were adopted from `{self.pairs['pairs']}`; by which rule they were made, it has to say."
        rule, sign = self.profile.pairs, ">" if self.profile.pairs.strict else "≥"
        return (
            f"Two programs of a question make a pair when chosen - rejected {sign} {rule.min_gap:g}, chosen {sign} "
            f"{rule.min_chosen:g} and rejected > {rule.min_rejected:g} by pass rate (Eq. 3 of the paper). Of those "
            f"that read differently at most {rule.max_pairs_per_question:,} per question were drawn at random."
        )

    def apart(self) -> str:
        if self.questions:
            names = ", ".join(f"{name} ({n:,} questions)" for name, n in self.questions.get("apart_from", {}).items())
            counted = "\n".join(f"- {count:,} {what}" for what, count in self.questions["counts"].items())
            kept = f"Questions like one of {names} were left out." if names else "No benchmark was compared with here."
            return f"{kept} Of the adopted data:\n\n{counted}"
        unchecked = "The questions, which the teacher wrote, were compared with no benchmark."
        if not any(self.seeds.get("benchmark questions", {}).values()):
            return (
                f"Nothing that is recorded: the seeds `{self.profile.data.seeds}` come without a report that names "
                f"benchmarks. {unchecked}"
            )
        known = self.seeds["benchmark questions"].items()
        names = ", ".join(f"{Path(path).name} ({n:,} questions)" for path, n in known)
        counts = {name: Counter(mine) for name, mine in self.seeds["counts"].items()}
        return f"The seed programs, from {names}; what went, by reason:\n\n{counts_table(counts)}\n\n{unchecked}"

    def sources_text(self) -> str:
        models = self.profile.models
        wrote = [] if self.questions else [f"teacher `{models.teacher}`", f"proxy `{models.proxy}`"]
        wrote += ["the models in `model_name`" if self.programs else f"policy `{models.policy}`"]
        known = sources_list(self.sources) or f"- `{self.profile.data.seeds}`; licence: see where it came from"
        return f"{known}\n- models: {', '.join(wrote)}; licence and terms of use: see each"


def _counts(counts: dict[str, int], origins: _Origins) -> str:
    hidden = ("tests before the filter",) if origins.questions else ()
    lines = ["| | |", "|---|---|"]
    for name, count in counts.items():
        if name not in hidden and "known" not in name:
            each = f" ({count / counts['questions']:.1f} per question)" if name in ("tests", "programs") else ""
            lines.append(f"| {name} | {count:,}{each} |")
    return "\n".join(lines)


def _truth(counts: dict[str, int]) -> str:
    known, right = counts["surviving tests of known truth"], counts["surviving tests known to be right"]
    if not known:
        return "How often that happens here is not known."
    return f"Of {known:,} surviving tests whose truth is known, {right:,} are right."
