"""Questions to answers: the engine in this process, and one round's way through it.

In: a visit, its open round, and settings. Out: the round's answer as it grows. Everything that goes wrong is the
round's error, for its visitor to read. Knows no page.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, fields

import anyio

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.drawing import draw_boxes
from paddle_internvl.prompt.grounding import parse_boxes
from paddle_internvl.webdemo.conversation import Round, Visit
from paddle_internvl.webdemo.pictures import data_url, small

_log = logging.getLogger("paddle_internvl.webdemo")
MOST_TILES = 24  # of a picture, its thumbnail not counted
_DRAWN = 768  # pixels, long side of a picture with boxes
_CHARACTERS_PER_TOKEN = 64  # a longer text can't fit, and is not tokenized to find that out


class Host:
    """The engine, loaded when it is first needed, once.

    Args:
        load: makes an `EngineThread` that is not started yet.
    """

    def __init__(self, load: Callable[[], object]):
        self._load, self._engine, self._lock = load, None, threading.Lock()

    @property
    def engine(self):
        """The running `EngineThread`."""
        with self._lock:
            if self._engine is None:
                engine = self._load()
                engine.start()
                self._engine = engine
            return self._engine

    def close(self) -> None:
        """End it, if it was begun."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()


@dataclass(frozen=True)
class Wishes:
    """A visitor's settings, in the page's order. temperature: 0 is greedy. max_num: tiles of a picture, at most."""

    system: str
    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int
    max_num: int

    def generation(self) -> GenerationConfig:
        """For the engine.

        Raises:
            ValueError: a setting that can't be; names it.
        """
        for setting in fields(self)[1:]:
            if not isinstance(getattr(self, setting.name), (int, float)):
                raise ValueError(f"{setting.name}={getattr(self, setting.name)!r} is no number")
        if not (isinstance(self.max_num, int) and 1 <= self.max_num <= MOST_TILES):
            raise ValueError(f"max_num={self.max_num} is no whole number from 1 to {MOST_TILES}")
        return GenerationConfig(
            max_new_tokens=int(self.max_new_tokens),
            do_sample=True,
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
        )


class Speaker:
    """Answers all visitors' rounds. host: whose engine; turns: pictures cut for so many at a time."""

    def __init__(self, host: Host, turns: int = 2):
        self._host, self._turns = host, anyio.CapacityLimiter(turns)

    async def answer(self, visit: Visit, asked: Round, wishes: Wishes) -> AsyncIterator[None]:
        """Let `asked`, the last round of the visit, grow; yields each time it has. Closing it stops the engine."""
        try:
            async with aclosing(self._pieces(visit, asked, wishes)) as pieces:
                async for piece in pieces:
                    asked.answer = (asked.answer or "") + piece.text
                    if piece.response is not None:
                        asked.ending = piece.response.finish_reason
                        await anyio.to_thread.run_sync(draw, visit, asked)
                    yield
        except Exception as error:
            if not isinstance(error, (ValueError, OSError, RuntimeError)):
                _log.error("a question failed", exc_info=error)
            asked.ending = asked.ending or "error"  # a whole answer stays one if its boxes can't be drawn
            asked.error = " ".join(str(error).split()) or type(error).__name__
            yield
        finally:
            if asked.ending is None:
                asked.ending = "stopped"

    async def _pieces(self, visit: Visit, asked: Round, wishes: Wishes):
        engine, config = self._host.engine, wishes.generation()
        prompt = await anyio.to_thread.run_sync(self._prompt, visit, asked, wishes, limiter=self._turns)
        async with aclosing(engine.stream(prompt, config)) as pieces:
            async for piece in pieces:
                yield piece

    def _prompt(self, visit: Visit, asked: Round, wishes: Wishes):
        from paddle_internvl.chat.messages import build_prompt

        engine = self._host.engine.engine
        check_length(asked.question, wishes.system or "", engine.limits.session_len)
        messages = visit.messages(asked.question, asked.attachments)
        return build_prompt(
            engine.model, engine.tokenizer, messages, engine.limits.session_len,
            system=wishes.system or "", max_num=wishes.max_num,
        )  # fmt: skip


def check_length(question: str, system: str, length: int) -> None:
    """Refuse a text that can't fit into `length` tokens, before time goes into tokenizing it.

    Raises:
        ValueError: it is too long; names both numbers.
    """
    characters, most = len(question) + len(system), length * _CHARACTERS_PER_TOKEN
    if characters > most:
        raise ValueError(f"{characters} characters are too many for {length} tokens; shorten the question")


def draw(visit: Visit, asked: Round) -> None:
    """If the answer has boxes: them over the last picture that was sent.

    Raises:
        ValueError: no font for the labels; says how to get one.
    """
    if not parse_boxes(asked.answer, (1000, 1000)):
        return
    sent = [each.attachments for each in (*visit.heard(), asked)]
    pictures = next(filter(None, ([a for a in each if a.kind == "image"] for each in reversed(sent))), [])
    if not pictures:
        return
    picture = small(open_image(pictures[-1].source), _DRAWN)
    asked.drawn = data_url(draw_boxes(picture, parse_boxes(asked.answer, picture.size)))
    asked.drawn_on = len(pictures)
