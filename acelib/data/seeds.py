"""Seed programs for the teacher from public sets: Python only, once each, without the benchmarks (section 2.2).

A source is told by its columns: Magicoder-Evol-Instruct (`instruction`, `response`), Magicoder-OSS-Instruct (`lang`,
`problem`, `solution`), Stack Python functions (`content`), or programs of the reader's own (`program`).
"""

import ast
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from acelib.core import CourseError, DataError, digest, full_disk_explained, path_digest, read_rows, write_json
from acelib.data.overlap import Benchmarks, NearDuplicates, parse
from acelib.data.publish import dataset_card, push, sources_list
from acelib.data.sources import Source, open_source
from acelib.extraction import python_blocks
from acelib.schema import Row

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
REASONS = (
    "rows",
    "not Python",
    "no function or class",
    "benchmark question",
    "benchmark signature",
    "benchmark solution",
    "exact duplicate",
    "near-duplicate",
    "kept",
)
CHECKPOINT = 1000  # rows after which the state is saved; a stop loses at most as many


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


class _Sieve:
    """Decides about one entry after the other; knows what was kept."""

    def __init__(self, benchmarks: Benchmarks):
        self.benchmarks, self.near, self.exact = benchmarks, NearDuplicates(), {}

    def remember(self, seed: Row) -> None:
        code = ast.unparse(parse(seed["program"]))
        self.exact[digest(code)] = seed["id"]
        self.near.add(seed["id"], code)

    def check(self, row: Row, layout: str, name: str) -> tuple[str, str]:
        """("kept", the program), or (reason, what it was like)."""
        found = find_program(row, layout)
        if isinstance(found, str):
            return found, ""
        program, tree = found
        code = ast.unparse(tree)  # without comments and layout
        text = "\n".join(str(row[column]) for column in LAYOUTS[layout])
        if (overlap := self.benchmarks.overlap(text, code, tree)) is not None:
            return overlap
        if (twin := self.exact.get(digest(code))) is not None:
            return "exact duplicate", twin
        if (twin := self.near.add(name, code)) is not None:
            return "near-duplicate", twin
        self.exact[digest(code)] = name
        return "kept", program


def build_seeds(
    out: Path,
    sources: Sequence[str] = PUBLIC,
    decontaminate: Sequence[Path] = (),
    limit: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Counter]:
    """Writes `seeds.jsonl` (see `load_seeds`), `dropped.jsonl`, `report.json` and a data card into the folder `out`.

    limit: seeds to keep of each source, its first ones. Returns how many rows of each source were kept or dropped, by
    reason. Called again after a stop with the same arguments it goes on; when all is done, it does nothing. Raises
    CourseError for a source or benchmark that cannot be read, and when `out` holds seeds that were made otherwise.
    """
    opened = [open_source(name) for name in sources]
    for path in decontaminate:
        if not Path(path).is_file():
            raise CourseError(f"There is no benchmark file at {path}; check --decontaminate.")
    made_of = {
        "sources": [[one.name, one.version] for one in opened],
        "limit": limit,
        "decontaminated": {str(path): path_digest(path) for path in decontaminate},
    }
    state = _State(Path(out), made_of)
    if state.done:
        progress(f"{out} is complete and nothing it depends on has changed, kept.")
        return state.counts
    benchmarks = Benchmarks(decontaminate)
    sieve = _Sieve(benchmarks)
    with full_disk_explained(state.partial):
        for seed in state.resume():
            sieve.remember(seed)
        for number, source in enumerate(opened):
            if number >= state.source:
                _sift(source, number, sieve, state, limit, progress)
    together = sum(state.counts.values(), Counter())
    if not together["kept"]:
        del together["rows"]
        why = ", ".join(f"{reason}: {count:,}" for reason, count in together.most_common()) or "no rows"
        raise CourseError(f"{', '.join(sources)} gives no seed ({why}); give other sources, and another folder.")
    state.finish(
        {
            "made_of": made_of,
            "counts": state.counts,
            "benchmark questions": benchmarks.rows,
            "versions": {"python": platform.python_version(), "datasets": version("datasets")},
        }
    )
    return state.counts


def _sift(source: Source, number: int, sieve: _Sieve, state: "_State", limit: int | None, progress: Callable) -> None:
    counts = state.counts.setdefault(source.name, Counter())
    layout = None
    for place, row in enumerate(source.rows(skip=state.row), start=state.row):
        if limit is not None and counts["kept"] >= limit:
            break
        layout = layout or layout_of(row, source.name)
        kind = str(row.get("source") or Path(source.name).stem) if layout == "own" else layout
        name = f"{kind}/{row['id'] if layout == 'own' and row.get('id') is not None else place}"
        reason, found = sieve.check(row, layout, name)
        counts.update(("rows", reason))
        if reason == "kept":
            state.keep({"id": name, "source": kind, "program": found})
        elif found:
            state.drop({"id": name, "source": kind, "reason": reason, "like": found})
        if counts["rows"] % CHECKPOINT == 0:
            state.save(number, place + 1)
            progress(f"{source.name}: {counts['rows']:,} rows read, {counts['kept']:,} kept")
    state.save(number + 1, 0)


