"""The same submissions, spread over the nodes of a Ray cluster.

Chunks of submissions travel as Ray tasks; each Ray worker process keeps one judge with one sandbox. Ray repeats the
tasks of a node that dies on the others, and a chunk's reports do not depend on where or how often it ran, so nothing is
lost and nothing changes. Ray is an optional extra: `pip install ray`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from acelib.core import ROOT, JudgeError
from acelib.judge import Judge, Limits, Report, Submission

CHUNK = 50
PATIENCE = 30.0  # seconds without any chunk before it is asked whether anybody is left
_judges: dict = {}  # in a Ray worker process: its judge, by settings


def join_cluster(address: str | None = None):
    """The ray module, connected: to the cluster the caller has joined, else to `address` ("auto": the one that this
    machine belongs to), else to RAY_ADDRESS, else to a new local one. Raises JudgeError."""
    try:
        import ray
    except ImportError:
        raise JudgeError(
            "Judging or sampling on a cluster needs Ray, an optional extra: pip install ray, or set "
            "engine.cluster to none."
        ) from None
    if not ray.is_initialized():
        try:
            host, _, port = (address or "").rpartition(":")
            if host and "//" not in address:  # where nobody listens, Ray itself tries for minutes
                socket.create_connection((host, int(port)), timeout=20).close()
            ray.init(address, runtime_env={"py_modules": [str(ROOT / "acelib")]}, log_to_driver=False)
        except (OSError, ValueError) as error:
            raise JudgeError(
                f"There is no Ray cluster to join at {address!r} ({error}); start one with `ray start --head`, and "
                "`ray start --address=<head>` on each further machine, or set engine.cluster to none."
            ) from None
    return ray


class ClusterJudge(Judge):
    """A judge whose sandboxes are on the nodes of a Ray cluster; `workers` counts processors of the cluster.

    If `acelib` is not installed on the nodes, join the cluster with a runtime environment that holds it. `run` raises
    JudgeError when Ray is missing or a node's machine does not allow the isolation.
    """

    def _execute(self, submissions: list[Submission], done: Callable[[int, Report], None]) -> None:
        ray = join_cluster()
        judge_chunk = ray.remote(num_cpus=1, max_retries=-1, scheduling_strategy="SPREAD")(_judge_chunk)
        flying = {
            judge_chunk.remote(submissions[start : start + CHUNK], self.limits, self._isolation): start
            for start in range(0, len(submissions), CHUNK)
        }
        try:
            while flying:
                ready, _ = ray.wait(list(flying), timeout=PATIENCE)
                if not ready and not ray.cluster_resources().get("CPU"):
                    raise JudgeError(
                        "The Ray cluster has no processor left to judge on; start its nodes again with "
                        "`ray start --address=<head>` and repeat the command."
                    )
                for reference in ready:
                    start = flying.pop(reference)
                    try:
                        reports = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise (error.cause if isinstance(error.cause, JudgeError) else error) from None
                    for offset, report in enumerate(reports):
                        done(start + offset, report)
        finally:
            for reference in flying:
                ray.cancel(reference, force=True)


def _judge_chunk(submissions: list[Submission], limits: Limits, isolation: str) -> list[Report]:
    key = (limits, isolation)
    if key not in _judges:
        _judges[key] = Judge(workers=1, limits=limits, isolation=isolation)
    return _judges[key].run(submissions)
