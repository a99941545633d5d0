"""Shards in this process and on a local Ray cluster of two nodes: the same rows as without shards, whatever dies."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from ray_nodes import lose, start_node

from acelib.core import DataError, EngineError, is_unchanged
from acelib.core.profiles import ROOT, load_profile
from acelib.engine import shards
from acelib.engine.shards import sample_and_judge
from acelib.judge import Judge, JudgeError, Limits
from acelib.models.generation import load_policy, load_tokenizer
from acelib.models.params import SamplingParams
from acelib.sampling import judge_programs, sample_programs, samples_to_rows
from acelib.schema import Problem

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=20)
PARAMS = SamplingParams(n=2, max_new_tokens=60, batch_size=4, seed=1)
WORDS = {"sum": "6", "length": "3", "largest element": "3"}
ON = {"cluster": "auto", "shard_questions": 1}
PROBLEMS = [
    Problem(
        f"p{i}",
        f"Write a function `f{i}(xs)` that returns the {word} of the list of integers.",
        f"f{i}",
        (f"assert f{i}([1, 2, 3]) == {value}", f"assert f{i}([0]) == {i % 2}"),
    )
    for i, (word, value) in enumerate(list(WORDS.items()) * 4)
]


def made(folder, problems=PROBLEMS, engine=None, device="cpu", progress=None, **changes):
    values = {f"engine.{name}": value for name, value in ({"shard_questions": 4} | (engine or {})).items()}
    chosen = load_profile("pocket", values | {"models.device": device})
    return sample_and_judge(chosen, problems, replace(PARAMS, **changes), Path(folder), progress)


@pytest.fixture(scope="module")
def without_shards(tmp_path_factory):
    name = str(ROOT / "data/models/policy")
    programs = sample_programs(
        load_policy(name, device="cpu"),
        load_tokenizer(name),
        PROBLEMS,
        PARAMS,
        prompt="{question}",
        log=tmp_path_factory.mktemp("old") / "log",
        model_name="data/models/policy",
    )
    with Judge(workers=1, limits=LIMITS) as judge:
        return samples_to_rows(PROBLEMS, programs, judge_programs(judge, PROBLEMS, programs))


def test_shards_give_the_rows_of_a_single_run_and_are_read_when_done(without_shards, tmp_path, monkeypatch):
    seen = []
    rows = made(tmp_path, progress=lambda *args: seen.append(args))
    assert rows == without_shards
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"shard-{i:05d}.{end}" for i in range(3) for end in ("manifest.json", "parquet")
    ]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][:2] == (12, 12) and "programs/s" in seen[-1][2]

    monkeypatch.setattr(shards, "open_sampler", lambda *args: pytest.fail("a finished shard was made again"))
    assert made(tmp_path) == rows


@pytest.mark.parametrize("fatal", range(3))
def test_a_stop_in_any_shard_loses_that_one_at_most(fatal, without_shards, tmp_path, monkeypatch):
    judged = []

    def interrupted(judge, problems, programs):
        if len(judged) == fatal:
            raise KeyboardInterrupt
        judged.append(problems)
        return judge_programs(judge, problems, programs)

    monkeypatch.setattr(shards, "judge_programs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == fatal

    sampled = []
    monkeypatch.setattr(shards, "judge_programs", lambda *a: sampled.append(a) or judge_programs(*a))
    monkeypatch.setattr("acelib.sampling.generate", _only_others_than(PROBLEMS[fatal * 4 : fatal * 4 + 4]))
    assert made(tmp_path) == without_shards
    assert len(sampled) == 3 - fatal  # and the replies of the shard that was not judged came from its log


def _only_others_than(problems):
    from acelib.models.generation import generate

    def checked(model, tokenizer, conversations, *options):
        asked = {conversation[0]["content"] for conversation in conversations}
        assert not asked & {problem.question for problem in problems}
        return generate(model, tokenizer, conversations, *options)

    return checked


@pytest.mark.slow
def test_a_shard_of_other_settings_or_problems_is_made_again(tmp_path):
    first = made(tmp_path, PROBLEMS[:8])
    stamp = (tmp_path / "shard-00000.parquet").stat().st_mtime_ns
    swapped = [*PROBLEMS[:4], *PROBLEMS[8:]]
    assert [row["id"] for row in made(tmp_path, swapped)] == [problem.id for problem in swapped]
    assert (tmp_path / "shard-00000.parquet").stat().st_mtime_ns == stamp  # its questions are the same
    longer = made(tmp_path, PROBLEMS[:8], n=3)
    assert all(len(row["inferences"]) == 3 for row in longer)
    assert made(tmp_path, PROBLEMS[:8]) == first

    (tmp_path / "shard-00001.parquet").write_bytes(b"PAR1")
    assert made(tmp_path, PROBLEMS[:8]) == first
    assert is_unchanged(tmp_path / "shard-00001.parquet")


def test_what_cannot_be_sampled(tmp_path, monkeypatch):
    assert made(tmp_path, []) == []
    with pytest.raises(DataError, match="same id"):
        made(tmp_path, [PROBLEMS[0], PROBLEMS[0]])
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(JudgeError, match="pip install ray"):
        made(tmp_path, engine={"cluster": "auto"})


def test_a_cluster_that_is_not_there(tmp_path):
    pytest.importorskip("ray", reason="Ray is an optional extra")
    with pytest.raises(JudgeError, match="no Ray cluster to join at '127.0.0.1:1'.*ray start --head"):
        made(tmp_path, engine={"cluster": "127.0.0.1:1"})


@pytest.fixture
def two_gpus(cluster):
    node = start_node(lambda: cluster.add_node(num_cpus=1, num_gpus=2))  # Ray takes our word for the GPUs
    yield
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="says what is said where vLLM is missing")
def test_a_sampler_for_each_gpu_and_why_none_can_work(two_gpus, tmp_path, capsys):
    vllm = ON | {"generation": "vllm"}
    with pytest.raises(EngineError, match="No node of the Ray cluster has 64 GPU"):
        made(tmp_path, engine=vllm | {"vllm_parallel": 64}, device="cuda")
    with pytest.raises(EngineError, match="pip install -r requirements-gpu.txt"):
        made(tmp_path, engine=vllm, device="cuda")
    lost = [line for line in capsys.readouterr().out.splitlines() if "lost the sampler on" in line]
    assert [line.endswith(f"Left: {left}.") for line, left in zip(lost, (1, 0), strict=True)] == [True, True]


def test_progress_within_a_shard_comes_from_the_nodes(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "EVERY", 0.3)  # in which an answer of a busy node must come, too
    seen = []
    made(
        tmp_path, engine=ON | {"shard_questions": 12}, n=16, batch_size=1, progress=lambda *args: seen.append(args[:2])
    )
    assert seen[-1] == (12, 12) and seen == sorted(seen)
    assert any(0 < done < 12 for done, _ in seen)


def test_a_cluster_that_loses_all_samplers_keeps_what_is_done(cluster, without_shards, tmp_path, monkeypatch):
    import ray

    started, start = [], shards._start_samplers
    monkeypatch.setattr(shards, "_start_samplers", lambda *args: started.append(start(*args)) or started[-1])

    def kill(done, total, label):
        for sampler in started[0].values() if any(tmp_path.glob("*.parquet")) else ():
            ray.kill(sampler)

    with pytest.raises(EngineError, match="lost its last sampler.*every finished shard is kept"):
        made(tmp_path, engine=ON, progress=kill)
    assert len(started[0]) == 0
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert 1 <= len(kept) < 12
    assert made(tmp_path, engine=ON) == without_shards
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_a_node_that_dies_leaves_its_shards_to_the_others(cluster, without_shards, tmp_path, capsys):
    node = next(iter(cluster.worker_nodes))

    def remove(done, total, label):
        if node in cluster.worker_nodes and any(tmp_path.glob("*.parquet")):
            lose(cluster, node)

    assert made(tmp_path, engine=ON, progress=remove) == without_shards
    assert capsys.readouterr().out.count("lost the sampler on") == 1
