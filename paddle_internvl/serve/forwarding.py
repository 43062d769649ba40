"""Requests handed on to replicas, and their answers back: the server's front where several processes have the model.

In: what stands before the routes of a single server (`create_app`'s middleware and error handlers), and replicas that
answer. Out: an ASGI application. A request whose replica is lost before its answer began is tried once more; one whose
answer had begun ends with an error in its stream. Knows no Ray and no model.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace

from fastapi import FastAPI, Response
from starlette.types import Receive, Scope, Send

from paddle_internvl.engine.stats import EngineStats
from paddle_internvl.serve import metrics_pages, server
from paddle_internvl.serve.accesslog import Record
from paddle_internvl.serve.errors import ApiError
from paddle_internvl.serve.replica import NOTED, RECORD
from paddle_internvl.serve.settings import Settings

_PASSED_ON = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path")
_ADDRESSES = ("client", "server")
_KEPT_BACK = (b"authorization", b"x-request-id")  # of the request: the key has been checked, the id is the front's
_OWN = (b"x-request-id", b"x-content-type-options")  # of the answer: the front adds them


class ReplicaLostError(Exception):
    """The replica that had a request is gone."""


class NoReplicaError(Exception):
    """No replica took a request in time."""


class Replicas(ABC):
    """Those who answer. To what stands before a single server's routes they are in the place of an `EngineThread`.

    Args:
        session_len: the most tokens of prompt and answer, or None.
    """

    def __init__(self, session_len: int | None):
        self.engine = SimpleNamespace(model=None, tokenizer=None, limits=SimpleNamespace(session_len=session_len))

    @abstractmethod
    def answer(self, scope: dict, body: bytes) -> AsyncGenerator[dict]:
        """ASGI messages, the last one a `replica.RECORD`. Closing it cancels the request.

        Raises:
            ReplicaLostError, NoReplicaError: see there.
        """

    @abstractmethod
    async def running(self) -> int:
        """How many there are."""

    @abstractmethod
    async def pages(self) -> list[bytes]:
        """The metrics of each."""

    @abstractmethod
    def close(self) -> None:
        """Cancel what is being answered; returns when streams have been told."""

    def drain(self) -> None:  # noqa: B027
        """Nothing to do: the front's gate refuses new requests."""

    def stats(self) -> EngineStats:
        """The front has no engine: its share of the sums is nothing."""
        return EngineStats()


def build(replicas: Replicas, settings: Settings) -> server.DrainingServer:
    """The server that hands on; it runs with `run(sockets=[port])`.

    Args:
        settings: of the front, for all replicas together.
    """
    running = server.build(replicas, settings)
    running.config.app = front(running.config.app, replicas)
    return running


def front(single: FastAPI, replicas: Replicas) -> FastAPI:
    """The application that hands on what the guards of another let through.

    Args:
        single: an application of `create_app`, whose routes are not used but for health and its own metrics.
    """
    routes = {route.path: route.endpoint for route in single.routes}
    gate = single.state.gate

    async def ready():
        """Whether requests are taken: some replica runs, and the server does not close."""
        if gate.draining:
            raise ApiError("closing", "the server is closing")
        running = await replicas.running()
        if not running:
            raise ApiError("unready", "no replica runs")
        return {"status": "ready", "replicas": running}

    async def metrics():
        """Numbers for Prometheus: requests as the front sees them, the rest summed over the replicas."""
        own = (await routes["/metrics"]()).body
        page = metrics_pages.merged(own, await replicas.pages())
        return Response(page, media_type="text/plain; version=0.0.4")

    app = FastAPI(
        middleware=single.user_middleware,
        exception_handlers=single.exception_handlers,
        lifespan=single.router.lifespan_context,
        openapi_url=None,
    )
    app.state.gate = gate
    for path, endpoint in (("/health", routes["/health"]), ("/ready", ready), ("/metrics", metrics)):
        app.add_api_route(path, endpoint, methods=["GET"])
    app.mount("/", Forward(replicas, frozenset(routes)))
    return app


class Forward:
    """The ASGI application that hands a request on, body and all.

    Args:
        routes: paths that the log may name before a replica has.
    """

    def __init__(self, replicas: Replicas, routes: frozenset[str]):
        self._replicas, self._routes = replicas, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = SimpleNamespace(path=scope["path"] if scope["path"] in self._routes else "-")
        body = (await receive())["body"]  # `Bodies` has read it whole
        reply = _Reply(scope, send)
        try:
            try:
                await self._hand_on(scope, body, reply)
            except ReplicaLostError:
                if reply.begun:
                    raise
                await self._hand_on(scope, body, reply)
        except ReplicaLostError:
            lost = ApiError("unready", "the replica that answered is gone; ask again", code="replica_lost")
            await reply.fail(lost)
        except NoReplicaError as error:
            raise ApiError("late", "no replica has room for this request; try again later") from error

    async def _hand_on(self, scope: Scope, body: bytes, reply: _Reply) -> None:
        async with aclosing(self._replicas.answer(_asked(scope), body)) as messages:
            async for message in messages:
                await reply.take(message)


class _Reply:
    """An answer on its way back. begun: something of it has been sent."""

    def __init__(self, scope: Scope, send: Send):
        self._scope, self._send = scope, send
        self._start: dict | None = None
        self.begun = False

    async def take(self, message: dict) -> None:
        """Send a message, or note what it tells. The start waits for the first part of the body: until then nothing
        stands in the way of another replica's answer."""
        if message["type"] == RECORD:
            _note(self._scope, message)
        elif message["type"] == "http.response.start":
            headers = [header for header in message["headers"] if header[0] not in _OWN]
            self._start = {**message, "headers": headers}
        else:
            if not self.begun:
                self.begun = True
                await self._send(self._start)
            await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Say that there will be no more: by an answer of its own, or in the stream that has begun."""
        if not self.begun:
            raise error
        self._scope["state"]["record"].error = error.code
        event = f"data: {json.dumps(error.body)}\n\n".encode()
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


def _asked(scope: Scope) -> dict:
    """What a replica needs to know of a request; plain values only."""
    record: Record = scope["state"]["record"]
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"] if name not in _KEPT_BACK]
    headers.append((b"x-request-id", record.id.encode()))
    plain = {name: scope[name] for name in _PASSED_ON if name in scope}
    return {**plain, **{name: scope.get(name) for name in _ADDRESSES}, "headers": headers}


def _note(scope: Scope, told: dict) -> None:
    """What the replica knows about the request, for the front's log and metrics."""
    for name in NOTED:
        setattr(scope["state"]["record"], name, told[name])
    scope["route"] = SimpleNamespace(path=told["route"])
