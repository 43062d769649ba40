"""The server as a process: a checkpoint and settings in, an open port until it is told to stop.

The first SIGTERM or SIGINT stops new requests (503) and lets those in work go on for `drain_timeout` seconds, then
cancels them; a second one ends at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from pathlib import Path

import uvicorn

from paddle_internvl.serve.accesslog import log
from paddle_internvl.serve.app import create_app
from paddle_internvl.serve.connections import TimedConnection
from paddle_internvl.serve.middleware import Gate
from paddle_internvl.serve.settings import Settings

_LAST_WORDS = 2  # seconds in which cancelled requests are told so


def listen(settings: Settings) -> socket.socket:
    """The open port.

    Raises:
        OSError: an address that can't be had; names it.
    """
    try:
        found = socket.getaddrinfo(settings.server_name, settings.server_port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        # With its protocol, which `socket.create_server` leaves out: without it asyncio does not switch off the delay
        # of small packets, and every piece of a stream comes 40 ms late.
        port = socket.socket(family, kind, protocol)
        try:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port.bind(address)
            port.listen(2048)
        except OSError:
            port.close()
            raise
    except OSError as error:
        raise OSError(f"cannot listen on {settings.server_name}:{settings.server_port}: {error.strerror}") from None
    return port


class DrainingServer(uvicorn.Server):
    """A uvicorn server that first lets running requests end."""

    def __init__(self, config: uvicorn.Config, engine_thread, gate: Gate, drain_timeout: float):
        super().__init__(config)
        self._engine, self._gate, self._drain_timeout = engine_thread, gate, drain_timeout

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame) -> None:
        """A signal came; what it interrupts may be writing to the log, so the loop goes on from here."""
        if self._gate.draining:
            self.should_exit = self.force_exit = True
            return
        self._gate.draining = True
        self._loop.call_soon_threadsafe(self._begin_to_drain)

    def _begin_to_drain(self) -> None:
        self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        log.info("closing: %d requests in work have %g s", self._gate.in_work, self._drain_timeout)
        self._engine.drain()
        until = time.monotonic() + self._drain_timeout
        while self._gate.in_work and time.monotonic() < until:
            await asyncio.sleep(0.05)
        if self._gate.in_work:
            log.warning("closing: %d requests are cancelled", self._gate.in_work)
        ending = threading.Thread(target=self._engine.close, daemon=True)  # waits for the engine's last step
        ending.start()
        while ending.is_alive():
            await asyncio.sleep(0.05)
        self.should_exit = True


def build(engine_thread, settings: Settings, loader=None) -> DrainingServer:
    """The server of an engine's thread; it runs with `run(sockets=[port])`. loader: see `create_app`."""
    app = create_app(engine_thread, settings, loader)
    config = uvicorn.Config(
        app,
        http=TimedConnection.with_header_timeout(settings.header_timeout),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=_LAST_WORDS,
    )
    return DrainingServer(config, engine_thread, app.state.gate, settings.drain_timeout)


def run(engine_thread, settings: Settings, port: socket.socket) -> None:
    """Serve on an open port until a signal ends it; starts and closes the engine's thread."""
    server = build(engine_thread, settings)
    engine_thread.start()
    host, number = port.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    log.info("%s is served on http://%s:%d/v1", settings.served_model_name, host, number)
    if settings.open_to_strangers:
        log.warning("%s is open to other machines and asks for no key; set --api-keys", settings.server_name)
    try:
        server.run(sockets=[port])
    finally:
        if not server.force_exit:  # else its thread, a daemon, ends with the process
            engine_thread.close()
    log.info("closed")


def load_model(checkpoint: str, settings: Settings):
    """The model of a checkpoint folder or hub id.

    Raises:
        ValueError: settings or a checkpoint that can't be.
    """
    from paddlenlp.transformers import AutoModel

    from paddle_internvl.checkpoints.hub import folder_of

    return AutoModel.from_pretrained(
        str(folder_of(checkpoint)), dtype=settings.dtype, device=settings.device, tensor_parallel_degree=settings.tp
    )


def engine_thread_of(model, settings: Settings):
    """An `EngineThread` of a model, not started yet.

    Raises:
        ValueError: settings that can't be.
    """
    from paddle_internvl.engine.engine_thread import EngineThread
    from paddle_internvl.engine.settings import EngineConfig, engine_of

    config = EngineConfig(
        session_len=settings.session_len,
        max_batch_size=settings.max_batch_size,
        cache_tokens=settings.cache_tokens,
        max_waiting=settings.queue_size,
        cuda_graph=settings.cuda_graph,
    )
    return EngineThread(engine_of(model, model.tokenizer, config))


def load_engine(checkpoint: str, settings: Settings):
    """The `engine_thread_of` of `load_model`."""
    return engine_thread_of(load_model(checkpoint, settings), settings)


def log_to_stderr(level: str) -> None:
    """Where the lines of the server go, and uvicorn's if they matter."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, lowest in (("paddle_internvl", logging.DEBUG), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(max(lowest, logging.getLevelName(level.upper())))


def model_name(checkpoint: str) -> str:
    """What a checkpoint is called in requests, where nobody says otherwise: its folder's name."""
    return Path(os.path.abspath(checkpoint)).name
