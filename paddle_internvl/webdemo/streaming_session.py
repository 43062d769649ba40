"""Streaming of answers in the web demo: from a visitor's question and options to an answer that grows.

In: a session state, its open round, and generation options. Out: the round, updated with every piece. Every exception
becomes the round's error, which the visitor reads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, fields

import anyio

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.drawing import draw_boxes
from paddle_internvl.prompt.grounding import parse_boxes
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.pictures import data_url, small
from paddle_internvl.webdemo.server_host import ServerHost
from paddle_internvl.webdemo.session import Round, SessionState

_log = logging.getLogger("paddle_internvl.webdemo")
MAX_TILES = 24  # of a picture, thumbnail not counted
_DRAWN_SIDE = 768  # pixels, long side of a picture with boxes


@dataclass(frozen=True)
class GenerationOptions:
    """A visitor's settings, in the page's order.

    Attributes:
        system: the system message; "": none.
        temperature: 0 is greedy.
        top_p: of nucleus sampling.
        repetition_penalty: 1 is none.
        max_new_tokens: most tokens of an answer.
        max_num: most tiles of a picture.
        thinking: ask for thoughts; the system message is the one that does, and `system` has no effect.
        keep_thoughts: the thoughts of earlier answers are part of the prompt.
    """

    system: str
    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int
    max_num: int
    thinking: bool = False
    keep_thoughts: bool = True

    @property
    def prompt(self) -> dict:
        """The options of `chat.messages.parse`."""
        return prompt_options(self.system, self.max_num, self.thinking, self.keep_thoughts)

    def config(self) -> GenerationConfig:
        """The engine's generation config.

        Raises:
            ValueError: an invalid setting; names it.
        """
        for setting in fields(self)[1:]:
            if not isinstance(getattr(self, setting.name), (int, float)):
                raise ValueError(f"{setting.name}={getattr(self, setting.name)!r} is no number")
        if not (isinstance(self.max_num, int) and 1 <= self.max_num <= MAX_TILES):
            raise ValueError(f"max_num={self.max_num} is no whole number from 1 to {MAX_TILES}")
        return GenerationConfig(
            max_new_tokens=int(self.max_new_tokens),
            do_sample=True,
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
        )


def prompt_options(system: str | None, max_num: int, thinking: bool, keep_thoughts: bool) -> dict:
    """The options of `chat.messages.parse`. Arguments: see `GenerationOptions`."""
    return {
        "system": None if thinking else system or "", "max_num": max_num, "thinking": bool(thinking),
        "keep_thoughts": bool(keep_thoughts),
    }  # fmt: skip


class StreamingSession:
    """Streams the answers of all visitors from one model.

    Args:
        host: of the model.
    """

    def __init__(self, host: EngineHost | ServerHost):
        self._host = host

    async def answer(self, state: SessionState, round_: Round, options: GenerationOptions) -> AsyncIterator[None]:
        """Generate the answer of a round. Yields after every update of the round; closing it cancels the request.

        Args:
            state: of the visitor.
            round_: the last one of `state.rounds`, without an answer.
            options: of the visitor.
        """
        start = time.monotonic()
        round_.options, round_.adapter = options, state.adapter
        try:
            async with aclosing(self._host.answers.stream(state, round_, options)) as pieces:
                async for piece in pieces:
                    round_.timing.add(len(piece.tokens), time.monotonic() - start)
                    round_.token_ids += piece.tokens
                    round_.answer = (round_.answer or "") + piece.text
                    if piece.reasoning:
                        round_.thoughts = (round_.thoughts or "") + piece.reasoning
                    if piece.response is not None:
                        round_.ending = piece.response.finish_reason
                        await anyio.to_thread.run_sync(draw_answer_boxes, state, round_)
                    yield
        except Exception as error:
            if not isinstance(error, (ValueError, OSError, RuntimeError)):
                _log.error("a question failed", exc_info=error)
            round_.ending = round_.ending or "error"  # a complete answer stays, also where its boxes can't be drawn
            round_.error = " ".join(str(error).split()) or type(error).__name__
            yield
        finally:
            if round_.ending is None:
                round_.ending = "stopped"


def draw_answer_boxes(state: SessionState, round_: Round) -> None:
    """Draw the boxes of an answer on the last picture of the conversation, if the answer has boxes.

    Args:
        state: of the visitor.
        round_: with a complete answer; `drawn` and `drawn_on` are set.
    Raises:
        ValueError: no font for the labels; names the way out.
    """
    if not parse_boxes(round_.answer, (1000, 1000)):
        return
    rounds = [each.attachments for each in (*state.transcript(), round_)]
    pictures = next(filter(None, ([a for a in each if a.kind == "image"] for each in reversed(rounds))), [])
    if not pictures:
        return
    picture = small(open_image(pictures[-1].source), _DRAWN_SIDE)
    round_.drawn = data_url(draw_boxes(picture, parse_boxes(round_.answer, picture.size)))
    round_.drawn_on = len(pictures)
