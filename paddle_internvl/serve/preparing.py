"""Requests to prompts: media fetched and checked, pictures cut into tiles, texts to ids, all off the event loop.

In: a request's messages or text. Out: a `Prompt`, and a word for the log about each medium. Work runs in a pool of few
threads: who is cancelled while waiting for one leaves the queue, and no number of requests takes more threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from paddle_internvl.chat.messages import TokenCount, build_prompt, count_tokens
from paddle_internvl.engine.request import Prompt
from paddle_internvl.prompt.templates import get_conv_template
from paddle_internvl.serve.accesslog import media_words
from paddle_internvl.serve.errors import ApiError
from paddle_internvl.serve.schema import Message

# Longer texts than so many characters for each token of the context are refused before time goes into tokenizing them.
_CHARACTERS_PER_TOKEN = 64
T = TypeVar("T")


class Preparer:
    """See the module.

    Args:
        model, tokenizer: the engine's. loader: a `MediaLoader`. context_length: the most tokens of a prompt and its
            answer; None: any number. threads: of the pool. how: settings of `chat.messages.parse`.
    """

    def __init__(self, model, tokenizer, loader, context_length: int | None, threads: int, **how):
        self.model, self.tokenizer = model, tokenizer
        self._loader, self._how = loader, how
        self._length = context_length
        self._most = None if context_length is None else context_length * _CHARACTERS_PER_TOKEN
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")

    async def chat(self, messages: Sequence[Message], note: Callable[[list[str]], None]) -> Prompt:
        """The prompt of a conversation. note: is told a word about each medium.

        Raises:
            MediaError: a medium that can't be had or is not allowed. ApiError, ValueError: no prompt.
        """
        return await self._run(self._chat, await self._load(messages), note)

    async def count(self, messages: Sequence[Message], note: Callable[[list[str]], None]) -> TokenCount:
        """How long the prompt of a conversation is, however long that is. Arguments and errors: see `chat`."""
        return await self._run(self._count, await self._load(messages), note)

    async def _load(self, messages: Sequence[Message]) -> list[dict]:
        self._check_length(sum(message.characters for message in messages))
        return await self._loader.load([message.plain() for message in messages])

    def _count(self, messages: list[dict], note: Callable[[list[str]], None]) -> TokenCount:
        note(media_words(messages))
        return count_tokens(self.model, self.tokenizer, messages, **self._how)

    def _chat(self, messages: list[dict], note: Callable[[list[str]], None]) -> Prompt:
        note(media_words(messages))
        return build_prompt(self.model, self.tokenizer, messages, self._length, **self._how)

    async def text(self, text: str) -> Prompt:
        """The prompt that is continued as it stands: markup in it is plain text.

        Raises:
            ApiError: no prompt.
        """
        self._check_length(len(text))
        return await self._run(self._text, text)

    def _text(self, text: str) -> Prompt:
        tokens = self.tokenizer.tokenize(text, split_special_tokens=True)
        ids = self.tokenizer.build_inputs_with_special_tokens(self.tokenizer.convert_tokens_to_ids(tokens))
        if not ids:
            raise ApiError("invalid", "prompt: it has no tokens", "prompt")
        return Prompt(ids, [], get_conv_template(self.model.template).stop, strip=False)

    def _check_length(self, characters: int) -> None:
        if self._most is not None and characters > self._most:
            limit = self._most // _CHARACTERS_PER_TOKEN
            raise ApiError("overflow", f"{characters} characters of text are too many for {limit} tokens; shorten it")

    async def _run(self, work: Callable[..., T], *given) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *given)

    async def aclose(self) -> None:
        """End the pool and the loader."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self._loader.aclose()
