"""Benchmark files in the public layouts, written by us, down to the judge's verdict on right and wrong programs."""

import gzip
import json
from pathlib import Path

import pytest
from reference_programs import reference_programs

from acelib.core import DataError
from acelib.core.profiles import load_profile
from acelib.core.tables import read_rows, write_rows
from acelib.data import benchmarks
from acelib.data.benchmarks import evalplus_tests, load_benchmark, read_benchmark
from acelib.data.sources import read_split
from acelib.judge import Judge, Limits
from acelib.sampling import judge_programs, submission
from acelib.schema import Program
from tools.overlap import Benchmarks

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {"humaneval": 2, "humanevalplus": 3, "mbpp": 4, "mbppplus": 2}


@pytest.fixture(scope="module")
def judge():
    with Judge(workers=1, limits=Limits(cpu_seconds=5.0, wall_seconds=60)) as judge:
        yield judge


@pytest.mark.parametrize("name, count", FILES.items())
def test_references_pass_and_programs_that_return_nothing_fail(judge, name, count):
    path = FIXTURES / f"{name}.jsonl"
    problems, references = read_benchmark(path), reference_programs(path)
    assert len(problems) == count
    reports = judge.run([submission(problem, program) for problem, program in zip(problems, references)])
    assert [report.passed for report in reports] == [True] * count
    empty = [f"def {problem.entry_point}(*args):\n    return None\n" for problem in problems]
    reports = judge.run([submission(problem, program) for problem, program in zip(problems, empty)])
    assert not any(report.passed for report in reports)


def test_humaneval_asserts_become_single_tests_and_loops_stay_whole():
    first, second = read_benchmark(FIXTURES / "humaneval.jsonl")
    assert first.tests == (
        "assert widest_gap([1, 4, 2]) == 3",
        "assert widest_gap([5]) == 0",
        "assert widest_gap([9, 0, 9]) == 9, 'both sides'",
    )
    assert (first.id, first.entry_point, first.source) == ("HumanEval/9000", "widest_gap", "HumanEval")
    assert first.question.startswith("from typing import List") and first.prelude == "from typing import List"
    assert len(second.tests) == 1 and second.tests[0].endswith("check(unscramble)\n")
    assert "def scramble" in second.prelude and "def unscramble" not in second.prelude


def test_a_program_may_leave_out_what_the_prompt_gives(judge):
    problems = read_benchmark(FIXTURES / "humaneval.jsonl")
    programs = [
        "def widest_gap(heights: List[int]) -> int:\n"
        "    return max((abs(a - b) for a, b in zip(heights, heights[1:])), default=0)\n",
        "def unscramble(text):\n    return scramble(text)\n",
    ]
    reports = judge_programs(judge, problems, [Program(p.id, text, "m") for p, text in zip(problems, programs)])
    assert all(report.passed for report in reports)


def test_evalplus_inputs_become_asserts_unless_a_tolerance_is_due():
    gap, mean, whole = read_benchmark(FIXTURES / "humanevalplus.jsonl")
    assert gap.tests[2:] == ("assert widest_gap([]) == 0", "assert widest_gap([-3, 3]) == 6")
    assert mean.tests[0] == "assert ladder_mean([]) == 0"
    assert len(mean.tests) == 2 and "results = [1.0, 3.0000000001]" in mean.tests[1]
    assert len(whole.tests) == 1 and whole.tests[0].endswith("check(unscramble)\n")


def test_long_evalplus_tests_are_cut_into_bounded_parts(monkeypatch):
    test = read_rows(FIXTURES / "mbppplus.jsonl")[1]["test"]
    whole = evalplus_tests(test, "halves")
    monkeypatch.setattr(benchmarks, "MAX_REFEREE_CHARS", 12)
    parts = evalplus_tests(test, "halves")
    assert (len(whole), len(parts)) == (1, 2)
    assert "results = [[0.5, 1.0]]" in parts[0] and "results = [[inf]]" in parts[1]


def test_mbpp_names_its_function_and_brings_its_setup():
    vowels, chain, builtin, circle = read_benchmark(FIXTURES / "mbpp.jsonl")
    assert vowels.question.endswith("Your code should pass this test:\nassert odd_vowels('a be see') == 3")
    assert [p.entry_point for p in (vowels, chain, builtin, circle)] == ["odd_vowels", "total", "sum", "around"]
    assert chain.setup.startswith("links = Link(1)") and circle.prelude == "import math"
    assert chain.id == "MBPP/9002"


