"""Batch generation: answers to a batch of prompts, for callers that wait.

In: prompts (ids with room for pictures, and the pictures' tiles) and settings. Out: pieces of text as they are
generated, and `Response`s. Callers (`chat.cards`, `chat.messages`) build the prompts; this module parses no messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import paddle

from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.engine_thread import EngineThread
from paddle_internvl.engine.paged_kv_cache import BLOCK_SIZE
from paddle_internvl.engine.request import Piece, Prompt, RequestState
from paddle_internvl.engine.response import Response
from paddle_internvl.engine.sequence import Stage
from paddle_internvl.engine.tensor_parallel_runner import receive_result
from paddle_internvl.generation.beam import beam_search
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.parallel.tensor_parallel import Result
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT


class BatchGeneration:
    """Answers to a batch of prompts, `config.n` to each. Iterate over it once, then call `responses`. Closing the
    iterator cancels the generation. One thread uses it; several of them may share a model.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's tokenizer.
        prompts: the prompts.
        configs: the settings of all prompts, or of each.
        context_length: limit of prompt and answer, in tokens; an answer ends there; None: no limit.
        engine: runs the requests in one batch with other threads' requests; None: an engine made for this batch.
    Raises:
        ContextOverflowError: a prompt as long as context_length.
        ValueError: a bad word that is not one token.
        WeightsChangedError: see `InternVLPretrainedModel.require_unchanged_weights`.
    """

    def __init__(
        self,
        model,
        tokenizer,
        prompts: Sequence[Prompt],
        configs: GenerationConfig | Sequence[GenerationConfig],
        context_length: int | None = None,
        engine: EngineThread | None = None,
    ):
        model.require_unchanged_weights()
        self.model, self.tokenizer, self._engine = model, tokenizer, engine
        self.configs = [configs] * len(prompts) if isinstance(configs, GenerationConfig) else list(configs)
        self.answers = [
            engine.engine.request(prompt, config, k)
            if engine
            else RequestState(model, tokenizer, prompt, config, context_length, k)
            for prompt, config in zip(prompts, self.configs)
            for k in range(config.n)
        ]

    def __iter__(self) -> Iterator[Piece]:
        """Pieces as they are generated; their index counts all answers, the answers to one prompt consecutively."""
        searched = [i for i, answer in enumerate(self.answers) if answer.config.num_beams > 1]
        decoded = [i for i, answer in enumerate(self.answers) if answer.config.num_beams == 1]
        for i in searched:
            yield replace(self._search(self.answers[i]), index=i)
        if decoded:
            requests = [self.answers[i] for i in decoded]
            with closing(self._generate(requests)) as pieces:
                for number, piece in pieces:
                    yield replace(piece, index=decoded[number])

    def _generate(self, requests: list[RequestState]) -> Iterator[tuple[int, Piece]]:
        """Number and piece of each request."""
        group = self.model.process_group
        if self._engine is not None:
            return self._engine.generate(requests)
        if group is None:
            return self._step_engine(requests)
        return self._lead(requests) if group.leads else self._follow(requests)

    def _step_engine(self, requests: list[RequestState]) -> Iterator[tuple[int, Piece]]:
        """Run an engine in this thread."""
        engine = self._new_engine(requests)
        pieces: deque[tuple[int, Piece | Exception]] = deque()
        sequences = []
        try:
            for number, request in enumerate(requests):
                deliver = lambda piece, number=number: pieces.append((number, piece))  # noqa: E731
                sequences.append(engine.add(request, deliver))
            while pieces or not engine.idle:
                if not pieces:
                    engine.step()
                    continue
                number, piece = pieces.popleft()
                if isinstance(piece, Exception):
                    raise piece
                yield number, piece
        finally:
            for sequence in sequences:
                if sequence.stage is not Stage.FINISHED:
                    engine.drop(sequence)

    def _new_engine(self, requests: list[RequestState]) -> Engine:
        """An engine as large as these requests need, without budgets between steps: no other request waits."""
        lengths = [len(request.prompt.ids) + request.max_tokens for request in requests]
        config = EngineConfig(
            max_batch_size=len(requests), cache_tokens=sum(lengths) + BLOCK_SIZE * len(requests),
            prefill_chunk=sum(lengths), vision_max_batch_size=self.model.vit_batch_size,
            enable_prefix_caching=False,
        )  # fmt: skip
        return Engine(self.model, self.tokenizer, config)

    def _lead(self, requests: list[RequestState]) -> Iterator[tuple[int, Piece]]:
        """Rank 0 of a tensor-parallel model: run the engine, and send all tokens to the other ranks at the end."""
        tokens: list[tuple[int, int, dict | None]] = []
        error: Exception | None = None
        try:
            for number, piece in self._step_engine(requests):
                tokens.append((number, piece.tokens[0], piece.log_probs[0] if piece.log_probs else None))
                yield number, piece
        except Exception as raised:
            error = raised
            raise
        finally:
            self.model.process_group.send_command(Result((tokens, error)))

    def _follow(self, requests: list[RequestState]) -> Iterator[tuple[int, Piece]]:
        """Other ranks: execute rank 0's commands, then return the same pieces."""
        tokens, error = receive_result(self.model)
        for number, token, log_probs in tokens:
            yield number, requests[number].append(token, log_probs)
        if error is not None:
            raise error

    def _search(self, request: RequestState) -> Piece:
        self.model.img_context_token_id = self.tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
        with paddle.no_grad():
            ids = paddle.to_tensor(np.array([request.prompt.ids], np.int64))
            embeds = self.model.embed(ids, self.model.visual_tokens(request.prompt.pictures))
        config = replace(request.config, max_new_tokens=request.max_tokens)
        ((found, _),) = beam_search(self.model.language_model, embeds, None, config)
        pieces = [request.append(token) for token in found]
        text, reasoning = ("".join(getattr(piece, name) for piece in pieces) for name in ("text", "reasoning"))
        return Piece(request.index, text, tuple(found), response=request.response(), reasoning=reasoning)

    def responses(self) -> list[Response]:
        """One response to each prompt, complete after the iteration."""
        single = [answer.response() for answer in self.answers]
        responses, first = [], 0
        for index, config in enumerate(self.configs):
            best, *others = single[first : first + config.n]
            responses.append(replace(best, index=index, alternatives=tuple(replace(r, index=index) for r in others)))
            first += config.n
        return responses
