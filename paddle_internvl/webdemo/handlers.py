"""What the page's controls do: values of the controls in, values for the page out.

In: what visitors typed, chose and uploaded, and their `Visit`. Out: messages, HTML and updates, in the order that
`page` names. Knows no layout. Nothing a visitor sends is trusted: any program can call these with any values.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import cached_property

import anyio
import gradio as gr

from paddle_internvl.media.errors import MediaError
from paddle_internvl.webdemo import display
from paddle_internvl.webdemo.conversation import Round, Visit
from paddle_internvl.webdemo.costs import cost
from paddle_internvl.webdemo.escaping import typed
from paddle_internvl.webdemo.speaking import Host, Speaker, Wishes, check_length
from paddle_internvl.webdemo.texts import preferred, text
from paddle_internvl.webdemo.uploads import Attachment, Receiver

_SHOWN_EVERY = 0.05  # seconds; more often is not seen, but sent
_COUNTED = 2  # questions whose tokens are counted at a time


class Handlers:
    """See the module. host: whose engine answers."""

    def __init__(self, host: Host):
        self._host, self._speaker = host, Speaker(host)
        self._counting = anyio.CapacityLimiter(_COUNTED)

    @cached_property
    def _receiver(self) -> Receiver:
        return Receiver(self._host.engine.engine.model.config.tile_side)

    def greet(self, request: gr.Request) -> tuple:
        """Language, system prompt, tiles of a picture and the most new tokens, for a page just opened."""
        engine = self._host.engine.engine
        model, longest = engine.model, engine.limits.session_len
        tiles = model.config.max_dynamic_patch if model.config.dynamic_image_size else 1
        limit = gr.update(maximum=longest - 1, value=min(512, longest // 2))
        return preferred(request.headers.get("accept-language")), model.system_message, tiles, limit

    async def preview(self, box, clip, frames, tiles, system, language, visit: Visit) -> str:
        """What will be sent, as HTML; or what is wrong with it."""
        question = (box or {}).get("text") or ""
        try:
            attachments = await self._attached(box, clip, frames, visit)
            engine = self._host.engine.engine
            check_length(question, system or "", engine.limits.session_len)
            given = engine.model, engine.tokenizer, visit, question, attachments, system or "", int(tiles)
            spent = await anyio.to_thread.run_sync(cost, *given, limiter=self._counting)
        except ValueError as error:
            return display.problem(f"{text('error', language)}: {error}")
        length, side_tokens = engine.limits.session_len, engine.model.num_image_token
        return await anyio.to_thread.run_sync(display.preview, attachments, spent, length, side_tokens, language)

    async def _attached(self, box, clip, frames, visit: Visit) -> list[Attachment]:
        """The uploads, each read once for as long as it waits to be sent."""
        wanted = [(path, 0) for path in (box or {}).get("files") or ()] + ([(clip, int(frames))] if clip else [])
        read = {}
        for path, count in wanted:
            draft = visit.drafts.get((path, count))
            if draft is None:
                receiver = self._receiver
                draft = await (receiver.clip(path, count) if count else receiver.picture(path))
            read[path, count] = draft
            self._receiver.check_together([*visit.attachments(), *read.values()])
        visit.drafts = read
        return [read[each] for each in wanted]

    async def ask(self, box, clip, frames, language, *rest) -> AsyncIterator[tuple]:
        """Chat, box, clip and stop button, as the answer to a new question grows."""
        *wishes, visit = rest
        question = ((box or {}).get("text") or "").strip()
        if visit.busy or not question:
            gr.Info(text("busy" if visit.busy else "empty", language))
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        asked = Round(question)
        try:
            asked.attachments = tuple(await self._attached(box, clip, frames, visit))
        except MediaError as error:  # what was typed stays where it is, to be mended
            asked.ending, asked.error = "error", str(error)
            visit.rounds.append(asked)
            yield display.messages(visit.rounds, language), gr.skip(), gr.skip(), gr.skip()
            return
        visit.rounds.append(asked)
        visit.drafts = {}
        first = True
        async with aclosing(self._grow(visit, asked, language, wishes)) as shown:
            async for chat, stop in shown:
                yield (chat, None, None, stop) if first else (chat, gr.skip(), gr.skip(), stop)
                first = False

    async def again(self, language, *rest) -> AsyncIterator[tuple]:
        """Chat and stop button, as the last question is answered anew."""
        *wishes, visit = rest
        async with aclosing(self._anew(visit, len(visit.rounds) - 1, None, language, wishes)) as shown:
            async for each in shown:
                yield each

    async def edited(self, event: gr.EditData, language, *rest) -> AsyncIterator[tuple]:
        """Chat and stop button, as a question is answered that was changed; what came after it is forgotten."""
        *wishes, visit = rest
        index = event.index if isinstance(event.index, int) else event.index[0]
        number = display.round_of(visit.rounds, index)
        async with aclosing(self._anew(visit, number, typed(str(event.value)).strip(), language, wishes)) as shown:
            async for each in shown:
                yield each

    async def _anew(self, visit: Visit, number: int, question: str | None, language, wishes):
        refused = "busy" if visit.busy else "none" if number < 0 else "empty" if question == "" else None
        if refused:
            gr.Info(text(refused, language))
            yield display.messages(visit.rounds, language), gr.skip()
            return
        asked = visit.rounds[number]
        del visit.rounds[number + 1 :]
        asked.forget_answer()
        asked.question = asked.question if question is None else question
        async with aclosing(self._grow(visit, asked, language, wishes)) as shown:
            async for each in shown:
                yield each

    async def _grow(self, visit: Visit, asked: Round, language: str, wishes: list) -> AsyncIterator[tuple]:
        """Chat and stop button, at first, now and then, and at the end. Closing it stops the answer."""
        before = display.messages(visit.rounds[:-1], language)
        visit.busy, last = True, float("-inf")
        try:
            yield before + display.messages([asked], language), gr.update(interactive=True)
            async with aclosing(self._speaker.answer(visit, asked, Wishes(*wishes))) as steps:
                async for _ in steps:
                    if time.monotonic() - last > _SHOWN_EVERY:
                        last = time.monotonic()
                        yield before + display.messages([asked], language), gr.update(interactive=asked.ending is None)
        finally:
            visit.busy = False
        yield before + display.messages([asked], language), gr.update(interactive=False)

    def stopped(self, language, visit: Visit) -> tuple:
        """Chat and stop button, when the visitor has stopped the answer. Gradio closes its stream, now or soon."""
        if visit.rounds and visit.rounds[-1].ending is None:
            visit.rounds[-1].ending = "stopped"
        return display.messages(visit.rounds, language), gr.update(interactive=False)

    def cleared(self, visit: Visit) -> tuple:
        """Chat, box, clip and stop button of an empty page."""
        visit.clear()
        return [], None, None, gr.update(interactive=False)
