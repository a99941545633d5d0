"""The learning rates tried again: the committed table, and that it was made on other questions than the benchmark's."""

from acelib.core import load_profile, read_json, read_rows
from experiments.grid import PUBLISHED, SEEDS
from experiments.tuning import TRAININGS, VALIDATION, VALUES


def test_every_value_was_tried_on_every_seed_and_the_shipped_ones_are_among_them():
    start, *rows = read_rows(PUBLISHED / "tuning.jsonl")
    assert start["rollouts"] == 0 and start["kl"] is None
    tried = [(row["key"], row["reward"], row["rollouts"], row["value"], row["seed"]) for row in rows]
    assert tried == [
        (key, reward, rollouts, value, seed)
        for key, values in VALUES.items()
        for reward, rollouts in TRAININGS[key]
        for value in values
        for seed in SEEDS
    ]
    assert {len(row["solved"]) for row in (start, *rows)} == {200}
    assert all(0 <= one <= 1 for row in rows for one in row["solved"])
    assert all((row["kl"] is None) == (row["reward"] is None) for row in rows)
    shipped = load_profile("pocket")
    for key, values in VALUES.items():
        section, name = key.split(".")
        assert getattr(getattr(shipped, section), name) in values
    assert shipped.data.benchmark != VALIDATION and "tuning" in read_json(PUBLISHED / "provenance.json")
