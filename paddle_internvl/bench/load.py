"""An open loop: every request is sent at its time, whether or not the earlier ones are answered.

In: planned requests and a URL. Out: an `Outcome` of each. All times count from when a request was to be sent, not from
when it was: a server that holds up the sender can't make its figures look better by that (coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import anyio
import httpx

from paddle_internvl.bench.traffic import Request

OK = "200"
_PATH, _MODELS = "/v1/chat/completions", "/v1/models"


@dataclass
class Outcome:
    """What became of a request; times in seconds after it was due.

    Attributes:
        status: '200', or what went wrong: another HTTP status, 'timeout', 'connection', 'stream' (broken off, or an
            error in its midst). late: when it was really sent. chunks: when each piece of text came. ended: when all
            was over. prompt_tokens, tokens: as the server counts them.
    """

    kind: str
    due: float
    status: str = OK
    late: float = 0.0
    chunks: list[float] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0
    error: str | None = None


def client(url: str, key: str | None = None) -> httpx.AsyncClient:
    """A client that makes as many connections as there are open requests.

    Args:
        url: of the server, with or without /v1. key: its API key.
    Raises:
        ValueError: no URL.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    base = url.rstrip("/").removesuffix("/v1")
    try:
        return httpx.AsyncClient(base_url=base, headers=headers, limits=limits, timeout=None, trust_env=False)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url} is no URL: {error}") from None


async def model_of(asker: httpx.AsyncClient) -> str:
    """The name of the model that a server serves.

    Raises:
        ValueError: no such server answers there, or not to us.
    """
    try:
        answer = await asker.get(_MODELS, timeout=30)
    except httpx.TransportError as error:
        raise ValueError(f"no server answers at {asker.base_url}: {error or type(error).__name__}") from None
    if answer.status_code != 200:
        raise ValueError(f"{_MODELS} answers {answer.status_code}; a key is given by --api-key")
    try:
        return answer.json()["data"][0]["id"]
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{_MODELS} at {asker.base_url} lists no model; name it by --model") from None


async def run(
    asker: httpx.AsyncClient,
    requests: Iterable[Request],
    timeout: float,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Send all requests at their times.

    Args:
        timeout: seconds after which a request counts as failed. told: is given each outcome as it is there.
    Returns:
        The outcomes, in the order of the requests.
    """
    clock = asyncio.get_running_loop().time
    outcomes: list[Outcome] = []
    begun = clock()
    async with anyio.create_task_group() as group:
        for request in requests:
            outcome = Outcome(request.kind, request.at)
            outcomes.append(outcome)
            await asyncio.sleep(begun + request.at - clock())
            group.start_soon(_ask, asker, request.body, timeout, begun + request.at, outcome, told)
    return outcomes


async def _ask(asker, body: bytes, timeout: float, due: float, outcome: Outcome, told) -> None:
    clock = asyncio.get_running_loop().time
    outcome.late = clock() - due
    try:
        with anyio.fail_after(timeout):
            await _read(asker, body, outcome, lambda: clock() - due)
    except TimeoutError:
        outcome.status = "timeout"
    except httpx.TransportError as error:
        outcome.status = "stream" if outcome.chunks else "connection"
        outcome.error = f"{type(error).__name__}: {error}"
    except (ValueError, LookupError, TypeError) as error:
        outcome.status, outcome.error = "stream", f"no chunk of a chat: {error}"
    outcome.ended = clock() - due
    told(outcome)


async def _read(asker: httpx.AsyncClient, body: bytes, outcome: Outcome, now: Callable[[], float]) -> None:
    headers = {"Content-Type": "application/json"}
    async with asker.stream("POST", _PATH, content=body, headers=headers) as answer:
        if answer.status_code != 200:
            outcome.status = str(answer.status_code)
            outcome.error = (await answer.aread()).decode(errors="replace")[:500]
            return
        async for line in answer.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            _note(json.loads(data), outcome, now)
    outcome.status = "stream"
    outcome.error = outcome.error or "the stream ended without [DONE]"


def _note(chunk: dict, outcome: Outcome, now: Callable[[], float]) -> None:
    if "error" in chunk:
        outcome.error = chunk["error"]["message"]
    if any(choice["delta"].get("content") for choice in chunk.get("choices", ())):
        outcome.chunks.append(now())
    if chunk.get("usage"):
        outcome.prompt_tokens = chunk["usage"]["prompt_tokens"]
        outcome.tokens = chunk["usage"]["completion_tokens"]
