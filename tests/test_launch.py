"""Jobs of notebooks 04 and 06, in this process and through `accelerate launch`: the same models, the same errors."""

import dataclasses
import json
import os

import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_reinforce import PROBLEMS
from test_reward_model import some_pairs
from tiny_models import save_tiny_policy, save_tiny_reward_model

from acelib import training
from acelib.artifacts import Run
from acelib.launch import LOG, LaunchError, configuration, launch
from acelib.plan import PlanError
from acelib.profiles import ROOT, load_profile
from acelib.reward_training import LOG_FILE
from acelib.schema import pairs_to_rows, problems_to_rows, write_rows

TINY = {
    "threads": 2, "reward_model.batch_size": 8, "reward_model.epochs": 2.0, "reward_model.max_length": 96,
    "reward_model.micro_batch": 2, "reinforce.rollout_questions": 4, "reinforce.samples_per_question": 4,
    "reinforce.updates_per_rollout": 2, "reinforce.micro_batch": 4, "reinforce.steps": 2,
    "reinforce.max_new_tokens": 8, "reinforce.eval_every": 2, "reinforce.eval_questions": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("base"))


def a_run(folder, base, launched, **changes):
    benchmark = base / "benchmark.jsonl"
    write_rows(benchmark, [{"task_id": one.id, "question": one.question, "entry_point": "solve",
                            "tests": ["assert solve(1) == 1"]} for one in PROBLEMS])  # fmt: skip
    names = {"models.policy": str(base), "reward_model.base": str(base), "engine.launch": launched,
             "data.benchmark": str(benchmark)}  # fmt: skip
    run = Run(folder, load_profile("pocket", TINY | names | changes))
    if run.manifest("pairs") is None:
        questions = [dataclasses.replace(one, tests=("assert solve(1) == 1",)) for one in PROBLEMS]
        run.table("pairs", lambda scratch: pairs_to_rows(some_pairs(28)))
        run.table("hard_questions", lambda scratch: problems_to_rows(questions))
        run.folder("reward_model", lambda path, _: save_tiny_reward_model(path) and None)
    return run


def scratch_of(folder, name):
    scratch = folder / name
    scratch.mkdir()
    return scratch


@pytest.mark.parametrize("job, arguments", [
    ("reward_model", {"pairs": "pairs"}), ("policy", {"reward": "reward_model"}),
])
def test_two_processes_give_the_model_of_one(tmp_path, base, capfd, monkeypatch, job, arguments):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    weights = {}
    for name, launched in (("here", "none"), ("there", "configs/cpu-2.yaml")):
        run = a_run(tmp_path / "run", base, launched)
        launch(run, getattr(training, job), tmp_path / name, scratch_of(tmp_path, f"s-{name}"), "training", **arguments)
        weights[name] = load_file(tmp_path / name / "model.safetensors")
        assert json.loads((tmp_path / name / LOG_FILE).read_text())
    moved = load_file(base / "model.safetensors")
    assert max((weights["here"][name] - moved[name]).abs().max() for name in moved if name in weights["here"]) > 1e-5
    assert "accelerate.commands.launch" in capfd.readouterr().out
    for name, one in weights["here"].items():
        torch.testing.assert_close(weights["there"][name], one, rtol=1e-4, atol=1e-4)


def test_progress_and_what_a_job_prints_come_back(tmp_path, base, capfd, monkeypatch):
    monkeypatch.setenv("ACELIB_PROGRESS", str(tmp_path / "progress"))
    run = a_run(tmp_path / "run", base, "configs/cpu-2.yaml")
    launch(run, training.policy, tmp_path / "out", scratch_of(tmp_path, "s"), "RL", reward="rule")
    assert json.loads((tmp_path / "progress").read_text()) == {"done": 2, "total": 2, "label": "RL"}
    said = capfd.readouterr().out
    assert said.count("rollout 2: ") == 1 and "pass@1" in said


def test_an_error_in_a_process_is_one_sentence_here(tmp_path, base):
    run = a_run(tmp_path / "run", base, "configs/cpu-2.yaml", **{"reward_model.batch_size": 7})
    with pytest.raises(LaunchError, match="cannot be shared by 2 processes; choose reward_model.batch_size"):
        launch(run, training.reward_model, tmp_path / "out", scratch_of(tmp_path, "s"), "RM", pairs="pairs")


def test_a_crash_names_its_log(tmp_path, base):
    run, scratch = a_run(tmp_path / "run", base, "configs/cpu-2.yaml"), scratch_of(tmp_path, "s")
    with pytest.raises(LaunchError, match="TypeError.*goes on from its last checkpoint"):
        launch(run, training.policy, tmp_path / "out", scratch, "RL", nonsense=1)
    assert "unexpected keyword" in (scratch / LOG).read_text()


def test_a_configuration_that_is_not_there_or_is_none(tmp_path):
    with pytest.raises(LaunchError, match="no accelerate configuration configs/zero9.yaml; set .* configs/cpu-2.yaml"):
        configuration("configs/zero9.yaml")
    for number, text in enumerate(("", "a: [", "num_machines: 1", "num_processes: many")):
        (tmp_path / f"{number}.yaml").write_text(text)
        with pytest.raises(PlanError, match="is no accelerate configuration .*; correct engine.launch, or set it to"):
            configuration(str(tmp_path / f"{number}.yaml"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path, monkeypatch):
    """As `accelerate launch` does: known keys only, and what the file says reaches the environment of the processes."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import prepare_multi_gpu_env

    monkeypatch.setattr(os, "environ", dict(os.environ))
    loaded, values = load_config_from_file(str(path)), yaml.safe_load(path.read_text())
    assert loaded.num_processes == values["num_processes"]
    args, *_ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", str(path), "--mixed_precision", "no", "script.py"])
    )
    if "zero3" in path.stem:
        assert args.use_deepspeed and args.zero_stage == 3 and args.zero3_init_flag is True
    elif "fsdp2" in path.stem:
        assert args.use_fsdp and args.fsdp_version == 2
        environment = prepare_multi_gpu_env(args)
        assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
        assert environment["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
    machines, devices = (path.stem.split("-")[1].split("x") + [""])[:2] if "x" in path.stem else ("1", "")
    if devices:
        assert (args.num_machines, args.num_processes) == (int(machines), int(machines) * int(devices))


@pytest.fixture
def two_machines(monkeypatch):
    """Two Ray nodes on this computer."""
    ray = pytest.importorskip("ray", reason="Ray is for clusters, requirements-gpu.txt")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "tests"))))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def two_machine_configuration(folder, machines=2):
    values = yaml.safe_load((ROOT / "configs" / "cpu-2.yaml").read_text())
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(values | {"num_machines": machines, "num_processes": machines}))
    return str(path)


@pytest.mark.timeout(280)
def test_two_machines_give_the_model_of_one(tmp_path, base, monkeypatch, two_machines):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    weights = {}
    for name, launched in (("here", "none"), ("there", two_machine_configuration(tmp_path))):
        run, scratch = a_run(tmp_path / "run", base, launched), scratch_of(tmp_path, f"s-{name}")
        launch(run, training.reward_model, tmp_path / name, scratch, "training", pairs="pairs")
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    for name, one in weights["here"].items():
        torch.testing.assert_close(weights["there"][name], one, rtol=1e-4, atol=1e-4)

    run = a_run(tmp_path / "run", base, two_machine_configuration(tmp_path, machines=3))
    with pytest.raises(LaunchError, match="asks for 3 machines, the Ray cluster has 2; run `ray start"):
        launch(run, training.reward_model, tmp_path / "out", scratch_of(tmp_path, "s3"), "RM", pairs="pairs")
