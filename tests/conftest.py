"""Tests write no cache outside the checkout and reach no hub, like the course itself."""

import os
import resource
import time

# Read once, when the libraries are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_gcs_server_port_wait_time_s"] = "200"  # noqa: SIM112  instead of 20 and 60: this machine may be busy
os.environ["RAY_gcs_server_request_timeout_seconds"] = "200"  # noqa: SIM112

import pytest
from ray_nodes import PATIENCE, start_node

from acelib.core.files import write_json
from acelib.core.processes import peak_memory_mb
from acelib.core.profiles import ROOT
from acelib.course.report import TEST_RECORD
from acelib.course.runner import contain

contain()
STARTED = time.monotonic()


def pytest_collection_modifyitems(items):
    """Tests on Ray come last: its processes would slow the others down."""
    items.sort(key=lambda item: "cluster" in item.fixturenames)


@pytest.fixture(scope="session")
def _ray():
    ray = pytest.importorskip("ray", reason="Ray is an optional extra: see requirements-test.txt")
    from ray.cluster_utils import Cluster

    lean = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    try:
        cluster = start_node(lambda: Cluster(initialize_head=True, head_node_args=lean))
        ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
    except Exception as error:  # a container may forbid what Ray's own servers need; that is no fault of the course
        pytest.skip(f"Ray does not start on this machine: {error}")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def cluster(_ray):
    """Ray on two nodes of one processor each, both on this machine, and joined; a test may remove the second one."""
    if not _ray.worker_nodes:
        start_node(lambda: _ray.add_node(num_cpus=1, wait=False))
    _ray.wait_for_nodes(timeout=PATIENCE)
    return _ray


def pytest_sessionfinish(session, exitstatus):
    """A complete, green `make test` leaves its cost for the report."""
    if exitstatus == 0 and not session.config.invocation_params.args:
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        write_json(
            TEST_RECORD,
            {
                "seconds": round(time.monotonic() - STARTED, 1),
                "largest_process_mb": max(peak_memory_mb(), children),
                "tests": session.testscollected,
                "finished": time.strftime("%Y-%m-%d %H:%M"),
            },
        )
