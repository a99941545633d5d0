"""Seed programs for the teacher from public sets: Python only, once each, without the benchmarks (section 2.2).

A source is told by its columns: Magicoder-Evol-Instruct (`instruction`, `response`), Magicoder-OSS-Instruct (`lang`,
`problem`, `solution`), Stack Python functions (`content`), or programs of the reader's own (`program`), among them the
functions of the installed packages (INSTALLED).
"""

import argparse
import ast
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from acelib.core import CourseError, DataError, Log, atomic, open_log, path_digest, stoppable, write_json
from acelib.extraction import python_blocks
from acelib.schema import Row, parse
from tools.commands import explained
from tools.installed import Installed
from tools.near_duplicates import NearDuplicates
from tools.overlap import Benchmarks
from tools.publish import dataset_card, push
from tools.sources import Source, open_source

PUBLIC = (
    "ise-uiuc/Magicoder-Evol-Instruct-110K",
    "ise-uiuc/Magicoder-OSS-Instruct-75K",
    "bigcode/stack-dedup-python-fns",
)
LAYOUTS = {  # name on the hub: columns, of which the last holds the program
    "evol": ("instruction", "response"),
    "oss": ("lang", "problem", "solution"),
    "bigcode_python_fns": ("content",),
    "own": ("program",),
}
INSTALLED = "installed"  # the source that stands for the functions on this disk
ORIGIN = ("package", "version", "licence")  # further columns of a seed, where its source has them
REASONS = (
    *("rows", "not Python", "no function or class"),
    *("benchmark question", "benchmark signature", "benchmark solution"),
    *("exact duplicate", "near-duplicate", "kept"),
)
OTHERS = "{} holds seeds of other sources, benchmarks or another limit; name another folder, or delete this one."
JOURNAL = ".journal.jsonl"  # what became of every row so far; a stop loses no more than the row it was at


def layout_of(row: Row, source: str) -> str:
    """The layout whose columns a row has. Raises DataError when there is none."""
    for name, columns in LAYOUTS.items():
        if set(columns) <= row.keys():
            return name
    known = "; ".join(", ".join(columns) for columns in LAYOUTS.values())
    raise DataError(f"{source} has the columns {', '.join(row)}, none of the layouts {known}; rename its columns.")


def find_program(row: Row, layout: str) -> tuple[str, ast.Module] | str:
    """The program of a row with its syntax tree, or the reason why there is none.

    Of a chat answer it is the longest fenced block that parses whole and defines a function or class.
    """
    text = row[LAYOUTS[layout][-1]] or ""
    if layout == "oss" and str(row["lang"]).lower() != "python":
        return "not Python"
    blocks = sorted(python_blocks(text), key=len, reverse=True) if layout in ("evol", "oss") else [text]
    trees = [(block, tree) for block in blocks if (tree := parse(block)) is not None]
    for block, tree in trees:
        if any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) for node in ast.walk(tree)):
            return block.strip() + "\n", tree
    return "no function or class" if trees else "not Python"


def examine(row: Row, layout: str, name: str, benchmarks: Benchmarks, seen: NearDuplicates) -> tuple[str, str]:
    """("kept", the program), or (reason, what it was like)."""
    found = find_program(row, layout)
    if isinstance(found, str):
        return found, ""
    program, tree = found
    text, code = "\n".join(str(row[column]) for column in LAYOUTS[layout]), ast.unparse(tree)  # no comments, one layout
    if overlap := benchmarks.overlap(text, code, tree):
        return overlap
    if twin := seen.add(name, code):
        return "exact duplicate" if seen.same(twin, code) else "near-duplicate", twin
    return "kept", program


