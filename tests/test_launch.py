"""Jobs of notebooks 04 and 06, in this process and through `accelerate launch`: the same models, the same errors."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest
import torch
import yaml
from ray_nodes import PATIENCE, start_node
from safetensors.torch import load_file
from test_reinforce import PROBLEMS
from test_reward_model import some_pairs
from tiny_models import save_tiny_policy, save_tiny_reward_model

from acelib.core import EngineError
from acelib.core.profiles import ROOT, load_profile
from acelib.core.run import Run
from acelib.core.tables import write_rows
from acelib.engine.launcher import LOG, _command, _on_machine, configuration, launch
from acelib.training import jobs as training
from acelib.training.checkpoints import last_checkpoint
from acelib.training.reinforce_trainer import ReinforceTrainer
from acelib.training.reward_trainer import QuestionRewardTrainer
from acelib.training.settings import LOG_FILE

TINY = {
    "threads": 2,
    "reward_model.batch_size": 8,
    "reward_model.epochs": 2.0,
    "reward_model.max_length": 96,
    "reward_model.micro_batch": 2,
    "reinforce.rollout_questions": 4,
    "reinforce.samples_per_question": 4,
    "reinforce.updates_per_rollout": 2,
    "reinforce.micro_batch": 4,
    "reinforce.steps": 2,
    "reinforce.max_new_tokens": 8,
    "reinforce.eval_every": 2,
    "reinforce.eval_questions": 2,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_policy(tmp_path_factory.mktemp("base"))


def a_run(folder, base, launched, **changes):
    benchmark = base / "benchmark.jsonl"
    write_rows(
        benchmark,
        [
            {"task_id": one.id, "question": one.question, "entry_point": "solve", "tests": ["assert solve(1) == 1"]}
            for one in PROBLEMS
        ],
    )
    names = {
        "models.policy": str(base),
        "reward_model.base": str(base),
        "engine.launch": launched,
        "data.benchmark": str(benchmark),
    }
    run = Run(folder, load_profile("pocket", TINY | names | changes))
    if run.manifest("pairs") is None:
        questions = [dataclasses.replace(one, tests=("assert solve(1) == 1",)) for one in PROBLEMS]
        run.table("pairs", lambda scratch: some_pairs(28))
        run.table("hard_questions", lambda scratch: questions)
        run.folder("reward_model", lambda path, _: save_tiny_reward_model(path) and None)
    return run


def scratch_of(folder, name):
    scratch = folder / name
    scratch.mkdir()
    return scratch


JOBS = {"reward_model": {"pairs": "pairs"}, "policy": {"reward": "reward_model"}}


def launched_model(folder, base, configuration, job):
    """The weights of a job's model by `engine.launch`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        run, scratch = a_run(folder / "run", base, configuration), scratch_of(folder, "scratch")
        launch(run, getattr(training, job), folder / "model", scratch, "training", **JOBS[job])
    assert json.loads((folder / "model" / LOG_FILE).read_text())
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, base):
    """The weights of both jobs' models, trained in this process."""
    models = {job: launched_model(tmp_path_factory.mktemp(job), base, "none", job) for job in JOBS}
    start = load_file(base / "model.safetensors")
    for model in models.values():
        assert max((model[name] - start[name]).abs().max() for name in start if name in model) > 1e-4
    return models


@pytest.mark.parametrize("job", JOBS)
def test_two_processes_give_the_model_of_one_and_say_how_far_they_are(tmp_path, base, alone, capfd, monkeypatch, job):
    monkeypatch.setenv("ACELIB_PROGRESS", str(tmp_path / "progress"))
    there = launched_model(tmp_path, base, "configs/cpu-2.yaml", job)
    for name, one in alone[job].items():
        torch.testing.assert_close(there[name], one, rtol=1e-4, atol=1e-4)
    told, said = json.loads((tmp_path / "progress").read_text()), capfd.readouterr().out
    assert told["done"] == told["total"] and told["label"] == "training" and "accelerate.commands.launch" in said
    if job == "policy":
        assert told["total"] == 2 and said.count("rollout 2: ") == 1 and "pass@1" in said


@pytest.mark.parametrize("job", JOBS)
def test_a_process_of_its_own(tmp_path, base, alone, job):
    here, there = alone[job], launched_model(tmp_path, base, "configs/gpu-1.yaml", job)
    assert here.keys() == there.keys() and all(torch.allclose(here[key], there[key], atol=1e-5) for key in here)


