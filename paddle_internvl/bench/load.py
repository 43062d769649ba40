"""Open-loop load on a server: every request is sent at its planned time, whether or not earlier ones are answered.

In: planned requests and a URL. Out: an `Outcome` of each. Times count from the planned time of a request, so that a
server that holds up the sender does not improve its figures (coordinated omission).
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
    """Outcome of a request; times in seconds after its planned time.

    Attributes:
        kind: of the request.
        due: its planned time, in seconds after the first.
        status: '200', another HTTP status, 'timeout', 'connection', or 'stream' (interrupted, or an error within).
        late: time of sending.
        chunks: time of each piece of text.
        ended: time of the end.
        prompt_tokens: as counted by the server.
        tokens: of the answer, as counted by the server.
        error: message of a failure.
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
    """An HTTP client with as many connections as open requests.

    Args:
        url: of the server, with or without /v1.
        key: its API key.
    Raises:
        ValueError: not a URL.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    base = url.rstrip("/").removesuffix("/v1")
    try:
        return httpx.AsyncClient(base_url=base, headers=headers, limits=limits, timeout=None, trust_env=False)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url} is not a URL: {error}") from None


async def served_model(http: httpx.AsyncClient) -> str:
    """Name of the model that a server serves.

    Raises:
        ValueError: no server answers, or it refuses the key.
    """
    try:
        answer = await http.get(_MODELS, timeout=30)
    except httpx.TransportError as error:
        raise ValueError(f"no server answers at {http.base_url}: {error or type(error).__name__}") from None
    if answer.status_code != 200:
        raise ValueError(f"{_MODELS} answers {answer.status_code}; a key is given by --api-key")
    try:
        return answer.json()["data"][0]["id"]
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{_MODELS} at {http.base_url} lists no model; name it by --model") from None


async def run(
    http: httpx.AsyncClient,
    requests: Iterable[Request],
    timeout: float,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Send all requests at their times.

    Args:
        http: see `client`.
        requests: planned requests, by time.
        timeout: seconds after which a request counts as failed.
        on_outcome: called with each finished outcome.
    Returns:
        The outcomes, in the order of the requests.
    """
    clock = asyncio.get_running_loop().time
    outcomes: list[Outcome] = []
    start = clock()
    async with anyio.create_task_group() as group:
        for request in requests:
            outcome = Outcome(request.kind, request.at)
            outcomes.append(outcome)
            await asyncio.sleep(start + request.at - clock())
            group.start_soon(_send, http, request.body, timeout, start + request.at, outcome, on_outcome)
    return outcomes


async def _send(http, body: bytes, timeout: float, due: float, outcome: Outcome, on_outcome) -> None:
    clock = asyncio.get_running_loop().time
    outcome.late = clock() - due
    try:
        with anyio.fail_after(timeout):
            await _read(http, body, outcome, lambda: clock() - due)
    except TimeoutError:
        outcome.status = "timeout"
    except httpx.TransportError as error:
        outcome.status = "stream" if outcome.chunks else "connection"
        outcome.error = f"{type(error).__name__}: {error}"
    except (ValueError, LookupError, TypeError) as error:
        outcome.status, outcome.error = "stream", f"not a chat chunk: {error}"
    outcome.ended = clock() - due
    on_outcome(outcome)


async def _read(http: httpx.AsyncClient, body: bytes, outcome: Outcome, now: Callable[[], float]) -> None:
    headers = {"Content-Type": "application/json"}
    async with http.stream("POST", _PATH, content=body, headers=headers) as answer:
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
            _record(json.loads(data), outcome, now)
    outcome.status = "stream"
    outcome.error = outcome.error or "the stream ended without [DONE]"


def _record(chunk: dict, outcome: Outcome, now: Callable[[], float]) -> None:
    if "error" in chunk:
        outcome.error = chunk["error"]["message"]
    if any(choice["delta"].get("content") for choice in chunk.get("choices", ())):
        outcome.chunks.append(now())
    if chunk.get("usage"):
        outcome.prompt_tokens = chunk["usage"]["prompt_tokens"]
        outcome.tokens = chunk["usage"]["completion_tokens"]
