"""Seeds from small files in the layouts of the three public sets, and of the reader's own."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from acelib.__main__ import main
from acelib.core import CourseError, DataError
from acelib.core.tables import read_rows, write_rows
from acelib.synthesis import load_seeds
from tools.seeds import build_seeds, counts_table, data_card, find_program, push_seeds
from tools.sources import open_source

FIXTURES = Path(__file__).parent / "fixtures"
SOURCES = [str(FIXTURES / name) for name in ("evol.jsonl", "oss.jsonl", "stack.jsonl")]
BENCHMARKS = [FIXTURES / f"{name}.jsonl" for name in ("humaneval", "mbpp", "bigcodebench", "livecodebench")]


def counts_of(path):
    return {Path(name).stem: {k: v for k, v in mine.items() if v} for name, mine in path.items()}


def test_python_with_a_function_or_class_once_and_without_the_benchmarks(tmp_path):
    counts = counts_of(build_seeds(tmp_path / "out", SOURCES, BENCHMARKS))
    assert counts["evol"] == {"rows": 6, "not Python": 1, "no function or class": 1, "benchmark question": 1, "kept": 3}
    assert counts["oss"] == {"rows": 4, "not Python": 2, "benchmark solution": 1, "kept": 1}
    assert counts["stack"] == {
        "rows": 5,
        "exact duplicate": 1,
        "near-duplicate": 1,
        "benchmark signature": 1,
        "not Python": 1,
        "kept": 1,
    }
    seeds = load_seeds(tmp_path / "out" / "seeds.jsonl")
    assert [seed["id"] for seed in seeds] == ["evol/0", "evol/4", "evol/5", "oss/0", "bigcode_python_fns/0"]
    assert seeds[0]["program"].startswith("class Queue") and seeds[3]["source"] == "oss"
    dropped = {row["id"]: row for row in read_rows(tmp_path / "out" / "dropped.jsonl")}
    assert dropped["evol/3"]["like"].startswith("HumanEval/9000: ")
    assert dropped["bigcode_python_fns/1"]["like"] == "bigcode_python_fns/0"
    assert {row["reason"] for row in dropped.values()} >= {"near-duplicate", "benchmark signature"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert counts_of(report["counts"]) == counts and sorted(report["benchmark questions"].values()) == [1, 1, 2, 4]


def test_without_benchmarks_nothing_is_dropped_for_them(tmp_path):
    counts = build_seeds(tmp_path / "out", SOURCES)
    assert not any(reason.startswith("benchmark") for mine in counts.values() for reason in +mine)


def test_of_a_chat_answer_the_longest_python_block_is_taken():
    answer = "First\n```python\ndef a():\n    pass\n```\nor\n```\nclass B:\n    x = 1\n    y = 2\n```\n```java\nclass C { int x; int y; }\n```"  # noqa: E501
    assert find_program({"instruction": "", "response": answer}, "evol")[0] == "class B:\n    x = 1\n    y = 2\n"
    assert find_program({"instruction": "", "response": "```python\nprint('x'\n```"}, "evol") == "not Python"
    assert find_program({"content": "x = 1\n"}, "bigcode_python_fns") == "no function or class"


def test_parquet_gives_the_seeds_of_jsonl_and_the_limit_counts_per_source(tmp_path):
    rows = read_rows(SOURCES[0])
    (tmp_path / "set").mkdir()
    write_rows(tmp_path / "set" / "part-0.parquet", rows[:3])
    write_rows(tmp_path / "set" / "part-1.parquet", rows[3:])
    build_seeds(tmp_path / "a", [SOURCES[0]])
    build_seeds(tmp_path / "b", [str(tmp_path / "set")])
    assert (tmp_path / "a" / "seeds.jsonl").read_text() == (tmp_path / "b" / "seeds.jsonl").read_text()
    counts = build_seeds(tmp_path / "c", SOURCES, limit=1)
    assert [mine["kept"] for mine in counts.values()] == [1, 1, 1]


def test_own_programs_keep_their_ids_and_sources(tmp_path):
    rows = [
        {"id": 7, "source": "mine", "program": "def f(x):\n    return x\n"},
        {"id": 8, "source": "mine", "program": "def g(y, z):\n    return sorted(y, key=z)\n"},
    ]
    write_rows(tmp_path / "own.jsonl", rows)
    build_seeds(tmp_path / "out", [str(tmp_path / "own.jsonl")])
    assert read_rows(tmp_path / "out" / "seeds.jsonl") == [row | {"id": f"mine/{row['id']}"} for row in rows]


def test_a_stop_at_any_row_goes_on_and_gives_the_same_files(tmp_path, monkeypatch):
    from tools import seeds

    build_seeds(tmp_path / "whole", SOURCES, BENCHMARKS)
    examine, calls = seeds.examine, Counter()

    def stops(*given):
        calls["all"] += 1
        if calls["all"] in (4, 8, 9, 13):
            raise KeyboardInterrupt
        return examine(*given)

    monkeypatch.setattr(seeds, "examine", stops)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            build_seeds(tmp_path / "out", SOURCES, BENCHMARKS)
        assert not (tmp_path / "out" / "seeds.jsonl").exists()
    build_seeds(tmp_path / "out", SOURCES, BENCHMARKS)
    assert calls["all"] == 15 + 4  # only the rows at which it was stopped are read twice
    for name in ("seeds.jsonl", "dropped.jsonl", "README.md", "report.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "dropped.jsonl",
        "report.json",
        "seeds.jsonl",
    ]
    before = calls["all"]
    build_seeds(tmp_path / "out", SOURCES, BENCHMARKS)
    assert calls["all"] == before


def test_a_folder_with_other_seeds_is_left_alone(tmp_path):
    build_seeds(tmp_path / "out", SOURCES)
    with pytest.raises(CourseError, match="name another folder"):
        build_seeds(tmp_path / "out", SOURCES, BENCHMARKS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(CourseError, match="is not empty"):
        build_seeds(tmp_path / "mine", SOURCES)


def test_the_data_card_says_what_the_hub_and_a_reader_need(tmp_path):
    counts = build_seeds(tmp_path / "out", SOURCES, BENCHMARKS)
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "other" and front["configs"][0]["data_files"] == "seeds.jsonl"
    assert "licence: see the source set" in card and "humaneval.jsonl (2 questions)" in card and "datasets 5" in card
    assert counts_table(counts) in card and "| all | 15 |" in card
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    report["made_of"]["sources"] = [["ise-uiuc/Magicoder-OSS-Instruct-75K", "0123456789abcdef"]]
    hub = data_card(report | {"counts": counts})
    assert "source_datasets:\n- ise-uiuc/Magicoder-OSS-Instruct-75K" in hub and "at `0123456789ab`" in hub


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"instruction": "x", "answer": "y"}', "has the columns instruction, answer, none of the layouts"),
        ('{"program": "def f(x): pass"}\n{bad\n', r"cannot be read after row 0 .*JSON"),
        ('{"program": "x = 1"}', r"gives no seed \(no function or class: 1\)"),
    ],
)
def test_bad_sources_are_explained(tmp_path, text, message):
    (tmp_path / "s.jsonl").write_text(text)
    with pytest.raises(CourseError, match=message):
        build_seeds(tmp_path / "out", [str(tmp_path / "s.jsonl")])


def test_a_damaged_or_missing_file_and_a_hub_out_of_reach_are_explained(tmp_path):
    (tmp_path / "s.parquet").write_text("junk")
    with pytest.raises(DataError, match="cannot be read after row 0"):
        next(open_source(str(tmp_path / "s.parquet")).rows())
    with pytest.raises(DataError, match="There is no file .*none.jsonl; check the path"):
        open_source(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="holds no table, or several kinds"):
        open_source(str(FIXTURES.parent / "attacks"))
    with pytest.raises(DataError, match="data set owner/name is not in .*HF_HUB_OFFLINE"):
        open_source("owner/name")
    with pytest.raises(DataError, match="could not be pushed to owner/name"):
        push_seeds(tmp_path, "owner/name")


def test_command_line(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["seeds", out, "--source", *SOURCES, "--decontaminate", str(BENCHMARKS[0]), "--limit", "2"]) == 0
    said = capsys.readouterr().out
    assert "| all |" in said and "data.seeds in a profile" in said and "Not checked" not in said
    assert main(["seeds", str(tmp_path / "b"), "--source", SOURCES[0], "--decontaminate", "none.jsonl"]) == 1
    assert "There is no benchmark file at none.jsonl" in capsys.readouterr().err