@pytest.mark.parametrize(("job", "times"), [("reward_model", 1), ("policy", 2)])
@pytest.mark.slow
def test_memory_that_does_not_suffice_halves_what_is_read_at_a_time_and_changes_no_update(
    tmp_path, base, alone, capsys, monkeypatch, job, times
):
    """At the second step of the run, and again at the first one after that."""
    steps, trainer = [], {"reward_model": QuestionRewardTrainer, "policy": ReinforceTrainer}[job]
    usual = trainer.training_step

    def full(self, *args, **kwargs):
        steps.append((self.state.global_step, self.args.per_device_train_batch_size))
        if len({size for _, size in steps}) <= times and self.state.global_step >= 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(trainer, "training_step", full)
    found = launched_model(tmp_path, base, "none", job)
    for name, one in alone[job].items():
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-4)
    sizes = sorted({size for _, size in steps}, reverse=True)
    said = capsys.readouterr().out
    assert len(sizes) == times + 1 and f"in the same updates, at most {sizes[1]} at a time" in said
    assert "The GPU's memory is full (CUDA out of memory. Tried to allocate 2.00 GiB)" in said


def test_vllm_beside_the_trainer_wants_a_process_of_its_own(tmp_path, base):
    run = a_run(tmp_path / "run", base, "none", **{"engine.generation": "vllm"})
    with pytest.raises(EngineError, match="set engine.launch to configs/gpu-1.yaml"):
        launch(run, training.policy, tmp_path / "out", scratch_of(tmp_path, "s"), "one", reward="rule")


@pytest.mark.slow
def test_an_error_in_a_process_is_one_sentence_here(tmp_path, base):
    run = a_run(tmp_path / "run", base, "configs/cpu-2.yaml", **{"reward_model.batch_size": 7})
    with pytest.raises(EngineError, match="cannot be shared by 2 processes; change the sizes in reward_model"):
        launch(run, training.reward_model, tmp_path / "out", scratch_of(tmp_path, "s"), "RM", pairs="pairs")


@pytest.mark.slow
def test_a_crash_names_its_log(tmp_path, base):
    run, scratch = a_run(tmp_path / "run", base, "configs/cpu-2.yaml"), scratch_of(tmp_path, "s")
    with pytest.raises(EngineError, match="TypeError.*goes on from its last checkpoint"):
        launch(run, training.policy, tmp_path / "out", scratch, "RL", nonsense=1)
    assert "unexpected keyword" in (scratch / LOG).read_text()


