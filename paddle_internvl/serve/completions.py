"""Completions: a request's generation settings, and its answers whole or as the chunks of a stream.

In: a `Prompt` and a request. Out: JSON objects. The answers come from `EngineThread.stream`, which is cancelled when
the reader stops reading.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import anyio

from paddle_internvl.engine.request import Piece, Prompt
from paddle_internvl.generation.config import MAX_NEW_TOKENS, GenerationConfig
from paddle_internvl.serve.accesslog import Record
from paddle_internvl.serve.metrics import Metrics
from paddle_internvl.serve.response_objects import ResponseObjects
from paddle_internvl.serve.schema import Generation


def generation_config(request: Generation, default_max_tokens: int, ends: tuple[int, ...] = ()) -> GenerationConfig:
    """The engine's settings of a request; the defaults are greedy decoding without filters.

    Args:
        request: a validated body.
        default_max_tokens: of an answer, where the request has no limit.
        ends: token ids that end an answer, besides the template's.
    Raises:
        ValueError: settings that exclude each other.
    """
    samples = bool(request.temperature)
    return GenerationConfig(
        max_new_tokens=min(request.limit or max(default_max_tokens, request.min_tokens or 0), MAX_NEW_TOKENS),
        min_new_tokens=request.min_tokens,
        do_sample=samples,
        temperature=request.temperature if samples else 1.0,
        top_k=request.top_k or 0,
        top_p=request.top_p,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        logit_bias=request.logit_bias,
        seed=None if request.seed is None else request.seed % (1 << 64),
        n=(request.n or 1) if samples else 1,  # greedy answers are equal: one is made, and copied
        eos_token_id=(*ends, *(request.stop_token_ids or ())),
        ignore_eos=request.ignore_eos,
        stop_strings=request.stops,
        skip_special_tokens=request.skip_special_tokens,
        log_probs=request.wants_logprobs,
        top_logprobs=request.num_top_logprobs,
        response_format=request.answer_format,
    )


class CompletionRun:
    """One request's answers from the engine.

    Args:
        engine_thread: an `EngineThread`.
        prompt: of the request.
        config: its generation settings.
        image_tokens: visual tokens of the prompt.
        copies: of each answer.
        timeout: seconds until the next piece.
        record: of the access log; its tokens are counted here.
        metrics: observe the time of each piece.
    Attributes:
        pieces: of the answers, to be read once, and closed.
    """

    def __init__(
        self,
        engine_thread,
        prompt: Prompt,
        config: GenerationConfig,
        image_tokens: int,
        copies: int,
        timeout: float,
        record: Record,
        metrics: Metrics,
    ):
        self._engine, self._prompt, self._config = engine_thread, prompt, config
        self._image_tokens, self._copies, self._timeout = image_tokens, copies, timeout
        self._record, self._metrics, self._reasoning_tokens = record, metrics, 0
        record.tokens_in = len(prompt.ids)
        self.pieces = self._pieces()

    @property
    def answers(self) -> int:
        """The number of answers."""
        return self._config.n * self._copies

    @property
    def usage(self) -> dict:
        """OpenAI's usage object: the tokens so far."""
        prompt, completion = len(self._prompt.ids), self._record.tokens_out
        thoughts = {"reasoning_tokens": self._reasoning_tokens}
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"image_tokens": self._image_tokens},
            **({"completion_tokens_details": thoughts} if self._prompt.thinking else {}),
        }

    async def _pieces(self) -> AsyncIterator[Piece]:
        """The engine's pieces, counted and timed; a greedy answer is copied to its equal answers."""
        async with aclosing(self._engine.stream(self._prompt, self._config)) as stream:
            started, last, thinking = time.monotonic(), {}, set()
            while True:
                with anyio.fail_after(self._timeout):
                    piece = await anext(stream, None)
                if piece is None:
                    return
                now = time.monotonic()
                self._metrics.piece(now - last.get(piece.index, started), first=piece.index not in last)
                last[piece.index] = now
                if piece.reasoning:
                    thinking.add(piece.index)
                if piece.text or piece.calls:
                    thinking.discard(piece.index)
                for copy in range(self._copies):
                    self._record.tokens_out += len(piece.tokens)
                    self._reasoning_tokens += len(piece.tokens) if piece.index in thinking else 0
                    yield replace(piece, index=piece.index + copy)

    async def whole(self, objects: ResponseObjects) -> dict:
        """The answer as one JSON object."""
        responses = {}
        async with aclosing(self.pieces) as pieces:
            async for piece in pieces:
                if piece.response is not None:
                    responses[piece.index] = piece.response
        return objects.whole([responses[index] for index in range(self.answers)], self.usage)

    async def chunks(self, objects: ResponseObjects, include_usage: bool) -> AsyncIterator[dict]:
        """The answers as the chunks of a stream. The first one comes with the engine's first piece."""
        sent = dict.fromkeys(range(self.answers), 0)
        steps: dict[int, list] = {index: [] for index in sent}
        opened = False
        async with aclosing(self.pieces) as pieces:
            async for piece in pieces:
                if not opened:
                    opened = True
                    for choice in filter(None, map(objects.opening, sent)):
                        yield objects.chunk(choice)
                i = piece.index
                steps[i] += piece.log_probs
                if piece.text or piece.reasoning or piece.calls or (piece.response is not None and steps[i]):
                    yield objects.chunk(objects.delta(piece, steps[i], sent[i]))
                    sent[i] += len(piece.text)
                    steps[i] = []
                if piece.response is not None:
                    yield objects.chunk(objects.ending(i, piece.response.finish_reason))
        if include_usage:
            yield objects.chunk(usage=self.usage)
