"""Tests write no cache outside the checkout and reach no hub, like the course itself."""

import os
import resource
import time

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the library is imported

from acelib.artifacts import peak_memory_mb, write_json
from acelib.course import contain
from acelib.report import TEST_RECORD

contain()
STARTED = time.monotonic()


def pytest_sessionfinish(session, exitstatus):
    """A complete, green `make test` leaves its cost for the report."""
    if exitstatus == 0 and not session.config.invocation_params.args:
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        write_json(TEST_RECORD, {
            "seconds": round(time.monotonic() - STARTED, 1), "largest_process_mb": max(peak_memory_mb(), children),
            "tests": session.testscollected, "finished": time.strftime("%Y-%m-%d %H:%M"),
        })  # fmt: skip
