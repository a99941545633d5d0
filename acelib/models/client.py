"""Replies from a server: requests side by side, each reply paid for once, and never beyond a cap.

The official client repeats what may succeed later, as long and as patiently as the server asks for. Ours are the log,
to which every reply is appended before anybody reads it, so a stop at any moment loses at most what is in flight; the
cap, which counts lost answers at their highest price; and what a refusal means: what is wrong with one request alone
(its content, its length, an error each time while others get through) costs that request and no other.
"""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from statistics import mode
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from anyio.from_thread import start_blocking_portal

from acelib.core import ArtifactError, EngineError, Log, Progress, open_log
from acelib.models.params import SamplingParams
from acelib.models.server import Server

TEMPLATE_TOKENS = 256  # what a chat template and a system prompt may add to a message
FEW_REFUSALS = 20  # questions; so many may always be refused, unless it is all that the server does
BUSY = (429, 503)
# Drawing from the model itself: of what a request leaves out, a server takes the model's generation_config.json.
NEUTRAL = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "frequency_penalty": 0.0}
HERE = ("127.0.0.1", "::1", "localhost")  # where no proxy leads
# How servers say that something is wrong with one request, and that they do not have the model (some with a 400).
ONE_REQUEST = re.compile(
    r"content.?filter|content .*policy|usage policy|invalid_prompt|flagged|moderation|inspection|"
    r"inappropriate|context.?length|too long",
    re.IGNORECASE,
)
NO_MODEL = re.compile(r"model_not_found|(invalid|unknown) model|model .{0,99}not (exist|found)", re.IGNORECASE)
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)


class NoReply(httpx2.RequestError):
    """An answer without a reply in it, as some gateways send; the official client asks again."""


@dataclass
class Request:
    key: str  # of its reply in the log
    name: str  # of the conversation
    body: dict[str, Any]
    worst: float  # dollars it may cost
    concessions: frozenset[str] = frozenset()  # see `_shaped`
    answered: list[int] = field(default_factory=list)  # replies so far, at the start and after each attempt


ASKED: ContextVar[Request] = ContextVar("asked")  # by this task


class Attempts(openai.DefaultAsyncHttpxClient):
    """Lets `attempt(send, request, ...)` make each attempt, the official client's repetitions, too."""

    def __init__(self, attempt, url: str):
        super().__init__(trust_env=urlsplit(url).hostname not in HERE)
        self.attempt = attempt

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        return await self.attempt(super().send, request, **options)


def remote_replies(
    server: Server,
    conversations: dict[str, list[dict[str, str]]],
    params: SamplingParams,
    *,
    json_schema: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, list[str]]:
    """`params.n` raw replies for each conversation, keyed as given; what `sample_replies` does with a local model.

    Requests that are in the log are not sent again, whatever the server's address: they are told apart by model,
    messages and sampling values. `json_schema` asks for structured output where the server has it. A refusal is a
    reply: the server's words where they are one, else an empty text; how many were empty is printed. Raises
    EngineError, with a remedy, when the server cannot be used, refuses too often, or the cap is reached.
    """
    response_format = {"type": "json_schema", "json_schema": {"name": "reply", "schema": json_schema, "strict": True}}
    usual = {"model": server.model, "temperature": params.temperature, "max_tokens": params.max_new_tokens}
    usual |= {"top_p": params.top_p} if params.top_p < 1 else {}
    usual |= {"response_format": response_format} if json_schema else {}
    seeds = [{"seed": params.seed + i} if params.temperature else {} for i in range(params.n)]
    wanted: dict[str, list[str]] = {}
    requests: dict[str, Request] = {}
    for name, messages in conversations.items():
        bodies = [usual | {"messages": messages} | seed for seed in seeds]
        wanted[name] = [hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest() for one in bodies]
        for key, body in zip(wanted[name], bodies, strict=True):
            tokens = len(json.dumps(body).encode()) + TEMPLATE_TOKENS, params.max_new_tokens
            requests[key] = Request(key, name, body, price(server, *tokens))
    with open_log(server.log) as log:
        client = Client(server, log, requests, progress)
        if len(client.replies) < len(requests):
            # In a thread of its own: a notebook's thread already runs an event loop. On Ctrl-C the portal cancels it.
            with start_blocking_portal() as portal:
                portal.call(client.run)
    if progress:
        progress(len(requests), len(requests))
    if refused := client.refused:
        print(
            f"{len(refused):,} of {len(requests):,} requests were refused by {server.url} and count as empty replies, "
            f"most often with {mode(refused.values())!r}; they are asked again once their lines leave {server.log}."
        )
    return {name: [client.replies[key] for key in keys] for name, keys in wanted.items()}


