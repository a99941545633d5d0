"""Torch computes with as many threads as it may, and with one while another program keeps a core busy."""

import pytest
import torch

from acelib.core import threads
from acelib.core.threads import Threads


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_number_follows_what_a_step_takes(monkeypatch, capsys):
    ratios, chosen = iter([0.7, 1.9, 2.1, 1.5, 1.0]), []
    monkeypatch.setattr(threads, "_time_of_many", lambda most: next(ratios))
    monkeypatch.setattr(threads, "EVERY", 0.0)
    several = Threads(2)
    for _ in range(5):
        several.look()
        chosen.append(torch.get_num_threads())
    assert chosen == [2, 2, 1, 1, 2]
    assert capsys.readouterr().out.count("torch computes with") == 2


def test_it_looks_now_and_then_and_never_where_there_is_no_choice(monkeypatch):
    looks = []
    monkeypatch.setattr(threads, "_time_of_many", lambda most: looks.append(most) or 1.0)
    several, single = Threads(2), Threads(1)
    for _ in range(3):
        several.look()
        single.look()
    assert looks == [2]


def test_timing_a_step_changes_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert threads._time_of_many(2, seconds=0.05) > 0
    assert torch.equal(torch.rand(3), expected)
