"""What `acelib.remote` sends: requests side by side, with back-off, concessions to what the server lacks, and a cap.

The retries of the official client are off: they would not share a rate limit among the requests in flight, and would
hide from the cap that a lost connection may have been paid for.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai
from anyio.from_thread import start_blocking_portal

from acelib.remote import Ledger, Progress, RemoteError, Request, Server

TEMPLATE_TOKENS = 256  # what a chat template and a system prompt may add to a message
LONGEST_BACK_OFF = 30.0  # seconds, where the server names none
LONGEST_WAIT = 600.0  # seconds; a server that names more has closed for now


def send(
    server: Server,
    ledger: Ledger,
    requests: dict[str, Request],
    replies: dict[str, str],
    progress: Progress | None,
) -> None:
    """Add the missing replies to `ledger` and `replies`; both, and `requests`, by key. Raises RemoteError."""
    # In a thread of its own: a notebook's thread already runs an event loop. On Ctrl-C the portal cancels what runs.
    with start_blocking_portal() as portal:
        portal.call(Client(server, ledger, requests, replies, progress).run)


class Client:
    """Sends the missing requests, at most `limits.concurrency` at a time, and stops all of them at the first error."""

    def __init__(self, server: Server, ledger: Ledger, requests: dict[str, Request], replies: dict[str, str],
                 progress: Progress | None):  # fmt: skip
        self.server, self.limits, self.ledger, self.progress = server, server.limits, ledger, progress
        self.requests, self.replies = requests, replies
        self.flying, self.reserved = 0, 0.0  # requests in flight, and dollars they may cost
        self.answered, self.reached, self.not_before = 0, False, 0.0
        self.error: Exception | None = None
        self.concessions: frozenset[str] = frozenset()  # see `_shaped`

    async def run(self) -> None:
        self.changed, self.stopped = asyncio.Event(), asyncio.Event()
        missing = iter([item for item in self.requests.items() if item[0] not in self.replies])
        key = os.environ.get("OPENAI_API_KEY") or "none"  # servers of one's own ask for none, the client does
        async with openai.AsyncOpenAI(
            base_url=self.server.url, api_key=key, timeout=self.limits.timeout_seconds, max_retries=0
        ) as self.client:
            await asyncio.gather(*(self.work(missing) for _ in range(self.limits.concurrency)))
        if self.error:
            raise self.error

    async def work(self, missing: Iterator[tuple[str, Request]]) -> None:
        for key, request in missing:
            try:
                await self.ask(key, request.name, request.body)
            except Exception as error:  # raised by `run` once what is in flight, and will be paid for, is in
                self.error = self.error or error
                self.stopped.set()
                self.changed.set()
            if self.error:
                return
            if self.progress:
                self.progress(len(self.replies), len(self.requests))

    async def ask(self, key: str, name: str, body: dict[str, Any]) -> None:
        """One reply, into the log and `replies`, whatever has to be waited for or repeated on the way."""
        worst = self.price(len(json.dumps(body).encode()) + TEMPLATE_TOKENS, body["max_tokens"])
        concessions, failures, seen = self.concessions, 0, self.answered
        while await self.take_turn(worst):
            try:
                completion = await self.client.chat.completions.create(**_shaped(body, concessions))
                reply = _reply(completion)
            except (openai.APIError, ValueError) as caught:
                error = caught
            else:
                tokens = [(reply["usage"] or {}).get(f"{side}_tokens") for side in ("prompt", "completion")]
                cost = worst if None in tokens else self.price(*tokens)
                self.ledger.append(key=key, id=name, model=self.server.model, **reply, dollars=cost)
                self.replies[key] = reply["reply"]
                self.answered, self.reached, self.concessions = self.answered + 1, True, self.concessions | concessions
                return
            finally:
                self.flying, self.reserved = self.flying - 1, self.reserved - worst
                self.changed.set()
            status = _status(error)
            if status in (400, 422) and (more := _concession(_shaped(body, concessions), str(error))):
                concessions |= {more}
                continue
            if remedy := self.hopeless(error, name):
                raise RemoteError(f"The server at {self.server.url} {remedy}.") from None
            if not status and not _never_sent(error):  # the reply was lost, perhaps not its price
                self.ledger.append(
                    key=key, id=name, model=self.server.model, error=type(error).__name__, dollars=worst
                )
            if status == 429 and self.answered > seen:  # others get through, so the server is only busy
                failures, seen = 0, self.answered
            failures += 1
            await self.back_off(error, failures)

    async def back_off(self, error: Exception, failures: int) -> None:
        """Wait as the server says, with all requests, or else longer each time. Raises RemoteError when it is vain."""
        self.reached |= not _never_sent(error)
        told = _told_to_wait(error.response.headers) if _status(error) else None
        if failures > self.limits.max_retries or (told or 0) > LONGEST_WAIT:
            last = _status(error) or type(error).__name__
            wait = f" and asks to wait {told:,.0f} s" if told else ""
            raise RemoteError(
                f"The server at {self.server.url} failed {failures} times in a row, last with {last}{wait}; when it is "
                f"well again repeat the command, which goes on from there: {self.kept()}."
            ) from None
        if told is None:
            await self.pause(min(LONGEST_BACK_OFF, 0.5 * 2 ** (failures - 1)) * random.uniform(0.75, 1.0))
        else:
            self.not_before = max(self.not_before, time.monotonic() + told)

    async def take_turn(self, worst: float) -> bool:
        """Wait until the server and the cap allow one request more; False when there was an error elsewhere."""
        while not self.error:
            wait = self.not_before - time.monotonic()
            if wait > 0:
                await self.pause(wait)
            elif not worst or self.ledger.dollars + self.reserved + worst <= self.limits.max_dollars + 1e-9:
                self.flying, self.reserved = self.flying + 1, self.reserved + worst
                return True
            elif self.flying:  # may turn out cheaper than the most that it can cost
                self.changed.clear()
                await self.changed.wait()
            else:
                raise RemoteError(
                    f"The next request could cost ${worst:.4f}, and ${self.ledger.dollars:.4f} of remote.max_dollars = "
                    f"{self.limits.max_dollars:g} are spent; raise it in the profile (for a server of your own set "
                    f"both prices to 0) and repeat the command, which goes on from there: {self.kept()}."
                )
        return False

    async def pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)

    def price(self, tokens_in: int, tokens_out: int) -> float:
        limits = self.limits
        return (tokens_in * limits.dollars_per_million_input + tokens_out * limits.dollars_per_million_output) / 1e6

    def kept(self) -> str:
        return f"{len(self.replies):,} of {len(self.requests):,} replies are kept in {self.server.log}"

    def hopeless(self, error: Exception, name: str) -> str | None:
        """What is wrong and how to mend it, where no repetition helps. The server's words may quote the key."""
        status = _status(error)
        if not status and (trouble := self.server.trouble()):
            return trouble
        if _never_sent(error) and not self.reached:
            return "cannot be reached; start it, or correct its address under `models` in the profile"
        if status in (401, 403):
            return f"refuses the key ({status}); put a valid one into the environment variable OPENAI_API_KEY"
        if status == 404:
            return (f"has no model {self.server.model!r} (404); the address under `models` in the profile is "
                    f"http://host/v1#model, with a model that {self.server.url}/models lists")  # fmt: skip
        if status == 402 or getattr(error, "code", None) == "insufficient_quota":
            return f"says that the account has no credit left; top it up and repeat the command ({self.kept()})"
        if status and status < 500 and status not in (408, 409, 429):
            said = " ".join(str(error).split())
            for secret in filter(None, [os.environ.get("OPENAI_API_KEY")]):
                said = said.replace(secret, "***")
            return f"refuses {name!r} ({said[:300]}); mend the values in the profile that it names, or drop that one"
        return None