class _State:
    """Where a build stands: two files that grow, and a record of how much of them counts."""

    def __init__(self, out: Path, made_of: dict):
        self.out, self.partial, self.dropped = out, out / ".seeds.jsonl", out / "dropped.jsonl"
        self.counts: dict[str, Counter] = {}
        self.source = self.row = 0
        self._made_of, self._sizes, self._files = made_of, [0, 0], []
        known = self._read(out / ".state.json") or self._read(out / "report.json")
        self.done = (out / "seeds.jsonl").exists() and (out / "report.json").exists()
        if known and known["made_of"] != json.loads(json.dumps(made_of)):
            raise CourseError(
                f"{out} holds seeds of other sources, benchmarks or another limit; name another folder, "
                "or delete this one."
            )
        if known:
            self.counts = {name: Counter(counts) for name, counts in known["counts"].items()}
            self.source, self.row = known.get("source", 0), known.get("row", 0)
            self._sizes = known.get("sizes", self._sizes)
        elif out.exists() and any(out.iterdir()):
            raise CourseError(f"{out} is not empty and holds no unfinished seeds; name another folder.")

    @staticmethod
    def _read(path: Path) -> dict | None:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def resume(self) -> Iterator[Row]:
        """The seeds that are kept already; what was written after the last checkpoint is cut off."""
        self.out.mkdir(parents=True, exist_ok=True)
        for path, size in zip((self.partial, self.dropped), self._sizes):
            self._files.append(path.open("ab"))
            self._files[-1].truncate(size)
        return iter(read_rows(self.partial))

    def keep(self, row: Row) -> None:
        self._files[0].write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def drop(self, row: Row) -> None:
        self._files[1].write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def save(self, source: int, row: int) -> None:
        self.source, self.row = source, row
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        write_json(
            self.out / ".state.json",
            {
                "made_of": self._made_of,
                "counts": self.counts,
                "source": source,
                "row": row,
                "sizes": [file.tell() for file in self._files],
            },
        )

    def finish(self, report: dict) -> None:
        for file in self._files:
            file.close()
        (self.out / "README.md").write_text(data_card(report), encoding="utf-8")
        write_json(self.out / "report.json", report)
        os.replace(self.partial, self.out / "seeds.jsonl")
        (self.out / ".state.json").unlink()


def counts_table(counts: dict[str, Counter]) -> str:
    """Sources by reasons, as a Markdown table."""
    lines = ["| source | " + " | ".join(REASONS) + " |", "|---" * (len(REASONS) + 1) + "|"]
    every = {**counts, "all": sum(counts.values(), Counter())} if len(counts) > 1 else counts
    for name, mine in every.items():
        lines.append(f"| {name} | " + " | ".join(f"{mine[reason]:,}" for reason in REASONS) + " |")
    return "\n".join(lines)


def data_card(report: dict) -> str:
    """README.md of the data set, with the YAML the hub reads."""
    made_of = report["made_of"]
    checked = ", ".join(f"{Path(path).name} ({n:,} questions)" for path, n in report["benchmark questions"].items())
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    limit = f" At most {made_of['limit']:,} seeds were kept of each source, its first ones." if made_of["limit"] else ""
    text = f"""# Seed programs

Python programs that prompt a teacher to write questions and tests, as in AceCoder (arXiv 2502.01718, section 2.2). One
JSON object per line: `id`, `source`, `program`. Made by `python -m acelib seeds` ({versions}).

{sources_list(made_of["sources"])}

Kept are entries with a function or class that parse.{limit} Duplicates are exact once comments and layout are gone,
or near: estimated Jaccard similarity of token 5-grams of 0.7 or more (MinHash). Benchmarks it is kept apart from:
{checked or "none"}. An entry goes when it shares ten words in a row with a question, or a function's name and
arguments or 80% of the token 5-grams with a solution. `dropped.jsonl` lists what went for these reasons, and what it
was like.

{counts_table(report["counts"])}
"""
    configs = [{"config_name": "default", "data_files": "seeds.jsonl"}]
    return dataset_card(text, [name for name, _ in made_of["sources"]], configs=configs)


def push_seeds(out: Path, repository: str) -> str:
    """Uploads a finished folder of `build_seeds` as a private data set; returns its address. Raises DataError."""
    return push(out, repository, ["seeds.jsonl", "dropped.jsonl", "report.json", "README.md"], private=True)
