"""Published rows become a run that notebooks 03 to 07 can start from."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from acelib.__main__ import main
from acelib.core import ArtifactError, CourseError, DataError
from acelib.core.profiles import load_profile
from acelib.core.run import Run
from acelib.core.tables import read_rows, write_rows
from acelib.judge import Judge
from acelib.pairs import build_pairs
from acelib.sampling import judge_programs, rows_to_programs
from acelib.schema import Pair, Problem
from tools.adopt import counts_text, import_as_profile_says, import_dataset

FIXTURES = Path(__file__).parent / "fixtures"
QUESTIONS, PAIRS = str(FIXTURES / "acecode.jsonl"), str(FIXTURES / "acecodepair.jsonl")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run", load_profile("pocket", {"sampling.n": 3}))


def write(path, change=lambda row: row):
    write_rows(path, [change(row) for row in read_rows(QUESTIONS)])
    return str(path)


def test_questions_programs_and_what_the_later_notebooks_read(run):
    counts = import_dataset(run, QUESTIONS)
    assert counts["questions"] == 3 and counts["programs"] == 9 and counts["rows"] == 5
    filtered = run.read("filtered", Problem)
    assert [problem.id for problem in filtered] == ["evol_1", "oss_2", "fns_3"]
    assert [problem.entry_point for problem in filtered] == ["double", "backwards", "at_most"]
    assert filtered == run.read("imagined", Problem)
    samples = run.read("samples")
    assert samples == run.read("samples_unfiltered")
    # Over the row's own tests; the source divides by all tests that were ever imagined (paper against code).
    assert [item["pass_rate"] for item in samples[0]["inferences"]] == [1.0, 0.4, 0.2]
    assert read_rows(QUESTIONS)[0]["inferences"][0]["pass_rate"] == 0.25
    pairs = build_pairs(
        samples,
        lambda question: question,
        min_gap=0.4,
        min_chosen=0.8,
        min_rejected=0.0,
        strict=True,
        max_pairs_per_question=8,
        seed=0,
    )
    assert {pair.problem_id for pair in pairs} == {"evol_1", "oss_2", "fns_3"}
    audit = run.read("filter_audit")
    assert len(audit) == 5 + 6 + 7 and all(row["kept"] and row["valid"] is None for row in audit)


def test_a_question_that_leaves_no_room_for_a_reply_is_left_out(run, tmp_path):
    """One of them would stop notebook 04, for all."""

    def longer(row):
        return row | {"question": row["question"] + " Twice." * 100} if row["id"] == "oss_2" else row

    counts = import_dataset(run, write(tmp_path / "set.jsonl", longer))
    assert counts["questions"] == 2 and counts["questions of more than 156 tokens, left out"] == 1
    assert [row["id"] for row in run.read("samples")] == ["evol_1", "fns_3"]


def test_the_stored_results_are_those_of_the_judge(run):
    import_dataset(run, QUESTIONS)
    samples = run.read("samples")
    with Judge(workers=1) as judge:
        reports = judge_programs(judge, [Problem.from_row(row) for row in samples], rows_to_programs(samples))
    stored = [item["pass_rate"] for row in samples for item in row["inferences"]]
    assert [report.pass_rate for report in reports] == stored


def test_programs_of_unknown_results_are_judged(run, tmp_path, capsys):
    """As on the hub, whose rows have `pass_rate` alone, and over more tests than there are."""
    import_dataset(run, QUESTIONS)
    other = Run(tmp_path / "other", run.profile)
    counts = import_dataset(other, write(tmp_path / "set.jsonl", inferences(without("test_results"))))
    assert counts["programs judged here"] == counts["programs"] == 9 and "judging 9" in capsys.readouterr().out
    assert other.read("samples") == run.read("samples") == other.read("samples_unfiltered")


def test_the_manifest_says_where_it_came_from_and_the_notebooks_keep_it(run, capsys):
    import_dataset(run, QUESTIONS, command="python -m acelib adopt ...")
    origin = run.manifest("samples")["adopted"]
    assert origin["source"] == QUESTIONS and len(origin["version"]) == 64 and "`imagined` equals" in origin["note"]
    assert origin["counts"]["questions with fewer than 5 tests, left out"] == 1
    rows = run.table("samples", lambda scratch: pytest.fail("was built"), inputs=("filtered",), params={"k": 1})
    assert [row["id"] for row in rows] == ["evol_1", "oss_2", "fns_3"]
    assert "samples: adopted from" in capsys.readouterr().out
    path = run.path("samples")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match="changed or damaged .*adopt it again with `python -m acelib adopt ...`"):
        run.table("samples", lambda scratch: [{"x": 1}])


def test_questions_only_and_a_second_adoption_leave_no_rest_of_the_first(run):
    import_dataset(run, QUESTIONS, pairs=PAIRS)
    assert import_dataset(run, QUESTIONS, questions_only=True, limit=2)["questions"] == 2
    assert len(run.read("filtered")) == 2
    for name in ("samples", "samples_unfiltered", "pairs"):
        with pytest.raises(ArtifactError, match=f"There is no '{name}'"):
            run.read(name)
    run.table("samples", lambda scratch: [{"x": 1}], inputs=("filtered",))
    with pytest.raises(ArtifactError, match="holds samples, which its notebooks have made; name another --run-dir"):
        import_dataset(run, QUESTIONS)
    assert len(run.read("filtered")) == 2


ASKED = "Given any whole number, of whatever sign, give back exactly twice that number as `double(x)`."
OWN = {"task_id": "bench/0", "question": f"A task. {ASKED}", "entry_point": "f", "tests": ["assert f(1) == 2"]}
GIVEN = {
    "task_id": "HumanEval/0",
    "prompt": 'def backwards(text):\n    """Reverse it."""\n',
    "entry_point": "backwards",
    "canonical_solution": "    return text[::-1]\n",
    "test": "def check(candidate):\n    assert candidate('ab') == 'ba'\n",
}


@pytest.fixture
def benchmarks(tmp_path):
    """The profile's benchmark, which asks what evol_1 asks, and another, whose solution is the function of oss_2."""
    write_rows(tmp_path / "own.jsonl", [OWN])
    write_rows(tmp_path / "given.jsonl", [GIVEN])
    write(tmp_path / "set.jsonl", lambda row: row | {"question": ASKED} if row["id"] == "evol_1" else row)
    pairs = [row | {"id": place} for place, row in enumerate(read_rows(PAIRS))]  # the hub's ids are other ones, too
    pairs += [pairs[0] | {"id": "fns_3", "instruction": "Write `at_most(x, cap)`."}, pairs[0] | {"instruction": ASKED}]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    return tmp_path


