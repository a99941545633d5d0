"""The Ray backend on a local cluster of two nodes: same reports, same order, also when a node dies."""

import threading
import time

import pytest

from acelib.engine.cluster import ClusterJudge
from acelib.judge import Judge, JudgeError, Limits, Submission

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=20)


def made(count: int) -> list[Submission]:
    return [Submission(f"def f(x): return x + {i}", [f"assert f(1) == {1 + i % 50}"]) for i in range(count)]


def test_without_ray_it_says_what_to_do(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(JudgeError, match="pip install ray"):
        ClusterJudge().run(made(1))


def test_two_nodes_then_one(cluster):
    submissions = made(600) + [Submission("def f(x:", ["assert f(1)"]), Submission(None, ["assert f(1)"])]
    with Judge(workers=2, limits=LIMITS) as local:
        expected = [r.verdicts for r in local.run(submissions)]
    with ClusterJudge(workers=2, limits=LIMITS) as judge:
        assert [r.verdicts for r in judge.run(submissions)] == expected

        node = next(n for n in cluster.worker_nodes)
        killer = threading.Thread(target=lambda: (time.sleep(0.5), cluster.remove_node(node, allow_graceful=False)))
        killer.start()
        again = [r.verdicts for r in judge.run(submissions)]
        killer.join()
        assert again == expected
