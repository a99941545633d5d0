"""A model judged by a benchmark's own harness: `python -m tools.harness evalplus | bigcodebench | livecodebench`.

`python -m tools.harness compare START AFTER...` gives paired differences between models that it has judged. Instruct
models are asked in a chat; a base model may be asked by `--prompt completion`, as EvalPlus asks those: the benchmark's
prompt goes on raw, up to a stop string, and prompt and completion together are the program.

Writes the model's programs in the format of EvalPlus, BigCodeBench or LiveCodeBench and, with --execute, runs that
harness on them. **It executes model-written code outside the judge.** EvalPlus and BigCodeBench switch some functions
off and say themselves that this is no sandbox; LiveCodeBench is built the same way. So nothing in `acelib` does it, and
this tool only with --execute. Do that in a container or on a machine with nothing to lose; the default everywhere else
is our judge on the file in `data.benchmark`.

Formats and options as in EvalPlus 0.3.1, BigCodeBench 0.2.5 and LiveCodeBench's repository of July 2025.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from acelib.core import ROOT, EngineError, Profile, is_current, load_profile, making, stoppable, write_json
from acelib.data import benchmark_rows, published_baselines, read_benchmark, reproduces
from acelib.evaluation import EVALPLUS, Prompt, ask
from acelib.extraction import EXTRACTIONS
from acelib.models import SamplingParams, check_room, load_policy, load_tokenizer, turn_end
from acelib.schema import Problem, Row
from acelib.stats import bootstrap_mean, paired_bootstrap
from tools.commands import explained

WARNING = "This executes model-written code outside the judge, with your rights: use a container or a spare machine."


PROMPTS = ("harness", "profile", "completion")  # in the harness's words or the profile's, in a chat; or none, raw
COMPLETE = "`--prompt completion` asks as EvalPlus asks base models"
# EvalPlus 0.3.1, evalplus/provider/utility.py: what ends a completion, always and by data set
STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")
MORE_STOPS = {"humaneval": ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "), "mbpp": ('\n"""', "\nassert")}
FIRST_TEST = "\n\nYour code should pass this test:\n"  # as `acelib.data.benchmarks` shows MBPP's


@dataclass(frozen=True)
class Harness:
    """`datasets`: its name for each, and the benchmark's in data/baselines.yaml. `options` are those of `module`;
    `suffix` turns the name of the `samples` file into that of the results."""

    name: str
    module: str
    options: str
    datasets: dict[str, str]
    install: str
    suffix: str = "_eval_results.json"
    samples: str = "samples.jsonl"

    @property
    def results(self) -> str:
        """The name of the file of results."""
        return Path(self.samples).stem + self.suffix

    def read(self, path: Path) -> list[Row]:
        """A file of results as rows, one per question: id, base and plus (lists of bool, one per reply); plus counts
        a reply that passes base and extra tests, and is None where there are none."""
        found, rows = json.loads(path.read_text(encoding="utf-8")), []
        if self.name == "livecodebench":
            found = {"eval": {one["question_id"]: [{"status": ok} for ok in one["graded_list"]] for one in found}}
        for task, replies in found["eval"].items():
            base = [one.get("base_status", one.get("status")) in ("pass", True) for one in replies]
            extra = [one["plus_status"] == "pass" for one in replies if "plus_status" in one]
            plus = [a and b for a, b in zip(base, extra, strict=True)] if extra else None
            rows.append({"id": str(task), "base": base, "plus": plus})
        return rows


SPLITS = ("complete", "complete-hard", "instruct", "instruct-hard")
HARNESSES = {
    "evalplus": Harness(
        "evalplus",
        "evalplus.evaluate",
        "--dataset {dataset} --samples {samples} --parallel {workers}",
        {"humaneval": "HumanEval", "mbpp": "MBPP"},
        "python3 -m venv .cache/evalplus && .cache/evalplus/bin/pip install evalplus==0.3.1",
    ),
    "bigcodebench": Harness(
        "bigcodebench",
        "bigcodebench.evaluate",  # it would send the samples to a public server if it were not told `local`
        "--execution local --split {split} --subset {subset} --samples {samples} --parallel {workers}",
        {name: f"BigCodeBench-{name.title()}" for name in SPLITS},
        "python3.10 -m venv .cache/bigcodebench && .cache/bigcodebench/bin/pip install bigcodebench==0.2.5 && "
        ".cache/bigcodebench/bin/pip install -I -r https://raw.githubusercontent.com/bigcode-project/bigcodebench/"
        "main/Requirements/requirements-eval.txt",
    ),
    "livecodebench": Harness(
        "livecodebench",
        "lcb_runner.runner.custom_evaluator",
        "--custom_output_file {samples} --release_version {dataset} --num_process_evaluate {workers}",
        {f"release_{number}": f"LiveCodeBench-{number}" for number in ("v4", "v5", "v6")},
        "git clone https://github.com/LiveCodeBench/LiveCodeBench .cache/livecodebench-source && "
        "python3.11 -m venv .cache/livecodebench && "
        ".cache/livecodebench/bin/pip install -e .cache/livecodebench-source",
        "_codegeneration_output_eval_all.json",
        "samples.json",
    ),
}


