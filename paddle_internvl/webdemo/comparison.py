"""Event handlers of the comparison: one question with its pictures and clip, answered under two settings.

In: text, uploads and two settings of a visitor, and their `ComparisonState`. Out: messages and HTML of two columns.
A question stands for itself: neither the conversation nor an earlier comparison is part of its prompt. The settings
answer one after the other, so that neither answer slows the other down. Input is untrusted, as in `handlers`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio
import gradio as gr

from paddle_internvl.media.errors import MediaError
from paddle_internvl.webdemo import display
from paddle_internvl.webdemo.drafts import attach
from paddle_internvl.webdemo.handlers import Handlers, notify
from paddle_internvl.webdemo.session import Round, SessionState

# controls of a side in the order of the handlers' values: the adapter, then those of `GenerationOptions`
SETTINGS = ("adapter", "system", "temperature", "top_p", "penalty", "limit", "tiles", "thinking")
SIDES = ("a", "b")


@dataclass
class ComparisonState:
    """State of a visitor's comparison.

    Attributes:
        rounds: the last question with the answer of each side, in the order of `SIDES`; none at first.
        waiting: holds the drafts of the question.
        busy: whether an answer is being generated.
    """

    rounds: list[Round] = field(default_factory=list)
    waiting: SessionState = field(default_factory=SessionState)
    busy: bool = False


class ComparisonHandlers:
    """The handlers of the comparison of one page.

    Args:
        handlers: of the page's conversation, with the model that answers.
    """

    def __init__(self, handlers: Handlers):
        self._handlers = handlers

    def on_load(self) -> list:
        """System prompt, tiles of a picture and max new tokens of each side of a page that has just been opened."""
        return [value for _ in SIDES for value in self._handlers.defaults()]

    def show(self, language: str, state: ComparisonState) -> list[list[dict]]:
        """The answer of each side, as messages of its chat."""
        shown = [display.messages([each], language) for each in state.rounds] or [[] for _ in SIDES]
        return [[message for message in side if message["role"] == "assistant"] for side in shown]

    async def preview(self, box, clip, frames, language: str, *rest) -> list[str]:
        """What the model will see under each setting, or the error, as HTML."""
        *settings, state = rest
        return [
            await self._handlers.preview(box, clip, frames, tiles, system, thinking, True, language, state.waiting)
            for _, system, *_, tiles, thinking in _by_side(settings)
        ]

    async def ask(self, box, clip, frames, language: str, *rest) -> AsyncIterator[list]:
        """Answer a question under the first setting, then under the second: both chats and the stop button, as the
        answers grow. The question stays in its box, to be asked under other settings."""
        *settings, state = rest
        question = ((box or {}).get("text") or "").strip()
        if state.busy or not question:
            notify("busy" if state.busy else "empty", language)
            yield [gr.skip() for _ in SIDES] + [gr.skip()]
            return
        state.busy = True  # before the first await: a second click must not start a second question
        rounds = state.rounds = [Round(question) for _ in SIDES]
        enabled = gr.update(interactive=True)
        try:
            yield [*self.show(language, state), enabled]
            await self._attach(state, box, clip, frames)
            for round_, values in zip(rounds, _by_side(settings)):
                async with aclosing(self._answer(round_, *values)) as steps:
                    async for _ in steps:
                        yield [*self.show(language, state), enabled]
        finally:
            state.busy = False
            _stop(rounds)
        yield [*self.show(language, state), enabled]

    async def _attach(self, state: ComparisonState, box, clip, frames) -> None:
        """Give the question's pictures and clip to both rounds, or end both with the error."""
        try:
            attachments = tuple(await attach(self._handlers.receiver, box, state.waiting, clip, frames))
        except MediaError as error:
            for round_ in state.rounds:
                round_.ending, round_.error = "error", str(error)
            return
        for round_ in state.rounds:
            round_.attachments = attachments

    async def _answer(self, round_: Round, adapter: str, *options) -> AsyncIterator[None]:
        """Answer a round without an error; yields at intervals."""
        if round_.error is not None:
            return
        try:
            await anyio.to_thread.run_sync(self._handlers.load, adapter)
        except (ValueError, RuntimeError) as error:
            round_.ending, round_.error = "error", str(error)
            return
        async with aclosing(self._handlers.grow(SessionState([round_], adapter=adapter), round_, options)) as steps:
            async for _ in steps:
                yield

    def stop(self, language: str, state: ComparisonState) -> list[list[dict]]:
        """Stop the answers: both chats. Gradio closes their stream."""
        _stop(state.rounds)
        return self.show(language, state)


def _by_side(values: list) -> list[list]:
    """The values of each side's settings, in the order of `SETTINGS`."""
    return [values[start : start + len(SETTINGS)] for start in range(0, len(values), len(SETTINGS))]


def _stop(rounds: list[Round]) -> None:
    for round_ in rounds:
        round_.ending = round_.ending or "stopped"