@pytest.mark.parametrize("questions_only", [False, True])
def test_what_is_like_a_benchmark_is_left_out_and_told(benchmarks, questions_only):
    own, given = str(benchmarks / "own.jsonl"), str(benchmarks / "given.jsonl")
    profile = load_profile("pocket", {"sampling.n": 3, "data.benchmark": own, "data.decontaminate": [given]})
    run = Run(benchmarks / "run", profile)
    counts = import_dataset(
        run,
        str(benchmarks / "set.jsonl"),
        questions_only=questions_only,
        command="adopt it",
        pairs=str(benchmarks / "pairs.jsonl"),
        decontaminate=[str(FIXTURES / "mbpp.jsonl")],
    )
    assert [row["id"] for row in run.read("filtered")] == ["fns_3"] + ["evol_5"] * questions_only
    assert (run.manifest("samples") is None) == questions_only
    assert [row["instruction"] for row in run.read("pairs")] == ["Write `double(x)`.", "Write `at_most(x, cap)`."]
    dropped = {row["id"]: row for row in read_rows(run.dir / "adopted" / "dropped.jsonl")}
    assert dropped["evol_1"]["reason"] == "benchmark question" and dropped["evol_1"]["benchmark"] == own
    assert dropped["evol_1"]["like"].startswith("bench/0: ") and dropped["evol_1"]["source"] == "evol"
    assert dropped["oss_2"]["like"] == "HumanEval/0: backwards(text)" and dropped["oss_2"]["benchmark"] == given
    told = [
        f"1 questions like one of {own} (1), left out",
        f"1 questions like one of {given} (1), left out",
        f"0 questions like one of {FIXTURES / 'mbpp.jsonl'} (4), left out",
        "2 pairs of questions like a benchmark's, left out",
        "2 pairs",
    ]
    card = (run.dir / "adopted" / "README.md").read_text()
    assert all(line in counts_text(counts) and line in card for line in told)
    assert f"| {own} | 1 | 1 | 0 | 0 |" in card and f"| {given} | 1 | 0 | 1 | 0 |" in card and "by `adopt it`" in card
    assert yaml.safe_load(card.split("---\n")[1])["source_datasets"] == []
    assert run.manifest("filtered")["adopted"]["counts"] == counts


def test_nothing_is_adopted_without_its_benchmark(run, tmp_path):
    with pytest.raises(CourseError, match="no benchmark at .*none.jsonl; correct data.benchmark or data.decontaminate"):
        import_dataset(run, QUESTIONS, decontaminate=[str(tmp_path / "none.jsonl")])
    write_rows(tmp_path / "bare.jsonl", [{"task_id": 1, "test_list": []}])
    with pytest.raises(CourseError, match="bare.jsonl has no question in 1"):
        import_dataset(run, QUESTIONS, decontaminate=[str(tmp_path / "bare.jsonl")])
    with pytest.raises(DataError, match=r"No question .* \(questions like one of .*all.jsonl .*, left out\)"):
        write_rows(tmp_path / "all.jsonl", [OWN])
        import_dataset(
            run,
            write(tmp_path / "set.jsonl", lambda row: row | {"question": ASKED}),
            decontaminate=[str(tmp_path / "all.jsonl")],
        )
    assert not (run.dir / "artifacts").exists() and not (run.dir / "adopted").exists()


