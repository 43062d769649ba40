"""Replica: one of several processes with the model, an engine and the application of a single server, without a port.

In: ASGI requests with whole bodies. Out: ASGI messages, after a message that the request was accepted and before one
with the facts for the access log. Paddle is imported when a replica is made, not with the module.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import anyio

from paddle_internvl.serve.settings import Settings

ACCEPTED, RECORD = "paddle_internvl.accepted", "paddle_internvl.record"  # types of the first and the last message
_MAX_UNSENT = 256  # messages that a slow reader has not taken; then the send timeout runs
RECORD_FIELDS = ("tokens_in", "tokens_out", "media", "error")  # of an `accesslog.Record`, in the last message


class Replica:
    """An engine and its application.

    Args:
        engine_thread: a running `EngineThread`.
        settings: of a single server.
    """

    def __init__(self, engine_thread, settings: Settings):
        from paddle_internvl.serve.app import create_app

        self._engine = engine_thread
        self._app = create_app(engine_thread, settings)
        self._closed = False

    async def answer(self, scope: dict, body: bytes) -> AsyncGenerator[dict]:
        """The application's response as ASGI messages, after `ACCEPTED` and before `RECORD`.

        Closing it cancels the work.

        Args:
            scope: of the request.
            body: the whole body.
        """
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        sender, messages = anyio.create_memory_object_stream(_MAX_UNSENT)

        async def receive() -> dict:
            if not unread:
                await asyncio.Event().wait()  # a disconnect cancels the work instead
            return unread.pop()

        async def work() -> None:
            with sender:
                await self._app(scope, receive, sender.send)

        task = asyncio.create_task(work())
        try:
            yield {"type": ACCEPTED}
            async for message in messages:
                yield message
            await task
            record, route = scope["state"]["record"], getattr(scope.get("route"), "path", "-")
            yield {"type": RECORD, "route": route, **{name: getattr(record, name) for name in RECORD_FIELDS}}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def page(self) -> bytes:
        """The metrics page."""
        route = next(route for route in self._app.routes if route.path == "/metrics")
        return (await route.endpoint()).body

    async def close(self) -> None:
        """Cancel the running requests; streams end with an error."""
        self._closed = True
        await asyncio.to_thread(self._engine.close)

    def check_health(self) -> None:
        """Health check: Ray restarts a replica that raises.

        Raises:
            RuntimeError: the engine has stopped.
        """
        if not self._closed and not self._engine.healthy:
            raise RuntimeError("the engine does not go on")


class ReplicaProcess(Replica):
    """The replica of a process that loads the model itself.

    Args:
        checkpoint: folder or hub id.
        settings: of a single server.
    Raises:
        ValueError: invalid settings, or a checkpoint that can't be loaded.
    """

    def __init__(self, checkpoint: str, settings: Settings):
        from paddle_internvl import startup

        startup.import_paddle()
        from paddle_internvl.serve import server

        # The front writes the access log.
        server.log_to_stderr(max(settings.log_level, "warning", key=lambda level: logging.getLevelName(level.upper())))
        engine_thread = server.load_engine(checkpoint, settings)
        engine_thread.start()
        super().__init__(engine_thread, settings)
