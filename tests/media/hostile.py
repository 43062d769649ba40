"""A server on this machine that answers byte by byte what a test tells it to, and remembers who came."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

HEAD = b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def moved(to: str, status: str = "302 Found") -> bytes:
    return answer(b"", f"Location: {to}", status=status)


class Server:
    """Attributes: port; heads: of every request; open, most: connections now, and most at a time; came: all of them."""

    def __init__(self, answers):
        self.answers, self.heads, self.open, self.most, self.came = answers, [], 0, 0, 0

    async def talk(self, reader, writer):
        self.open, self.came = self.open + 1, self.came + 1
        self.most = max(self.most, self.open)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode("latin-1"))
            path = head.split()[1].decode()
            told = self.answers.get(path, answer(b"", status="404 Not Found"))
            if callable(told):
                await told(writer)
            else:
                writer.write(told)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.heads.append("gone")
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(answers, host="127.0.0.1", port=0, tls=None):
    server = Server(answers)
    listener = await asyncio.start_server(server.talk, host, port, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def drip(first: bytes, piece: bytes, pause: float = 0.02):
    """`first`, and then `piece` for ever."""

    async def talk(writer):
        writer.write(first)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return talk


async def silence(writer):
    await asyncio.sleep(60)