def _folder(harness: Harness, python: Path) -> Path | None:
    """Where a Python has the harness's package; None when it has not."""
    look = "import importlib.util as u, sys; print(u.find_spec(sys.argv[1]).submodule_search_locations[0])"
    done = subprocess.run([python, "-c", look, harness.module.split(".")[0]], capture_output=True, text=True)
    return None if done.returncode else Path(done.stdout.strip())


def installed(harness: Harness) -> Path | None:
    """The Python that has the harness: of an environment of its own (.cache/<name>), or the one that runs here."""
    pythons = (ROOT / ".cache" / harness.name / "bin" / "python", Path(sys.executable))
    return next((one for one in pythons if one.exists() and _folder(harness, one)), None)


def questions(harness: Harness, dataset: str, path: str | Path) -> list[Problem]:
    """The harness's questions in its own layout or the hub's, with its ids and without tests; `path` is a file, or a
    hub name.

    EvalPlus also takes the layouts of `read_benchmark`. Raises EngineError for rows of another layout.
    """
    rows = benchmark_rows(path)
    try:
        if harness.name == "bigcodebench":
            column = f"{dataset.removesuffix('-hard')}_prompt"
            return [Problem(row["task_id"], row[column], row["entry_point"], ()) for row in rows]
        if harness.name == "livecodebench":
            return [Problem(str(row["question_id"]), _livecodebench_text(row), "", ()) for row in rows]
        if "base_input" in rows[0]:
            return [Problem(row["task_id"], row["prompt"].strip(), row["entry_point"], ()) for row in rows]
    except KeyError as error:
        raise EngineError(
            f"{path} has no column {error}; give a file with the questions of {harness.name} {dataset}."
        ) from error
    prefix = {"humaneval": "HumanEval/", "mbpp": "Mbpp/"}[dataset]
    problems = read_benchmark(path)
    found = [Problem(one.id.replace("MBPP/", "Mbpp/"), one.question, one.entry_point, ()) for one in problems]
    if not all(one.id.startswith(prefix) for one in found):
        raise EngineError(
            f"{path} does not hold the questions of EvalPlus's {dataset}; give a file with task_id {prefix}..."
        )
    return found


def _livecodebench_text(row: Row) -> str:
    """LiveCodeBench's generic question (lcb_runner/prompts/code_generation.py)."""
    start = row.get("starter_code")
    told = (
        "You will use the following starter code to write the solution to the problem and enclose your code within "
        "delimiters."
        if start
        else "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the "
        "sample inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, "
        "it reads the inputs, runs the algorithm and writes output to STDOUT."
    )
    return (
        f"### Question:\n{row['question_content']}\n\n### Format: {told}\n```python\n{start or '# YOUR CODE HERE'}\n"
        "```\n\n### Answer: (use the provided format with backticks)\n\n"
    )


def own_prompt(harness: Harness, dataset: str) -> Prompt:
    """How the harness itself asks an instruct model; BigCodeBench shares EvalPlus's words."""
    if harness.name == "livecodebench":
        return Prompt("{question}")
    if dataset.startswith("instruct"):
        return Prompt(EVALPLUS.user.replace("```\n{question}\n```\n", "{question}\n"), EVALPLUS.prefill)
    return EVALPLUS


def beginning(dataset: str, question: str) -> str:
    """What EvalPlus has a base model continue: HumanEval's prompt; MBPP's text and first test as a docstring."""
    text, told, test = question.partition(FIRST_TEST)
    return f'"""\n{text}\n{test}\n"""\n' if dataset == "mbpp" and told else question.strip() + "\n"