def test_a_program_too_deep_to_write_out_is_no_obstacle(run, tmp_path):
    deep = "def double(x):\n    return " + " + ".join(["x"] * 3000)
    source = write(tmp_path / "set.jsonl", inferences(lambda item: item | {"completion": f"```python\n{deep}\n```"}))
    assert import_dataset(run, source, questions_only=True)["questions"] == 4


def test_published_pairs(run):
    assert import_dataset(run, QUESTIONS, pairs=PAIRS)["pairs"] == 2
    pairs = run.read("pairs", Pair)
    assert pairs[0].problem_id == "evol_1" and "return 2 * x" in pairs[0].chosen
    assert [row["rejected"] for row in run.read("pairs_unfiltered")] == [pair.rejected for pair in pairs]


def test_parquet_gives_the_same_tables(run, tmp_path):
    import_dataset(run, QUESTIONS)
    other = Run(tmp_path / "other", run.profile)
    import_dataset(other, write(tmp_path / "set.parquet"))
    for name in ("imagined", "filtered", "samples", "filter_audit"):
        assert other.read(name) == run.read(name)


def without(*columns):
    return lambda row: {key: value for key, value in row.items() if key not in columns}


def inferences(change):
    return lambda row: row | {"inferences": [change(item) for item in row["inferences"]]}


@pytest.mark.parametrize(
    "change, message",
    [
        (without("id"), "Row 0 has no id; expected the columns of AceCode-87K"),
        (without("question", "test_cases"), "Row 0 has no question, test_cases; .* found id, source, inferences"),
        (without("inferences"), "Row 0 has no inferences; add it, or pass --questions-only"),
        (inferences(without("completion")), "Row 0, inference 0 has no completion; add it"),
        (inferences(without("model_name", "completion")), "inference 0 has no model_name, completion; add it"),
        (inferences(lambda item: item | {"test_results": [True] * 20}), "has 20 test_results for 5 test_cases; mend"),
        (lambda row: row | {"id": "same"}, "has several rows with the id 'same'"),
        (inferences(lambda item: item | {"model_name": item["completion"][-12:-4]}), "pick one with --model"),
        (lambda row: row | {"inferences": row["inferences"][:2]}, r"No question .*fewer than 3 programs, left out"),
    ],
)
def test_every_missing_column_and_misfit_is_explained_and_nothing_is_written(run, tmp_path, change, message):
    with pytest.raises(CourseError, match=message):
        import_dataset(run, write(tmp_path / "set.jsonl", change))
    assert not (run.dir / "artifacts").exists()


def test_one_of_several_models_is_picked(run, tmp_path):
    def twins(row):
        return row | {"inferences": row["inferences"] + [one | {"model_name": "other"} for one in row["inferences"]]}

    source = write(tmp_path / "set.jsonl", twins)
    with pytest.raises(DataError, match=r"other \(13\)"):
        import_dataset(run, source)
    import_dataset(run, source, model="other")
    assert {item["model_name"] for row in run.read("samples") for item in row["inferences"]} == {"other"}


def asking(tmp_path, **changes):
    """A run whose profile adopts; returns what it says."""
    values = {"sampling.n": 3, "data.adopt": QUESTIONS} | {key.replace("__", "."): one for key, one in changes.items()}
    run, said = Run(tmp_path / "run", load_profile("pocket", values)), []
    import_as_profile_says(run, "make course PROFILE=mine", said.append)
    return run, "\n".join(said)


def test_the_profile_adopts_once_and_again_when_something_changed(tmp_path):
    source = write(tmp_path / "set.jsonl")
    run, said = asking(tmp_path, data__adopt=source)
    assert "notebook 03 samples programs of data/models/policy" in said and "4 questions" in said
    assert len(run.read("filtered")) == 4 and run.manifest("samples") is None
    made = run.manifest("filtered")
    run, said = asking(tmp_path, data__adopt=source)
    assert said == f"{source}: adopted before, kept." and run.manifest("filtered") == made
    assert "3 questions" in asking(tmp_path, data__adopt=source, data__adopt_rows=4)[1]
    assert "4 questions" in asking(tmp_path, data__adopt=source)[1]
    write(tmp_path / "set.jsonl", lambda row: row | {"question": row["question"] + " Be quick."})
    assert "4 questions" in asking(tmp_path, data__adopt=source)[1]
    (run.dir / "artifacts" / "imagined.parquet").unlink()
    assert "4 questions" in asking(tmp_path, data__adopt=source)[1]
    write_rows(tmp_path / "b.jsonl", [OWN])
    more = {"data__adopt": source, "data__decontaminate": [str(tmp_path / "b.jsonl")]}
    assert "b.jsonl (1), left out" in asking(tmp_path, **more)[1] and "before, kept." in asking(tmp_path, **more)[1]
    write_rows(tmp_path / "b.jsonl", [OWN, OWN])
    assert "b.jsonl (2), left out" in asking(tmp_path, **more)[1]
    assert "4 questions" in asking(tmp_path, data__adopt=source)[1]
    Path(source).unlink()
    assert "kept unchecked (There is no file" in asking(tmp_path, data__adopt=source)[1]
    run.path("filtered").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="changed or damaged .*adopt it again with `make course PROFILE=mine`"):
        run.read("filtered")
    with pytest.raises(CourseError, match="There is no file"):
        asking(tmp_path, data__adopt=source)


