"""One of several processes with the model: an engine, the application of a single server, and a way in without a port.

In: ASGI requests, plain values with their bodies whole. Out: ASGI messages, between a word that the request was taken
and what the log is to know of it. Nothing heavy is imported before a replica is made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import anyio

from paddle_internvl.serve.settings import Settings

TAKEN, RECORD = "paddle_internvl.taken", "paddle_internvl.record"  # types of the first and the last message
NOTED = ("tokens_in", "tokens_out", "media", "error")  # fields of an `accesslog.Record` that the last one holds


class Replica:
    """What runs in each process.

    Args:
        checkpoint: folder or hub id. settings: of a single server.
    Raises:
        ValueError: settings or a checkpoint that can't be.
    """

    def __init__(self, checkpoint: str, settings: Settings):
        from paddle_internvl import startup

        startup.import_paddle()
        from paddle_internvl.serve import server
        from paddle_internvl.serve.app import create_app

        # The front writes the access lines
        server.log_to_stderr(max(settings.log_level, "warning", key=lambda level: logging.getLevelName(level.upper())))
        self._engine = server.load_engine(checkpoint, settings)
        self._engine.start()
        self._app = create_app(self._engine, settings)
        self._closed = False

    async def answer(self, scope: dict, body: bytes) -> AsyncGenerator[dict]:
        """The application's answer as ASGI messages, between `TAKEN` and `RECORD`. Cancelling it cancels the work."""
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        given, messages = anyio.create_memory_object_stream(float("inf"))

        async def receive() -> dict:
            if not unread:
                await asyncio.Event().wait()  # that the client left is told by cancelling
            return unread.pop()

        async def work() -> None:
            with given:
                await self._app(scope, receive, given.send)

        working = asyncio.create_task(work())
        try:
            yield {"type": TAKEN}
            async for message in messages:
                yield message
            await working
            record, route = scope["state"]["record"], getattr(scope.get("route"), "path", "-")
            yield {"type": RECORD, "route": route, **{name: getattr(record, name) for name in NOTED}}
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def page(self) -> bytes:
        """The metrics."""
        route = next(route for route in self._app.routes if route.path == "/metrics")
        return (await route.endpoint()).body

    async def close(self) -> None:
        """Cancel what is being answered; streams are told."""
        self._closed = True
        await asyncio.to_thread(self._engine.close)

    def check_health(self) -> None:
        """Ray starts a replica anew for which this raises."""
        if not self._closed and not self._engine.healthy:
            raise RuntimeError("the engine does not go on")
