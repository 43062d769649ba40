"""The clients of the soak test: honest ones, ones that leave, and malicious ones. Each tells what went wrong with it.

In: a server's URL, questions with their right answers, attacks. Out: a fault in words for each request, or None. They
retry after a 429.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import anyio
import httpx

from tests.soak.attacks import Attack, post
from tests.soak.outside import read_metrics
from tests.soak.questions import CHAT, COUNT, Expected, Question

HANG = 120.0  # seconds without an answer, after which a request counts as hanging
_LONG = {"ignore_eos": True, "max_tokens": 400}  # an answer that nobody waits for
_LOG_PROB = 2e-3  # tolerance of log-probabilities: batches round differently
_PAUSE, _PATIENCE = 0.5, 240  # seconds before one who got 429 retries, and number of retries
WAYS = ("while uploading", "before the first byte", "while queued", "in mid-stream")


@dataclass
class Clients:
    """All clients of one run.

    Args:
        url: of the server.
        model: its name.
        url_of: medium -> its URL.
        name: first part of every request's id.
    Attributes:
        retried: requests that got 429, by kind.
        left: number of clients by their way to leave; 'answered first': the answer was complete before.
        highest: the highest value of each metric in `watch`.
    """

    url: str
    model: str
    url_of: object
    name: str
    retried: Counter = field(default_factory=Counter)
    left: Counter = field(default_factory=Counter)
    highest: dict[str, float] = field(default_factory=dict)
    _metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        # A kept connection expires here before the server closes it: a request could meet the close.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=1)
        self._http = httpx.AsyncClient(base_url=self.url, limits=limits, timeout=HANG, trust_env=False, verify=False)

    async def aclose(self) -> None:
        """Close every connection that is kept."""
        await self._http.aclose()

    async def watch(self) -> None:
        """Read /metrics again and again, until cancelled."""
        while True:
            answer = await self._http.get("/metrics")
            self._metrics = read_metrics(answer.text)
            for name, value in self._metrics.items():
                self.highest[name] = max(value, self.highest.get(name, 0))
            await asyncio.sleep(0.3)

    # ------------------------------------------------------------------------------------------- honest ones
    async def ask(self, name: str, question: Question, right: Expected, stream: bool, hosted: bool) -> str | None:
        """Ask, and compare. stream: have it streamed. hosted: media by http URLs."""
        body = question.body(self.model, self.url_of if hosted else lambda medium: medium.data_url)
        if stream and question.path != COUNT:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            status, found = await self._answer(name, question, body)
        except (httpx.HTTPError, ValueError, LookupError) as error:
            return f"{type(error).__name__}: {error}"
        if status != 200:
            return f"status {status}: {found}"
        return _difference(found, right)

    async def _answer(self, name: str, question: Question, body: dict) -> tuple[int, object]:
        for attempt in range(_PATIENCE):
            headers = {"x-request-id": f"{self.name}-{name}.{attempt}"}
            async with self._http.stream("POST", question.path, json=body, headers=headers) as answer:
                if answer.status_code == 429:
                    self.retried[question.kind] += 1
                    await answer.aread()
                    assert int(answer.headers["retry-after"]) > 0
                elif answer.status_code != 200 or "stream" not in body:
                    text = (await answer.aread()).decode()
                    whole = answer.status_code == 200
                    return answer.status_code, _whole(json.loads(text), question) if whole else text[:200]
                else:
                    async with aclosing(answer.aiter_lines()) as lines:
                        return 200, _joined([line async for line in lines if line.startswith("data: ")], question)
            await asyncio.sleep(_PAUSE)
        raise ValueError("429 at every retry")

    # ------------------------------------------------------------------------------------------- who leaves
    async def leave(self, name: str, question: Question, way: str, share: float) -> str | None:
        """Ask for a long answer and go. way: one of `WAYS`. share: in [0, 1), how far into it. Every second one cuts
        the line (RST), the others hang up (FIN)."""
        plain = replace(question, path=CHAT, fields=_LONG)
        body = plain.body(self.model, lambda medium: medium.data_url) | {"stream": way == WAYS[3]}
        for attempt in range(_PATIENCE):
            data = post(CHAT, body, X_Request_Id=f"{self.name}-{name}.{attempt}")
            reader, writer = await self._connect()
            received = b""
            try:
                with anyio.fail_after(HANG):
                    received = await self._until_leaving(reader, writer, data, way, share)
            except TimeoutError:
                return f"hangs, {way}"
            except ConnectionError as error:
                return f"{way}: {type(error).__name__}"
            finally:
                writer.transport.abort() if share < 0.5 else writer.close()
            if not received.startswith(b"HTTP/1.1 429"):
                break
            self.retried[f"leaves {way}"] += 1
            await asyncio.sleep(_PAUSE)
        if received and not received.startswith(b"HTTP/1.1 200"):
            return f"answered {received[:200]!r}"
        early = bool(received) and way != WAYS[3] or b"[DONE]" in received
        self.left["answered first" if early else way] += 1
        return None

    async def _until_leaving(self, reader, writer, data: bytes, way: str, share: float) -> bytes:
        """What has come of an answer when it is time to go."""
        if way == WAYS[0]:
            head = data.index(b"\r\n\r\n") + 4
            writer.write(data[: head + int((len(data) - head) * share)])
            return await _read(reader, 0.1)
        writer.write(data)
        if way == WAYS[1]:
            return await _read(reader, 1.5 * share)
        if way == WAYS[2]:
            received = await _read(reader, 0.05)
            for _ in range(60):
                if received or self._metrics.get("engine_waiting", 0) > 0:
                    break
                received = await _read(reader, 0.05)
            return received
        received = await reader.read(4096)
        if received.startswith(b"HTTP/1.1 200"):
            with anyio.move_on_after(0.5):  # what comes after an ignored end may have no text, and no chunk then
                while received.count(b"data: ") < 2 + 30 * share and (more := await reader.read(4096)):
                    received += more
        return received

    # ------------------------------------------------------------------------------------------- malicious ones
    async def attack(self, attack: Attack) -> str | None:
        """Send the attack, and read the response."""
        for _ in range(_PATIENCE):
            try:
                with anyio.fail_after(HANG):
                    status, error = await self._response(attack)
            except TimeoutError:
                return f"{attack.name}: hangs"
            except (OSError, ValueError, LookupError) as problem:
                return f"{attack.name}: {type(problem).__name__}: {problem}"
            if status != 429 or 429 in attack.statuses:
                break
            self.retried["malicious"] += 1
            await asyncio.sleep(_PAUSE)
        if status not in attack.statuses:
            return f"{attack.name}: status {status}, not {attack.statuses}: {error}"
        return None

    async def _response(self, attack: Attack) -> tuple[int, str]:
        loop, parts = asyncio.get_running_loop(), urlsplit(self.url)
        with socket.socket() as line:  # asyncio's streams lose an answer that comes, with a reset, while they send
            line.setblocking(False)
            await loop.sock_connect(line, (parts.hostname, parts.port))
            sending = asyncio.create_task(_send(line, attack.pieces))
            received = b""
            try:
                while more := await loop.sock_recv(line, 65536):
                    received += more
            except ConnectionResetError:
                if not received:
                    raise
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        head, _, body = received.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status != 200 and attack.http:
            error = json.loads(body)["error"]
            if not error["message"] or (status != 429 and error["type"] != "invalid_request_error"):
                raise ValueError(f"no error body of OpenAI's: {error}")
        return status, body.decode(errors="replace")[:200]

    async def _connect(self):
        parts = urlsplit(self.url)
        return await asyncio.open_connection(parts.hostname, parts.port)


async def _send(line: socket.socket, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        await asyncio.get_running_loop().sock_sendall(line, piece)


async def _read(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """Bytes received within some seconds; usually none."""
    with anyio.move_on_after(seconds):
        return await reader.read(4096)
    return b""


def _whole(body: dict, question: Question) -> Expected:
    """An answer in one piece."""
    if question.path == COUNT:
        return Expected((), (), body["total"])
    choices = sorted(body["choices"], key=lambda choice: choice["index"])
    log_probs = [choice["logprobs"] for choice in choices]
    return Expected(
        texts=tuple((c["message"]["content"] or "") if question.path == CHAT else c["text"] for c in choices),
        reasons=tuple(choice["finish_reason"] for choice in choices),
        prompt_tokens=body["usage"]["prompt_tokens"],
        completion_tokens=body["usage"]["completion_tokens"],
        calls=tuple(_calls(choice.get("message", {}).get("tool_calls", ())) for choice in choices),
        log_probs=tuple(tuple(t["logprob"] for t in choice["content"]) for choice in log_probs if choice) or None,
    )


def _joined(lines: Sequence[str], question: Question) -> Expected:
    """A stream's chunks put together."""
    if lines[-1] != "data: [DONE]":
        raise ValueError(f"the stream ends with {lines[-1][:200]}")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    texts, reasons, calls, log_probs = {}, {}, {}, {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        i = choice["index"]
        new = choice["delta"].get("content", "") if question.path == CHAT else choice["text"]
        texts[i] = texts.get(i, "") + new
        calls.setdefault(i, []).extend(choice.get("delta", {}).get("tool_calls", ()))
        reasons[i] = choice["finish_reason"] or reasons.get(i)
        if choice["logprobs"]:
            log_probs.setdefault(i, []).extend(t["logprob"] for t in choice["logprobs"]["content"])
    usage = chunks[-1]["usage"]
    return Expected(
        texts=tuple(texts[i] for i in sorted(texts)),
        reasons=tuple(reasons[i] for i in sorted(reasons)),
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        calls=tuple(_calls(calls[i]) for i in sorted(calls)),
        log_probs=tuple(tuple(log_probs[i]) for i in sorted(log_probs)) or None,
    )


def _calls(deltas: Sequence[dict]) -> tuple[tuple[str, str], ...]:
    """Name and arguments of each call of an answer. deltas: the calls, whole or as a stream has them."""
    calls: dict[int, list[str]] = {}
    for i, delta in enumerate(deltas):
        name, arguments = calls.setdefault(delta.get("index", i), ["", ""])
        function = delta["function"]
        calls[delta.get("index", i)] = [name + function.get("name", ""), arguments + function["arguments"]]
    return tuple((name, arguments) for _, (name, arguments) in sorted(calls.items()))


def _difference(found: Expected, right: Expected) -> str | None:
    for name in ("texts", "reasons", "calls", "prompt_tokens", "completion_tokens"):
        if getattr(found, name) != getattr(right, name):
            return f"{name} are {getattr(found, name)}, not {getattr(right, name)}"
    a, b = ([value for choice in each.log_probs or () for value in choice] for each in (found, right))
    if len(a) != len(b) or not all(math.isclose(x, y, abs_tol=_LOG_PROB) for x, y in zip(a, b)):
        return f"log_probs are {a}, not {b}"
    return None
