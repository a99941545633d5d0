"""A teacher or a proxy behind any OpenAI-compatible server: each reply is paid for once, and never beyond a cap.

The profile names such a model by an address, `https://host/v1#model`; the key comes from OPENAI_API_KEY alone. Every
reply is appended to a log of the run before anybody reads it, so a stop at any moment loses at most what is in flight.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from acelib.core import ArtifactError, EngineError, Log, Progress, Remote, open_log


@dataclass(frozen=True)
class Server:
    """A model behind a server, for `acelib.sampling` in place of a loaded one.

    `log` holds all replies paid for; None logs where the stage logs.
    """

    url: str
    model: str
    limits: Remote
    log: Path | None

    def trouble(self) -> str | None:
        """Why it will never answer again, where that is known."""
        return None


@dataclass(frozen=True)
class Request:
    name: str  # of the conversation
    body: dict[str, Any]  # of the HTTP request


def is_address(name: str | Path) -> bool:
    return str(name).startswith(("http://", "https://"))


def connect(address: str, limits: Remote, log: Path | None) -> Server:
    """The server at `http(s)://host/v1#model`; nothing is sent yet. Raises EngineError for any other form."""
    url, _, model = address.partition("#")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  a wrong one raises here
    except ValueError as error:
        raise EngineError(f"{url} is no address ({error}); write http://host:8000/v1#model.") from None
    if parts.username or parts.password or parts.query:
        raise EngineError(
            f"The address of a model on {parts.hostname} holds more than host and path; give a key in the environment "
            "variable OPENAI_API_KEY, and nowhere else."
        )
    if not parts.hostname or not model:
        raise EngineError(f"{address} names no model; write http://host:8000/v1#model under `models` in the profile.")
    return Server(url.rstrip("/"), model, limits, log)


def remote_replies(
    server: Server,
    conversations: dict[str, list[dict[str, str]]],
    *,
    n: int,
    temperature: float,
    top_p: float = 1.0,
    max_new_tokens: int,
    seed: int,
    json_schema: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, list[str]]:
    """`n` raw replies for each conversation, keyed as given; what `sample_replies` does with a local model.

    Requests that are in the log are not sent again, whatever the server's address: they are told apart by model,
    messages and sampling values. `json_schema` asks for structured output where the server has it. A refusal is a
    reply: the server's words where they are one, else an empty text; how many were empty is printed. Raises
    EngineError, with a remedy, when the server cannot be used, refuses too often, or the cap is reached.
    """
    response_format = {"type": "json_schema", "json_schema": {"name": "reply", "schema": json_schema, "strict": True}}
    wanted: dict[str, list[str]] = {}
    requests: dict[str, Request] = {}
    for name, messages in conversations.items():
        body = {"model": server.model, "messages": messages, "temperature": temperature, "max_tokens": max_new_tokens}
        body |= {"top_p": top_p} if top_p < 1 else {}
        body |= {"response_format": response_format} if json_schema else {}
        bodies = [body | ({"seed": seed + i} if temperature > 0 else {}) for i in range(n)]
        keys = [hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest() for one in bodies]
        requests.update((key, Request(name, one)) for key, one in zip(keys, bodies, strict=True))
        wanted[name] = keys
    with open_log(server.log) as log:
        ledger = Ledger(log)
        replies = ledger.read(requests.keys())
        if len(replies) < len(requests):
            from acelib.models.client import send  # loads the client only where there is a server

            send(server, ledger, requests, replies, progress)
    if progress:
        progress(len(requests), len(requests))
    if refused := ledger.refused:
        print(
            f"{len(refused):,} of {len(requests):,} requests were refused by {server.url} and count as empty replies "
            f"(most often: {usual(refused)}); they are asked again once their lines are removed from {server.log}."
        )
    return {name: [replies[key] for key in keys] for name, keys in wanted.items()}


class Ledger:
    """The log of what was paid for. `dollars` is the sum of all; `refused` tells of the wanted requests, by key, why
    the server will not answer them."""

    def __init__(self, log: Log):
        self.log, self.dollars, self.refused = log, 0.0, {}

    def read(self, wanted: Collection[str]) -> dict[str, str]:
        """The replies whose key is wanted. Raises ArtifactError."""
        replies = {}
        name = self.log.file.name
        for record in self.log.records():
            try:
                self.dollars += record["dollars"]
                if "reply" in record and record["key"] in wanted:
                    replies[record["key"]] = record["reply"]
                    if "refused" in record:
                        self.refused[record["key"]] = record["refused"]
            except (KeyError, TypeError):
                raise ArtifactError(f"{name} has a line that is no reply, {record!s:.40}; remove it.") from None
        return replies

    def append(self, **record: Any) -> None:
        self.log.append(record)
        self.dollars += record["dollars"]
        if "refused" in record:
            self.refused[record["key"]] = record["refused"]


def usual(reasons: dict[str, str]) -> str:
    """The reason that is given most often."""
    return Counter(reasons.values()).most_common(1)[0][0]