def price(server: Server, tokens_in: int, tokens_out: int) -> float:
    limits = server.limits
    return (tokens_in * limits.dollars_per_million_input + tokens_out * limits.dollars_per_million_output) / 1e6


class Client:
    """Sends the missing requests, at most `limits.concurrency` at a time, and none after the first error."""

    def __init__(self, server: Server, log: Log, requests: dict[str, Request], progress: Progress | None):
        """Reads the log. Raises ArtifactError when it is damaged."""
        self.server, self.limits, self.progress = server, server.limits, progress
        self.log, self.requests = log, requests
        self.dollars, self.reserved = 0.0, 0.0  # spent, and what may be in flight
        self.questions = len({request.name for request in requests.values()})
        self.replies: dict[str, str] = {}  # as the next two by key
        self.refused: dict[str, str] = {}  # why the server will not answer
        self.held: dict[str, str] = {}  # refusals since the last answer
        self.landed = asyncio.Event()
        self.answered, self.reached, self.error = 0, False, None
        self.concessions: frozenset[str] = frozenset()
        for record in log.records():
            try:
                self.dollars += record["dollars"]
                if "reply" in record and record["key"] in requests:
                    self.replies[record["key"]] = record["reply"]
                    self.refused |= {record["key"]: record["refused"]} if "refused" in record else {}
            except (KeyError, TypeError):
                name = log.file.name
                raise ArtifactError(f"{name} has a line that is no reply, {record!s:.40}; remove it.") from None

    def record(self, request: Request, dollars: float, **values: Any) -> None:
        known = {"key": request.key, "id": request.name, "model": self.server.model}
        self.log.append(known | values | {"dollars": dollars})
        self.dollars += dollars

    async def run(self) -> None:
        """Add the missing replies to the log and to `replies`. Raises EngineError."""
        missing = iter([request for key, request in self.requests.items() if key not in self.replies])
        async with openai.AsyncOpenAI(
            base_url=self.server.url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",  # servers of one's own ask for none, the client does
            timeout=self.limits.timeout_seconds,
            max_retries=self.limits.max_retries,
            http_client=Attempts(self.attempt, self.server.url),
        ) as self.client:
            await asyncio.gather(*(self.work(missing) for _ in range(self.limits.concurrency)))
        if self.error:
            raise self.error
        if self.held and len(self.replies) == len(self.refused):  # nothing was answered, today or before
            self.check_refusals(all_it_does=not all(map(ONE_REQUEST.search, self.held.values())))
        self.keep_refusals()

    async def work(self, missing: Iterator[Request]) -> None:
        """Asks one request after the other. An error is raised by `run` once what will be paid for is in."""
        for request in missing:
            try:
                await self.ask(request)
            except Exception as error:
                self.error = self.error or error
            if self.error:
                return
            if self.progress:
                self.progress(len(self.replies), len(self.requests))

    async def ask(self, request: Request) -> None:
        """One reply, into the log and `replies`, or a refusal, whatever has to be repeated on the way."""
        ASKED.set(request)
        request.concessions, seen = self.concessions, self.answered
        request.answered.append(seen)
        while True:
            body = _shaped(self.server.options | request.body, request.concessions)
            try:
                known = {name: body[name] for name in ("model", "messages")}
                return await self.client.chat.completions.create(**known, extra_body=body)
            except openai.APIError as caught:
                error, cause = caught, caught.__cause__
            status, said = getattr(error, "status_code", None), _said(error)
            about_one = status == 413 or status in (400, 403, 422) and ONE_REQUEST.search(said)
            if status in (400, 422) and not about_one:
                if more := _concession(body, f"{error} {error.body}"):  # FastAPI has the reason in the body alone
                    request.concessions |= {more}
                    continue
                setting = str(error.param).partition(".")[0]  # that all requests share, unless it is the messages
                about_one = not NO_MODEL.search(said) and (setting == "messages" or setting not in body)
            if about_one:
                return self.refuse(request, said)
            if remedy := self.hopeless(status, said, request.name):
                raise EngineError(f"The server at {self.server.url} {remedy}.")
            busy = status in BUSY or isinstance(cause, NEVER_SENT)
            if busy and self.answered > seen:  # others get through, so the server is only busy
                seen = self.answered
                continue
            failures = 1 + int(error.request.headers.get("x-stainless-retry-count", 0))
            last = status or type(cause).__name__
            known = len(self.replies) + len(self.held) + 1
            last_one = status and len(self.replies) > len(self.refused) and known == len(self.requests)
            if not busy and (last_one or request.answered[-1] > request.answered[-2]):  # it alone does not get through
                return self.refuse(request, f"{failures} failures, last {last}")
            wait = status and error.response.headers.get("retry-after")
            raise EngineError(
                f"The server at {self.server.url} failed {failures} times in a row, last with {last}"
                f"{f' and Retry-After: {wait}' if wait else ''}; when it is well again {self.again()}."
            )

    async def attempt(self, send, http: httpx2.Request, **options: Any) -> httpx2.Response:
        """Sends a request once the cap allows it, and logs its reply, or that one was lost.

        The official client repeats httpx's errors and statuses that may pass, and hands on the other errors at once.
        """
        request = ASKED.get()
        await self.take_turn(request)
        try:
            response = await send(http, **options)
            self.reached = True
            if response.is_success:
                reply = _reply(response)
                self.record(request, self.cost(request, reply["usage"]), **reply)
                self.keep(request, reply["reply"])
            return response
        except httpx2.RequestError as error:
            if not isinstance(error, NEVER_SENT):  # the reply was lost, perhaps not its price
                self.reached = True
                self.record(request, request.worst, error=type(error).__name__)
            nowhere = "cannot be reached; start it, or correct its address under `models` in the profile"
            if why := self.server.trouble() or (None if self.reached else nowhere):
                raise EngineError(f"The server at {self.server.url} {why}.") from None
            raise
        finally:
            request.answered.append(self.answered)
            self.reserved -= request.worst
            self.landed.set()

    async def take_turn(self, request: Request) -> None:
        """Wait until the cap allows this request, too."""
        while not self.error:
            if not request.worst or self.dollars + self.reserved + request.worst <= self.limits.max_dollars + 1e-9:
                self.reserved += request.worst
                return
            if self.reserved < 1e-9:
                raise EngineError(
                    f"The next request could cost ${request.worst:.4f}, and ${self.dollars:.4f} of "
                    f"remote.max_dollars = {self.limits.max_dollars:g} are spent; raise it in the profile (set both "
                    f"prices to 0 for your own server) and {self.again()}."
                )
            self.landed.clear()  # what is in flight may turn out cheaper than the most that it can cost
            await self.landed.wait()
        raise self.error

    def keep(self, request: Request, reply: str) -> None:
        self.replies[request.key] = reply
        if not self.answered:  # what only a later request needs says nothing of the server
            self.concessions = request.concessions
        self.answered += 1
        self.keep_refusals()

    def cost(self, request: Request, usage: Any) -> float:
        """Dollars by the server's count of tokens; the most it may be where there is none."""
        try:
            return price(self.server, int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
        except (LookupError, TypeError, ValueError):
            return request.worst

    def refuse(self, request: Request, reason: str) -> None:
        """Give up a request. Its empty reply is kept once another one has been answered, which shows that the request
        is to blame and not the server; so what is mended on the server is asked again."""
        self.held[request.key] = reason[:300]
        many = len({self.requests[key].name for key in self.held}) >= max(FEW_REFUSALS, self.limits.concurrency)
        self.check_refusals(all_it_does=many)

    def keep_refusals(self) -> None:
        for key, reason in self.held.items():
            self.record(self.requests[key], 0.0, reply="", refused=reason)
            self.replies[key], self.refused[key] = "", reason
        self.held.clear()

    def check_refusals(self, all_it_does: bool) -> None:
        """Raises EngineError when refusals are no exception."""
        refused = {self.requests[key].name for key in (*self.refused, *self.held)}
        if not all_it_does and len(refused) <= max(FEW_REFUSALS, self.limits.max_refused * self.questions):
            return
        remedy = "leave these questions out" if all_it_does else "raise remote.max_refused"
        raise EngineError(
            f"The server at {self.server.url} refuses {len(refused):,} of {self.questions:,} questions, most often "
            f"with {mode(self.held.values())!r}; mend what that names in the profile or on the server, or {remedy}, "
            f"and {self.again()}."
        )

    def again(self) -> str:
        kept = f"{len(self.replies):,} of {len(self.requests):,} replies are kept in {self.server.log}"
        return f"repeat the command ({kept})"

    def hopeless(self, status: int | None, said: str, name: str) -> str | None:
        """What is wrong and how to mend it, where no repetition helps."""
        if status in (401, 403):
            return f"refuses the key ({status}); put a valid one into the environment variable OPENAI_API_KEY"
        if status == 404 or status == 400 and NO_MODEL.search(said):
            return (
                f"has no model {self.server.model!r} ({status}); the address under `models` in the profile is "
                f"http://host/v1#model, with a model that {self.server.url}/models lists"
            )
        if status == 402 or "insufficient_quota" in said:
            return f"says that the account has no credit left; top it up and {self.again()}"
        if status and status < 500 and status not in (408, 409, 429):
            return f"refuses {name!r} ({said[:300]}); mend the values in the profile that it names"
        return None


def _said(error: openai.APIError) -> str:
    """The code and the message in an answer of the usual form, which does not quote the request; without the key."""
    body = error.body if isinstance(error.body, dict) else {"message": error.body}
    words = [body.get("code") or getattr(error, "status_code", None), body.get("message")]
    said = " ".join(": ".join(str(word) for word in words if word).split())
    return said.replace(os.environ.get("OPENAI_API_KEY") or "\0", "***")


def _reply(response: httpx2.Response) -> dict[str, Any]:
    """What the log keeps of an answer."""
    try:
        answer = response.json()
        choice = answer["choices"][0]
        text = choice["message"]["content"] or choice["message"].get("refusal") or ""
        text = text.encode("utf-8", "replace").decode()  # half a character, as byte-level models write, is no text
    except (ValueError, LookupError, TypeError, AttributeError):
        raise NoReply("no reply in the answer") from None
    return {"reply": text, "finish_reason": choice.get("finish_reason"), "usage": answer.get("usage")}


def _shaped(body: dict[str, Any], concessions: frozenset[str]) -> dict[str, Any]:
    """The request in the form that a server takes which has refused the usual one."""
    body = {name: value for name, value in (NEUTRAL | body).items() if name not in concessions}
    if "json_object" in concessions and "response_format" in body:
        body["response_format"] = {"type": "json_object"}
    if "max_completion_tokens" in concessions:
        body["max_completion_tokens"] = body.pop("max_tokens")
    return body


def _concession(body: dict[str, Any], said: str) -> str | None:
    """What to try next with a server that refused `body` and `said` so; None when nothing is left to give up."""
    if "max_tokens" in body and "max_completion_tokens" in said:
        return "max_completion_tokens"
    for name in ("seed", "stop_token_ids", *NEUTRAL):
        if name in said and name in body and body[name] == NEUTRAL.get(name, body[name]):
            return name
    if "response_format" in body:
        return "json_object" if body["response_format"]["type"] == "json_schema" else "response_format"
    return None
