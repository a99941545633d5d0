"""A teacher or a proxy behind any OpenAI-compatible server: each reply is paid for once, and never beyond a cap.

The profile names such a model by an address, `https://host/v1#model`; the key comes from OPENAI_API_KEY alone. Every
reply is appended to a log of the run before anybody reads it, so a stop at any moment loses at most what is in flight.
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from acelib.errors import CourseError
from acelib.profiles import Remote

Progress = Callable[[int, int], None]


class RemoteError(CourseError):
    """A server that cannot be used, or whose next reply could cost more than agreed."""


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
    """The server at `http(s)://host/v1#model`; nothing is sent yet. Raises RemoteError for any other form."""
    url, _, model = address.partition("#")
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise RemoteError(
            f"The address of a model on {parts.hostname} holds more than host and path; give a key in the environment "
            "variable OPENAI_API_KEY, and nowhere else."
        )
    if not parts.hostname or not model:
        raise RemoteError(f"{address} names no model; write http://host:8000/v1#model under `models` in the profile.")
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
    reply. Raises RemoteError, with a remedy, when the server cannot be used or the cap is reached.
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
    with _open_ledger(server.log) as ledger:
        replies = ledger.read(requests.keys())
        if len(replies) < len(requests):
            from acelib.remote_client import send  # loads the client only where there is a server

            send(server, ledger, requests, replies, progress)
    if progress:
        progress(len(requests), len(requests))
    return {name: [replies[key] for key in keys] for name, keys in wanted.items()}


class Ledger:
    """The log of what was paid for: JSON lines, flushed one by one. `dollars` is their sum."""

    def __init__(self, file: IO[bytes]):
        self.file, self.dollars = file, 0.0

    def read(self, wanted: Collection[str]) -> dict[str, str]:
        """The replies whose key is wanted; a last line cut by a crash is removed from the file."""
        replies = {}
        self.file.seek(0)
        for line in self.file:
            if not line.endswith(b"\n"):
                self.file.truncate(self.file.tell() - len(line))
                break
            try:
                record = json.loads(line)
                self.dollars += record["dollars"]
            except (ValueError, KeyError):
                raise RemoteError(f"{self.file.name} has a line that is no record, {line[:40]!r}; remove it.") from None
            if "reply" in record and record["key"] in wanted:
                replies[record["key"]] = record["reply"]
        return replies

    def append(self, **record: Any) -> None:
        self.file.write(json.dumps(record).encode() + b"\n")
        self.file.flush()
        self.dollars += record["dollars"]


@contextmanager
def _open_ledger(path: Path) -> Iterator[Ledger]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RemoteError(f"Another process writes to {path}; wait for it, or choose another RUN_DIR=.") from None
        yield Ledger(file)
