"""Routes of the OpenAI API: a validated request in, a response out.

Prompts are made by `preparing`, answers by `completions`; every exception becomes an `ApiError`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from paddle_internvl import __version__
from paddle_internvl.engine.request import Prompt
from paddle_internvl.serve import lmdeploy_generate
from paddle_internvl.serve.accesslog import error_trace, log
from paddle_internvl.serve.completions import CompletionRun, generation_config
from paddle_internvl.serve.errors import ApiError, of_work
from paddle_internvl.serve.lmdeploy_generate import GenerateRequest
from paddle_internvl.serve.logprobs import LogProbs
from paddle_internvl.serve.metrics import Metrics
from paddle_internvl.serve.middleware import Gate
from paddle_internvl.serve.model_facts import facts_of
from paddle_internvl.serve.preparing import Preparer
from paddle_internvl.serve.response_objects import CHAT, TEXT, Kind, ResponseObjects
from paddle_internvl.serve.responses_objects import ResponseDocument
from paddle_internvl.serve.responses_schema import ResponsesRequest
from paddle_internvl.serve.schema import (
    ChatRequest,
    CompletionRequest,
    CountRequest,
    DetokenizeRequest,
    Generation,
    TokenizeRequest,
)  # fmt: skip
from paddle_internvl.serve.settings import Settings
from paddle_internvl.serve.streaming import EventStream

T = TypeVar("T")


class Routes:
    """The endpoints, one method for each route.

    Args:
        engine_thread: an `EngineThread`.
        preparer: makes prompts.
        settings: timeouts and limits of answers.
        name: of the model in requests.
        gate: of the server.
        metrics: of the server.
    """

    def __init__(self, engine_thread, preparer: Preparer, settings: Settings, name: str, gate: Gate, metrics: Metrics):
        self._engine, self._preparer, self._settings = engine_thread, preparer, settings
        self._gate, self._metrics = gate, metrics
        self._tokenizer = preparer.tokenizer
        self._model = {
            "id": name, "object": "model", "created": int(time.time()), "owned_by": "paddle_internvl",
            "max_model_len": engine_thread.engine.config.session_len, **facts_of(engine_thread.engine.model),
        }  # fmt: skip

    async def chat_completions(self, request: Request, body: ChatRequest) -> Any:
        """Chat completion: answer a conversation with pictures and clips."""
        self._check_model(body.model)
        return await self._answer(request, body, await self._chat_prompt(request, body), CHAT)

    async def completions(self, request: Request, body: CompletionRequest) -> Any:
        """Text completion: continue a text."""
        self._check_model(body.model)
        prompt = await self._or_api_error(request, self._preparer.text(body.text))
        return await self._answer(request, body, prompt, TEXT, (self._tokenizer.eos_token_id,))

    async def count_tokens(self, request: Request, body: CountRequest) -> Any:
        """Count the tokens of a conversation: all, visual, and the tiles of each picture."""
        self._check_optional_model(body.model)
        log_media = request.state.record.media.extend
        counting = self._preparer.count(body.messages, log_media, **body.prompt_options)
        counted = await self._or_api_error(request, counting)
        request.state.record.tokens_in = counted.total
        return asdict(counted)

    async def responses(self, request: Request, body: ResponsesRequest) -> Any:
        """OpenAI's Responses API, stateless: answer a conversation with pictures and tools."""
        self._check_model(body.model)
        run = await self._run(request, body.chat, await self._chat_prompt(request, body.chat))
        document = ResponseDocument(body, self._model["id"])
        if not body.stream:
            return JSONResponse(await self._or_api_error(request, run.whole(document)))
        return self._events(request, document.events(run))

    async def generate(self, request: Request, body: GenerateRequest) -> Any:
        """LMDeploy's /generate: continue a text or token ids."""
        self._check_optional_model(body.model)
        if body.input_ids is None:
            prompt = await self._or_api_error(request, self._preparer.text(body.prompt))
        else:
            prompt = self._preparer.token_ids(body.input_ids)
        run = await self._run(request, body, prompt, (self._tokenizer.eos_token_id,))
        if not body.stream:
            return JSONResponse(await self._or_api_error(request, lmdeploy_generate.whole(run, body.wants_logprobs)))
        return self._events(request, lmdeploy_generate.pieces_of(run, body.wants_logprobs))

    async def tokenize(self, request: Request, body: TokenizeRequest) -> Any:
        """Token ids of a text, or of a conversation's prompt with its visual tokens."""
        self._check_optional_model(body.model)
        if body.messages is None:
            prompt = await self._or_api_error(request, self._preparer.text(body.prompt))
        else:
            prompt = await self._chat_prompt(request, body)
        ids = prompt.ids
        request.state.record.tokens_in = len(ids)
        words = self._tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
        return {"count": len(ids), "max_model_len": self._model["max_model_len"], "tokens": ids, "token_strs": words}

    async def detokenize(self, request: Request, body: DetokenizeRequest) -> Any:
        """The text of token ids, special tokens included."""
        self._check_optional_model(body.model)
        return {"prompt": await self._or_api_error(request, self._preparer.detokenized(body.tokens))}

    async def models(self) -> Any:
        """List the served model."""
        return {"object": "list", "data": [self._model]}

    async def model(self, model_id: str) -> Any:
        """Describe the served model."""
        self._check_model(model_id)
        return self._model

    async def health(self) -> Any:
        """Liveness: the process answers."""
        return {"status": "ok"}

    async def ready(self) -> Any:
        """Readiness: the engine makes progress and the server is not closing."""
        if self._gate.draining:
            raise ApiError("closing", "the server is closing")
        if not self._engine.healthy:
            raise ApiError("unready", "the engine makes no progress")
        return {"status": "ready"}

    async def metrics(self) -> Response:
        """Metrics for Prometheus."""
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4")

    async def version(self) -> Any:
        """The version of paddle_internvl."""
        return {"version": __version__}

    @property
    def _tokens_per_tile(self) -> int:
        return self._preparer.model.num_image_token

    def _check_model(self, name: str) -> None:
        if name != self._model["id"]:
            raise ApiError("model", f"model {name!r} is not served here; use {self._model['id']!r}", "model")

    def _check_optional_model(self, name: str | None) -> None:
        if name is not None:
            self._check_model(name)

    async def _chat_prompt(self, request: Request, body: ChatRequest | TokenizeRequest) -> Prompt:
        """The prompt of a conversation."""
        log_media = request.state.record.media.extend
        work = self._preparer.chat(body.messages, log_media, **body.prompt_options)
        return await self._or_api_error(request, work)

    async def _run(
        self, request: Request, body: Generation, prompt: Prompt, ends: tuple[int, ...] = ()
    ) -> CompletionRun:
        """The engine's answers to a request."""
        try:
            config = generation_config(body, self._settings.default_max_tokens, ends)
        except ValueError as error:
            raise self._to_api_error(request, error) from error
        if config.response_format is not None:
            await self._or_api_error(request, self._preparer.compile(config.response_format, prompt))
        copies = body.n or 1 if config.n == 1 else 1
        image_tokens = sum(map(len, prompt.pictures)) * self._tokens_per_tile
        timeout, record = self._settings.queue_timeout, request.state.record
        return CompletionRun(self._engine, prompt, config, image_tokens, copies, timeout, record, self._metrics)

    def _events(self, request: Request, chunks: AsyncGenerator[dict]) -> EventStream:
        """The stream of a response's chunks."""
        interval = self._settings.comment_interval
        return EventStream(chunks, lambda error: self._to_api_error(request, error), interval)

    async def _answer(
        self, request: Request, body: Generation, prompt: Prompt, kind: Kind, ends: tuple[int, ...] = ()
    ) -> Response:
        run = await self._run(request, body, prompt, ends)
        ends = (*ends, self._tokenizer.convert_tokens_to_ids(prompt.stop))
        log_probs = LogProbs(self._tokenizer, ends, body.num_top_logprobs) if body.wants_logprobs else None
        objects = ResponseObjects(kind, self._model["id"], log_probs)
        if not body.stream:
            return JSONResponse(await self._or_api_error(request, run.whole(objects)))
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        return self._events(request, run.chunks(objects, include_usage))

    async def _or_api_error(self, request: Request, work: Awaitable[T]) -> T:
        """The result of `work`; an exception becomes an `ApiError`."""
        try:
            return await work
        except Exception as error:
            raise self._to_api_error(request, error) from error

    def _to_api_error(self, request: Request, error: Exception) -> ApiError:
        """The error response to an exception, noted in the access log."""
        record = request.state.record
        api_error = error if isinstance(error, ApiError) else of_work(error, record.id)
        record.error = api_error.code or api_error.type
        if api_error.status >= 500:
            log.warning("id=%s %s", record.id, error_trace(error))
        return api_error