def until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of `stops`, with blanks for tabs, as EvalPlus keeps it."""
    return text[: min((text.index(one) for one in stops if one in text), default=None)].replace("\t", "    ")


@torch.inference_mode()
def complete(
    network: Any, tokenizer: Any, dataset: str, problems: Sequence[Problem], params: SamplingParams
) -> list[list[str]]:
    """`params.n` programs per problem, each its `beginning` with the model's continuation of it.

    Raises ModelError when a beginning and `params.max_new_tokens` exceed the model's context.
    """
    texts, stops, found = [beginning(dataset, one.question) for one in problems], STOPS + MORE_STOPS[dataset], []
    check_room(network, tokenizer(texts)["input_ids"], params.max_new_tokens)
    how = dict(do_sample=params.temperature > 0, num_return_sequences=params.n, max_new_tokens=params.max_new_tokens)
    how |= dict(temperature=params.temperature, top_p=params.top_p, top_k=0) if how["do_sample"] else {}
    how |= dict(stop_strings=list(stops), tokenizer=tokenizer, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(params.seed)
    for start in range(0, len(texts), size := max(1, params.batch_size // params.n)):
        read = tokenizer(texts[start : start + size], return_tensors="pt", padding=True).to(network.device)
        ids = network.generate(input_ids=read["input_ids"], attention_mask=read["attention_mask"], **how)
        found += tokenizer.batch_decode(ids[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
    rows = [found[start : start + params.n] for start in range(0, len(found), params.n)]
    return [[text + until(one, stops) for one in row] for text, row in zip(texts, rows, strict=True)]


def write_samples(
    harness: Harness, folder: Path, programs: dict[str, Sequence[str | None]], asked: dict[str, Any] | None = None
) -> Path:
    """The programs of each question, in the harness's format; one without a program fails there. Returns the file,
    beside which a manifest says what was `asked`."""
    if harness.name == "livecodebench":
        text = json.dumps(
            [{"question_id": name, "code_list": [one or "" for one in programs[name]]} for name in programs]
        )
    else:
        rows = [{"task_id": name, "solution": one or ""} for name, mine in programs.items() for one in mine]
        text = "".join(json.dumps(row) + "\n" for row in rows)
    with making(folder / harness.samples, asked, asked) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / harness.samples


def command(harness: Harness, dataset: str, samples: Path, python: Any = "python", workers: int = 1) -> list[str]:
    """What executes the samples."""
    split, _, hard = dataset.partition("-")
    values = {"dataset": dataset, "split": split, "subset": hard or "full", "samples": samples, "workers": workers}
    return [str(python), "-m", harness.module, *(word.format(**values) for word in harness.options.split())]


def execute(harness: Harness, dataset: str, samples: Path, data: Path | None = None, workers: int = 1) -> list[Row]:
    """Run the harness on a samples file; rows as `Harness.read` gives them.

    `data` replaces the release that the harness would fetch (EvalPlus and BigCodeBench). Raises EngineError when it is
    not installed or does not finish.
    """
    python = installed(harness)
    if python is None:
        raise EngineError(
            f"{harness.name} is not installed; run `{harness.install}` in {ROOT.name}/ and repeat the command."
        )
    samples = samples.resolve()
    log = samples.with_name("harness.log")
    result, checked = (samples.with_name(samples.stem + end) for end in (harness.suffix, "_pass_at_k.json"))
    for old in (result, checked):
        old.unlink(missing_ok=True)  # or EvalPlus would repeat it, and BigCodeBench ask whether to overwrite it
    name = {"humaneval": "HUMANEVAL", "mbpp": "MBPP"}.get(dataset, "BIGCODEBENCH")
    release = {} if data is None else {f"{name}_OVERRIDE_PATH": str(Path(data).resolve())}
    # LiveCodeBench opens its few-shot examples relative to its checkout.
    home = _folder(harness, python).parent if harness.name == "livecodebench" else samples.parent
    words, streams = command(harness, dataset, samples, python, workers), {"stdin": subprocess.DEVNULL}
    with log.open("w", encoding="utf-8") as file:
        streams |= {"stdout": file, "stderr": subprocess.STDOUT}
        done = subprocess.run(words, env=os.environ | release, cwd=home, **streams)
    if done.returncode or not result.exists():
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
        raise EngineError(f"{harness.name} did not finish ({last[:300]}); see {log}.")
    share = json.loads(checked.read_text(encoding="utf-8"))["gt_pass_rate"] if checked.exists() else 1.0
    if share < 0.99:  # BigCodeBench goes on all the same, and every program that needs the missing library fails
        raise EngineError(
            f"Only {share:.1%} of BigCodeBench's own solutions pass here, so its verdicts mean "
            f"nothing; install its libraries: {harness.install}"
        )
    return harness.read(result)


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
    prompt: str = "harness",
) -> Path:
    """Samples of `model` for the questions in `path`, as a file in `folder` for the harness; kept when it is there.

    prompt: one of PROMPTS. Raises EngineError when `folder` holds samples that were asked for differently, and for a
    `prompt` that the harness or the model does not have.
    """
    if prompt == "completion" and dataset not in MORE_STOPS:
        raise EngineError(f"Only EvalPlus is asked by completion here; take harness or profile for {harness.name}.")
    asked = {"harness": harness.name, "dataset": dataset, "questions": str(path), "model": model}
    asked |= {"n": n, "prompt": prompt, "temperature": temperature, "extraction": extraction}
    samples = folder / harness.samples
    if is_current(samples, asked):
        return samples
    if samples.exists():
        raise EngineError(f"{folder} holds samples of another request (see its manifest); name another --out.")
    problems = questions(harness, dataset, path)
    location = profile.resolve(model)
    tokenizer, chats = load_tokenizer(location, chats=False), prompt != "completion"
    if chats and tokenizer.chat_template is None:
        raise EngineError(f"{model} has no chat template to be asked in, as base models have none; {COMPLETE}.")
    tokenizer = load_tokenizer(location) if chats else tokenizer
    network = load_policy(location, profile.models.dtype, profile.models.device)
    if chats and (end := turn_end(tokenizer)) not in _ends(network, tokenizer):
        ends = tokenizer.convert_ids_to_tokens(end) if end is not None else "nothing"
        print(f"{model} looks like a base model (its template ends a reply with {ends}, it does not); {COMPLETE}.")
    params = SamplingParams.of(profile.sampling, n=n, temperature=temperature, top_p=1.0, seed=profile.seed)
    if chats:
        words = own_prompt(harness, dataset) if prompt == "harness" else Prompt(profile.prompts.solve)
        replies = ask(network, tokenizer, problems, words, params)
    else:
        replies = complete(network, tokenizer, dataset, problems, params)
    extract = EXTRACTIONS[extraction]
    write_json(folder / "replies.json", {one.id: mine for one, mine in zip(problems, replies, strict=True)})
    programs = {
        one.id: [extract(reply, one.entry_point or None) for reply in mine]
        for one, mine in zip(problems, replies, strict=True)
    }
    return write_samples(harness, folder, programs, asked)


def _ends(network: Any, tokenizer: Any) -> set[int | None]:
    """The tokens at which a model ends by itself, whatever its chat template says."""
    eos = network.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])}


def summary(harness: Harness, dataset: str, rows: Sequence[Row], model: str, as_published: bool, how: str = "") -> str:
    """pass@1 with its 95% interval over questions and, when the model was asked `as_published` (greedily, in the
    harness's words or by completion), whether it is what was published; `how` says what else is to be known."""
    lines = [f"{model}, judged by {harness.name}{how}"]
    for kind in ("base", "plus") if rows[0]["plus"] else ("base",):
        name = harness.datasets[dataset] + "+" * (kind == "plus")
        here = bootstrap_mean(pass_at_1(rows, kind))
        lines.append(f"  {name}: pass@1 {here.value:.3f} [{here.low:.3f}, {here.high:.3f}] on {len(rows)} questions")
        for one in published_baselines(model, {name: len(rows)}) if as_published else ():
            same = "reproduced" if reproduces(here, one.published, one.tolerance) else "not reproduced"
            same += " (shown, not required)" if one.rival else ""
            lines.append(f"    published {one.published:.3f} ({one.source}), tolerance {one.tolerance}: {same}")
    return "\n".join(lines)


def results(folder: Path) -> dict[str, Row]:
    """The rows of the harness that has judged in a folder (`--out`), by question. Raises EngineError without one."""
    for harness in HARNESSES.values():
        if (path := folder / harness.results).is_file():
            try:
                return {row["id"]: row for row in harness.read(path)}
            except (ValueError, KeyError, TypeError) as error:
                raise EngineError(f"{path} is no whole file of results; run the harness there again.") from error
    raise EngineError(f"There are no results in {folder}; name what --out was, after a run with --execute.")


def compare(start: Path, after: Sequence[Path]) -> str:
    """Paired differences in pass@1 of each folder in `after` with `start`, with 95% intervals over questions. Raises
    EngineError for folders without results, or with those of other questions."""
    before, lines = results(start), [f"pass@1 less that of {start}, with 95% intervals over {{}} questions"]
    for folder in after:
        now = results(folder)
        if now.keys() != before.keys():
            raise EngineError(f"{folder} holds other questions than {start}; compare folders of one benchmark.")
        for kind in ("base", "plus") if next(iter(now.values()))["plus"] else ("base",):
            pair = (pass_at_1([rows[one] for one in before], kind) for rows in (now, before))
            lines.append(f"  {folder}, {kind}: {paired_bootstrap(*pair)}")
    return "\n".join(lines).format(len(before))


def compared(words: Sequence[str]) -> str:
    """`compare` for what was typed after that word."""
    parser = argparse.ArgumentParser(prog="python -m tools.harness compare", description=compare.__doc__)
    parser.add_argument("start", type=Path, help="--out of the untrained model")
    parser.add_argument("after", type=Path, nargs="+", help="--out of trained ones, asked the same benchmark")
    asked = parser.parse_args(words)
    return compare(asked.start, asked.after)


@explained
def main(words: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["compare"]:
        return print(compared(words[1:]))
    parser = argparse.ArgumentParser(prog="python -m tools.harness", description=__doc__.partition("\n\n")[2])
    parser.add_argument("name", choices=sorted(HARNESSES))
    known = "; ".join(f"{name}: {', '.join(one.datasets)}" for name, one in HARNESSES.items())
    parser.add_argument("--dataset", required=True, help=known)
    parser.add_argument("--model", help="model folder or hub name (default: the profile's policy)")
    parser.add_argument("--questions", help="file or hub name of the benchmark (default: data.benchmark)")
    parser.add_argument("--out", type=Path, required=True, help="folder for samples, results and the harness's log")
    parser.add_argument("--profile", default="pocket", help="name in profiles/, or path of a .yaml file")
    parser.add_argument("--samples", metavar="N", type=int, default=0, help="N sampled programs (default: one greedy)")
    parser.add_argument("--extraction", default="extract_program", choices=EXTRACTIONS, help="from reply to program")
    parser.add_argument("--prompt", default="harness", choices=PROMPTS, help="whose words to ask in; completion: raw")
    parser.add_argument("--release", type=Path, help="the harness's own data file, where it cannot be fetched")
    parser.add_argument("--workers", type=int, default=1, help="programs executed at a time")
    parser.add_argument("--execute", action="store_true", help="run the harness, too")
    asked = parser.parse_args(words)
    evaluate(asked, HARNESSES[asked.name], load_profile(asked.profile))


def evaluate(asked: argparse.Namespace, harness: Harness, profile: Profile) -> None:
    """Collects the samples and, with --execute, has them judged; what `main` does."""
    if asked.dataset not in harness.datasets:
        known = ", ".join(harness.datasets)
        raise EngineError(f"{harness.name} has no dataset {asked.dataset!r}; it has {known}.")
    model = asked.model or profile.models.policy
    path = asked.questions or profile.resolve(profile.data.benchmark)
    temperature = profile.evaluation.temperature if asked.samples else 0.0
    options = dict(n=asked.samples or 1, temperature=temperature, extraction=asked.extraction, prompt=asked.prompt)
    samples = collect(harness, asked.dataset, path, asked.out, profile, model, **options)
    print(f"Programs: {samples}\n{WARNING}")
    if not asked.execute:
        words = shlex.join(command(harness, asked.dataset, samples))
        return print(f"Repeat with --execute, or run yourself: {words}")
    rows = execute(harness, asked.dataset, samples, asked.release, asked.workers)
    how = ", asked by completion" if asked.prompt == "completion" else ""
    said = summary(harness, asked.dataset, rows, model, asked.prompt != "profile" and not asked.samples, how)
    (asked.out / "summary.txt").write_text(said + "\n", encoding="utf-8")  # notebook 07 shows those of its run
    print(said)


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
