"""ASGI middleware that every request passes before its route, outermost first.

`RequestLog`: request id, access log, metrics, unexpected errors.
`ApiKeys`: authentication.
`Bodies`: content type, size and timeout of the body; cancels the work when the client disconnects.
`Admission`: limit of concurrent requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Collection
from dataclasses import dataclass
from email.message import Message
from functools import partial

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from paddle_internvl.serve.accesslog import Record, error_trace, log, new_record
from paddle_internvl.serve.errors import CLIENT_CLOSED_REQUEST, ApiError, unexpected
from paddle_internvl.serve.metrics import Metrics

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")
_LINGER_SECONDS, _SILENCE_SECONDS = 5.0, 0.5  # after a response to a request whose body still arrives


class ClientGoneError(Exception):
    """The client disconnected, or does not read its response."""


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["record"].error = error.code or error.type
    await error.response()(scope, receive, send)


class RequestLog:
    """Gives every request an id, an access log line and metrics, and answers 500 to unexpected errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record: Record = new_record(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["record"] = record
        started, status = time.monotonic(), None

        async def send_with_id(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"x-request-id", record.id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        client_gone = False
        try:
            await self.app(scope, receive, send_with_id)
        except ClientGoneError:
            client_gone = True
        except Exception as error:
            record.error = "internal_error"
            log.error("id=%s %s", record.id, error_trace(error))
            if status is None:
                await unexpected(record.id).response()(scope, receive, send_with_id)
        finally:
            seconds, route = time.monotonic() - started, getattr(scope.get("route"), "path", "-")
            status = CLIENT_CLOSED_REQUEST if client_gone or status is None else status
            self._metrics.request(route, status, seconds, client_gone)
            log.info("%s", record.line(scope["method"], route, status, seconds))


class ApiKeys:
    """Bearer authentication; API keys are compared in constant time.

    Args:
        keys: one of which a request must bring; empty: no key is needed.
        public: paths that need no key.
    """

    def __init__(self, app: ASGIApp, keys: Collection[str], public: Collection[str]):
        self.app, self._public = app, frozenset(public)
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protected = scope["type"] == "http" and self._digests and scope["path"] not in self._public
        if protected and not self.accepts(Headers(scope=scope).get("authorization", "")):
            error = ApiError("key", "a valid API key is needed: send 'Authorization: Bearer KEY'")
            error.headers["WWW-Authenticate"] = "Bearer"
            await _refuse(error, scope, receive, send)
            return
        await self.app(scope, receive, send)

    def accepts(self, authorization: str) -> bool:
        """Whether an Authorization header (latin-1) holds one of the keys."""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1")).digest()
        # A list, not a generator: the time must not depend on which key fits.
        fits = [hmac.compare_digest(digest, expected) for expected in self._digests]
        return scheme.lower() == "bearer" and any(fits)


@dataclass
class Gate:
    """Admission state of a server.

    Args:
        max_requests: requests in work at once.
        max_bytes: bytes of the bodies of all requests.
    Attributes:
        in_work: requests whose body is read and whose response is not finished.
        bytes: of all bodies held now.
        draining: whether new requests are refused, because the server is closing.
    """

    max_requests: int
    max_bytes: int
    in_work: int = 0
    bytes: int = 0
    draining: bool = False

    def require_open(self) -> None:
        """Refuse a request while the server closes or too many requests are in work.

        Raises:
            ApiError: 503 or 429.
        """
        if self.draining:
            raise ApiError("closing", "the server is closing")
        if self.in_work >= self.max_requests:
            raise ApiError("busy", f"{self.in_work} requests are in work already; try again")


class Bodies:
    """Reads the body within limits, and cancels the work when the client disconnects.

    A request that the gate refuses is answered before its body is read. What still arrives is dropped for a while: a
    connection that is closed with unread bytes is reset, and the client may lose the response.

    Args:
        gate: counts the bytes of all bodies.
        max_bytes: of one body.
        max_values: of its JSON, counted by commas and brackets: a few bytes can become many objects.
        read_timeout: seconds until the body is complete.
        send_timeout: seconds until the client takes a part of the response.
    """

    def __init__(
        self, app: ASGIApp, gate: Gate, max_bytes: int, max_values: int, read_timeout: float, send_timeout: float
    ):
        self.app, self._gate, self._max_bytes, self._max_values = app, gate, max_bytes, max_values
        self._read_timeout, self._send_timeout = read_timeout, send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        try:
            await self._read(scope, receive, body)
            await self._run(scope, body, receive, send)
        except ApiError as error:
            error.headers["Connection"] = "close"  # most of the body is not read
            await _refuse(error, scope, receive, partial(self._send_and_linger, receive, send))
        finally:
            self._gate.bytes -= len(body)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        headers, has_body = Headers(scope=scope), scope["method"] not in _WITHOUT_BODY
        if has_body:
            self._gate.require_open()
        if scope["method"] == "POST" and _content_type(headers) != "application/json":
            raise ApiError("type", "the body must be JSON: send 'Content-Type: application/json'")
        max_bytes = self._max_bytes if has_body else 0
        too_large = ApiError("large", f"the body is larger than {max_bytes} bytes")
        if int(headers.get("content-length", "0")) > max_bytes:
            raise too_large
        try:
            with anyio.fail_after(self._read_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    body += message.get("body", b"")
                    self._gate.bytes += len(message.get("body", b""))
                    if len(body) > max_bytes:
                        raise too_large
                    if self._gate.bytes > self._gate.max_bytes:
                        raise ApiError("busy", "too many large requests are in work; try again")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise ApiError("slow", f"the body was not there within {self._read_timeout:g} seconds") from None
        if sum(map(body.count, (b"{", b"[", b","))) > self._max_values:
            raise ApiError("large", f"the body holds more than {self._max_values} JSON values")

    async def _send_and_linger(self, receive: Receive, send: Send, message) -> None:
        """Send a part of a response; before the last one ends it, drop the rest of the request's body."""
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            dropped = 0
            with anyio.move_on_after(_LINGER_SECONDS):
                while dropped < self._max_bytes:
                    received = None
                    with anyio.move_on_after(_SILENCE_SECONDS):
                        received = await receive()
                    if not received or not received.get("more_body"):
                        break
                    dropped += len(received["body"])
            message = {"type": "http.response.body"}
        await send(message)

    async def _run(self, scope: Scope, body: bytearray, receive: Receive, send: Send) -> None:
        """Run the application with the whole body until it has answered or the client disconnects."""
        unread, finished = [{"type": "http.request", "body": body, "more_body": False}], False

        async def receive_body():
            if not unread:
                await asyncio.Event().wait()  # a disconnect cancels the work instead
            return unread.pop()

        async def send_in_time(message) -> None:
            nonlocal finished
            try:
                with anyio.fail_after(self._send_timeout):
                    await send(message)
            except TimeoutError:
                raise ClientGoneError from None
            finished = message["type"] == "http.response.body" and not message.get("more_body")

        work = asyncio.ensure_future(self.app(scope, receive_body, send_in_time))
        disconnect = asyncio.ensure_future(_until_disconnect(receive))
        try:
            await asyncio.wait({work, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not finished:  # after a finished response, `receive` gives a disconnect too
                raise ClientGoneError
            await work
        finally:
            work.cancel()
            disconnect.cancel()
            await asyncio.gather(work, disconnect, return_exceptions=True)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _content_type(headers: Headers) -> str:
    message = Message()
    message["content-type"] = headers.get("content-type", "none/none")
    return message.get_content_type()


class Admission:
    """Counts the requests that have work for the engine, and refuses those above the gate's limit."""

    def __init__(self, app: ASGIApp, gate: Gate):
        self.app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self.app(scope, receive, send)
            return
        try:
            self._gate.require_open()
        except ApiError as error:
            await _refuse(error, scope, receive, send)
            return
        self._gate.in_work += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._gate.in_work -= 1
