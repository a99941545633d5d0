"""A hub that refuses, limits, is not there or must not be asked: one sentence each, with its remedy."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from acelib.core.hub import hub_problem
from acelib.core.profiles import ROOT

ANSWERS = {  # what the hub says of o/<name>: status, X-Error-Code, X-Error-Message
    "gated": (403, "GatedRepo", "Access to this repository is restricted"),
    "login": (401, "GatedRepo", "Access to this repository is restricted"),
    "typo": (401, "RepoNotFound", "Repository not found"),
    "gone": (404, "RepoNotFound", "Repository not found"),
    "token": (401, "", "Invalid credentials in Authorization header"),
    "rights": (403, "", "Forbidden"),
    "empty": (404, "EntryNotFound", "Entry not found"),
    "often": (429, "", "Too Many Requests"),
    "broken": (500, "", "Internal Server Error"),
    "down": (503, "", "Service Unavailable"),
}
# Its settings are read when the hub's client is imported, hence a process of its own.
SCRIPT = """
import json, os, sys, time
time.sleep = lambda seconds: None  # between the client's own tries
from acelib.core.errors import CourseError
from acelib.models import load_policy, load_tokenizer
from tools.publish import push
from acelib.models.reward_heads import load_classifier
from tools.sources import open_source
def push_home(name):
    push(os.environ["HF_HOME"], name, ["README.md"], private=True)
said = {}
for name in sys.argv[1:]:
    for load in (load_policy, load_tokenizer, load_classifier, open_source, push_home):
        try:
            load(f"o/{name}")
        except CourseError as error:
            said[f"{load.__name__} {name}"] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(self.path.partition("o/")[2])

    def do_POST(self):  # a push begins by making the repository
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["name"])

    def answer(self, asked):
        status, code, message = next(answer for name, answer in ANSWERS.items() if asked.startswith(name))
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def asking(home, endpoint, *names, **environment):
    environment = {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *names],
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Error and message of every loader for every case."""
    home = tmp_path_factory.mktemp("home")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    closed = "http://127.0.0.1:9"
    children = [
        asking(home, f"http://127.0.0.1:{server.server_address[1]}", *ANSWERS),
        asking(home, closed, "closed"),
        asking(home, closed, "offline", HF_HUB_OFFLINE="1"),
    ]
    found = {}
    for child in children:
        out, err = child.communicate(timeout=280)
        assert child.returncode == 0, err[-2000:]
        found |= json.loads(out)
    server.shutdown()
    server.server_close()
    return found


CASES = [
    ("gated", r"is gated; accept its terms at http://127.0.0.1:\d+/(datasets/)?o/gated and log in .* HF_TOKEN\.$"),
    ("login", "is gated; accept its terms at"),
    ("typo", "^There is no (model|data set) o/typo on the hub, or it is private; correct the name, or"),
    ("gone", "^There is no (model|data set) o/gone on the hub"),
    ("token", r"refuses the token .*\(401\); make a new one"),
    ("rights", r"forbids reading o/rights \(403\); give your token read access"),
    ("often", r"hub limits how often it is asked for o/often \(429\); log in .*, and repeat in some minutes"),
    ("broken", "hub fails with 500 for o/broken; repeat the command in some minutes"),
    ("down", "hub fails with 503 for o/down; repeat the command in some minutes"),
    ("closed", r"hub at http://127.0.0.1:9 cannot be reached for o/closed \(.*refused\); check the network, a proxy"),
    ("offline", "offline is not in .*hub, and HF_HUB_OFFLINE keeps this process .* with `hf download o/offline"),
]
LOADERS = {
    "load_policy": "ModelError",
    "load_tokenizer": "ModelError",
    "load_classifier": "ModelError",
    "open_source": "DataError",
}


@pytest.mark.parametrize(("name", "expected"), CASES, ids=[name for name, _ in CASES])
def test_each_case_has_its_own_sentence_from_every_loader(said, name, expected):
    for loader, kind in LOADERS.items():
        error, message = said[f"{loader} {name}"]
        assert error == kind and re.search(expected, message), (loader, message)
        assert "\n" not in message and message.count(". ") == 0, message


HF = ("HF_HOME", "HF_TOKEN_PATH", "HF_TOKEN")
PUSHES = {
    "typo": "There is no data set o/typo on the hub",
    "token": "takes nothing for o/token without a token .* HF_TOKEN",
    "rights": r"forbids writing to o/rights \(403\); correct the owner, or allow your token to write",
    "closed": r"hub at http://127.0.0.1:9 cannot be reached for o/closed \(.*\); .* and repeat the command",
    "offline": "HF_HUB_OFFLINE keeps this process from the network and so from o/offline; unset it",
}


@pytest.mark.parametrize("name", PUSHES)
def test_a_push_that_fails_says_why(said, name):
    error, message = said[f"push_home {name}"]
    assert error == "DataError" and re.search(rf"could not be pushed to o/{name}: .*{PUSHES[name]}", message), message
    assert "\n" not in message


@pytest.mark.parametrize(
    "places", [{}, {"XDG_CACHE_HOME": "{home}/cache"}, {"HF_HOME": "{home}/hf"}], ids=["home", "cache", "hub"]
)
@pytest.mark.slow
def test_the_login_of_hf_auth_is_found_though_caches_move(tmp_path, places):
    places = {name: place.format(home=tmp_path) for name, place in places.items()}
    kept = {name: one for name, one in os.environ.items() if name not in ("XDG_CACHE_HOME", *HF)}
    script = "from acelib.course import contain; {}from huggingface_hub import get_token, constants; {}"

    def say(*lines):
        ran = subprocess.run(
            [sys.executable, "-c", script.format(*lines)],
            text=True,
            capture_output=True,
            env=kept | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)} | places,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    token = Path(say("", "print(constants.HF_TOKEN_PATH)"))
    assert token.is_relative_to(tmp_path)
    token.parent.mkdir(parents=True)
    token.write_text("hf_mine")
    assert say("contain(); contain(); ", "print(get_token())") == "hf_mine"


@pytest.mark.parametrize("module", ["tools.harness", "experiments.real_recipe"])
@pytest.mark.slow
def test_a_command_of_its_own_keeps_weights_in_the_checkout(tmp_path, module):
    kept = {name: one for name, one in os.environ.items() if name not in ("XDG_CACHE_HOME", *HF)}
    script = f"import {module}; from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        text=True,
        capture_output=True,
        cwd=ROOT,
        env=kept | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert Path(ran.stdout.strip()).is_relative_to(ROOT / ".cache"), ran.stderr


def test_a_repository_without_a_model_is_no_fault_of_the_hub(said):
    assert "holds no causal language model" in said["load_policy empty"][1]
    assert "has no tokenizer that can be loaded" in said["load_tokenizer empty"][1]


def test_a_hub_that_never_answers_cannot_be_reached(monkeypatch):
    """The client itself waits through six tries of ten seconds each, so its error is made here."""
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OSError) as caught:
        try:
            httpx.head("http://{}:{}/o/slow".format(*silent.getsockname()), timeout=0.1, trust_env=False)
        except httpx.TimeoutException as error:
            raise OSError("We couldn't connect to the hub") from error
    assert re.fullmatch(
        r"The hub at \S+ cannot be reached for o/slow \(timed out\); check the network, a proxy .*\.",
        hub_problem(caught.value, "o/slow"),
    )


def test_other_errors_are_not_blamed_on_the_hub():
    assert hub_problem(OSError(28, "No space left on device"), "o/model") is None
    assert hub_problem(ValueError("no config"), "o/model") is None
