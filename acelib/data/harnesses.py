"""The benchmarks' own harnesses: replies in the format each of them reads, and its verdicts as our numbers.

**They execute model-written code outside the judge.** EvalPlus and BigCodeBench switch some functions off and say
themselves that this is no sandbox; LiveCodeBench is built the same way. So nothing in the course calls this module:
`python -m acelib harness` does, and it executes only with --execute. Do that in a container or on a machine with
nothing to lose; the default everywhere else is our judge on the file in `data.benchmark`.

Formats and options as in EvalPlus 0.3.1, BigCodeBench 0.2.5 and LiveCodeBench's repository of July 2025.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from acelib.core import ROOT, EngineError, Profile, write_json, write_rows
from acelib.data import published_baselines, reproduces
from acelib.data.benchmarks import benchmark_rows, read_benchmark
from acelib.evaluation import EVALPLUS, Prompt, ask
from acelib.extraction import EXTRACTIONS
from acelib.models import SamplingParams, load_policy, load_tokenizer
from acelib.schema import Problem, Row
from acelib.stats import Interval, bootstrap_mean

WARNING = "This executes model-written code outside the judge, with your rights: use a container or a spare machine."


@dataclass(frozen=True)
class Harness:
    """`suffix` turns the name of the samples file into that of the results; `read` turns those into rows."""

    name: str
    package: str
    datasets: tuple[str, ...]
    install: str
    samples: str
    suffix: str
    read: Callable[[Path], list[Row]]


def _evalplus_rows(path: Path) -> list[Row]:
    found = json.loads(path.read_text(encoding="utf-8"))["eval"]
    rows = []
    for task, replies in found.items():
        base = [one["base_status"] == "pass" for one in replies]
        plus = [ok and one["plus_status"] == "pass" for ok, one in zip(base, replies, strict=True)]
        rows.append({"id": task, "base": base, "plus": plus})
    return rows


def _bigcodebench_rows(path: Path) -> list[Row]:
    found = json.loads(path.read_text(encoding="utf-8"))["eval"]
    return [
        {"id": task, "base": [one["status"] == "pass" for one in replies], "plus": None}
        for task, replies in found.items()
    ]


def _livecodebench_rows(path: Path) -> list[Row]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return [
        {"id": str(one["question_id"]), "base": [bool(ok) for ok in one["graded_list"]], "plus": None} for one in found
    ]


HARNESSES = {
    one.name: one
    for one in (
        Harness(
            "evalplus",
            "evalplus",
            ("humaneval", "mbpp"),
            "python3 -m venv .cache/evalplus && .cache/evalplus/bin/pip install evalplus==0.3.1",
            "samples.jsonl",
            "_eval_results.json",
            _evalplus_rows,
        ),
        Harness(
            "bigcodebench",
            "bigcodebench",
            ("complete", "complete-hard", "instruct", "instruct-hard"),
            "python3.10 -m venv .cache/bigcodebench && .cache/bigcodebench/bin/pip install bigcodebench==0.2.5 && "
            ".cache/bigcodebench/bin/pip install -I -r https://raw.githubusercontent.com/bigcode-project/bigcodebench/"
            "main/Requirements/requirements-eval.txt",
            "samples.jsonl",
            "_eval_results.json",
            _bigcodebench_rows,
        ),
        Harness(
            "livecodebench",
            "lcb_runner",
            ("release_v4", "release_v5", "release_v6"),
            "git clone https://github.com/LiveCodeBench/LiveCodeBench .cache/livecodebench-source && "
            "python3.11 -m venv .cache/livecodebench && "
            ".cache/livecodebench/bin/pip install -e .cache/livecodebench-source",
            "samples.json",
            "_codegeneration_output_eval_all.json",
            _livecodebench_rows,
        ),
    )
}


def benchmark_name(harness: Harness, dataset: str, plus: bool = False) -> str:
    """The benchmark's name in data/baselines.yaml."""
    if harness.name == "evalplus":
        return {"humaneval": "HumanEval", "mbpp": "MBPP"}[dataset] + "+" * plus
    if harness.name == "bigcodebench":
        return "BigCodeBench-" + dataset.title()
    return dataset.replace("release_", "LiveCodeBench-")


def installed(harness: Harness) -> Path | None:
    """The Python that has the harness: of an environment of its own (.cache/<name>), or the one that runs here."""
    look = f"import importlib.util as u, sys; sys.exit(u.find_spec({harness.package!r}) is None)"
    for python in (ROOT / ".cache" / harness.name / "bin" / "python", Path(sys.executable)):
        if python.exists() and subprocess.run([python, "-c", look], capture_output=True).returncode == 0:
            return python
    return None


