"""What `models.server` sends: requests side by side, with back-off, concessions to what the server lacks, and a cap.

What is wrong with one request alone (its content, its length, an error each time while others get through) costs that
request and no other.

The retries of the official client are off: they would not share a rate limit among the requests in flight, and would
hide from the cap that a lost connection may have been paid for.
"""

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from anyio.from_thread import start_blocking_portal

from acelib.core import EngineError, Progress
from acelib.models.server import Ledger, Request, Server, usual

TEMPLATE_TOKENS = 256  # what a chat template and a system prompt may add to a message
LONGEST_BACK_OFF = 30.0  # seconds, where the server names none
LONGEST_WAIT = 600.0  # seconds; a server that names more has closed for now
FEW_REFUSALS = 20  # questions; so many may always be refused, unless it is all that the server does
BUSY = (429, 503)
# How servers say that something is wrong with one request, and that they do not have the model (some with a 400).
ONE_REQUEST = re.compile(
    r"content.?filter|content .*policy|usage policy|invalid_prompt|flagged|moderation|inspection|"
    r"inappropriate|context.?length|too long",
    re.IGNORECASE,
)
NO_MODEL = re.compile(r"model_not_found|(invalid|unknown) model|model .{0,99}not (exist|found)", re.IGNORECASE)


def send(
    server: Server, ledger: Ledger, requests: dict[str, Request], replies: dict[str, str], progress: Progress | None
) -> None:
    """Add the missing replies to `ledger` and `replies`; both, and `requests`, by key. Raises EngineError."""
    # In a thread of its own: a notebook's thread already runs an event loop. On Ctrl-C the portal cancels what runs.
    with start_blocking_portal() as portal:
        portal.call(Client(server, ledger, requests, replies, progress).run)


