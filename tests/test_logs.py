"""What a kill, a full disk and a second process leave of a log."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from acelib.core import ArtifactError, FullDiskError, logs
from acelib.core.logs import end_of_records, open_log
from acelib.core.profiles import ROOT


def contents(path):
    with open_log(path) as log:
        return list(log.records())


def process(code, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, stderr=subprocess.PIPE)


ENDLESS = """
import sys
from pathlib import Path
from acelib.core.logs import open_log
number = 0
while True:  # opened, read and added to, again and again: whenever the kill comes, it is one of these
    with open_log(Path(sys.argv[1])) as log:
        number = sum(1 for _ in log.records())
        log.append(*({"number": number + i, "text": "x" * 50_000} for i in range(2)))
"""


def test_a_kill_at_any_moment_loses_no_whole_record(tmp_path):
    path, known = tmp_path / "log", 0
    for moment in range(4):
        child, deadline = process(ENDLESS, path), time.monotonic() + 60
        goal = end_of_records(path) + 400_000 + 7_000 * moment
        while (not path.exists() or path.stat().st_size < goal) and time.monotonic() < deadline:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stderr.close()
        whole = path.read_bytes().count(b"\n")
        with path.open("ab") as file:
            file.write(b'{"number": 3, "te')  # which the kill may or may not have left by itself
        found = contents(path)
        assert [one["number"] for one in found] == list(range(whole)) and whole > known
        assert path.stat().st_size == end_of_records(path)
        known = whole


FULL = """
import resource, signal, sys
from pathlib import Path
from acelib.core.errors import FullDiskError
from acelib.core.logs import open_log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with open_log(Path(sys.argv[1])) as log:
        for number in range(9):
            log.append({"number": number, "text": "x" * 30_000})
except FullDiskError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_one_sentence_and_keeps_what_was_written(tmp_path):
    path = tmp_path / "log"
    child = process(FULL, path)
    said = child.communicate()[1].decode()
    assert child.returncode == 1 and said.startswith("The disk is full: log could not be written to"), said
    assert path.stat().st_size == 100_000 and end_of_records(path) < 100_000
    assert [one["number"] for one in contents(path)] == [0, 1, 2]


def test_one_process_at_a_time_where_the_disk_knows_locks(tmp_path, monkeypatch):
    with open_log(tmp_path / "log") as log, pytest.raises(ArtifactError, match="Another process writes to .*log; wait"):
        log.append({"a": 1})
        contents(tmp_path / "log")

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(logs.fcntl, "flock", no_locks)
    assert contents(tmp_path / "log") == [{"a": 1}]


def test_a_line_that_is_no_record_is_named(tmp_path):
    for line in ("oops", "7", json.dumps([1])):
        (tmp_path / "log").write_text(f'{{"a": 1}}\n{line}\n')
        with pytest.raises(ArtifactError, match="log has a line that is no record, .*; remove it"):
            contents(tmp_path / "log")


def test_a_full_disk_in_the_block_is_explained_and_other_errors_are_not(tmp_path):
    for error, expected in ((OSError(errno.ENOSPC, "full"), FullDiskError), (KeyError("x"), KeyError)):
        with pytest.raises(expected), open_log(tmp_path / "log"):
            raise error