def questions(harness: Harness, dataset: str, path: str | Path) -> list[Problem]:
    """The harness's questions in its own layout or the hub's, with its ids and without tests; `path` is a file, or a
    hub name.

    EvalPlus also takes the layouts of `read_benchmark`. Raises EngineError for rows of another layout.
    """
    rows = benchmark_rows(path)
    try:
        if harness.name == "bigcodebench":
            split = dataset.removesuffix("-hard")
            return [Problem(row["task_id"], row[f"{split}_prompt"], row["entry_point"], (), "") for row in rows]
        if harness.name == "livecodebench":
            return [Problem(str(row["question_id"]), _livecodebench_text(row), "", (), "") for row in rows]
        if rows and "base_input" in rows[0]:
            return [Problem(row["task_id"], row["prompt"].strip(), row["entry_point"], (), "") for row in rows]
    except KeyError as error:
        raise EngineError(
            f"{path} has no column {error}; give a file with the questions of {harness.name} {dataset}."
        ) from error
    prefix = {"humaneval": "HumanEval/", "mbpp": "Mbpp/"}[dataset]
    found = [
        Problem(one.id.replace("MBPP/", "Mbpp/"), one.question, one.entry_point, (), "") for one in read_benchmark(path)
    ]
    if not all(one.id.startswith(prefix) for one in found):
        raise EngineError(
            f"{path} does not hold the questions of EvalPlus's {dataset}; give a file with task_id {prefix}..."
        )
    return found


