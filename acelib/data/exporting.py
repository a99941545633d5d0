"""What a run made, as a data set for others: Parquet shards in the columns of AceCode-87K and AceCodePair-300K.

`datasets.load_dataset(folder, "questions")` and `(folder, "pairs")` read it, and so does `acelib.data.adoption`.
"""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acelib.core import ArtifactError, DataError, Run, digest, flush, full_disk_explained, load_profile, write_json
from acelib.data.export_card import data_card
from acelib.data.publish import push

TABLES = {"questions": "samples", "pairs": "pairs"}  # configuration: the artefact it is made of
NEEDED = ("imagined", "filtered", "filter_audit", "samples", "pairs")  # as the notebooks make them, one after the other
SHARD_BYTES = 500_000_000  # of Arrow, before compression; what the hub's own tools take
FILES = ("README.md", "report.json", *(f"{name}/train-*.parquet" for name in TABLES))


def export(run_dir: Path, out: Path, say: Callable[[str], Any] = lambda line: None) -> dict[str, int]:
    """Writes the run's questions with tests and judged programs, its pairs, and a dataset card into the folder `out`.

    The folder appears whole or not at all, in place of an earlier export. One that holds just this, perhaps with a card
    that was edited since, is kept. Returns counts. Raises DataError when there is no run or `out` holds something
    else, ArtifactError for a table that is missing or of another state of the run, and FullDiskError.
    """
    run, out = _open(Path(run_dir)), Path(out).resolve()
    paths = {name: run.unchanged(name) for name in NEEDED}
    manifests = {name: run.manifest(name) for name in NEEDED}
    of = manifests["pairs"].get("inputs", {}).get("samples")
    if of and of != manifests["samples"]["content"]:
        raise ArtifactError(
            f"The pairs in {run.dir} were made of other programs than it holds now; run notebook 03 "
            "again: repeat the run's `make course ...` with FROM=03."
        )
    made_of = {
        "artefacts": {name: one["content"] for name, one in manifests.items()},
        "profile": digest(run.profile.to_dict()),
    }
    before = _before(out)
    if before.get("made_of") == made_of and all(any(out.glob(pattern)) for pattern in FILES):
        say(f"{out} is complete and nothing it is made of has changed, kept as it is.")
        return before["counts"]
    temporary, old = (out.with_name(f".{out.name}.{end}") for end in ("tmp", "old"))
    with full_disk_explained(out):
        for stale in (temporary, old):
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            counts = _write_tables(paths, temporary) | _audit_counts(paths["filter_audit"])
            (temporary / "README.md").write_text(data_card(run, counts), encoding="utf-8")
            report = {"made_of": made_of, "counts": counts, "versions": manifests["samples"]["versions"]}
            write_json(temporary / "report.json", report)
            flush(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if before:
            os.replace(out, old)
            say(f"{out} held another state of the run, replaced; what was written into its card by hand is gone.")
        os.replace(temporary, out)
    shutil.rmtree(old, ignore_errors=True)
    return counts


def push_export(out: Path, repository: str, private: bool = False) -> str:
    """Uploads a finished folder of `export` as a data set; returns its address. Raises DataError."""
    return push(out, repository, FILES, private)


def _open(run_dir: Path) -> Run:
    profile = run_dir / "profile.yaml"
    if not profile.exists():
        raise DataError(f"{run_dir} is not a run directory; run `make course` first or correct the path.")
    return Run(run_dir, load_profile(str(profile)))


def _before(out: Path) -> dict[str, Any]:
    """The record of the export that lies there; empty when nothing does. Raises DataError for anything else."""
    if not out.exists() or out.is_dir() and not any(out.iterdir()):
        return {}
    try:
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        ours = {one.name for one in out.iterdir()} <= {"README.md", "report.json", *TABLES}
        if ours and "artefacts" in report["made_of"]:
            return report
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{out} holds something that is no export; name another folder.")


def _features() -> dict[str, Any]:
    """Columns and types, by configuration."""
    from datasets import Features, List, Value

    text, rate = Value("string"), Value("float64")
    program = {
        "completion_id": Value("int64"),
        "model_name": text,
        "completion": text,
        "program": text,
        "pass_rate": rate,
        "test_results": List(Value("bool")),
    }
    return {
        "questions": Features(
            {
                "id": text,
                "source": text,
                "question": text,
                "entry_point": text,
                "test_cases": List(text),
                "inferences": List(program),
                "context_messages": List(List({"content": text, "role": text})),
            }
        ),
        "pairs": Features(
            {
                "id": text,
                "instruction": text,
                "input": text,
                "chosen": text,
                "rejected": text,
                "chosen_rate": rate,
                "rejected_rate": rate,
            }
        ),
    }


def _write_tables(paths: dict[str, Path], folder: Path) -> dict[str, int]:
    """Writes `folder/<configuration>/train-*.parquet` through memory-mapped files; returns counts.

    `paths` are those of the artefacts.
    """
    import pyarrow.compute as compute
    from datasets import Dataset

    cache, tables = folder / "cache", {}
    for name, features in _features().items():
        table = Dataset.from_parquet(str(paths[TABLES[name]]), features=features, cache_dir=str(cache))
        shards = max(1, math.ceil(table.data.nbytes / SHARD_BYTES))
        (folder / name).mkdir()
        for number in range(shards):
            shard = table.shard(shards, number, contiguous=True)
            shard.to_parquet(folder / name / f"train-{number:05d}-of-{shards:05d}.parquet")
        tables[name] = table.data
    programs = compute.list_flatten(tables["questions"].column("inferences"))
    rates = compute.struct_field(programs, "pass_rate")
    counts = {
        "questions": tables["questions"].num_rows,
        "tests": compute.sum(compute.list_value_length(tables["questions"].column("test_cases"))).as_py(),
        "programs": len(programs),
        "programs that pass all tests": compute.sum(compute.equal(rates, 1.0)).as_py() or 0,
        "pairs": tables["pairs"].num_rows,
        "questions with pairs": len(compute.unique(tables["pairs"].column("id"))),
    }
    shutil.rmtree(cache)
    return counts


def _audit_counts(path: Path) -> dict[str, int]:
    """Of the tests before the filter: how many, how many survived, and of how many of these the truth is known."""
    import pyarrow.compute as compute
    from pyarrow.parquet import read_table

    audit = read_table(path, columns=["kept", "valid"])
    known = audit.filter(audit["kept"])["valid"].drop_null()
    right = compute.sum(known).as_py() or 0 if len(known) else 0
    return {
        "tests before the filter": len(audit),
        "surviving tests of known truth": len(known),
        "surviving tests known to be right": right,
    }