def _status(error: Exception) -> int | None:
    """The HTTP status of an error; None when no answer came, or one that is none."""
    return error.status_code if isinstance(error, openai.APIStatusError) else None


def _never_sent(error: Exception) -> bool:
    return isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout))


def _reply(completion: Any) -> dict[str, Any]:
    """What the log keeps of an answer. Raises ValueError when it holds no reply, as some gateways' answers do."""
    if not getattr(completion, "choices", None) or not completion.choices[0].message:
        raise ValueError("no reply in the answer")
    choice, usage = completion.choices[0], completion.usage
    text = choice.message.content or choice.message.refusal or ""
    return {
        "reply": text.encode("utf-8", "replace").decode(),  # half a character, as byte-level models write, is no text
        "finish_reason": choice.finish_reason,
        "usage": usage.model_dump(exclude_none=True) if usage else None,
    }


def _shaped(body: dict[str, Any], concessions: frozenset[str]) -> dict[str, Any]:
    """The request in the form that a server takes which has refused the usual one."""
    body = dict(body)
    for field in concessions & {"seed", "response_format"}:
        body.pop(field, None)
    if "json_object" in concessions and "response_format" in body:
        body["response_format"] = {"type": "json_object"}
    if "max_completion_tokens" in concessions:
        body["max_completion_tokens"] = body.pop("max_tokens")
    return body


def _concession(body: dict[str, Any], said: str) -> str | None:
    """What to try next with a server that refused `body` and `said` so; None when nothing is left to give up."""
    if "max_tokens" in body and "max_completion_tokens" in said:
        return "max_completion_tokens"
    if "seed" in body and "seed" in said:
        return "seed"
    if "response_format" in body:
        return "json_object" if body["response_format"]["type"] == "json_schema" else "response_format"
    return None


def _told_to_wait(headers: Any) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After` (a number or a date); None when the server names none."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        told = headers["retry-after"]
        return max(0.0, float(told) if told[0].isdigit() else parsedate_to_datetime(told).timestamp() - time.time())
    except (KeyError, IndexError, TypeError, ValueError):
        return None
