"""Server process for a benchmark: `paddle-internvl serve` on a free port.

In: a checkpoint and flags. Out: its URL as soon as it is ready. The process is ended in any case.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import httpx

from paddle_internvl.serve.settings import KEYS_VARIABLE

_LINE = re.compile(rb"is served on (http://\S+)/v1")
_LOAD_SECONDS, _END_SECONDS = 1800, 60


@contextmanager
def served(checkpoint: str, flags: Sequence[str] = ()) -> Iterator[str]:
    """The URL of a server, without `/v1`.

    Args:
        checkpoint: folder or hub id.
        flags: further flags of `paddle-internvl serve`.
    Raises:
        ValueError: the server ended before it was ready; holds its last line.
    """
    arguments = [sys.executable, "-m", "paddle_internvl.cli.main", "serve", checkpoint, "--server-port", "0", *flags]
    with tempfile.TemporaryFile() as log:
        environment = {name: value for name, value in os.environ.items() if name != KEYS_VARIABLE}
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)
        try:
            yield _wait_until_ready(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_SECONDS)
            finally:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen, log: BinaryIO) -> str:
    until, url = time.monotonic() + _LOAD_SECONDS, None
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ValueError(f"the server ended before it was ready: {_last_line(log)}")
        if url is None:
            found = _LINE.search(_text(log))
            url = found and found[1].decode()
        elif _answers(url):
            return url
        time.sleep(0.1)
    raise ValueError(f"the server was not ready within {_LOAD_SECONDS} seconds")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _text(log: BinaryIO) -> bytes:
    return os.pread(log.fileno(), 1 << 20, 0)


def _last_line(log: BinaryIO) -> str:
    lines = _text(log).decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "no output"
