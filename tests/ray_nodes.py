"""Nodes of a Ray cluster on this machine."""

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

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
