"""The benches for GPUs, run on a CPU with toy shapes by the very code that a GPU would run."""

import csv
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from acelib.core.profiles import ROOT, load_profile
from acelib.core.run import Run
from acelib.models.generation import load_tokenizer
from acelib.pocket import corpus
from acelib.pocket.train import new_model
from acelib.training.forecast import SHAPES, Shape
from bench import architecture, gpu, phases, rounding, scale_up
from bench.architecture import forward_flop, update_flop

PROMPT, REPLY, QUESTIONS, REPLIES = 24, 16, 2, 4
COLUMNS = ["phase", "seconds", "share of time", "tokens", "tokens/s", "TFLOP", "share of matrix rate"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    assert (
        gpu.main(
            [
                "--tiny",
                "--prompt",
                str(PROMPT),
                "--reply",
                str(REPLY),
                "--questions",
                str(QUESTIONS),
                "--replies",
                str(REPLIES),
                "--micro-batch",
                "4",
                "--updates",
                "2",
                "--models",
                str(folder),
                "--out",
                str(folder / "out.md"),
            ]
        )
        == 0
    )
    records = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return {record["stage"]: record for record in records}, (folder / "out.md").read_text(), folder


def test_the_record_adds_up(measured):
    records = measured[0]
    assert list(records) == list(phases.STAGES)
    for record in records.values():
        parts = dict(record["phases"])
        whole = parts.pop("all")
        assert all(math.isfinite(value) and value >= 0 for one in parts.values() for value in one.values())
        assert whole["seconds"] == pytest.approx(sum(one["seconds"] for one in parts.values()))
        assert whole["flop"] == sum(one["flop"] for one in parts.values())
        assert record["matrix_tflops"] > 0 and record["trained_weights"] == ["float32"]
    assert set(records["RL"]["phases"]) == {*phases.PHASES, "all"}
    tokens = {name: one["tokens"] for name, one in records["RL"]["phases"].items()}
    replies = QUESTIONS * REPLIES
    assert tokens["generate"] == replies * REPLY
    assert tokens["all"] == tokens["update"] == tokens["reference"] == replies * (PROMPT + REPLY)
    assert records["reward model"]["phases"]["all"]["tokens"] == QUESTIONS * 2 * (PROMPT + REPLY) // 2


def test_the_table_has_every_phase_and_column(measured):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in measured[1].splitlines()
        if line.startswith("|")
    ]
    assert rows.count(COLUMNS) == 2 and all(len(row) == len(COLUMNS) for row in rows)
    rl = rows[len(rows) - 1 - rows[::-1].index(COLUMNS) + 2 :]
    assert [row[0] for row in rl] == [*phases.PHASES, "all"]
    assert sum(float(row[2].rstrip("%")) for row in rl[:-1]) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize("variant, optimiser, frozen", [("lora", "AdamW", ["float32"]), ("no-moments", "SGD", [])])
