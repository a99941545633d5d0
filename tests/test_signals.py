"""`nohup make test &`, cron and CI start processes with SIGINT ignored; limits and stops work there, too."""

import os
import subprocess
import sys

import pytest

from acelib.core import ROOT

IGNORING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
THESE = (
    "test_course.py::test_a_stopped_run_leaves_no_process_and_resumes",
    "test_judge.py::test_interrupt_and_kill_leave_no_process_behind",
    "test_reinforce.py::test_a_reward_that_hangs_stops_the_run",
    "test_remote.py::test_a_stopped_process_goes_on_without_paying_twice",
)


@pytest.mark.slow
def test_where_sigint_is_ignored():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    ended = subprocess.run(
        [sys.executable, "-c", IGNORING, "-m", "pytest", "-p", "no:cacheprovider", *(f"tests/{one}" for one in THESE)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr
