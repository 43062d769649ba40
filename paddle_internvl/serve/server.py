"""HTTP server process: an application on a port until SIGTERM or SIGINT, with draining.

The first signal refuses new requests (503) and lets running ones continue for `drain_timeout` seconds, then cancels
them; a second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import threading
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from paddle_internvl import startup
from paddle_internvl.serve.accesslog import log
from paddle_internvl.serve.app import create_app
from paddle_internvl.serve.connections import TimedConnection
from paddle_internvl.serve.middleware import Gate
from paddle_internvl.serve.settings import Settings

_BACKLOG = 2048  # connections that wait to be accepted; as many may be accepted at once
_OTHER_FILES = 512
_GRACE_SECONDS = 2  # in which cancelled requests send their error


def listen(settings: Settings) -> socket.socket:
    """Listen on the settings' address.

    Raises:
        OSError: the address is taken or not this machine's; names it.
    """
    try:
        found = socket.getaddrinfo(settings.server_name, settings.server_port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        # With the protocol, which `socket.create_server` leaves out: asyncio sets TCP_NODELAY only with it, and without
        # TCP_NODELAY every piece of a stream is 40 ms late.
        port = socket.socket(family, kind, protocol)
        try:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port.bind(address)
            port.listen(_BACKLOG)
        except OSError:
            port.close()
            raise
    except OSError as error:
        raise OSError(f"cannot listen on {settings.server_name}:{settings.server_port}: {error.strerror}") from None
    return port


class DrainingServer(uvicorn.Server):
    """A uvicorn server that drains before it shuts down.

    Args:
        config: of uvicorn.
        backend: an `EngineThread` or `forwarding.Replicas`, to `drain` and `close`.
        gate: counts the running requests.
        drain_timeout: seconds for them.
    """

    def __init__(self, config: uvicorn.Config, backend, gate: Gate, drain_timeout: float):
        super().__init__(config)
        self._backend, self._gate, self._drain_timeout = backend, gate, drain_timeout

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame) -> None:
        """Signal handler. It interrupts any code, also code that holds the log's lock: the event loop does the rest."""
        if self._gate.draining:
            self.should_exit = self.force_exit = True
            return
        self._gate.draining = True
        self._loop.call_soon_threadsafe(self._begin_to_drain)

    def _begin_to_drain(self) -> None:
        self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        log.info("closing: %d requests in work have %g s", self._gate.in_work, self._drain_timeout)
        self._backend.drain()
        deadline = time.monotonic() + self._drain_timeout
        while self._gate.in_work and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if self._gate.in_work:
            log.warning("closing: %d requests are cancelled", self._gate.in_work)
        closing = threading.Thread(target=self._backend.close, daemon=True)  # waits for the engine's last step
        try:
            closing.start()
            while closing.is_alive():
                await asyncio.sleep(0.05)
        except RuntimeError:  # out of memory: no thread can be started
            self._backend.close()
        self.should_exit = True


def raise_open_files(connections: int) -> None:
    """Raise the limit of open files, so that it is no limit of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _BACKLOG + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))


def build(app: FastAPI, backend, settings: Settings) -> DrainingServer:
    """The server of an application; it runs with `run(sockets=[port])`.

    Args:
        app: behind `guards.add_guards`.
        backend: see `DrainingServer`.
        settings: timeouts and limits of connections.
    """
    raise_open_files(settings.max_connections)
    config = uvicorn.Config(
        app,
        http=TimedConnection.with_limits(settings.header_timeout, settings.max_connections),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return DrainingServer(config, backend, app.state.gate, settings.drain_timeout)


def run(engine_thread, settings: Settings, port: socket.socket) -> None:
    """Serve on an open port until a signal; starts and closes the engine thread."""
    server = build(create_app(engine_thread, settings), engine_thread, settings)
    engine_thread.start()
    log_address(settings, port)
    try:
        server.run(sockets=[port])
    finally:
        if not server.force_exit:  # else the daemon thread ends with the process
            engine_thread.close()
    log.info("closed")


def log_address(settings: Settings, port: socket.socket, suffix: str = "") -> None:
    """Log the server's URL, and a warning where other machines reach it without a key."""
    host, number = port.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    log.info("%s is served on http://%s:%d/v1%s", settings.served_model_name, host, number, suffix)
    if settings.is_exposed:
        log.warning("%s is open to other machines and asks for no key; set --api-keys", settings.server_name)


def load_model(checkpoint: str, settings: Settings):
    """Load the model of a checkpoint folder or hub id.

    Raises:
        ValueError: invalid settings, or a checkpoint that can't be loaded.
    """
    from paddlenlp.transformers import AutoModel

    from paddle_internvl.checkpoints.hub import folder_of
    from paddle_internvl.engine.config import quantization_options

    return AutoModel.from_pretrained(
        str(folder_of(checkpoint)), dtype=settings.dtype, device=settings.device, tensor_parallel_degree=settings.tp,
        adapter=settings.adapter, **quantization_options(settings),
    )  # fmt: skip


def engine_thread_of(model, settings: Settings):
    """The `EngineThread` of a model, not started yet.

    Raises:
        ValueError: invalid settings of the engine.
    """
    from paddle_internvl.engine.config import EngineConfig
    from paddle_internvl.engine.engine_thread import EngineThread
    from paddle_internvl.engine.factory import engine_of
    from paddle_internvl.generation.constraints.compiler import compiler_of, is_installed

    config = EngineConfig(
        session_len=settings.session_len,
        max_batch_size=settings.max_batch_size,
        cache_tokens=settings.cache_tokens,
        cache_max_entry_count=settings.cache_max_entry_count,
        max_waiting=settings.queue_size,
        cuda_graph=settings.cuda_graph,
    )
    if is_installed():  # now: it takes a second with 151 thousand tokens, during which no thread runs
        compiler_of(model.tokenizer, model.config.llm_config.vocab_size)
    return EngineThread(engine_of(model, model.tokenizer, config))


def load_engine(checkpoint: str, settings: Settings):
    """The `engine_thread_of` of `load_model`."""
    return engine_thread_of(load_model(checkpoint, settings), settings)


def log_to_stderr(level: str) -> None:
    """Log to stderr from a level on; of uvicorn from warnings on."""
    startup.log_to_stderr("paddle_internvl", level.upper())
    startup.log_to_stderr("uvicorn", max(logging.WARNING, logging.getLevelName(level.upper())))


def model_name(checkpoint: str) -> str:
    """The default name of a checkpoint in requests: its folder's name."""
    return Path(os.path.abspath(checkpoint)).name
