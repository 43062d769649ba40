"""Answers of the web demo by the engines of this process: facts, token counts, and pieces of answers.

In: an `EngineHost`, a visitor's conversation and options. Out: what `Handlers` and `StreamingSession` show.
`ServerHost` has the same methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import anyio

from paddle_internvl.preprocess.attention_map import AttentionMap
from paddle_internvl.serve.model_facts import facts_of
from paddle_internvl.webdemo.costs import PromptCost, prompt_cost
from paddle_internvl.webdemo.session import Round, SessionState
from paddle_internvl.webdemo.uploads import Attachment


@dataclass(frozen=True)
class Defaults:
    """Settings of a page that has just been opened.

    Attributes:
        system: the system message; "": none.
        tiles: most tiles of a picture.
        length: most tokens of prompt and answer.
    """

    system: str
    tiles: int
    length: int


class EngineAnswers:
    """Answers by the engines of a host.

    Args:
        host: an `EngineHost`.
        concurrent_prompts: prompts whose pictures are cut at a time.
    Attributes:
        keeps_files: False: clips are kept as frames alone.
        shows_attention: True: `attention` is there.
    """

    keeps_files, shows_attention = False, True

    def __init__(self, host, concurrent_prompts: int = 2):
        self._host, self._prompt_slots = host, anyio.CapacityLimiter(concurrent_prompts)
        self._facts: dict[str, dict] = {}  # adapter -> facts of its model

    @property
    def tile_side(self) -> int:
        """S, the tile side in pixels."""
        return self._host.engine.engine.model.config.tile_side

    def defaults(self) -> Defaults:
        """Settings of a page that has just been opened."""
        engine = self._host.engine.engine
        config = engine.model.config
        tiles = config.max_dynamic_patch if config.dynamic_image_size else 1
        return Defaults(engine.model.system_message, tiles, engine.config.session_len)

    def facts(self, adapter: str) -> dict:
        """Facts of the model, see `serve.model_facts`, and its 'max_model_len'."""
        engine = self._host.engine_of(adapter).engine
        if adapter not in self._facts:
            self._facts[adapter] = facts_of(engine.model)
        return {**self._facts[adapter], "max_model_len": engine.config.session_len}

    def cost(
        self, state: SessionState, question: str, attachments: Sequence[Attachment], options: Mapping
    ) -> PromptCost:
        """Token count of a conversation with a new question. Options: of `chat.messages.parse`.

        Raises:
            ValueError: see `prompt_cost`.
        """
        engine = self._engine(state, question, options["system"])
        return prompt_cost(engine.model, engine.tokenizer, state, question, attachments, **options)

    async def stream(self, state: SessionState, round_: Round, options) -> AsyncIterator:
        """Pieces of the answer of a round, see `engine.request.Piece`; closing it cancels the request.

        Args:
            state: of the visitor.
            round_: without an answer.
            options: `GenerationOptions`.
        """
        engine_thread, config = self._host.engine_of(state.adapter), options.config()
        prompt = await anyio.to_thread.run_sync(self._prompt, state, round_, options, limiter=self._prompt_slots)
        async with aclosing(engine_thread.stream(prompt, config)) as pieces:
            async for piece in pieces:
                yield piece

    async def attention(self, state: SessionState, round_: Round) -> list[AttentionMap]:
        """Maps of an answer's attention to the pictures of its prompt, in order.

        The engine's thread computes prompt and answer once more, between two steps of other visitors' answers.

        Args:
            state: of the visitor.
            round_: with an answer; the end token is left out.
        Raises:
            ValueError: see `chat.visual_attention`.
            EngineClosedError: the engine is closed.
        """
        from paddle_internvl.chat.visual_attention import visual_attention

        engine_thread = self._host.engine_of(round_.adapter)
        engine, messages = engine_thread.engine, state.before(round_).messages(round_.question, round_.attachments)
        ids = round_.token_ids[:-1] if round_.ending == "stop" else round_.token_ids
        compute = partial(
            visual_attention, engine.model, engine.tokenizer, messages, ids, engine.config.session_len,
            **round_.options.prompt,
        )  # fmt: skip
        return (await asyncio.wrap_future(engine_thread.call(compute))).maps()

    def _prompt(self, state: SessionState, round_: Round, options):
        from paddle_internvl.chat.messages import build_prompt  # imports Paddle, which the page does without

        engine = self._engine(state, round_.question, options.system)
        messages = state.messages(round_.question, round_.attachments)
        return build_prompt(engine.model, engine.tokenizer, messages, engine.config.session_len, **options.prompt)

    def _engine(self, state: SessionState, question: str, system: str | None):
        """The visitor's engine, for whose context question and system message are not too long."""
        from paddle_internvl.engine.request import require_characters

        engine = self._host.engine_of(state.adapter).engine
        require_characters(len(question) + len(system or ""), engine.config.session_len)
        return engine
