"""A run's data as a data set: what is written is what `load_dataset` and `adopt` read, with a card that tells of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset

from acelib.core import ArtifactError, DataError
from acelib.core.profiles import ROOT, load_profile
from acelib.core.run import Run
from acelib.pairs import build_pairs
from acelib.schema import Problem
from tools import export as exporting
from tools.adopt import import_as_profile_says, import_dataset
from tools.export import FILES, export, main
from tools.publish import push
from tools.seeds import build_seeds

FIXTURES = Path(__file__).parent / "fixtures"
QUESTIONS, PAIRS = str(FIXTURES / "acecode.jsonl"), str(FIXTURES / "acecodepair.jsonl")


def open_run(path, **values):
    """A run with the profile beside it, as the runner leaves it."""
    values = {"sampling.n": 3} | {key.replace("__", "."): one for key, one in values.items()}
    run = Run(path, load_profile("pocket", values))
    run.dir.mkdir(parents=True)
    (run.dir / "profile.yaml").write_text(yaml.safe_dump(run.profile.to_dict()))
    return run


def finish(run, rows):
    """What notebooks 02 and 03 leave, from programs that were judged before; one test more did not survive."""
    problems = [Problem.from_row(row) for row in rows]
    audit = [
        {"id": problem.id, "test": test, "passed": True, "kept": True, "valid": place > 0}
        for problem in problems
        for place, test in enumerate(problem.tests)
    ]
    audit.append(audit[0] | {"passed": False, "kept": False, "valid": None})
    run.table("imagined", lambda scratch: problems, params={"rows": rows})
    run.table("filtered", lambda scratch: problems, inputs=("imagined",))
    run.table("filter_audit", lambda scratch: audit, inputs=("filtered",))
    run.table("samples", lambda scratch: rows, inputs=("filtered",))
    pairs = build_pairs(rows, lambda question: question, min_gap=0.4, min_chosen=0.8, min_rejected=0.0, strict=True)
    run.table("pairs", lambda scratch: pairs, inputs=("samples",))
    return run


@pytest.fixture
def rows(tmp_path):
    """Three questions with three judged programs each; in one reply no program was found."""
    source = open_run(tmp_path / "source")
    import_dataset(source, QUESTIONS)
    rows = source.read("samples")
    nothing = {"completion": "I cannot.", "program": None, "pass_rate": 0.0, "test_results": [False] * 6}
    rows[1]["inferences"][2] |= nothing
    return rows


@pytest.fixture
def run(tmp_path, rows):
    return finish(open_run(tmp_path / "run"), rows)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


@pytest.mark.slow
def test_load_dataset_and_adopt_read_the_rows_of_the_run(run, tmp_path):
    out = tmp_path / "out"
    counts = export(run.dir, out)
    assert counts["questions"] == 3 and counts["programs"] == 9 and counts["programs that pass all tests"] == 3
    assert counts["tests"] == 18 and counts["pairs"] == len(run.read("pairs"))
    assert files(out) == [
        "README.md",
        "pairs/train-00000-of-00001.parquet",
        "questions/train-00000-of-00001.parquet",
        "report.json",
    ]
    for name, table in (("questions", "samples"), ("pairs", "pairs"), (None, "samples")):
        read = load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert read.to_list() == run.read(table)
    other = open_run(tmp_path / "other")
    import_dataset(other, str(out / "questions"), pairs=str(out / "pairs"))
    for name in ("filtered", "samples", "pairs"):
        assert other.read(name) == run.read(name)


def test_a_profile_starts_from_it(run, tmp_path):
    export(run.dir, tmp_path / "out")
    adopts = str(tmp_path / "out" / "questions")
    other = open_run(tmp_path / "other", data__adopt=adopts, models__policy="Qwen/Qwen2.5-Coder-7B-Instruct")
    import_as_profile_says(other, "make course")
    assert other.read("samples") == run.read("samples")


def test_what_was_adopted_can_be_exported_and_adopted_again(tmp_path):
    first, second = open_run(tmp_path / "first"), open_run(tmp_path / "second")
    import_dataset(first, QUESTIONS, pairs=PAIRS)
    counts = export(first.dir, tmp_path / "out")
    import_dataset(second, str(tmp_path / "out" / "questions"), pairs=str(tmp_path / "out" / "pairs"))
    assert second.read("samples") == first.read("samples") and counts["surviving tests of known truth"] == 0
    assert [row["chosen"] for row in second.read("pairs")] == [row["chosen"] for row in first.read("pairs")]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"tests were adopted from `{QUESTIONS}`" in card and f"Pairs were adopted from `{PAIRS}`" in card
    assert "- 1 questions with fewer than 5 tests, left out" in card and "is not known" in card
    assert "teacher" not in card.lower().replace("teacher: ", "") and "million parameters" not in card


def test_large_tables_are_cut_into_shards(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "SHARD_BYTES", 1500)
    export(run.dir, tmp_path / "out")
    assert len(files(tmp_path / "out" / "questions")) > 1
    read = load_dataset(str(tmp_path / "out"), "questions", split="train", cache_dir=str(tmp_path / "cache"))
    assert read.to_list() == run.read("samples")


def test_a_stop_leaves_the_old_folder_or_none(run, rows, tmp_path, monkeypatch):
    out = tmp_path / "data" / "out"

    def stops(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "data_card", stops)
        with pytest.raises(KeyboardInterrupt):
            export(run.dir, out)
    assert not any(out.parent.iterdir())
    (out.parent / ".tmp-out" / "questions").mkdir(parents=True)  # a process that was killed could not clean up
    export(run.dir, out)
    before = contents(out)
    finish(run, rows[:2])
    with monkeypatch.context() as patch:
        patch.setattr("acelib.core.files.flush", stops)
        with pytest.raises(KeyboardInterrupt):
            export(run.dir, out)
    assert contents(out) == before and list(out.parent.iterdir()) == [out]
    assert export(run.dir, out)["questions"] == 2 and list(out.parent.iterdir()) == [out]


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing(run, tmp_path):
    """A file-size limit stands in for it, as in the tests of artefacts."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from acelib.core.errors import FullDiskError