def test_a_configuration_that_is_not_there_or_is_none(tmp_path):
    with pytest.raises(
        EngineError, match="configs/zero9.yaml is no accelerate .*FileNotFound.*; set .* configs/cpu-2.yaml"
    ):
        configuration("configs/zero9.yaml")
    for number, text in enumerate(("", "a: [", "num_machines: 1", "num_processes: many")):
        (tmp_path / f"{number}.yaml").write_text(text)
        with pytest.raises(
            EngineError, match="is no accelerate configuration that says num_processes .*; set .*, or none"
        ):
            configuration(str(tmp_path / f"{number}.yaml"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path, tmp_path, monkeypatch):
    """As `accelerate launch` does: known keys only, and what the file says reaches torchrun and its processes."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import _filter_args, prepare_deepspeed_cmd_env, prepare_multi_gpu_env
    from torch.distributed import run as torchrun

    monkeypatch.setattr(os, "environ", dict(os.environ))
    config = configuration(str(path))
    kind, _, size = path.stem.partition("-")
    machines, devices = map(int, size.split("x") if "x" in size else ("1", size))
    command, _ = _command(Run(tmp_path, load_profile("pocket")), config, tmp_path / "job.json")
    if machines > 1:
        command = _on_machine(command, machines, "10.0.0.1", 1)
    args, found, _ = _validate_launch_command(launch_command_parser().parse_args(command[3:]))
    if kind == "zero3":
        assert args.use_deepspeed and args.zero_stage == 3 and args.zero3_init_flag is True
        args.deepspeed_fields_from_accelerate_config = ",".join(found.deepspeed_config)
        instead, environment = prepare_deepspeed_cmd_env(args)
        assert instead is None  # of torchrun: `deepspeed`, which wants ssh and a hostfile
        assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    else:
        environment = prepare_multi_gpu_env(args)
    if kind == "fsdp2":
        assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
        assert environment["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"

    script = ["--training_script", args.training_script, "--training_script_args", args.training_script_args]
    asked, _, words = torchrun.config_from_args(_filter_args(args, torchrun.get_args_parser(), script))
    assert (asked.min_nodes, asked.max_nodes, asked.nproc_per_node) == (machines, machines, devices)
    assert words[-3:] == ["-m", "acelib.engine.launcher", str(tmp_path / "job.json")]
    if machines > 1:
        assert asked.rdzv_endpoint == f"10.0.0.1:{command[command.index('--main_process_port') + 1]}"
        assert asked.rdzv_configs["rank"] == 1


KILLED = """
import sys
from pathlib import Path
from test_launch import a_run, launch, scratch_of, training

folder, base = map(Path, sys.argv[1:])
run = a_run(folder / "run", base, "configs/gpu-1.yaml", **{"reward_model.epochs": 100.0})
launch(run, training.reward_model, folder / "out", scratch_of(folder, "s"), "RM", pairs="pairs")
"""


@pytest.mark.slow
def test_a_killed_notebook_leaves_no_training_behind(tmp_path, base):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    notebook = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), str(base)], env=environment)
    try:
        while last_checkpoint(tmp_path / "s") is None:
            assert notebook.poll() is None
            time.sleep(0.05)
        there = psutil.Process(notebook.pid).children(recursive=True)
        assert sum("acelib.engine.launcher" in one.cmdline() for one in there) == 2  # accelerate's own and the training
    finally:
        notebook.kill()
    assert not psutil.wait_procs(there, timeout=PATIENCE)[1] and not (tmp_path / "out").exists()


def two_machine_configuration(folder):
    values = yaml.safe_load((ROOT / "configs" / "cpu-2.yaml").read_text())
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(values | {"num_machines": 2, "num_processes": 2}))
    return str(path)


def processes_of(node):
    """Those that train on a node of this machine: they are below its raylet."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [one for one in raylet.children(recursive=True) if "acelib.engine.launcher" in one.cmdline()]


def lose_power(cluster, scratch, stopped):
    """Once there is a checkpoint: from then on the second machine neither answers nor closes a connection."""
    node = next(iter(cluster.worker_nodes))
    while last_checkpoint(scratch) is None:
        time.sleep(0.05)
    stopped += processes_of(node)
    for process in stopped:
        process.suspend()
    cluster.remove_node(node, allow_graceful=False)


def test_a_machine_is_lost_and_the_command_repeated(tmp_path, base, monkeypatch, cluster, capfd):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("ACELIB_PROGRESS", raising=False)
    longer = {"reward_model.epochs": 20.0}
    run, scratch = a_run(tmp_path / "run", base, "none", **longer), scratch_of(tmp_path, "s-here")
    launch(run, training.reward_model, tmp_path / "here", scratch, "training", pairs="pairs")

    two, scratch = two_machine_configuration(tmp_path), scratch_of(tmp_path, "s")
    run = a_run(tmp_path / "run", base, two, **longer)
    stopped = []
    accident = threading.Thread(target=lose_power, args=(cluster, scratch, stopped))
    accident.start()
    try:
        with pytest.raises(EngineError, match="machine of the job was lost .*repeat the command, the job goes on from"):
            launch(run, training.reward_model, tmp_path / "there", scratch, "training", pairs="pairs")
    finally:
        accident.join()
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    assert len(stopped) >= 2  # accelerate's own and one that trains
    reached = int(last_checkpoint(scratch).name.partition("-")[2])
    assert reached < 60 and not (tmp_path / "there").exists()
    cluster.wait_for_nodes(timeout=PATIENCE)  # until Ray counts it no longer
    with pytest.raises(EngineError, match="asks for 2 machines, the Ray cluster has 1; run `ray start"):
        launch(run, training.reward_model, tmp_path / "there", scratch, "training", pairs="pairs")

    start_node(lambda: cluster.add_node(num_cpus=1))
    capfd.readouterr()
    launch(run, training.reward_model, tmp_path / "there", scratch, "training", pairs="pairs")
    first = re.search(r"training: ([\d.]+) of 60", capfd.readouterr().out)
    assert reached < float(first[1]) <= reached + 1
    here, there = (load_file(tmp_path / name / "model.safetensors") for name in ("here", "there"))
    for name in here:
        torch.testing.assert_close(there[name], here[name], rtol=1e-4, atol=1e-4)
