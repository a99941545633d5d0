"""The pocket teacher behind `transformers serve`: the same questions as from the same weights in this process."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from acelib.models import load_policy, load_tokenizer
from acelib.profiles import load_profile
from acelib.synthesis import imagine, load_seeds, problems_from_replies


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    profile = load_profile("pocket")
    model = profile.resolve(profile.models.teacher)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = ["-m", "transformers.cli.transformers", "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as handle:
        server = subprocess.Popen([sys.executable, *command, "--device", "cpu", "--dtype", "float32"],
                                  env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=handle, stderr=handle)  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1#{model}"
    finally:
        server.kill()
        server.wait()


def test_the_same_questions_over_http_as_from_the_folder(address, tmp_path):
    profile = load_profile("pocket", {"remote.concurrency": 2})
    seeds = load_seeds(profile.resolve(profile.data.seeds))[:2]
    found = []
    for name in (profile.resolve(profile.models.teacher), address):
        replies = imagine(
            load_policy(name, "float32", "cpu", (profile.remote, tmp_path / "paid.jsonl")),
            load_tokenizer(name),
            seeds,
            prompt=profile.prompts.teacher,
            temperature=0.0,
            max_new_tokens=500,
            batch_size=2,
            seed=0,
            log=tmp_path / "replies.jsonl",
        )
        found.append(problems_from_replies(replies))
    assert found[0] == found[1] and len(found[0][0]) == 2
