"""Tests write no cache outside the checkout and reach no hub, like the course itself."""

import os
import resource
import time
from contextlib import ExitStack

# Read once, when the libraries are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_gcs_server_port_wait_time_s"] = "200"  # noqa: SIM112  instead of 20 and 60: this machine may be busy
os.environ["RAY_gcs_server_request_timeout_seconds"] = "200"  # noqa: SIM112
os.environ |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}  # 3000 and 10000: 65 s
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # as many workers as cores: two threads each would wait for each other

import pytest
from ray_nodes import PATIENCE, start_node

from acelib.core.files import write_json
from acelib.core.processes import peak_memory_mb
from acelib.core.profiles import ROOT
from acelib.course import contain
from runner.report import TEST_RECORD

contain()
STARTED = time.monotonic()


RAY = ExitStack()
# Fixtures that take long and serve many tests.
SHARED = ("cluster", "smoke_run", "in_two", "said", "full_disk", "alone")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Tests that share what takes long stay on one worker. They and other slow ones come first, those on Ray before
    all, so that the workers end together."""
    for item in items:
        arguments = item.callspec.params if hasattr(item, "callspec") else {}  # of that name, they are no fixtures
        shared = next((one for one in SHARED if one in item.fixturenames and one not in arguments), None)
        if shared:
            item.add_marker(pytest.mark.slow)
        if shared and getattr(config.option, "loadgroup", False):
            # What xdist 3.8 does for its mark `xdist_group`, but pytest 9.2 keeps the id in another attribute.
            item._id = item.parent.id.child(f"{item.name}@{shared}")
    items.sort(key=lambda item: ("cluster" not in item.fixturenames, item.get_closest_marker("slow") is None))


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
    RAY.callback(cluster.shutdown)
    RAY.callback(ray.shutdown)
    yield cluster
    RAY.close()


def pytest_runtest_teardown(item, nextitem):
    """Ray's servers end with the last test that wants them, as they would slow the others down."""
    if "cluster" in item.fixturenames and "cluster" not in getattr(nextitem, "fixturenames", ()):
        RAY.close()


@pytest.fixture
def cluster(_ray):
    """Ray on two nodes of one processor each, both on this machine, and joined; a test may remove the second one."""
    if not _ray.worker_nodes:
        start_node(lambda: _ray.add_node(num_cpus=1, wait=False))
    _ray.wait_for_nodes(timeout=PATIENCE)
    return _ray


def pytest_sessionfinish(session, exitstatus):
    """A complete, green `make test` leaves its cost for the report."""
    config = session.config
    chosen = (
        config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.markexpr or config.option.keyword
    )
    if exitstatus == 0 and not chosen and not hasattr(config, "workerinput"):
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        reports = config.pluginmanager.get_plugin("terminalreporter").stats
        write_json(
            TEST_RECORD,
            {
                "seconds": round(time.monotonic() - STARTED, 1),
                "largest_process_mb": max(peak_memory_mb(), children),
                "tests": len(reports.get("passed", [])) + len(reports.get("skipped", [])),
                "finished": time.strftime("%Y-%m-%d %H:%M"),
            },
        )
