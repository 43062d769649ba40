"""What every request passes before a route sees it, as plain ASGI, outermost first.

`Observed`: a request id, one access line, metrics, and no error that is not told. `Keys`: who may ask. `Admission`: how
many at once. `Bodies`: content type, size and time of the body, and whether the client is still there. Knows no model.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Collection
from dataclasses import dataclass
from email.message import Message

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from paddle_internvl.serve.accesslog import Record, log, new_record, where
from paddle_internvl.serve.errors import GONE, ApiError, unexpected
from paddle_internvl.serve.metrics import Metrics

_OPEN = "/health"  # the one route that asks for no key
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")


class ClientGoneError(Exception):
    """The client left, or does not read its answer."""


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["record"].error = error.code or error.type
    await error.response()(scope, receive, send)


class Observed:
    """See the module."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record: Record = new_record(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["record"] = record
        begun, status = time.monotonic(), None

        async def noted(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", record.id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        gone = False
        try:
            await self.app(scope, receive, noted)
        except ClientGoneError:
            gone = True
        except Exception as error:
            record.error = "internal_error"
            log.error("id=%s %s", record.id, where(error))
            if status is None:
                await unexpected(record.id).response()(scope, receive, noted)
        finally:
            seconds, route = time.monotonic() - begun, getattr(scope.get("route"), "path", "-")
            told = GONE if gone or status is None else status
            self._metrics.request(route, told, seconds, gone)
            log.info("%s", record.line(scope["method"], route, told, seconds))


class Keys:
    """Bearer keys, compared in constant time. keys: none of them is needed if there are none."""

    def __init__(self, app: ASGIApp, keys: Collection[str]):
        self.app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._digests and scope["path"] != _OPEN and not self._known(scope):
            error = ApiError("key", "a valid API key is needed: send 'Authorization: Bearer KEY'")
            error.headers["WWW-Authenticate"] = "Bearer"
            await _refuse(error, scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1")).digest()
        # A list, not a generator: the time must not tell which key fits.
        fits = [hmac.compare_digest(digest, own) for own in self._digests]
        return scheme.lower() == "bearer" and any(fits)


@dataclass
class Gate:
    """How many requests are in work, with bodies of how many bytes, and whether new ones are let in.

    Args:
        most, most_bytes: at once.
    """

    most: int
    most_bytes: int
    in_work: int = 0
    bytes: int = 0
    draining: bool = False


class Admission:
    """Refuses a request that has work for the engine while there is too much of it, or while the server closes."""

    def __init__(self, app: ASGIApp, gate: Gate):
        self.app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self.app(scope, receive, send)
        elif self._gate.draining:
            await _refuse(ApiError("closing", "the server is closing"), scope, receive, send)
        elif self._gate.in_work >= self._gate.most:
            error = ApiError("busy", f"{self._gate.in_work} requests are in work already; try again")
            await _refuse(error, scope, receive, send)
        else:
            self._gate.in_work += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self._gate.in_work -= 1


class Bodies:
    """Reads a body within limits, hands it on whole, and from then on cancels the work when the client leaves.

    Args:
        gate: counts the bytes of all bodies. most: bytes of one. values: of its JSON; counted, since a few bytes can
            become many objects. read_seconds: until the body is there. send_seconds: until the client takes a part of
            its answer.
    """

    def __init__(self, app: ASGIApp, gate: Gate, most: int, values: int, read_seconds: float, send_seconds: float):
        self.app, self._gate, self._most, self._values = app, gate, most, values
        self._read_seconds, self._send_seconds = read_seconds, send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        try:
            await self._read(scope, receive, body)
            await self._watched(scope, body, receive, send)
        except ApiError as error:
            error.headers["Connection"] = "close"  # what is left of the body is not read
            await _refuse(error, scope, receive, send)
        finally:
            self._gate.bytes -= len(body)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        headers, most = Headers(scope=scope), 0 if scope["method"] in _WITHOUT_BODY else self._most
        if scope["method"] == "POST" and _content_type(headers) != "application/json":
            raise ApiError("type", "the body must be JSON: send 'Content-Type: application/json'")
        too_large = ApiError("large", f"the body is larger than {most} bytes")
        if int(headers.get("content-length", "0")) > most:
            raise too_large
        try:
            with anyio.fail_after(self._read_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    body += message.get("body", b"")
                    self._gate.bytes += len(message.get("body", b""))
                    if len(body) > most:
                        raise too_large
                    if self._gate.bytes > self._gate.most_bytes:
                        raise ApiError("busy", "too many large requests are in work; try again")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise ApiError("slow", f"the body was not there within {self._read_seconds:g} seconds") from None
        if sum(map(body.count, (b"{", b"[", b","))) > self._values:
            raise ApiError("large", f"the body holds more than {self._values} JSON values")

    async def _watched(self, scope: Scope, body: bytearray, receive: Receive, send: Send) -> None:
        unread, finished = [{"type": "http.request", "body": body, "more_body": False}], False

        async def handed():
            if not unread:
                await asyncio.Event().wait()  # the client's leaving cancels the work; there is nothing else to tell it
            return unread.pop()

        async def timed(message) -> None:
            nonlocal finished
            try:
                with anyio.fail_after(self._send_seconds):
                    await send(message)
            except TimeoutError:
                raise ClientGoneError from None
            finished = message["type"] == "http.response.body" and not message.get("more_body")

        work = asyncio.ensure_future(self.app(scope, handed, timed))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not finished:  # a finished answer reads as a client that left, too
                raise ClientGoneError
            await work
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _content_type(headers: Headers) -> str:
    message = Message()
    message["content-type"] = headers.get("content-type", "none/none")
    return message.get_content_type()
