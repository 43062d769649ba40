"""The server's routes: a typed request in, an answer out. What they share is how errors are explained.

Knows HTTP and OpenAI's bodies; prompts are made by `preparing`, answers by `completions`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from paddle_internvl import __version__
from paddle_internvl.engine.request import Prompt
from paddle_internvl.serve.accesslog import log, where
from paddle_internvl.serve.completions import Answering, generation_config
from paddle_internvl.serve.errors import ApiError, of_work
from paddle_internvl.serve.logprobs import LogProbs
from paddle_internvl.serve.metrics import Metrics
from paddle_internvl.serve.middleware import Gate
from paddle_internvl.serve.preparing import Preparer
from paddle_internvl.serve.response_objects import ChatForm, Form, TextForm
from paddle_internvl.serve.schema import ChatRequest, CompletionRequest, CountRequest, Generation
from paddle_internvl.serve.settings import Settings
from paddle_internvl.serve.streaming import EventStream

T = TypeVar("T")


class Routes:
    """One method a route.

    Args:
        engine: an `EngineThread`. name: the model's, in requests.
    """

    def __init__(self, engine, preparer: Preparer, settings: Settings, name: str, gate: Gate, metrics: Metrics):
        self._engine, self._preparer, self._settings = engine, preparer, settings
        self._gate, self._metrics = gate, metrics
        self._tokenizer = preparer.tokenizer
        self._model = {
            "id": name, "object": "model", "created": int(time.time()), "owned_by": "paddle_internvl",
            "max_model_len": engine.engine.limits.session_len,
        }  # fmt: skip

    async def chat_completions(self, request: Request, body: ChatRequest) -> Any:
        """Answer a conversation with pictures and clips in it."""
        self._check_model(body.model)
        prompt = await self._told(request, self._preparer.chat(body.messages, request.state.record.media.extend))
        return await self._answer(request, body, prompt, ChatForm)

    async def completions(self, request: Request, body: CompletionRequest) -> Any:
        """Continue a text."""
        self._check_model(body.model)
        prompt = await self._told(request, self._preparer.text(body.prompt))
        return await self._answer(request, body, prompt, TextForm, (self._tokenizer.eos_token_id,))

    async def count_tokens(self, request: Request, body: CountRequest) -> Any:
        """How many tokens a conversation takes: all, those of its pictures, and each picture's tiles."""
        if body.model is not None:
            self._check_model(body.model)
        counted = await self._told(request, self._preparer.count(body.messages, request.state.record.media.extend))
        request.state.record.tokens_in = counted.total
        return asdict(counted)

    async def models(self) -> Any:
        """The model that is served, as a list."""
        return {"object": "list", "data": [self._model]}

    async def model(self, model_id: str) -> Any:
        """The model that is served."""
        self._check_model(model_id)
        return self._model

    async def health(self) -> Any:
        """Whether the process answers."""
        return {"status": "ok"}

    async def ready(self) -> Any:
        """Whether requests are taken: the engine goes on, and the server does not close."""
        if self._gate.draining:
            raise ApiError("closing", "the server is closing")
        if not self._engine.healthy:
            raise ApiError("unready", "the engine does not go on")
        return {"status": "ready"}

    async def metrics(self) -> Response:
        """Numbers for Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def version(self) -> Any:
        """The version of paddle_internvl."""
        return {"version": __version__}

    @property
    def _tokens_per_tile(self) -> int:
        return self._preparer.model.num_image_token

    def _check_model(self, name: str) -> None:
        if name != self._model["id"]:
            raise ApiError("model", f"model {name!r} is not served here; use {self._model['id']!r}", "model")

    async def _answer(
        self, request: Request, body: Generation, prompt: Prompt, form: type[Form], ends: tuple[int, ...] = ()
    ) -> Response:
        explain = self._explain(request)
        try:
            config = generation_config(body, self._settings.default_max_tokens, ends)
        except ValueError as error:
            raise explain(error) from error
        copies = body.n or 1 if config.n == 1 else 1
        image_tokens = sum(map(len, prompt.pictures)) * self._tokens_per_tile
        patience, record = self._settings.queue_timeout, request.state.record
        answering = Answering(self._engine, prompt, config, image_tokens, copies, patience, record, self._metrics)
        ends = (*ends, self._tokenizer.convert_tokens_to_ids(prompt.stop))
        log_probs = LogProbs(self._tokenizer, ends, body.likeliest) if body.wants_logprobs else None
        shape = form(self._model["id"], log_probs)
        if not body.stream:
            return JSONResponse(await self._told(request, answering.whole(shape)))
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        chunks = answering.chunks(shape, include_usage)
        return EventStream(await self._told(request, anext(chunks)), chunks, explain)

    async def _told(self, request: Request, work: Awaitable[T]) -> T:
        """The result of `work`; what goes wrong in it as what the client is told."""
        try:
            return await work
        except Exception as error:
            raise self._explain(request)(error) from error

    def _explain(self, request: Request) -> Callable[[Exception], ApiError]:
        record = request.state.record

        def explain(error: Exception) -> ApiError:
            told = error if isinstance(error, ApiError) else of_work(error, record.id)
            record.error = told.code or told.type
            if told.status >= 500:
                log.warning("id=%s %s", record.id, where(error))
            return told

        return explain
