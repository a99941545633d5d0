"""The Ray backend on a local cluster of two nodes: same reports, same order, also when a node dies."""

import threading
import time
from pathlib import Path

import pytest

from acelib.judge import Judge, JudgeError, Limits, Submission, on_ray

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=20)


def made(count: int) -> list[Submission]:
    return [Submission(f"def f(x): return x + {i}", [f"assert f(1) == {1 + i % 50}"]) for i in range(count)]


def test_without_ray_it_says_what_to_do(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(JudgeError, match="pip install ray"):
        Judge(backend="ray").run(made(1))


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="Ray is an optional extra")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    root = str(Path(on_ray.__file__).parents[2])
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.timeout(280)
def test_two_nodes_then_one(cluster):
    submissions = made(600) + [Submission("def f(x:", ["assert f(1)"]), Submission(None, ["assert f(1)"])]
    with Judge(workers=2, limits=LIMITS) as local:
        expected = [r.verdicts for r in local.run(submissions)]
    with Judge(workers=2, limits=LIMITS, backend="ray") as judge:
        assert [r.verdicts for r in judge.run(submissions)] == expected

        node = next(n for n in cluster.worker_nodes)
        killer = threading.Thread(target=lambda: (time.sleep(0.5), cluster.remove_node(node, allow_graceful=False)))
        killer.start()
        again = [r.verdicts for r in judge.run(submissions)]
        killer.join()
        assert again == expected