class Client:
    """Sends the missing requests, at most `limits.concurrency` at a time, and stops all of them at the first error."""

    def __init__(
        self,
        server: Server,
        ledger: Ledger,
        requests: dict[str, Request],
        replies: dict[str, str],
        progress: Progress | None,
    ):
        self.server, self.limits, self.ledger, self.progress = server, server.limits, ledger, progress
        self.requests, self.replies = requests, replies
        self.flying, self.reserved = 0, 0.0  # requests in flight, and dollars they may cost
        self.answered, self.reached, self.not_before = 0, False, 0.0
        self.error: Exception | None = None
        self.concessions: frozenset[str] = frozenset()  # see `_shaped`
        self.held: dict[str, dict[str, str]] = {}  # refusals since the last answer, by key
        self.refused = {requests[key].name for key in ledger.refused}  # questions, as is the next
        self.asked = len({request.name for request in requests.values()})

    async def run(self) -> None:
        self.changed, self.stopped = asyncio.Event(), asyncio.Event()
        missing = iter([item for item in self.requests.items() if item[0] not in self.replies])
        key = os.environ.get("OPENAI_API_KEY") or "none"  # servers of one's own ask for none, the client does
        here = urlsplit(self.server.url).hostname in ("127.0.0.1", "::1", "localhost")  # where no proxy leads
        async with openai.AsyncOpenAI(
            base_url=self.server.url,
            api_key=key,
            timeout=self.limits.timeout_seconds,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not here),
        ) as self.client:
            await asyncio.gather(*(self.work(missing) for _ in range(self.limits.concurrency)))
        if self.error:
            raise self.error
        if self.held and len(self.replies) == len(self.ledger.refused):  # nothing was answered, today or before
            self.check_refusals(all_it_does=not all(ONE_REQUEST.search(one["refused"]) for one in self.held.values()))
        self.keep_refusals()

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
        concessions, failures = self.concessions, 0
        seen = latest = self.answered  # `latest`: at the last failure
        while await self.take_turn(worst):
            try:
                completion = await self.client.chat.completions.create(**_shaped(body, concessions))
                reply = _reply(completion)
            except (openai.APIError, ValueError) as caught:
                error = caught
            else:
                tokens = [(reply["usage"] or {}).get(f"{side}_tokens") for side in ("prompt", "completion")]
                cost = self.price(*tokens) if all(isinstance(one, int) for one in tokens) else worst
                self.ledger.append(key=key, id=name, model=self.server.model, **reply, dollars=cost)
                self.replies[key] = reply["reply"]
                if not self.answered:  # what only a later request needs says nothing of the server
                    self.concessions = concessions
                self.answered, self.reached = self.answered + 1, True
                self.keep_refusals()
                return
            finally:
                self.flying, self.reserved = self.flying - 1, self.reserved - worst
                self.changed.set()
            status, about_one = _status(error), _about_one(error)
            if status in (400, 422) and not about_one:
                if more := _concession(_shaped(body, concessions), str(error)):
                    concessions |= {more}
                    continue
                about_one = not _about_all(error, _shaped(body, concessions))
            if about_one:
                return self.refuse(key, name, _without_key(_said(error)))
            if remedy := self.hopeless(error, name):
                raise EngineError(f"The server at {self.server.url} {remedy}.") from None
            if not status and not _never_sent(error):  # the reply was lost, perhaps not its price
                self.ledger.append(key=key, id=name, model=self.server.model, error=type(error).__name__, dollars=worst)
            busy = status in BUSY or _never_sent(error)
            if busy and self.answered > seen:  # others get through, so the server is only busy
                failures, seen = 0, self.answered
            failures += 1
            if failures > self.limits.max_retries and not busy and (self.answered > latest or self.is_last(status)):
                return self.refuse(key, name, f"{failures} failures, last {status or type(error).__name__}")
            latest = self.answered
            await self.back_off(error, failures)

    def is_last(self, status: int | None) -> bool:
        """Whether a living server has answered all requests but this one."""
        answered = len(self.replies) > len(self.ledger.refused)
        return bool(status) and answered and len(self.replies) + len(self.held) + 1 == len(self.requests)

    def refuse(self, key: str, name: str, reason: str) -> None:
        """Give up a request. Its empty reply is kept once another one has been answered, which shows that the request
        is to blame and not the server; so what is mended on the server is asked again."""
        self.held[key] = {"id": name, "refused": reason}
        self.check_refusals(
            len({one["id"] for one in self.held.values()}) >= max(FEW_REFUSALS, self.limits.concurrency)
        )

    def keep_refusals(self) -> None:
        for key, refusal in self.held.items():
            self.ledger.append(key=key, model=self.server.model, reply="", **refusal, dollars=0.0)
            self.replies[key] = ""
            self.refused.add(refusal["id"])
        self.held.clear()

    def check_refusals(self, all_it_does: bool) -> None:
        """Raises EngineError when refusals are no exception."""
        refused = self.refused | {one["id"] for one in self.held.values()}
        if not all_it_does and len(refused) <= max(FEW_REFUSALS, self.limits.max_refused * self.asked):
            return
        said = usual({key: one["refused"] for key, one in self.held.items()})
        remedy = "leave these questions out" if all_it_does else "raise remote.max_refused"
        raise EngineError(
            f"The server at {self.server.url} refuses {len(refused):,} of {self.asked:,} questions, most often with "
            f"{said!r}; mend what that names in the profile or on the server, or {remedy}, and repeat the command, "
            f"which goes on from there: {self.kept()}."
        )

    async def back_off(self, error: Exception, failures: int) -> None:
        """Wait as the server says, with all requests, or else longer each time. Raises EngineError when it is vain."""
        self.reached |= not _never_sent(error)
        told = _told_to_wait(error.response.headers) if _status(error) else None
        if failures > self.limits.max_retries or (told or 0) > LONGEST_WAIT:
            last = _status(error) or type(error).__name__
            wait = f" and asks to wait {told:,.0f} s" if told else ""
            raise EngineError(
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
                raise EngineError(
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
        if status == 404 or status == 400 and NO_MODEL.search(_said(error)):
            return (
                f"has no model {self.server.model!r} ({status}); the address under `models` in the profile is "
                f"http://host/v1#model, with a model that {self.server.url}/models lists"
            )
        if status == 402 or getattr(error, "code", None) == "insufficient_quota":
            return f"says that the account has no credit left; top it up and repeat the command ({self.kept()})"
        if status and status < 500 and status not in (408, 409, 429):
            said = _without_key(" ".join(str(error).split()))
            return f"refuses {name!r} ({said}); mend the values in the profile that it names"
        return None


def _status(error: Exception) -> int | None:
    """The HTTP status of an error; None when no answer came, or one that is none."""
    return error.status_code if isinstance(error, openai.APIStatusError) else None


def _said(error: openai.APIStatusError) -> str:
    """The code and the message in an answer of the usual form, which does not quote the request."""
    body = error.body if isinstance(error.body, dict) else {"message": error.body}
    words = [body.get("code") or error.status_code, body.get("message")]
    return " ".join(": ".join(str(word) for word in words if word).split())


def _without_key(said: str) -> str:
    for secret in filter(None, [os.environ.get("OPENAI_API_KEY")]):
        said = said.replace(secret, "***")
    return said[:300]


def _about_one(error: Exception) -> bool:
    """Whether the server says that something is wrong with this request: its content, or its length."""
    status = _status(error)
    return status == 413 or status in (400, 403, 422) and ONE_REQUEST.search(_said(error)) is not None


def _about_all(error: openai.APIStatusError, body: dict[str, Any]) -> bool:
    """Whether it says that something is wrong that all requests share: the model, or a sampling value."""
    setting = str(error.param).partition(".")[0]
    return NO_MODEL.search(_said(error)) is not None or setting != "messages" and setting in body


def _never_sent(error: Exception) -> bool:
    return isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout))


def _reply(completion: Any) -> dict[str, Any]:
    """What the log keeps of an answer. Raises ValueError when it holds no reply, as some gateways' answers do."""
    try:
        choice, usage = completion.choices[0], completion.usage
        text = choice.message.content or choice.message.refusal or ""
    except (AttributeError, TypeError, LookupError):
        text = None
    if not isinstance(text, str):
        raise ValueError("no reply in the answer")
    return {
        "reply": text.encode("utf-8", "replace").decode(),  # half a character, as byte-level models write, is no text
        "finish_reason": choice.finish_reason,
        "usage": usage.model_dump(exclude_none=True, warnings=False) if isinstance(usage, openai.BaseModel) else None,
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