def build_seeds(
    out: Path,
    sources: Sequence[str] = PUBLIC,
    decontaminate: Sequence[Path] = (),
    limit: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, int]]:
    """Writes `seeds.jsonl` (see `load_seeds`), `dropped.jsonl`, `report.json` and a data card into the folder `out`.

    limit: seeds to keep of each source, its first ones. Returns how many rows of each source were kept or dropped, by
    reason. Called again after a stop with the same arguments it goes on; when all is done, it does nothing. Raises
    CourseError for a source or benchmark that cannot be read, and when `out` holds seeds that were made otherwise.
    """
    out, opened = Path(out), [Installed.open() if name == INSTALLED else open_source(name) for name in sources]
    if missing := [str(path) for path in decontaminate if not Path(path).is_file()]:
        raise CourseError(f"There is no benchmark file at {missing[0]}; check --decontaminate.")
    made_of = {
        "sources": [[one.name, one.version] for one in opened],
        "limit": limit,
        "decontaminated": {str(path): path_digest(path) for path in decontaminate},
    }
    if report := _finished(out, made_of):
        progress(f"{out} is complete and nothing it depends on has changed, kept.")
        return report["counts"]
    benchmarks, seen = Benchmarks(decontaminate), NearDuplicates()
    counts = {one.name: Counter() for one in opened}
    with open_log(out / JOURNAL) as log:
        first, place = _resume(log, out, made_of, [counts[one.name] for one in opened], seen)
        for number, source in enumerate(opened[first:], start=first):
            mine = counts[source.name]
            for record in _records(source, place, mine, limit, lambda *row: examine(*row, benchmarks, seen)):
                log.append({"number": number} | record)
                if mine["rows"] % 1000 == 0:
                    progress(f"{source.name}: {mine['rows']:,} rows read, {mine['kept']:,} kept")
            place = 0
        together = sum(counts.values(), Counter())
        if not together["kept"]:
            del together["rows"]
            why = ", ".join(f"{reason}: {count:,}" for reason, count in together.most_common()) or "no rows"
            raise CourseError(f"{', '.join(sources)} gives no seed ({why}); give other sources, and another folder.")
        versions = {"python": platform.python_version(), "datasets": version("datasets")}
        report = {"made_of": made_of, "counts": counts, "benchmark questions": benchmarks.rows, "versions": versions}
        _write(out, log, report)
    (out / JOURNAL).unlink()
    return counts


