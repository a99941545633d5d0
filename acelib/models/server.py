"""A teacher or a proxy behind any OpenAI-compatible server, in place of a loaded model.

The profile names such a model by an address, `https://host/v1#model`; the key comes from OPENAI_API_KEY alone. What is
sent to it is in `models.client`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from acelib.core import EngineError, Remote


@dataclass(frozen=True)
class Server:
    """A model behind a server, for `acelib.sampling` in place of a loaded one.

    `log` holds all replies paid for; None logs where the stage logs. `options` go with every request.
    """

    url: str
    model: str
    limits: Remote
    log: Path | None
    options: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def trouble(self) -> str | None:
        """Why it will never answer again, where that is known."""
        return None


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
