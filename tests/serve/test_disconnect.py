"""A client that disconnects cancels its request at every stage."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.serve.running import QUESTION, raw_post, wait_until


class Loader:
    """Media that do not come."""

    def __init__(self):
        self.waiting = 0

    @asynccontextmanager
    async def loaded(self, dialogue):
        self.waiting += 1
        try:
            await asyncio.Event().wait()
            yield dialogue
        finally:
            self.waiting -= 1

    async def aclose(self):
        return


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("hold", [0, 3], ids=["queued", "speaking"])
def test_row_12_leaving_cancels(serve, stream, hold):
    server = serve({"hold": hold})
    with server.connect() as connection:
        connection.sendall(raw_post({**QUESTION, "stream": stream}))
        wait_until(lambda: server.engine.running == 1)
        if stream and hold:
            assert b"200 OK" in connection.recv(1 << 16)
        assert server.engine.cancelled == 0
    wait_until(lambda: server.engine.cancelled == 1 and server.engine.running == 0)
    wait_until(lambda: server.gate.in_work == 0)
    assert "disconnects_total 1.0" in server.get("/metrics").text


def test_row_12_leaving_cancels_fetching(serve):
    loader = Loader()
    server = serve(loader=loader)
    with server.connect() as connection:
        connection.sendall(raw_post(QUESTION))
        wait_until(lambda: loader.waiting == 1)
    wait_until(lambda: loader.waiting == 0 and server.gate.in_work == 0)
    assert not server.engine.asked