from tools.export import export
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
try:
    export(Path({str(run.dir)!r}), Path({str(tmp_path / "data" / "out")!r}))
except FullDiskError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert "The disk is full: out could not be written to" in done.stderr.splitlines()[-1], done.stderr
    assert not any((tmp_path / "data").iterdir())


def test_an_edited_card_is_kept_until_the_run_changes(run, rows, tmp_path):
    said = []
    counts = export(run.dir, tmp_path / "out", said.append)
    card = tmp_path / "out" / "README.md"
    card.write_text(card.read_text().replace("license: other", "license: mit"))
    assert export(run.dir, tmp_path / "out", said.append) == counts
    assert "license: mit" in card.read_text() and "kept as it is" in said[-1]
    finish(run, rows[:2])
    export(run.dir, tmp_path / "out", said.append)
    assert "license: other" in card.read_text() and "replaced; what was written into its card by hand" in said[-1]


@pytest.mark.parametrize(
    "table, number",
    [("imagined", "01"), ("filtered", "02"), ("filter_audit", "02"), ("samples", "03"), ("pairs", "03")],
)
def test_a_table_that_is_missing_names_its_notebook(run, tmp_path, table, number):
    run.path(table).unlink()
    with pytest.raises(ArtifactError, match=f"There is no '{table}' in .*; run notebook {number} first: make course"):
        export(run.dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pairs_of_other_programs_are_not_exported(run, rows, tmp_path):
    run.table("samples", lambda scratch: rows[:2], inputs=("filtered",), params={"other": True})
    with pytest.raises(ArtifactError, match="were made of other programs than it holds now; run notebook 03 again"):
        export(run.dir, tmp_path / "out")


def test_folders_that_are_no_run_and_folders_of_others_are_left_alone(run, tmp_path):
    with pytest.raises(DataError, match="is not a run directory; run `make course` first"):
        export(tmp_path / "none", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    export(run.dir, tmp_path / "mine")
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    for place in (tmp_path / "mine", run.dir, tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(DataError, match="holds something that is no export; name another folder"):
            export(run.dir, place)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_the_card_says_what_the_hub_and_a_reader_need(tmp_path, rows):
    sources = [str(FIXTURES / name) for name in ("evol.jsonl", "oss.jsonl")]
    build_seeds(tmp_path / "seeds", sources, [FIXTURES / "humaneval.jsonl"])
    run = finish(open_run(tmp_path / "run", data__seeds=str(tmp_path / "seeds" / "seeds.jsonl"), seed=7), rows)
    export(run.dir, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "other" and front["source_datasets"] == []
    assert [one["config_name"] for one in front["configs"]] == ["questions", "pairs"] and front["configs"][0]["default"]
    assert "seed 7 (python 3" in card and "| programs | 9 (3.0 per question) |" in card
    assert "chosen - rejected > 0.4, chosen > 0.8 and rejected > 0 by" in card and "  min_gap: 0.4\n" in card
    for source in sources:
        assert f"`{source}` at" in card
    assert "humaneval.jsonl (2 questions)" in card and "| evol" not in card and "benchmark question |" in card
    assert "**None is stated yet**" in card and "Of 18 surviving tests whose truth is known, 15 are right." in card
    assert "| tests before the filter | 19 |" in card and "proxy `data/models/proxy`" in card
    for column in [*rows[0], *rows[0]["inferences"][0], *run.read("pairs")[0]]:
        assert f"`{column}`" in card


def test_without_a_network_a_push_says_so_and_the_folder_stays(run, tmp_path):
    export(run.dir, tmp_path / "out")
    with pytest.raises(DataError, match="could not be pushed to owner/name: .*; unset it"):
        push(tmp_path / "out", "owner/name", FILES, private=False)
    assert (tmp_path / "out" / "README.md").exists()


def test_command_line(run, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main([str(run.dir), out]) == 0
    said = capsys.readouterr().out
    assert "3 questions" in said and f"data.adopt: {out}/questions" in said and "Pushed" not in said
    assert main([str(run.dir), out, "--push-to-hub", "owner/name", "--private"]) == 1
    assert "could not be pushed to owner/name" in capsys.readouterr().err
    shutil.rmtree(run.dir / "artifacts")
    assert main([str(run.dir), out]) == 1
    assert "There is no 'imagined'" in capsys.readouterr().err
