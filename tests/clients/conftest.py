"""A server of the bundled checkpoint, started by the environment of the project (`make test-clients`)."""

import os
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]  # this environment has neither Paddle nor the project
CHECKPOINT = ROOT / "demo/checkpoints/internvl-tiny"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no look-up in the network


@pytest.fixture(scope="session")
def url():
    """URL of the API; PADDLE_INTERNVL_SERVE is the command that serves."""
    command = os.environ.get("PADDLE_INTERNVL_SERVE", "paddle-internvl serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [*command.split(), str(CHECKPOINT), "--server-port", str(port), "--served-model-name", "tiny"]
    server = subprocess.Popen(arguments, cwd=ROOT)
    try:
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(trust_env=False) as http:
            for _ in range(1200):
                assert server.poll() is None, "the server ended"
                try:
                    if http.get(f"{base}/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
        yield f"{base}/v1"
    finally:
        server.terminate()
        server.wait(60)
