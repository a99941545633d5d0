"""Nodes of a Ray cluster on this machine."""

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import psutil

PATIENCE = 200  # seconds


def start_node(start: Callable[[], Any]) -> Any:
    """What `start()` returns. Ray gives a node 30 s to show up, less than it takes on a machine with other work."""
    from ray._private import services

    ask, deadline = services.get_node, time.monotonic() + PATIENCE

    def ask_until_it_answers(*args):
        while True:
            try:
                return ask(*args)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    with mock.patch.object(services, "get_node", ask_until_it_answers):
        return start()


def lose(cluster: Any, node: Any) -> None:
    """The node and at once all that runs on it, as when a machine goes: left alone, its workers live on for seconds."""
    for raylet in node.all_processes["raylet"]:
        for process in psutil.Process(raylet.process.pid).children(recursive=True):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)