def test_imports_go_before_the_tests_that_need_them(judge, tmp_path):
    row = {
        "task_id": 1,
        "prompt": "Count letters.",
        "code": "def f(s):\n    return {c: s.count(c) for c in s}",
        "test_imports": ["import statistics as st"],
        "test_list": ["assert st.mode(f('aab').values()) == 2", "assert f('') == {}"],
    }
    write_rows(tmp_path / "b.jsonl", [row])
    (problem,) = read_benchmark(tmp_path / "b.jsonl")
    assert problem.tests == (f"import statistics as st\n{row['test_list'][0]}", "assert f('') == {}")
    assert judge.run([submission(problem, row["code"])])[0].passed


@pytest.mark.parametrize("name", FILES)
def test_parquet_and_gzip_read_like_jsonl(tmp_path, name):
    plain = FIXTURES / f"{name}.jsonl"
    rows = read_rows(plain)
    columns = dict.fromkeys(key for row in rows for key in row)
    write_rows(tmp_path / "b.parquet", [{key: row.get(key) for key in columns} for row in rows])
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for other in ("b.parquet", "b.jsonl.gz"):
        assert read_benchmark(tmp_path / other) == read_benchmark(plain)
        assert reference_programs(tmp_path / other) == reference_programs(plain)


@pytest.mark.parametrize("name, source", zip(FILES, ("HumanEval", "HumanEval+", "MBPP", "MBPP+")))
def test_the_benchmark_is_told_by_its_layout(name, source):
    assert {problem.source for problem in read_benchmark(FIXTURES / f"{name}.jsonl")} == {source}


def test_a_profile_may_name_a_humaneval_file():
    profile = load_profile("pocket", {"data.benchmark": str(FIXTURES / "humaneval.jsonl")})
    assert [problem.id for problem in load_benchmark(profile, 1)] == ["HumanEval/9000"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"test": "def test():\n    pass\n"}, "row 1 is no benchmark problem .*defines no check"),
        ({"test": "def check(candidate:\n"}, "row 1 is no benchmark problem"),
        ({"test": "def check(candidate):\n    pass\n"}, "row 1 has no test that checks anything .it has none"),
        ({"test": None}, "it has task_id, prompt, entry_point, canonical_solution; it needs task_id"),
        ({"test": None, "base_input": [[1]]}, "take evalplus/humanevalplus"),
    ],
)
def test_bad_rows_are_explained(tmp_path, change, message):
    row = json.loads((FIXTURES / "humaneval.jsonl").read_text().splitlines()[0]) | change
    (tmp_path / "b.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=message):
        read_benchmark(tmp_path / "b.jsonl")


def test_two_problems_with_one_id_are_an_error(tmp_path):
    (tmp_path / "b.jsonl").write_text((FIXTURES / "humaneval.jsonl").read_text() * 2)
    with pytest.raises(DataError, match="same task_id"):
        read_benchmark(tmp_path / "b.jsonl")


@pytest.mark.parametrize("layout", ["data/test-00000-of-00001.parquet", "rows.jsonl"])
def test_a_data_set_of_the_hub_reads_like_a_file(tmp_path, layout):
    """The call that takes a hub name takes a folder with the same files."""
    path = tmp_path / "humaneval" / layout
    path.parent.mkdir(parents=True)
    rows = read_rows(FIXTURES / "humaneval.jsonl")
    write_rows(path, rows)
    if path.parent.name == "data":
        write_rows(path.with_name("train-00000-of-00001.parquet"), rows[:1])
    folder = tmp_path / "humaneval"
    assert read_benchmark(folder) == read_benchmark(FIXTURES / "humaneval.jsonl")
    assert reference_programs(folder) == reference_programs(FIXTURES / "humaneval.jsonl")
    assert len(read_split(str(folder), "test")) == len(rows)
    assert Benchmarks([folder]).rows == {str(folder): len(rows)}


def test_a_missing_benchmark_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="no benchmark at data/none.jsonl; correct data.benchmark .* hub name"):
        read_benchmark("data/none.jsonl")
    with pytest.raises(DataError, match="owner/set"):
        read_benchmark("owner/set")  # tests are offline
    for split in ("train", "validation"):
        write_rows(tmp_path / f"{split}.jsonl", read_rows(FIXTURES / "humaneval.jsonl"))
    with pytest.raises(DataError, match="has no split test, only train, validation; give"):
        read_benchmark(tmp_path)


def test_tests_that_check_nothing_are_left_out_with_a_warning_or_refused(tmp_path):
    row = {"task_id": "a", "question": "Write f.", "entry_point": "f", "tests": ["f(1) == 2", "assert f(1) == 2"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.warns(UserWarning, match="row 1: 1 tests check nothing"):
        assert read_benchmark(tmp_path / "rows.jsonl")[0].tests == ("assert f(1) == 2",)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"tests": ["f(1) == 2"]}))
    with pytest.raises(DataError, match="no test that checks anything"):
        read_benchmark(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"tests": '["assert f(1) == 2"]'}))
    assert read_benchmark(tmp_path / "rows.jsonl")[0].tests == ("assert f(1) == 2",)
