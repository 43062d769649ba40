"""The response object of OpenAI's Responses API, and the events of its stream.

In: the pieces of an answer. Out: a response object, or the events of a stream, numbered from 0.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

from paddle_internvl.engine.response import Response
from paddle_internvl.serve.completions import CompletionRun
from paddle_internvl.serve.responses_items import NO_TEXT, ItemStream, OutputItem, event, parts
from paddle_internvl.serve.responses_schema import ResponsesRequest


class ResponseDocument:
    """The response object of one request.

    Args:
        request: that is answered; its settings are part of the object.
        model: name of the model.
    """

    def __init__(self, request: ResponsesRequest, model: str):
        self._uid = uuid.uuid4().hex
        echo = request.model_dump(include={"tools", "tool_choice", "reasoning"}, exclude_none=True)
        self._head = {
            "id": f"resp_{self._uid}", "object": "response", "created_at": int(time.time()), "model": model,
            "instructions": request.instructions, "max_output_tokens": request.max_output_tokens,
            "temperature": request.temperature or 0.0, "top_p": 1.0 if request.top_p is None else request.top_p,
            "metadata": request.metadata or {}, "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None, "store": False, "tool_choice": "auto", "tools": [], "reasoning": None,
            "text": {"format": (request.text or {}).get("format") or {"type": "text"}},
            "truncation": "disabled", "error": None, **echo,
        }  # fmt: skip

    def whole(self, responses: list[Response], usage: dict) -> dict:
        """The response object of the complete answer, for `CompletionRun.whole`."""
        (response,) = responses
        status = "incomplete" if response.finish_reason == "length" else "completed"
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        items = parts(response.reasoning, response.text, response.tool_calls) or [NO_TEXT]
        statuses = [*["completed"] * (len(items) - 1), status]  # only the last item can be cut
        output = [
            OutputItem(kind, self._uid, i, fields).whole(text, status)
            for i, ((kind, fields, text), status) in enumerate(zip(items, statuses))
        ]
        return self._response(status, output, incomplete_details=reason, usage=_usage(usage))

    async def events(self, run: CompletionRun) -> AsyncIterator[dict]:
        """The events of a stream. The first one comes with the engine's first piece."""
        numbers = itertools.count()
        async with aclosing(self._events(run)) as events:
            async for new in events:
                yield {**new, "sequence_number": next(numbers)}

    async def _events(self, run: CompletionRun) -> AsyncIterator[dict]:
        items, opened, response = ItemStream(self._uid), False, None
        async with aclosing(run.pieces) as pieces:
            async for piece in pieces:
                if not opened:
                    opened = True
                    for name in ("created", "in_progress"):
                        yield event(name, response=self._response("in_progress", []))
                response = piece.response
                for part in parts(piece.reasoning, piece.text, piece.calls):
                    for new in items.push(part):
                        yield new
        document = self.whole([response], run.usage)
        for new in (*(items.push(NO_TEXT) if items.empty else ()), *items.close(document["status"])):
            yield new
        yield event(document["status"], response=document)

    def _response(self, status: str, output: list, incomplete_details: dict | None = None, usage=None) -> dict:
        return {
            **self._head, "status": status, "output": output, "incomplete_details": incomplete_details, "usage": usage,
        }  # fmt: skip


def _usage(usage: dict) -> dict:
    """The usage of a chat completion in the names of the Responses API."""
    details = usage.get("completion_tokens_details") or {"reasoning_tokens": 0}
    return {
        "input_tokens": usage["prompt_tokens"], "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"], "output_tokens_details": details,
        "total_tokens": usage["total_tokens"],
    }  # fmt: skip