@pytest.mark.slow
def test_a_variant_trains_what_its_name_says(measured, tmp_path, variant, optimiser, frozen):
    assert (
        gpu.main(
            [
                "--tiny",
                "--variant",
                variant,
                "--prompt",
                "24",
                "--reply",
                "16",
                "--questions",
                "1",
                "--replies",
                "2",
                "--steps",
                "1",
                "--models",
                str(measured[2]),
                "--out",
                str(tmp_path / "out.md"),
            ]
        )
        == 0
    )
    for line in (tmp_path / "out.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert (record["optimiser"], record["frozen_weights"]) == (optimiser, frozen)
        assert record["trained_weights"] == ["float32"]


@pytest.mark.parametrize("world, parallel", [(1, 1), (8, phases.PAPER.engine.vllm_parallel)])
def test_vllm_takes_no_more_cards_than_there_are(monkeypatch, world, parallel):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    asked = gpu.arguments(["--generation", "vllm", "--variant", "lora", "--rank", "8"])
    engine = phases.engine(asked)
    assert (engine.generation, engine.lora_rank, engine.vllm_parallel) == ("vllm", 8, parallel)


def test_vllm_takes_one_size_per_process(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--sizes", "0.5B", "1.5B", "--generation", "vllm"])
    assert "one of --sizes per command" in capsys.readouterr().err


def test_operations_by_hand():
    # One layer, width 2, inner width 3, one head: attention 2*2*2 + 2*2*2 + 2 + 2*2 = 22 weights, gate, up and down
    # 3*2*3 = 18, three norms 6: 46 without the table of 5 words, which is 10 more where logits are wanted.
    shape = Shape(layers=1, hidden=2, intermediate=3, key_values=2, vocabulary=5, tied=True)
    assert shape.parameters == 46 + 10
    assert forward_flop(shape, 0, 4, 0) == 2 * 46 * 4 + 2 * 2 * 16
    assert forward_flop(shape, 4, 6, 1) == 2 * 46 * 2 + 2 * 10 + 2 * 2 * (36 - 16)
    assert forward_flop(shape, 0, 4, 0) + forward_flop(shape, 4, 6, 0) == forward_flop(shape, 0, 6, 0)
    assert update_flop(shape, 4, 0, lora=False) == 6 * 46 * 4 + 6 * 2 * 16
    assert update_flop(shape, 4, 0, lora=True) == 4 * 46 * 4 + 6 * 2 * 16


@pytest.mark.parametrize("size", architecture.HEADS)
def test_the_shapes_are_those_of_the_models(size):
    """Of a model without memory, as large as the real one."""
    shape = SHAPES[size]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture.configuration(shape, architecture.HEADS[size]))
    assert model.num_parameters() == shape.parameters
    assert model.config.num_key_value_heads in (2, 4) and model.config.rope_parameters["rope_theta"] == 1e6


def test_a_random_model_reads_and_writes_exact_lengths(measured):
    folder = measured[2] / "tiny"
    tokenizer, rng = load_tokenizer(folder), random.Random(0)
    text = architecture.words(rng, 50, architecture.TINY.vocabulary)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 50 and tokenizer.decode(ids) == text
    assert AutoConfig.from_pretrained(folder).dtype == torch.bfloat16


@pytest.mark.parametrize("bench", ["gpu", "scale_up"])
@pytest.mark.slow
def test_without_a_gpu_a_bench_says_one_sentence(bench):
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / f"{bench}.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and "bench/" in done.stdout


def test_a_paper_sized_step_is_lost_in_bfloat16_only():
    profile = load_profile("pocket")
    weights = rounding.weights_of(profile.resolve(profile.models.policy))
    assert rounding.changed(weights, torch.bfloat16, 5e-7) < 0.01
    assert rounding.changed(weights, torch.float32, 5e-7) > 0.999
    at = torch.tensor([0.02, -0.02])  # its neighbours are 2^-13 away, and half of that is needed
    assert rounding.changed(at, torch.bfloat16, 2**-15) == 0 and rounding.changed(at, torch.bfloat16, 2**-13) == 1


@pytest.fixture
def finished(tmp_path):
    """A run with the one table that RL starts from."""
    run = Run(tmp_path / "run", load_profile(Path(__file__).parent / "smoke.yaml"))
    run.adopt(
        {
            "samples": [
                {
                    "id": problem["task_id"],
                    "question": problem["question"],
                    "entry_point": problem["entry_point"],
                    "source": "",
                    "test_cases": problem["tests"],
                    "inferences": [
                        {"model_name": "", "sample_id": str(k), "completion": "", "reply": "", "pass_rate": k / 7}
                        for k in range(8)
                    ],
                }
                for problem in corpus.benchmark_problems(24, seed=1)
            ]
        },
        {"source": "the test", "command": "none"},
    )
    return run


@pytest.mark.slow
def test_scale_up_makes_a_row_per_size_and_resumes(finished, tmp_path, monkeypatch):
    words = [
        "--tiny",
        "--steps",
        "2",
        "--rollouts",
        "1",
        "--profile",
        str(Path(__file__).parent / "smoke.yaml"),
        "--run-dir",
        str(finished.dir),
        "--out",
        str(tmp_path / "out"),
    ]
    assert scale_up.main(words) == 0
    with (tmp_path / "out" / "scale_up.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["size"] for row in rows] == ["tiny", "small"]
    for row in rows:
        assert float(row["flop"]) == 6 * int(row["parameters"]) * int(row["tokens"])
        assert float(row["low"]) <= float(row["gain"]) <= float(row["high"])
        assert float(row["gain"]) == pytest.approx(float(row["after"]) - float(row["before"]))
    assert (tmp_path / "out" / "scale_up.png").stat().st_size > 10_000
    monkeypatch.setattr(scale_up, "measure", lambda *_: pytest.fail("what is done is not done again"))
    assert scale_up.main(words) == 0


def test_a_size_is_what_its_name_says():
    profile = load_profile("pocket")
    tokenizer = load_tokenizer(profile.resolve(profile.models.policy))
    for size in ("1M", "10M", "30M", "100M"):
        with torch.device("meta"):
            model = new_model(scale_up.recipe(size, 0, 1), tokenizer)
        assert model.num_parameters() == pytest.approx(float(size[:-1]) * 1e6, rel=0.06)


def test_the_base_recipe_is_the_shipped_one():
    assert scale_up.recipe("1M", 0, scale_up.BASE.steps) == scale_up.BASE