def _finished(out: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """The report of the seeds in `out`, if they are all there. Raises CourseError where `out` holds anything else."""
    if (out / "report.json").exists():
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        if report["made_of"] != made_of:
            raise CourseError(OTHERS.format(out))
        return report
    if not (out / JOURNAL).exists() and out.exists() and any(out.iterdir()):
        raise CourseError(f"{out} is not empty and holds no unfinished seeds; name another folder.")
    return None


def _resume(log: Log, out: Path, made_of: dict[str, Any], counts: list[Counter], seen: NearDuplicates) -> list[int]:
    """Counts and remembers what was read before a stop; returns numbers of the source and the row to go on at."""
    place, records = [0, 0], log.records()
    begun = next(records, None)
    if begun and begun["made_of"] != made_of:
        raise CourseError(OTHERS.format(out))
    if not begun:
        log.append({"made_of": made_of})
    for record in records:
        place = [record["number"], record["row"] + 1]
        counts[record["number"]].update(("rows", record["reason"]))
        if "program" in record:
            seen.add(record["id"], ast.unparse(parse(record["program"])))
    return place


def _records(source: Source, start: int, counts: Counter, limit: int | None, examine: Callable) -> Iterator[Row]:
    """What becomes of each row from number `start` on; `counts` are the source's, of rows by reason."""
    layout = None
    for place, row in enumerate(source.rows(skip=start), start=start):
        if limit is not None and counts["kept"] >= limit:
            break
        layout = layout or layout_of(row, source.name)
        kind = str(row.get("source") or Path(source.name).stem) if layout == "own" else layout
        name = f"{kind}/{row['id'] if layout == 'own' and row.get('id') is not None else place}"
        reason, found = examine(row, layout, name)
        counts.update(("rows", reason))
        what = {"program" if reason == "kept" else "like": found} if found else {}
        origin = {column: row[column] for column in ORIGIN if column in row}
        yield {"row": place, "reason": reason, "id": name, "source": kind} | what | origin


def _write(out: Path, log: Log, report: dict[str, Any]) -> None:
    """The files of a finished folder, the report last."""
    origins: Counter = Counter()
    for name, columns in (("seeds", ("id", "source", "program")), ("dropped", ("id", "source", "reason", "like"))):
        with atomic(out / f"{name}.jsonl") as path, path.open("w", encoding="utf-8") as file:
            for record in log.records():
                if columns[-1] in record:
                    row = {column: record[column] for column in (*columns, *ORIGIN) if column in record}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    if name == "seeds" and "licence" in row:
                        origins[tuple(row[column] for column in ORIGIN)] += 1
    report |= {"packages": [(*origin, count) for origin, count in sorted(origins.items())]} if origins else {}
    (out / "README.md").write_text(data_card(report), encoding="utf-8")
    write_json(out / "report.json", report)


def counts_table(counts: dict[str, dict[str, int]]) -> str:
    """Sources by reasons, as a Markdown table."""
    rows = {**counts, "all": sum(map(Counter, counts.values()), Counter())} if len(counts) > 1 else counts
    lines = [("source", *REASONS), ["---"] * (len(REASONS) + 1)]
    lines += [(name, *(f"{mine.get(reason, 0):,}" for reason in REASONS)) for name, mine in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def questions_text(benchmarks: dict[str, int]) -> str:
    """Names of benchmark files and their numbers of questions, as a list in a sentence."""
    return ", ".join(f"{Path(path).name} ({count:,} questions)" for path, count in benchmarks.items())


def data_card(report: dict[str, Any]) -> str:
    """README.md of the data set, from `seeds_card.md`; `report` is what report.json holds."""
    return dataset_card(
        Path(__file__).with_name("seeds_card.md"),
        report["made_of"]["sources"],
        limit=report["made_of"]["limit"],
        versions=report["versions"],
        benchmarks=questions_text(report["benchmark questions"]),
        table=counts_table(report["counts"]),
        packages=report.get("packages", ()),
    )


def push_seeds(out: Path, repository: str) -> str:
    """Uploads a finished folder of `build_seeds` as a private data set; returns its address. Raises DataError."""
    return push(out, repository, ["seeds.jsonl", "dropped.jsonl", "report.json", "README.md"], private=True)


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.seeds",
        description="Makes seed programs from public sets, your own files or the packages on this disk.",
    )
    parser.add_argument("out", type=Path, help="folder to write: seeds.jsonl, its data card, what was dropped and why")
    parser.add_argument(
        "--source",
        dest="sources",
        metavar="NAME_OR_PATH",
        nargs="+",
        help="hub names, or .jsonl or .parquet files with the same columns (default: the three sets of the paper)",
    )
    parser.add_argument(
        "--installed", action="store_true", help="functions of the standard library and the installed packages; offline"
    )
    parser.add_argument(
        "--decontaminate", metavar="FILE", type=Path, nargs="+", default=[], help="benchmarks to keep out"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="seeds to keep of each source, its first ones")
    parser.add_argument("--push-to-hub", dest="repository", metavar="REPO", help="upload the result, as a private set")
    asked = parser.parse_args(words)
    own = [*(asked.sources or ()), *([INSTALLED] if asked.installed else ())]
    counts = build_seeds(asked.out, own or PUBLIC, asked.decontaminate, asked.limit, print)
    print(f"\n{counts_table(counts)}\n\nSeeds: {asked.out / 'seeds.jsonl'} (data.seeds in a profile)")
    if not asked.decontaminate:
        print("Not checked against any benchmark: give --decontaminate FILE ... before you train on these.")
    if asked.repository:
        print(f"Pushed to {push_seeds(asked.out, asked.repository)}")


if __name__ == "__main__":
    with stoppable():
        sys.exit(main())
