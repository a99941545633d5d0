import json
import math

import pytest

from acelib.core import DataError
from acelib.core.tables import read_rows, write_rows
from acelib.schema import Pair, Problem, called_functions, entry_point_of

PROBLEM = Problem("p1", "Write `double(x)`.", "double", ("assert double(2) == 4", "assert double(0) == 0"), "oss")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_problems_survive_a_file(tmp_path, suffix):
    path = tmp_path / f"problems{suffix}"
    write_rows(path, [PROBLEM])
    assert read_rows(path, Problem) == [PROBLEM]


def test_hub_row_without_entry_point_gets_it_from_the_asserts():
    row = {"id": 7, "source": "evol", "question": "...", "test_cases": ["assert sorted(f([2, 1])) == [1, 2]"]}
    assert Problem.from_row(row) == Problem("7", "...", "f", tuple(row["test_cases"]), "evol")


def test_most_called_function_wins_and_the_question_breaks_ties():
    assert entry_point_of(["assert f(1) == 1", "assert f(2) == 2", "assert g(1) == 1"]) == "f"
    assert entry_point_of(["assert f(1) == 1", "assert z(2) == 2"], "Write f.") == "f"
    assert entry_point_of(["assert max([1]) == 1", "assert ("]) is None


def test_builtins_and_attributes_are_no_called_functions():
    assert called_functions("assert math.isclose(abs(f(1)), g(2))") == {"f", "g"}


def test_a_row_that_names_no_function_is_refused():
    with pytest.raises(DataError, match="entry_point"):
        Problem.from_row({"id": "a", "question": "?", "test_cases": []})


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="test_cases"):
        Problem.from_row({"id": "a", "question": "?"})


def test_pairs_survive_and_hub_pairs_have_no_rates():
    pair = Pair("p1", "Write it.", "good", "bad", 1.0, 0.5)
    assert Pair.from_row(pair.to_row()) == pair
    hub = Pair.from_row({"id": "x", "instruction": "a", "input": "b", "chosen": "c", "rejected": "d"})
    assert hub.instruction == "a\nb" and math.isnan(hub.chosen_rate)


def test_table_errors_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match="no table"):
        read_rows(tmp_path / "absent.parquet")
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{"a": ')
    with pytest.raises(DataError, match="line 2"):
        read_rows(tmp_path / "broken.jsonl")
    (tmp_path / "broken.parquet").write_text("not parquet")
    with pytest.raises(DataError, match="Parquet"):
        read_rows(tmp_path / "broken.parquet")
    with pytest.raises(DataError, match="neither"):
        write_rows(tmp_path / "rows.csv", [])
    with pytest.raises(DataError, match="columns b"):
        write_rows(tmp_path / "rows.parquet", [{"a": 1}, {"a": 1, "b": 2}])


def test_a_file_written_by_datasets_with_the_hub_schema_is_read(tmp_path):
    from datasets import Dataset

    inference = {"completion": "def f(): ...", "completion_id": 0, "model_name": "m", "pass_rate": 1.0}
    row = {
        "id": "oss_1",
        "source": "oss",
        "question": "Write f.",
        "test_cases": ["assert f(1) == 1"],
        "inferences": [inference],
        "context_messages": [{"role": "user", "content": "Write f."}],
    }
    Dataset.from_list([row]).to_parquet(tmp_path / "hub.parquet")
    rows = read_rows(tmp_path / "hub.parquet")
    assert rows == [row]
    assert [Problem.from_row(row) for row in rows] == [Problem("oss_1", "Write f.", "f", ("assert f(1) == 1",), "oss")]


def test_json_lines_end_at_newlines_only(tmp_path):
    rows = [{"text": "one\u2028two\x85three"}, {"text": "four"}]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    write_rows(tmp_path / "none.jsonl", [])
    assert read_rows(tmp_path / "none.jsonl") == []


ROW = {"id": "a", "question": "Write f.", "test_cases": ["assert f(1) == 2", "assert f(2) == 3"]}


@pytest.mark.parametrize(
    "tests",
    [json.dumps(ROW["test_cases"]), repr(ROW["test_cases"]), "\n".join(ROW["test_cases"]), tuple(ROW["test_cases"])],
)
def test_tests_in_another_form_are_read_as_they_are_meant(tests):
    assert Problem.from_row(ROW | {"test_cases": tests}) == Problem.from_row(ROW)


def test_a_whole_test_as_text_stays_whole():
    test = "def test_f():\n    assert f(1) == 2\n"
    assert Problem.from_row(ROW | {"test_cases": test}).tests == (test,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_cases": [None]}, "Row 0, column test_cases must be a list of texts, but is one that holds null"),
        ({"test_cases": 3}, "Row 0, column test_cases must be a list, but is a int"),
        ({"test_cases": {"a": 1}}, "Row 0, column test_cases must be a list, but is a dict"),
        ({"test_cases": "not ( Python"}, "Row 0, column test_cases must be .* neither JSON nor Python"),
        ({"test_cases": '["assert f(1) == 2"'}, "Row 0, column test_cases must be .* not a JSON list"),
        ({"question": ["a"]}, "Row 0, column question must be text, but is a list"),
        ({"entry_point": ["f"]}, "Row 0, column entry_point must be text"),
    ],
)
def test_a_column_of_another_type_is_named(change, message):
    with pytest.raises(DataError, match=message):
        Problem.from_row(ROW | change, 0)


def test_pairs_of_another_type_are_named_and_null_rates_are_unknown():
    pair = {"id": "a", "instruction": "Write f.", "chosen": "a", "rejected": "b", "chosen_rate": None}
    assert math.isnan(Pair.from_row(pair).chosen_rate)
    with pytest.raises(DataError, match="Row 0, column chosen must be text, but is a list"):
        Pair.from_row(pair | {"chosen": ["a"]}, 0)
    with pytest.raises(DataError, match="Row 0, column chosen_rate must be a number"):
        Pair.from_row(pair | {"chosen_rate": "high"}, 0)


def test_a_byte_order_mark_is_no_part_of_the_table(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n', encoding="utf-8-sig")
    assert read_rows(tmp_path / "rows.jsonl") == [{"a": 1}]