def test_the_policys_own_programs_are_taken_and_those_of_others_are_not(tmp_path):
    run, said = asking(tmp_path, models__policy="Qwen/Qwen2.5-Coder-7B-Instruct")
    assert "with the programs of Qwen/Qwen2.5-Coder-7B-Instruct" in said and "9 programs" in said
    assert len(run.read("samples")) == 3
    assert "notebook 03 samples programs" in asking(tmp_path)[1] and run.manifest("samples") is None
    untested = write(tmp_path / "set.jsonl", inferences(without("test_results")))
    said = asking(tmp_path, data__adopt=untested, models__policy="Qwen/Qwen2.5-Coder-7B-Instruct")[1]
    assert "notebook 03 samples programs of Qwen/Qwen2.5-Coder-7B-Instruct" in said
    run.table("samples", lambda scratch: [{"x": 1}], inputs=("filtered",))
    with pytest.raises(ArtifactError, match="holds samples, which its notebooks have made; name another --run-dir"):
        asking(tmp_path, models__policy="Qwen/Qwen2.5-Coder-7B-Instruct")


def test_what_was_adopted_by_hand_is_kept(run, tmp_path):
    import_dataset(run, QUESTIONS, pairs=PAIRS, command="by hand")
    assert "by hand; kept" in asking(tmp_path, data__adopt="elsewhere.jsonl")[1]
    assert run.manifest("pairs")["adopted"]["command"] == "by hand"


def test_command_line(tmp_path, capsys):
    profile = tmp_path / "mine.yaml"
    profile.write_text("extends: pocket\nname: mine\nsampling: {n: 3}\n")
    run_dir = tmp_path / "run"
    asked = ["adopt", QUESTIONS, "--run-dir", str(run_dir), "--profile", str(profile), "--pairs", PAIRS]
    assert main([*asked, "--decontaminate", str(FIXTURES / "humaneval.jsonl")]) == 0
    said = capsys.readouterr().out
    assert f"0 questions like one of {FIXTURES / 'humaneval.jsonl'} (2), left out" in said
    assert "3 questions" in said and f"RUN_DIR={run_dir} FROM=03" in said
    manifest = json.loads((run_dir / "artifacts" / "filtered.manifest.json").read_text())
    typed = shlex.join([*asked, "--decontaminate", str(FIXTURES / "humaneval.jsonl")])
    assert manifest["adopted"]["command"] == f"python -m acelib {typed}"
    assert main(["adopt", "none.jsonl", "--run-dir", str(run_dir)]) == 1
    assert "There is no file none.jsonl" in capsys.readouterr().err


def test_tests_that_check_nothing_are_left_out_and_counted(run, tmp_path):
    def change(row):
        tests = [*row["test_cases"], f"{row['test_cases'][0].removeprefix('assert ')}"]
        items = [item | {"test_results": [*item["test_results"], 1]} for item in row["inferences"]]
        return row | {"test_cases": tests, "inferences": items}

    counts = import_dataset(run, write(tmp_path / "rows.jsonl", change))
    assert counts["tests that check nothing, left out"] == 5
    assert [item["pass_rate"] for item in run.read("samples")[0]["inferences"]] == [1.0, 0.4, 0.2]
    assert all(test.startswith("assert") for row in run.read("filtered") for test in row["test_cases"])


def test_columns_as_text_are_read_and_others_named(run, tmp_path):
    def as_text(row):
        return row | {name: json.dumps(row[name]) for name in ("test_cases", "inferences")}

    assert import_dataset(run, write(tmp_path / "rows.jsonl", as_text))["programs"] == 9
    for value, message in ((["def f(): pass"], "list of objects"), ("abc", "a list"), ([{"completion": 3}], "text")):
        with pytest.raises(DataError, match=f"Row 0, column inferences.*{message}"):
            import_dataset(run, write(tmp_path / "bad.jsonl", lambda row, value=value: row | {"inferences": value}))
