"""A server on a free port for the length of a test, over a fake engine."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from types import SimpleNamespace

import httpx

from paddle_internvl.engine.request import EngineClosedError, Piece, RequestState
from paddle_internvl.engine.stats import EngineStats
from paddle_internvl.serve import server
from paddle_internvl.serve.app import create_app
from paddle_internvl.serve.settings import Settings

WAIT = 60  # seconds after which something that should have happened is said not to happen
RAW_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail if `condition` does not become true."""
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


@dataclass
class FakeEngineThread:
    """An `EngineThread` that answers with `text`, token by token.

    Args:
        hold: after so many tokens of an answer wait until `go` is set. fail: after so many tokens raise `error`.
    """

    model: object
    tokenizer: object
    text: str = "a red circle and a blue square"
    session_len: int = 2048
    hold: int | None = None
    fail: int | None = None
    error: Exception | None = None
    healthy: bool = True
    go: threading.Event = field(default_factory=threading.Event)
    asked: list = field(default_factory=list)
    cancelled: int = 0
    finished: int = 0
    running: int = 0
    accepting: bool = True

    def __post_init__(self):
        self.engine = SimpleNamespace(
            model=self.model, tokenizer=self.tokenizer, config=SimpleNamespace(session_len=self.session_len)
        )

    def start(self) -> None:
        """Nothing to start."""

    async def stream(self, prompt, config):
        """See `EngineThread.stream`."""
        if not self.accepting:
            raise EngineClosedError("the engine takes no more requests")
        answers = [
            RequestState(self.model, self.tokenizer, prompt, config, self.session_len, i) for i in range(config.n)
        ]
        self.asked.append((prompt, config))
        self.running += 1
        try:
            async for piece in self.pieces(answers, prompt):
                yield piece
            self.finished += 1
        finally:
            self.running -= 1
            self.cancelled += 1 - all(answer.stopped or len(answer.ids) >= answer.max_tokens for answer in answers)

    async def pieces(self, answers, prompt):
        """Pieces of the answers, token by token."""
        tokenizer = self.tokenizer
        end = tokenizer.convert_tokens_to_ids(prompt.stop)
        ids = [*tokenizer.convert_tokens_to_ids(tokenizer.tokenize(self.text)), end]
        for step, token in enumerate(cycle(ids)):  # who ignores the end hears it all again
            if all(answer.stopped or len(answer.ids) >= answer.max_tokens for answer in answers):
                return
            if step == self.fail:
                raise self.error
            while step == self.hold and not self.go.is_set():
                await asyncio.sleep(0.01)
                if not self.accepting:
                    raise EngineClosedError("the server is shutting down")
            await asyncio.sleep(0)
            for answer in answers:
                if not answer.stopped and len(answer.ids) < answer.max_tokens:
                    others = {7 + k: -1.0 - k for k in range(answer.config.top_logprobs)}
                    log_probs = {token: -0.5, **others} if answer.config.log_probs else None
                    piece: Piece = answer.append(token, log_probs)
                    yield piece

    def drain(self) -> None:
        """See `EngineThread`."""

    def close(self, timeout: float = 0) -> None:
        """See `EngineThread`."""
        self.accepting = False

    def stats(self) -> EngineStats:
        """See `EngineThread`."""
        return EngineStats(
            waiting=0, running=self.running, prefilling=0, blocks_used=0, blocks_total=8, steps=0, prompt_tokens=0,
            reused_tokens=0, generated_tokens=0, vision_tiles=0, finished=self.finished, cancelled=self.cancelled,
            failed=0, failed_in_row=0, out_of_memory=0,
        )  # fmt: skip


@dataclass
class Served:
    """A server that runs. server: the uvicorn one. engine: its thread. port: on 127.0.0.1."""

    server: server.DrainingServer
    engine: object
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def gate(self):
        return self.server.config.app.state.gate

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=WAIT, trust_env=False, verify=False, **options)

    def ask(self, path: str = "/v1/chat/completions", body: dict | None = None, **more) -> httpx.Response:
        """POST a body (a question to the chat) with more fields."""
        with self.client() as client:
            return client.post(path, json={**(QUESTION if body is None else body), **more})

    def get(self, path: str, **options) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **options)

    def connect(self, buffer: int | None = None) -> socket.socket:
        """A plain connection. buffer: bytes that it takes without being read."""
        connection = socket.socket()
        connection.settimeout(WAIT)
        if buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.connect(("127.0.0.1", self.port))
        return connection


@contextmanager
def running(engine, loader=None, **settings) -> Iterator[Served]:
    """A server over an engine's thread, with settings."""
    chosen = Settings(**{"server_port": 0, "served_model_name": "tiny", **settings})
    with server.listen(chosen) as port:
        uvicorn_server = server.build(create_app(engine, chosen, loader), engine, chosen)
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [port]}, daemon=True)
        thread.start()
        wait_until(lambda: uvicorn_server.started)
        yield Served(uvicorn_server, engine, port.getsockname()[1])
        uvicorn_server.should_exit = True
        thread.join(WAIT)
        assert not thread.is_alive()


def raw_post(body: dict) -> bytes:
    """A chat request as it goes over the wire."""
    content = json.dumps(body).encode()
    return RAW_HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content


def events(response: httpx.Response) -> list[str]:
    """The data of a stream's events, without comments."""
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line and line[0] != ":"]
