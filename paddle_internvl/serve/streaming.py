"""Server-sent events (SSE): a stream of JSON objects that ends with `[DONE]`, or with an error object.

An object with a `type`, as the Responses API has, is an event of this name; its stream ends without `[DONE]`.

In: an async generator of objects. Out: an HTTP response, with a comment wherever nothing is sent for a while: proxies
close a silent connection. The generator is always closed, so that the request is cancelled when the client disconnects.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from paddle_internvl.serve.errors import ApiError

_COMMENT = ": no token yet\n\n"


class EventStream(Response):
    """An SSE response. An exception before the first event or comment gets an error status of its own.

    Args:
        chunks: the objects.
        to_api_error: the error response to an exception of `chunks`.
        comment_interval: seconds between two looks at the stream; if no event was sent since the last, a comment is.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[dict],
        to_api_error: Callable[[Exception], ApiError],
        comment_interval: float,
    ):
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # nginx does not buffer
        self._chunks, self._to_api_error, self._interval = chunks, to_api_error, comment_interval
        self._started, self._silent = False, True
        self._sending = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        comments = asyncio.create_task(self._send_comments(send))
        try:
            async with aclosing(self._chunks):
                await self._send_events(send)
        finally:
            comments.cancel()
            await asyncio.gather(comments, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})

    async def _send_events(self, send: Send) -> None:
        content: dict | None = {}
        typed = False
        while content is not None:
            try:
                content = await anext(self._chunks, None)
            except Exception as error:
                api_error = self._to_api_error(error)
                if not self._started:
                    raise api_error from error
                await self._send(send, _event(api_error.body))
                return
            if content is not None:
                typed = "type" in content
                await self._send(send, _event(content))
            elif not typed:
                await self._send(send, "data: [DONE]\n\n")

    async def _send_comments(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if self._silent:
                await self._send(send, _COMMENT)
            self._silent = True

    async def _send(self, send: Send, text: str) -> None:
        async with self._sending:
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            self._silent = False


def _event(content: dict) -> str:
    name = f"event: {content['type']}\n" if "type" in content else ""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{name}data: {text}\n\n"