def _livecodebench_text(row: Row) -> str:
    """LiveCodeBench's generic question (lcb_runner/prompts/code_generation.py)."""
    told = (
        "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the "
        "sample inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, "
        "it reads the inputs, runs the algorithm and writes output to STDOUT."
    )
    if row.get("starter_code"):
        told = (
            "You will use the following starter code to write the solution to the problem and enclose your code "
            "within delimiters."
        )
    code = row.get("starter_code") or "# YOUR CODE HERE"
    return (
        f"### Question:\n{row['question_content']}\n\n### Format: {told}\n```python\n{code}\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )


def own_prompt(harness: Harness, dataset: str) -> Prompt:
    """How the harness itself asks an instruct model; BigCodeBench shares EvalPlus's words."""
    if harness.name == "livecodebench":
        return Prompt("{question}")
    if dataset.startswith("instruct"):
        return Prompt(EVALPLUS.user.replace("```\n{question}\n```\n", "{question}\n"), EVALPLUS.prefill)
    return EVALPLUS


def write_samples(harness: Harness, folder: Path, programs: dict[str, Sequence[str | None]]) -> Path:
    """The programs of each question, in the harness's format; returns the file. One without a program fails there."""
    path = folder / harness.samples
    if harness.name == "livecodebench":
        rows = [{"question_id": name, "code_list": [one or "" for one in mine]} for name, mine in programs.items()]
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        write_rows(path, [{"task_id": name, "solution": one or ""} for name, mine in programs.items() for one in mine])
    return path


def command(harness: Harness, dataset: str, samples: Path, python: Any = "python", workers: int = 1) -> list[str]:
    """What executes the samples. (BigCodeBench would send them to a public server if it were not told `local`.)"""
    words = {
        "evalplus": ["evalplus.evaluate", "--dataset", dataset, "--samples", samples, "--parallel", workers],
        "bigcodebench": [
            "bigcodebench.evaluate",
            "--execution",
            "local",
            "--split",
            dataset.removesuffix("-hard"),
            "--subset",
            "hard" if dataset.endswith("-hard") else "full",
            "--samples",
            samples,
            "--parallel",
            workers,
        ],
        "livecodebench": [
            "lcb_runner.runner.custom_evaluator",
            "--custom_output_file",
            samples,
            "--release_version",
            dataset,
            "--num_process_evaluate",
            workers,
        ],
    }[harness.name]
    return [str(word) for word in (python, "-m", *words)]


def execute(harness: Harness, dataset: str, samples: Path, data: Path | None = None, workers: int = 1) -> list[Row]:
    """Run the harness on a samples file: one row per question, {id, base: [bool per reply], plus: the same or None}.

    `plus` counts a reply that passes base and extra tests. `data` replaces the release that the harness would fetch
    (EvalPlus and BigCodeBench). Raises EngineError when it is not installed or does not finish.
    """
    python = installed(harness)
    if python is None:
        raise EngineError(
            f"{harness.name} is not installed; run `{harness.install}` in {ROOT.name}/ and repeat the command."
        )
    samples = samples.resolve()
    result = samples.with_name(samples.stem + harness.suffix)
    for old in (result, samples.with_name(f"{samples.stem}_pass_at_k.json")):
        old.unlink(missing_ok=True)  # or EvalPlus would repeat it, and BigCodeBench ask whether to overwrite it
    env = dict(os.environ)
    if data is not None:
        name = {"humaneval": "HUMANEVAL", "mbpp": "MBPP"}.get(dataset, "BIGCODEBENCH")
        env[f"{name}_OVERRIDE_PATH"] = str(Path(data).resolve())
    # LiveCodeBench opens its few-shot examples relative to its checkout.
    home = _home(harness, python) if harness.name == "livecodebench" else samples.parent
    words = command(harness, dataset, samples, python, workers)
    done = subprocess.run(
        words,
        env=env,
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    (samples.parent / "harness.log").write_text(done.stdout, encoding="utf-8")
    if done.returncode or not result.exists():
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise EngineError(f"{harness.name} did not finish ({last[:300]}); see {samples.parent / 'harness.log'}.")
    if (checked := samples.with_name(f"{samples.stem}_pass_at_k.json")).exists():
        share = json.loads(checked.read_text(encoding="utf-8"))["gt_pass_rate"]
        if share < 0.99:  # BigCodeBench goes on all the same, and every program that needs the missing library fails
            raise EngineError(
                f"Only {share:.1%} of BigCodeBench's own solutions pass here, so its verdicts mean "
                f"nothing; install its libraries: {harness.install}"
            )
    return harness.read(result)


def _home(harness: Harness, python: Path) -> Path:
    look = f"import importlib.util as u; print(list(u.find_spec({harness.package!r}).submodule_search_locations)[0])"
    return Path(subprocess.run([python, "-c", look], capture_output=True, text=True).stdout.strip()).parent


def pass_at_1(rows: Sequence[Row], kind: str = "base") -> list[float]:
    """Share of right replies per question, by the `base` tests or with the extra ones (`plus`)."""
    return [fmean(row[kind]) for row in rows]


def collect(
    harness: Harness,
    dataset: str,
    path: str | Path,
    folder: Path,
    profile: Profile,
    model: str,
    *,
    n: int = 1,
    temperature: float = 0.0,
    extraction: str = "extract_program",
    own: bool = True,
) -> Path:
    """Samples of `model` for the questions in `path`, as a file in `folder` for the harness; kept when it is there.

    own: ask in the harness's words, else by the profile's `prompts.solve`. Raises EngineError when `folder` holds
    samples that were asked for differently.
    """
    prompt = own_prompt(harness, dataset) if own else Prompt(profile.prompts.solve)
    asked = {
        "harness": harness.name,
        "dataset": dataset,
        "questions": str(path),
        "model": model,
        "n": n,
        "own": own,
        "temperature": temperature,
        "extraction": extraction,
    }
    samples, request = folder / harness.samples, folder / "request.json"
    if samples.exists():
        if json.loads(request.read_text(encoding="utf-8")) != asked:
            raise EngineError(f"{folder} holds samples of another request (see request.json); name another --out.")
        return samples
    problems = questions(harness, dataset, path)
    location = profile.resolve(model)
    network, tokenizer = load_policy(location, profile.models.dtype, profile.models.device), load_tokenizer(location)
    params = SamplingParams.of(profile.sampling, n=n, temperature=temperature, top_p=1.0, seed=profile.seed)
    replies = ask(network, tokenizer, problems, prompt, params)
    extract = EXTRACTIONS[extraction]
    write_json(folder / "replies.json", {one.id: mine for one, mine in zip(problems, replies, strict=True)})
    write_json(request, asked)
    return write_samples(
        harness,
        folder,
        {
            one.id: [extract(reply, one.entry_point or None) for reply in mine]
            for one, mine in zip(problems, replies, strict=True)
        },
    )


def summary(harness: Harness, dataset: str, rows: Sequence[Row], model: str, as_published: bool) -> str:
    """pass@1 with its 95% interval over questions and, when the model was asked `as_published` (greedily, in the
    harness's words), whether it is what was published."""
    lines = [f"{model}, judged by {harness.name}"]
    for kind in ("base", "plus") if rows[0]["plus"] else ("base",):
        name = benchmark_name(harness, dataset, kind == "plus")
        here = Interval(*bootstrap_mean(pass_at_1(rows, kind)))
        lines.append(f"  {name}: pass@1 {here.value:.3f} [{here.low:.3f}, {here.high:.3f}] on {len(rows)} questions")
        for one in published_baselines(model, {name: len(rows)}) if as_published else ():
            same = "reproduced" if reproduces(here, one.published, one.tolerance) else "not reproduced"
            same += " (shown, not required)" if one.rival else ""
            lines.append(f"    published {one.published:.3f} ({one.source}), tolerance {one.tolerance}: {same}")
    return "\n".join(lines)
