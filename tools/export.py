"""What a run made, as a data set for others: `python -m tools.export RUN_DIR OUT`.

Writes Parquet in the columns of AceCode-87K and AceCodePair-300K, with a dataset card; `datasets.load_dataset(folder,
"questions")` and `(folder, "pairs")` read it, and so does `data.adopt` of a profile. Nothing is uploaded without
--push-to-hub; put a licence into the card first (an edited card is kept).
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from acelib.core import ArtifactError, DataError, Run, atomic, digest, load_profile, stoppable, write_json
from tools.commands import explained
from tools.publish import dataset_card, push
from tools.seeds import counts_table, questions_text

TABLES = {"questions": "samples", "pairs": "pairs"}  # configuration: the artefact it is made of
NEEDED = ("imagined", "filtered", "filter_audit", "samples", "pairs")  # as the notebooks make them, one after the other
SHARD_BYTES = 500_000_000  # of Arrow, before compression; what the hub's own tools take
FILES = ("README.md", "report.json", *(f"{name}/train-*.parquet" for name in TABLES))
SECTIONS = ("prompts", "synthesis", "filtering", "sampling", "pairs", "judge")  # of the profile, shown in the card
PROGRAM = {
    **{"completion_id": "int64", "model_name": "string", "completion": "string", "program": "string"},
    **{"pass_rate": "float64", "test_results": ["bool"]},
}
COLUMNS = {  # of each configuration, with types; [type] is a list
    "questions": {
        **{"id": "string", "source": "string", "question": "string", "entry_point": "string"},
        **{"test_cases": ["string"], "inferences": [PROGRAM]},
        "context_messages": [[{"content": "string", "role": "string"}]],
    },
    "pairs": {
        **{"id": "string", "instruction": "string", "input": "string", "chosen": "string", "rejected": "string"},
        **{"chosen_rate": "float64", "rejected_rate": "float64"},
    },
}


def export(run_dir: Path, out: Path, say: Callable[[str], Any] = lambda line: None) -> dict[str, int]:
    """Writes the run's questions with tests and judged programs, its pairs, and a dataset card into the folder `out`.

    The folder appears whole or not at all, in place of an earlier export. One that holds just this, perhaps with a card
    that was edited since, is kept. Returns counts. Raises DataError when there is no run or `out` holds something
    else, ArtifactError for a table that is missing or of another state of the run, and FullDiskError.
    """
    out, profile = Path(out).resolve(), Path(run_dir) / "profile.yaml"
    if not profile.exists():
        raise DataError(f"{run_dir} is not a run directory; run `make course` first or correct the path.")
    run = Run(run_dir, load_profile(str(profile)))
    paths = {name: run.unchanged(name) for name in NEEDED}
    contents = {name: run.manifest(name)["content"] for name in NEEDED}
    if run.manifest("pairs").get("inputs", {}).get("samples", contents["samples"]) != contents["samples"]:
        raise ArtifactError(
            f"The pairs in {run.dir} were made of other programs than it holds now; run notebook 03 "
            "again: repeat the run's `make course ...` with FROM=03."
        )
    made_of, before = {"artefacts": contents, "profile": digest(run.profile.to_dict())}, _before(out)
    if before.get("made_of") == made_of and all(any(out.glob(pattern)) for pattern in FILES):
        say(f"{out} is complete and nothing it is made of has changed, kept as it is.")
        return before["counts"]
    with atomic(out) as folder:
        counts = _write_tables(paths, folder)
        (folder / "README.md").write_text(data_card(run, counts), encoding="utf-8")
        report = {"made_of": made_of, "counts": counts, "versions": run.manifest("samples")["versions"]}
        write_json(folder / "report.json", report)
    if before:
        say(f"{out} held another state of the run, replaced; what was written into its card by hand is gone.")
    return counts


def _before(out: Path) -> dict[str, Any]:
    """The record of the export that lies there; empty when nothing does. Raises DataError for anything else."""
    if not out.exists() or out.is_dir() and not any(out.iterdir()):
        return {}
    with suppress(OSError, ValueError):
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        ours = {one.name for one in out.iterdir()} <= {"README.md", "report.json", *TABLES}
        if ours and "artefacts" in report["made_of"]:
            return report
    raise DataError(f"{out} holds something that is no export; name another folder.")


def _typed(columns: Any) -> Any:
    """A part of COLUMNS as features of `datasets`."""
    from datasets import List, Value

    if isinstance(columns, dict):
        return {name: _typed(one) for name, one in columns.items()}
    return List(_typed(columns[0])) if isinstance(columns, list) else Value(columns)


def _write_tables(paths: dict[str, Path], folder: Path) -> dict[str, int]:
    """Writes `folder/<configuration>/train-*.parquet` from the artefacts at `paths`, memory-mapped; returns counts."""
    import pyarrow.compute as compute
    from datasets import Dataset, Features
    from pyarrow.parquet import read_table

    cache, tables = folder / "cache", {}
    for name, columns in COLUMNS.items():
        path, features = str(paths[TABLES[name]]), Features(_typed(columns))
        table = Dataset.from_parquet(path, features=features, cache_dir=str(cache))
        shards = max(1, math.ceil(table.data.nbytes / SHARD_BYTES))
        (folder / name).mkdir(parents=True)
        for number in range(shards):
            shard = table.shard(shards, number, contiguous=True)
            shard.to_parquet(folder / name / f"train-{number:05d}-of-{shards:05d}.parquet")
        tables[name] = table.data
    shutil.rmtree(cache)
    questions, pairs, audit = tables["questions"], tables["pairs"], read_table(paths["filter_audit"])
    rates = compute.struct_field(compute.list_flatten(questions.column("inferences")), "pass_rate")
    known = audit.filter(audit["kept"])["valid"].drop_null().to_pylist()
    return {
        "questions": questions.num_rows,
        "tests": compute.sum(compute.list_value_length(questions.column("test_cases"))).as_py(),
        "programs": len(rates),
        "programs that pass all tests": compute.sum(compute.equal(rates, 1.0)).as_py() or 0,
        "pairs": pairs.num_rows,
        "questions with pairs": len(compute.unique(pairs.column("id"))),
        "tests before the filter": len(audit),
        "surviving tests of known truth": len(known),
        "surviving tests known to be right": sum(known),
    }


def data_card(run: Run, counts: dict[str, int]) -> str:
    """README.md of an export, from `export_card.md`; `counts` are those of `export`."""
    profile, shown = run.profile, run.profile.to_dict()
    names = {"questions": "filtered", "programs": "samples", "pairs": "pairs"}
    adopted = {what: (run.manifest(name) or {}).get("adopted") for what, name in names.items()}
    questions, seeds = adopted["questions"], {}
    with suppress(OSError, ValueError):  # what `python -m acelib seeds` wrote beside the seeds, if it made them
        path = Path(profile.resolve(profile.data.seeds)).with_name("report.json")
        seeds = {} if questions else json.loads(path.read_text(encoding="utf-8"))
    sources = [tuple(one) for one in seeds.get("made_of", {}).get("sources", ())]
    for name, version in (("source", "version"), ("pairs", "pairs_version")):
        sources += [(questions[name], questions[version])] if name in (questions or {}) else []
    values = {name: shown[name] for name in SECTIONS if not (questions and name == "synthesis")}
    return dataset_card(
        Path(__file__).with_name("export_card.md"),
        sources,
        **adopted,
        profile=profile,
        counts=counts,
        versions=run.manifest("samples")["versions"],
        values=yaml.safe_dump(values, sort_keys=False, width=110).strip(),
        benchmarks=questions_text(seeds.get("benchmark questions", {})),
        seeds_table=counts_table(seeds.get("counts", {})),
    )


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.export", description=__doc__.partition("\n\n")[2])
    parser.add_argument("run_dir", type=Path, help="a run that has finished notebook 03, such as runs/pocket")
    parser.add_argument("out", type=Path, help="folder to write, for load_dataset and for data.adopt")
    parser.add_argument("--push-to-hub", dest="repository", metavar="OWNER/NAME", help="upload it, too")
    parser.add_argument("--private", action="store_true", help="where the data set is new on the hub, keep it private")
    asked = parser.parse_args(words)
    counts = export(asked.run_dir, asked.out, print)
    print("\n".join(f"{count:9,} {what}" for what, count in counts.items()))
    print(
        f"Data set: {asked.out} (data.adopt: {asked.out / 'questions'} in a profile); its card: "
        f"{asked.out / 'README.md'}; state a licence there before you publish it."
    )
    if asked.repository:
        print(f"Pushed to {push(asked.out, asked.repository, FILES, asked.private)}")


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
