"""Event handlers of the page: values of its controls in, values for the page out.

In: text, choices and uploads of a visitor, and their `SessionState`. Out: messages, HTML and updates, in the order that
`page` names. Input is untrusted: any program can call these handlers with any values.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from functools import cached_property, partial

import anyio
import gradio as gr

from paddle_internvl.media.errors import MediaError
from paddle_internvl.webdemo import display, export
from paddle_internvl.webdemo.attention import draw_overlays
from paddle_internvl.webdemo.drafts import attach
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.escaping import unescape
from paddle_internvl.webdemo.examples import Example
from paddle_internvl.webdemo.server_host import ServerHost
from paddle_internvl.webdemo.session import Round, SessionState
from paddle_internvl.webdemo.streaming_session import GenerationOptions, StreamingSession, prompt_options
from paddle_internvl.webdemo.texts import preferred_language, text
from paddle_internvl.webdemo.uploads import Receiver

_UPDATE_SECONDS = 0.05  # at least, between two updates of a growing answer
_NOTICE_SECONDS = 4
_CONCURRENT_COUNTS = 2  # questions whose tokens are counted at a time


class Handlers:
    """The handlers of one page.

    Args:
        host: of the model that answers.
        examples: of the page.
    """

    def __init__(self, host: EngineHost | ServerHost, examples: Sequence[Example] = ()):
        self._host, self._session, self._examples = host, StreamingSession(host), examples
        self._count_slots = anyio.CapacityLimiter(_CONCURRENT_COUNTS)

    @cached_property
    def receiver(self) -> Receiver:
        """Makes attachments of uploads."""
        return Receiver(self._host.answers.tile_side, keep_files=self._host.answers.keeps_files)

    def on_load(self, request: gr.Request) -> tuple:
        """Language, system prompt, tiles of a picture and max new tokens of a page that has just been opened."""
        return preferred_language(request.headers.get("accept-language")), *self.defaults()

    def defaults(self) -> tuple:
        """System prompt, tiles of a picture and max new tokens at first."""
        defaults = self._host.answers.defaults()
        limit = gr.update(maximum=defaults.length - 1, value=min(512, defaults.length // 2))
        return defaults.system, defaults.tiles, limit

    def load(self, adapter: str) -> None:
        """Load the model with an adapter, if it isn't loaded yet.

        Raises:
            ValueError: there is no such adapter.
        """
        self._host.answers.facts(adapter)

    async def preview(
        self, box, clip, frames, tiles, system, thinking, keep_thoughts, language, state: SessionState
    ) -> str:
        """Preview of the question's pictures and token count, or its error, as HTML."""
        question, answers = (box or {}).get("text") or "", self._host.answers
        try:
            attachments = await attach(self.receiver, box, state, clip, frames)
            options = prompt_options(system, int(tiles), thinking, keep_thoughts)
            count = partial(answers.cost, state, question, attachments, options)
            cost = await anyio.to_thread.run_sync(count, limiter=self._count_slots)
        except (ValueError, RuntimeError) as error:
            return display.error(str(error), language)
        length = answers.facts(state.adapter).get("max_model_len")
        return await anyio.to_thread.run_sync(display.preview, attachments, cost, length, language)

    async def send(self, box, clip, frames, language: str, state: SessionState) -> tuple:
        """Take a new question into the conversation, for `answer`: chat, box and clip.

        An event of its own: of a value that a generator gives and takes back in its next step, Gradio's page may show
        the second alone, and the question would stay in its box.
        """
        question = ((box or {}).get("text") or "").strip()
        if state.busy or not question:
            notify("busy" if state.busy else "empty", language)
            return gr.skip(), gr.skip(), gr.skip()
        round_ = Round(question)
        state.busy = True  # before the first await: a second click must not send a second question
        try:
            round_.attachments = tuple(await attach(self.receiver, box, state, clip, frames))
        except MediaError as error:
            round_.ending, round_.error = "error", str(error)
        finally:
            state.busy = False
        state.rounds.append(round_)
        if round_.error is not None:  # the question stays, and the uploads that can be read
            files = [file for file in (box or {}).get("files") or () if (file, 0) in state.drafts]
            kept_clip = gr.skip() if clip is None or (clip, int(frames)) in state.drafts else None
            return display.messages(state.rounds, language), {"text": question, "files": files}, kept_clip
        state.drafts, state.sent = {}, round_
        return display.messages(state.rounds, language), None, None

    async def answer(self, language: str, *rest) -> AsyncIterator[tuple]:
        """Answer the question that `send` took, if it took one: chat and stop button, as the answer grows.

        The stop button is enabled here; `finish` disables it.
        """
        *options, state = rest
        round_, state.sent = state.sent, None
        if round_ is None or state.busy or round_ is not state.rounds[-1]:
            yield gr.skip(), gr.skip()
            return
        async with aclosing(self._stream(state, round_, language, options)) as updates:
            async for chat in updates:
                yield chat, gr.update(interactive=True)

    async def example(self, event: gr.SelectData, frames, language, *rest) -> AsyncIterator[tuple]:
        """Answer an example that was clicked: chat and stop button, as the answer grows."""
        example = self._examples[_index_of(event)]
        box = {"text": example.question(language), "files": example.pictures}
        chat, *_ = await self.send(box, example.clip, frames, language, rest[-1])
        yield chat, gr.skip()
        async with aclosing(self.answer(language, *rest)) as updates:
            async for update in updates:
                yield update

    async def regenerate(self, language, *rest) -> AsyncIterator[tuple]:
        """Answer the last question again: chat and stop button, as the answer grows."""
        *options, state = rest
        async with aclosing(self._answer_again(state, len(state.rounds) - 1, None, language, options)) as updates:
            async for update in updates:
                yield update

    async def edit(self, event: gr.EditData, language, *rest) -> AsyncIterator[tuple]:
        """Answer an edited question: chat and stop button, as the answer grows. Later rounds are removed."""
        *options, state = rest
        number, question = display.round_of(state.rounds, _index_of(event)), unescape(str(event.value)).strip()
        async with aclosing(self._answer_again(state, number, question, language, options)) as updates:
            async for update in updates:
                yield update

    async def _answer_again(self, state: SessionState, number: int, question: str | None, language, options):
        refusal = "busy" if state.busy else "none" if number < 0 else "empty" if question == "" else None
        if refusal:
            notify(refusal, language)
            yield display.messages(state.rounds, language), gr.skip()
            return
        round_ = state.rounds[number]
        del state.rounds[number + 1 :]
        round_.reset_answer()
        round_.question = round_.question if question is None else question
        async with aclosing(self._stream(state, round_, language, options)) as updates:
            async for chat in updates:
                yield chat, gr.update(interactive=True)

    async def _stream(self, state: SessionState, round_: Round, language: str, options: list) -> AsyncIterator[list]:
        """Chat, at first, at intervals, and at the end. Closing it stops the answer."""
        before = display.messages(state.rounds[:-1], language)
        state.busy = True
        try:
            yield before + display.messages([round_], language)
            async with aclosing(self.grow(state, round_, options)) as steps:
                async for _ in steps:
                    yield before + display.messages([round_], language)
        finally:
            state.busy = False
        yield before + display.messages([round_], language)

    async def grow(self, state: SessionState, round_: Round, options: Sequence) -> AsyncIterator[None]:
        """Generate the answer of a round; yields at intervals. Closing it stops the answer."""
        last = float("-inf")
        async with aclosing(self._session.answer(state, round_, GenerationOptions(*options))) as steps:
            async for _ in steps:
                if time.monotonic() - last > _UPDATE_SECONDS:
                    last = time.monotonic()
                    yield

    async def attention(self, language: str, state: SessionState) -> list:
        """Show how much attention the last answer paid to each visual token: chat, with the pictures' overlays."""
        answers, round_ = self._host.answers, state.rounds[-1] if state.rounds else None
        attachments = [*state.before(round_).attachments(), *round_.attachments] if round_ else []
        refusal = (
            "attention_server" if not answers.shows_attention
            else "busy" if state.busy
            else "none" if round_ is None or not round_.answer
            else "attention_picture" if not attachments
            else None
        )  # fmt: skip
        if refusal:
            notify(refusal, language)
            return display.messages(state.rounds, language)
        try:
            maps = await answers.attention(state, round_)
            round_.overlays = await anyio.to_thread.run_sync(draw_overlays, attachments, maps)
        except (ValueError, RuntimeError) as error:
            round_.error = str(error)
        return display.messages(state.rounds, language)

    def finish(self, language: str, state: SessionState) -> tuple:
        """Stop button and model strip after an answer. The button is not `stop`'s: until the stream is closed, the next
        question may be too early."""
        return gr.update(interactive=state.busy), self.strip(language, state)

    def strip(self, language: str, state: SessionState) -> str:
        """The model in one line, as HTML."""
        name = f"{self._host.name} + {state.adapter}" if state.adapter else self._host.name
        return display.model_strip(name, self._host.answers.facts(state.adapter), state.last_speed, language)

    async def choose_adapter(self, adapter: str, language: str, state: SessionState) -> str:
        """Answer with another adapter from the next question on: the model strip."""
        await anyio.to_thread.run_sync(self.load, adapter)
        state.adapter = adapter
        return self.strip(language, state)

    def save(self, kind: str, language: str, state: SessionState) -> str:
        """The conversation as the text of a file.

        Args:
            kind: 'json' or 'md'.
        """
        if not state.rounds:
            notify("none", language)
            return ""
        if kind == "json":
            return export.to_json(state.rounds, self._host.name)
        return export.to_markdown(state.rounds, self._host.name, language)

    def stop(self, language, state: SessionState) -> list:
        """Stop the answer: chat. Gradio closes the answer's stream."""
        if state.rounds and state.rounds[-1].ending is None:
            state.rounds[-1].ending = "stopped"
        return display.messages(state.rounds, language)

    def clear(self, state: SessionState) -> tuple:
        """Remove the conversation: chat, box and clip."""
        state.clear()
        return [], None, None


def _index_of(event: gr.SelectData | gr.EditData) -> int:
    """The number of the example or message; Gradio sends it alone or within a list."""
    return event.index if isinstance(event.index, int) else event.index[0]


def notify(name: str, language: str) -> None:
    """Show a text of the page for a few seconds."""
    gr.Info(text(name, language), title=text("notice", language), duration=_NOTICE_SECONDS)
