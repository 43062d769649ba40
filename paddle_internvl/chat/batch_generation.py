"""Prompts to answers, for callers that wait: an engine is run until they are all there.

In: prompts (ids with room for pictures, and the pictures' tiles) and settings. Out: pieces of text as they are made,
and `Response`s. Callers (`chat.cards`, `chat.messages`) build the prompts; this module doesn't parse messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import paddle

from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.limits import EngineLimits
from paddle_internvl.engine.paged_cache import BLOCK
from paddle_internvl.engine.request import Piece, Prompt, RequestState
from paddle_internvl.engine.response import Response
from paddle_internvl.engine.sequence import Stage
from paddle_internvl.generation.beam import beam_search
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT


class BatchGeneration:
    """Answers to a batch of prompts, `config.n` to each. Iterate over it once, then ask for `responses`. Closing the
    iterator ends the generation.

    Args:
        model: an `InternVLChatModel`. tokenizer: its. configs: the settings, or some for each prompt.
        context_length: the most tokens of prompt and answer together; answers end there. None: no such limit.
        engine: one that nobody else uses meanwhile, of that context_length; None: one of just the size needed.
    Raises:
        ContextOverflowError: a prompt as long as context_length. ValueError: a bad word that is not one token.
    """

    def __init__(
        self,
        model,
        tokenizer,
        prompts: Sequence[Prompt],
        configs: GenerationConfig | Sequence[GenerationConfig],
        context_length: int | None = None,
        engine: Engine | None = None,
    ):
        self.model, self.tokenizer, self.engine = model, tokenizer, engine
        self.configs = [configs] * len(prompts) if isinstance(configs, GenerationConfig) else list(configs)
        self.answers = [
            engine.answer(prompt, config, k)
            if engine
            else RequestState(model, tokenizer, prompt, config, context_length, k)
            for prompt, config in zip(prompts, self.configs)
            for k in range(config.n)
        ]

    def __iter__(self) -> Iterator[Piece]:
        """Pieces as they are made; their index counts all answers, those to one prompt standing together."""
        rows: dict[bool, list[int]] = {True: [], False: []}
        for i, answer in enumerate(self.answers):
            rows[answer.config.num_beams > 1].append(i)
        for i in rows[True]:
            yield replace(self._search(self.answers[i]), index=i)
        if rows[False]:
            yield from self._run(rows[False])

    def _run(self, chosen: Sequence[int]) -> Iterator[Piece]:
        engine = self.engine or self._own_engine(chosen)
        pieces: deque[tuple[int, Piece | Exception]] = deque()
        sequences = []
        try:
            for i in chosen:
                sequences.append(engine.add(self.answers[i], lambda piece, i=i: pieces.append((i, piece))))
            while pieces or not engine.idle:
                if not pieces:
                    engine.step()
                    continue
                i, piece = pieces.popleft()
                if isinstance(piece, Exception):
                    raise piece.__cause__ or piece
                yield replace(piece, index=i)
        finally:
            for sequence in sequences:
                if sequence.stage is not Stage.ENDED:
                    engine.drop(sequence)

    def _own_engine(self, chosen: Sequence[int]) -> Engine:
        """As large as these answers need, and doing all of a kind at once: nobody else waits."""
        lengths = [len(self.answers[i].prompt.ids) + self.answers[i].limit for i in chosen]
        limits = EngineLimits(
            max_batch_size=len(chosen), session_len=None, cache_tokens=sum(lengths) + BLOCK * len(chosen),
            prefill_chunk=sum(lengths), vision_tiles=self.model.vit_batch_size, reuse=False,
        )  # fmt: skip
        return Engine(self.model, self.tokenizer, limits)

    def _search(self, answer: RequestState) -> Piece:
        self.model.img_context_token_id = self.tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
        with paddle.no_grad():
            ids = paddle.to_tensor(np.array([answer.prompt.ids], np.int64))
            embeds = self.model.embed(ids, self.model.visual_tokens(answer.prompt.pictures))
        config = replace(answer.config, max_new_tokens=answer.limit)
        ((found, _),) = beam_search(self.model.language_model, embeds, None, config)
        pieces = [answer.take(token) for token in found]
        text = "".join(piece.text for piece in pieces)
        return Piece(answer.index, text, tuple(found), response=answer.response())

    def responses(self) -> list[Response]:
        """One response to each prompt, complete once the iteration is over."""
        single = [answer.response() for answer in self.answers]
        whole, first = [], 0
        for index, config in enumerate(self.configs):
            best, *others = single[first : first + config.n]
            whole.append(replace(best, index=index, alternatives=tuple(replace(r, index=index) for r in others)))
            first += config.n
        return whole
