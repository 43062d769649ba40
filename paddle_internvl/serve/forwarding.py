"""Front of several replicas: an ASGI application that forwards guarded requests to replicas, and their responses back.

In: the guards of a single server, and replicas. Out: a server. A request whose replica is lost before its response
began is retried once; a response that had begun ends with an error in its stream. Independent of Ray and of the model.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace

from fastapi import FastAPI, Response
from starlette.types import Receive, Scope, Send

from paddle_internvl.serve import metrics_pages, server
from paddle_internvl.serve.accesslog import Record
from paddle_internvl.serve.app import ROUTES
from paddle_internvl.serve.errors import ApiError
from paddle_internvl.serve.guards import add_guards
from paddle_internvl.serve.metrics import Metrics
from paddle_internvl.serve.middleware import Gate
from paddle_internvl.serve.pages import add_pages
from paddle_internvl.serve.replica import RECORD, RECORD_FIELDS
from paddle_internvl.serve.settings import Settings

_SCOPE_KEYS = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path")
_ADDRESS_KEYS = ("client", "server")
_DROPPED_REQUEST_HEADERS = (b"authorization", b"x-request-id")  # the key is checked, the id is the front's
_DROPPED_RESPONSE_HEADERS = (b"x-request-id", b"x-content-type-options")  # the front adds them
_ROUTES = frozenset({path for path, _, _ in ROUTES} | {"/openapi.json"})


class ReplicaLostError(Exception):
    """The replica of a request is gone."""


class NoReplicaError(Exception):
    """No replica accepted a request in time."""


class Replicas(ABC):
    """The replicas behind a front."""

    @abstractmethod
    def answer(self, scope: dict, body: bytes) -> AsyncGenerator[dict]:
        """Response of a replica as ASGI messages, the last one a `replica.RECORD`. Closing it cancels the request.

        Args:
            scope: of the request, plain values only.
            body: the whole body.
        Raises:
            ReplicaLostError, NoReplicaError: see there.
        """

    @abstractmethod
    async def running(self) -> int:
        """The number of running replicas."""

    @abstractmethod
    async def pages(self) -> list[bytes]:
        """The metrics page of each replica."""

    @abstractmethod
    def close(self) -> None:
        """Cancel the running requests; returns when their streams have ended with an error."""

    def drain(self) -> None:  # noqa: B027
        """Nothing to do: the front's gate refuses new requests."""


def build(replicas: Replicas, settings: Settings) -> server.DrainingServer:
    """The server of a front; it runs with `run(sockets=[port])`.

    Args:
        replicas: that answer.
        settings: of the front; its limits are those of all replicas together.
    """
    return server.build(create_front(replicas, settings), replicas, settings)


def create_front(replicas: Replicas, settings: Settings) -> FastAPI:
    """The application that forwards guarded requests. Arguments: see `build`."""
    gate = Gate(settings.max_concurrent_requests, settings.max_pending_bytes)
    request_metrics = Metrics(lambda: gate.in_work)

    async def health():
        return {"status": "ok"}

    async def ready():
        if gate.draining:
            raise ApiError("closing", "the server is closing")
        running = await replicas.running()
        if not running:
            raise ApiError("unready", "no replica runs")
        return {"status": "ready", "replicas": running}

    async def metrics():
        page = metrics_pages.merged(request_metrics.page(), await replicas.pages())
        return Response(page, media_type="text/plain; version=0.0.4")

    app = FastAPI(openapi_url=None)
    for endpoint in (health, ready, metrics):
        app.add_api_route(f"/{endpoint.__name__}", endpoint, methods=["GET"])
    if not settings.disable_pages:
        add_pages(app)
    app.mount("/", Forward(replicas))
    add_guards(app, settings, gate, request_metrics)
    return app


class Forward:
    """ASGI application that forwards a request with its whole body."""

    def __init__(self, replicas: Replicas):
        self._replicas = replicas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Until a replica has answered, the log names known paths only.
        scope["route"] = SimpleNamespace(path=scope["path"] if scope["path"] in _ROUTES else "-")
        body = (await receive())["body"]  # `Bodies` has read it whole
        response = _ForwardedResponse(scope, send)
        try:
            try:
                await self._forward(scope, body, response)
            except ReplicaLostError:
                if response.started:
                    raise
                await self._forward(scope, body, response)
        except ReplicaLostError:
            await response.fail(
                ApiError("unready", "the replica that answered is gone; ask again", code="replica_lost")
            )  # fmt: skip
        except NoReplicaError as error:
            raise ApiError("late", "no replica has room for this request; try again later") from error

    async def _forward(self, scope: Scope, body: bytes, response: _ForwardedResponse) -> None:
        async with aclosing(self._replicas.answer(_request_scope(scope), body)) as messages:
            async for message in messages:
                await response.forward(message)


class _ForwardedResponse:
    """A replica's response on its way to the client.

    Attributes:
        started: whether a part of the response has been sent.
    """

    def __init__(self, scope: Scope, send: Send):
        self._scope, self._send = scope, send
        self._start: dict | None = None
        self.started = False

    async def forward(self, message: dict) -> None:
        """Send a message, or store a `RECORD`.

        The start is sent with the first part of the body: until then another replica can still answer.
        """
        if message["type"] == RECORD:
            self._store(message)
        elif message["type"] == "http.response.start":
            headers = [header for header in message["headers"] if header[0] not in _DROPPED_RESPONSE_HEADERS]
            self._start = {**message, "headers": headers}
        else:
            if not self.started:
                self.started = True
                await self._send(self._start)
            await self._send(message)

    def _store(self, message: dict) -> None:
        """Copy the replica's facts about the request into the front's access log and metrics."""
        for name in RECORD_FIELDS:
            setattr(self._scope["state"]["record"], name, message[name])
        self._scope["route"] = SimpleNamespace(path=message["route"])

    async def fail(self, error: ApiError) -> None:
        """End with an error: as a response of its own, or as the last event of the stream that has begun."""
        if not self.started:
            raise error
        self._scope["state"]["record"].error = error.code
        event = f"data: {json.dumps(error.body)}\n\n".encode()
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


def _request_scope(scope: Scope) -> dict:
    """The parts of an ASGI scope that a replica needs, as plain values."""
    record: Record = scope["state"]["record"]
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"] if name not in _DROPPED_REQUEST_HEADERS]
    headers.append((b"x-request-id", record.id.encode()))
    plain = {name: scope[name] for name in _SCOPE_KEYS if name in scope}
    return {**plain, **{name: scope.get(name) for name in _ADDRESS_KEYS}, "headers": headers}
