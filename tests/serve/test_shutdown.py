"""The server as a process: log, draining at SIGTERM, exit."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine_thread import EngineThread
from paddle_internvl.engine.factory import engine_of
from paddle_internvl.serve.server import listen
from paddle_internvl.serve.settings import KEYS_VARIABLE, Settings
from tests.serve.conftest import CHECKPOINT
from tests.serve.running import running

START = 60  # seconds until the model is loaded, on a busy machine
LONG = {
    "model": "internvl-tiny", "messages": [{"role": "user", "content": "a"}], "stream": True, "ignore_eos": True,
}  # fmt: skip


class Process:
    """`paddle-internvl serve` of the bundled checkpoint. lines: of its log."""

    def __init__(self, *flags):
        words = [
            sys.executable,
            "-m",
            "paddle_internvl.cli.main",
            "serve",
            str(CHECKPOINT),
            "--server-port",
            "0",
            *flags,
        ]
        environment = {name: value for name, value in os.environ.items() if name != KEYS_VARIABLE}
        self.popen = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        (self.url,) = self.find(r"internvl-tiny is served on (http://\S+)/v1").groups()
        self.client = httpx.Client(base_url=self.url, trust_env=False, verify=False, timeout=START)
        until = time.monotonic() + START
        while time.monotonic() < until:
            try:
                if self.client.get("/health").status_code == 200:
                    return
            except httpx.ConnectError:
                time.sleep(0.05)

    def _read(self) -> None:
        for line in self.popen.stderr:
            self.lines.append(line)

    def find(self, pattern: str) -> re.Match:
        until = time.monotonic() + START
        while time.monotonic() < until:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            assert self.popen.poll() is None or any(re.search(pattern, line) for line in self.lines), self.lines
            time.sleep(0.02)
        raise AssertionError(f"no line like {pattern!r} in {self.lines}")


@contextmanager
def process(*flags):
    server = Process(*flags)
    try:
        yield server
        server.client.close()
    finally:
        server.popen.kill()
        server.popen.wait()


@contextmanager
def streaming(client, **more):
    """Lines of a stream that has begun."""
    with client.stream("POST", "/v1/chat/completions", json={**LONG, **more}) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: {")
        yield lines


def test_row_30_sigterm_drains():
    """And row 19: a warning where other machines reach a server without an API key."""
    with process("--server-name", "0.0.0.0") as server, streaming(server.client, max_tokens=300) as lines:
        server.find(r"WARNING 0\.0\.0\.0 is open to other machines and asks for no key; set --api-keys")
        server.popen.send_signal(signal.SIGTERM)
        server.find("closing: 1 requests in work have 30 s")
        with httpx.Client(base_url=server.url, trust_env=False) as other:
            refused = other.post("/v1/chat/completions", json=LONG)
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "server_closing"
            assert (other.get("/ready").status_code, other.get("/health").status_code) == (503, 200)
        events = [line for line in lines if line]
        assert events[-1] == "data: [DONE]" and '"finish_reason":"length"' in events[-2]
        assert server.popen.wait(START) == 0
        assert "closed" in server.lines[-1] and not any("Traceback" in line for line in server.lines)


def test_row_30_after_the_drain_requests_are_cancelled(tiny, caplog):
    engine_thread = EngineThread(engine_of(tiny, tiny.tokenizer, EngineConfig()))
    engine_thread.start()
    with (
        running(engine_thread, drain_timeout=0.2) as served,
        served.client() as client,
        streaming(client, model="tiny", max_tokens=15000) as lines,
    ):
        served.server.handle_exit(signal.SIGTERM, None)
        last = [line for line in lines if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_closing"
    assert "closing: 1 requests are cancelled" in caplog.text and not engine_thread.healthy


def test_row_30_a_second_signal_ends_at_once():
    """The drain takes longer than the test waits."""
    with process("--drain-timeout", str(10 * START)) as server, streaming(server.client, max_tokens=15000) as lines:
        server.popen.send_signal(signal.SIGTERM)
        server.find("closing: 1 requests")
        server.popen.send_signal(signal.SIGTERM)
        server.popen.wait(START)
        with pytest.raises(httpx.TransportError):
            list(lines)


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"^cannot listen on 127.0.0.1:{number}: Address already in use"):
            listen(Settings(server_port=number))
