"""Servers that we start: the pocket policy behind a real one, and what is said when there is none."""

import gc
import os
import sys
import time

import psutil
import pytest
from served import serve
from tiny_models import save_tiny_policy

from acelib.core import CourseError, EngineError, ModelError
from acelib.core.profiles import ROOT, load_profile
from acelib.engine import serving
from acelib.engine.serving import open_sampler, reply_settings
from acelib.models.generation import load_tokenizer, stop_tokens
from acelib.models.params import SamplingParams
from acelib.models.server import Server
from acelib.sampling import sample_replies

QUESTIONS = {
    "a": [{"role": "user", "content": "Write a function `f(xs)` that returns the sum of the list of integers."}],
    "b": [{"role": "user", "content": "Write a function `g(xs)` that returns the length of the list of integers."}],
}
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=60, batch_size=2, seed=0)


def gone(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_a_server_of_our_own_gives_the_replies_of_the_folder_and_ends_when_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # which leads nowhere
    monkeypatch.delenv("NO_PROXY", raising=False)
    profile, environment = load_profile("pocket"), dict(os.environ)
    here, tokenizer = open_sampler(profile, profile.models.policy, tmp_path)
    expected = sample_replies(here, tokenizer, QUESTIONS, GREEDY, log=tmp_path / "here.jsonl")
    assert all("return" in replies[0] for replies in expected.values())

    server = serve(profile.resolve(profile.models.policy), tmp_path)
    assert sample_replies(server, None, QUESTIONS, GREEDY, log=tmp_path / "served.jsonl") == expected

    assert os.environ == environment

    pid = server.process.popen.pid
    assert server.trouble() is None and not gone(pid, 0.1)
    del server
    gc.collect()
    assert gone(pid)


@pytest.mark.slow
def test_a_server_that_dies_says_so_at_once_and_the_next_one_goes_on_from_its_replies(tmp_path):
    model = save_tiny_policy(tmp_path / "model")
    server, log = serve(model, tmp_path), tmp_path / "served.jsonl"
    first = dict(list(QUESTIONS.items())[:1])
    done = sample_replies(server, None, first, GREEDY, log=log)
    psutil.Process(server.process.popen.pid).kill()
    assert gone(server.process.popen.pid)
    with pytest.raises(CourseError, match=r"exit status -9.*Repeat the command"):
        sample_replies(server, None, QUESTIONS, GREEDY, log=log)
    assert sample_replies(server, None, first, GREEDY, log=log) == done  # from the log: nobody is asked
    server.close()


def test_a_server_that_cannot_start_gives_its_last_words(tmp_path):
    with pytest.raises(EngineError, match=r"exit status 1.*no\(card\).*repeat the command"):
        serve("m/m", tmp_path, "-c raise(SystemExit('no(card)'))")


@pytest.mark.slow
def test_a_server_that_never_answers_is_ended(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(serving, "Child", lambda *a, made=serving.Child: started.append(made(*a)) or started[0])
    with pytest.raises(EngineError, match="did not answer within 1 s"):
        serve("m/m", tmp_path, "-c __import__('time').sleep(60)", start_seconds=1.0)
    assert gone(started[0].popen.pid)


def test_an_engine_that_is_not_installed(tmp_path, monkeypatch):
    profile = load_profile("pocket", {"engine.generation": "vllm"})
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="pip install -r requirements-gpu.txt"):
        open_sampler(profile, profile.models.policy, tmp_path)
    with pytest.raises(ModelError, match="no model folder"):
        open_sampler(profile, "data/models/none", tmp_path)


def test_what_the_profile_says_is_what_is_opened(tmp_path):
    profile = load_profile("pocket")
    address = "http://127.0.0.1:9/v1#m"
    model, tokenizer = open_sampler(profile, address, tmp_path, (profile.remote, tmp_path / "paid"))
    assert type(model) is Server and model.log == tmp_path / "paid" and tokenizer is None
    with pytest.raises(ModelError, match="needs the weights"):
        open_sampler(profile, address, tmp_path)
    assert reply_settings(profile) == {"generation": "transformers", "dtype": "float32", "device": "auto"}


def test_the_command_line_of_vllm_names_every_option(tmp_path, monkeypatch):
    """vLLM itself needs a GPU: what it is told is checked here, that it understands it is not."""
    told = []
    monkeypatch.setattr(serving, "find_spec", lambda name: name)
    monkeypatch.setattr(serving, "Child", lambda command, log: told.append(command) or _Silent())
    monkeypatch.setattr(serving, "_wait", lambda *args: None)
    monkeypatch.setattr(serving.torch.cuda, "device_count", lambda: 8)
    profile = load_profile(
        "pocket", {"engine.generation": "vllm", "engine.vllm_parallel": 2, "models.dtype": "bfloat16"}
    )
    server, tokenizer = open_sampler(profile, profile.models.policy, tmp_path)
    line = " ".join(told[0])
    assert told[0][0] == sys.executable and tokenizer is None and server.limits.dollars_per_million_output == 0
    assert f"serve {profile.resolve('data/models/policy')} --host 127.0.0.1 --port " in line
    assert "--dtype bfloat16 --tensor-parallel-size 2 --data-parallel-size 4 --gpu-memory-utilization 0.90 " in line
    assert line.endswith("--generation-config vllm --disable-uvicorn-access-log")  # no top-k or penalty of the model's
    assert server.options == {"stop_token_ids": stop_tokens(None, load_tokenizer(ROOT / "data/models/policy"))}
    assert server.url.rpartition(":")[2] == f"{told[0][told[0].index('--port') + 1]}/v1"


class _Silent:
    def status(self):
        return None
