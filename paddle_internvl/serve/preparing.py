"""Prompts of requests: media loaded, pictures cut into tiles and text tokenized, in a thread pool off the event loop.

In: a request's messages or text. Out: a `Prompt`, and descriptions of its media for the access log. The pool bounds the
threads of all requests together; a request that is cancelled while it waits for a thread leaves the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from paddle_internvl.chat.messages import TokenCount, build_prompt, count_tokens
from paddle_internvl.engine.request import Prompt, require_characters
from paddle_internvl.media.loader import MediaLoader
from paddle_internvl.prompt.messages import Dialogue, parse_messages
from paddle_internvl.prompt.templates import get_conv_template
from paddle_internvl.serve.accesslog import describe_media
from paddle_internvl.serve.errors import ApiError
from paddle_internvl.serve.schema import Message

T = TypeVar("T")


class Preparer:
    """Makes the prompts of all requests.

    Args:
        model, tokenizer: the engine's.
        loader: of media.
        context_length: most tokens of a prompt and its answer; None: any number.
        threads: of the pool.
        options: keyword arguments of `chat.messages.parse`.
    """

    def __init__(self, model, tokenizer, loader: MediaLoader, context_length: int | None, threads: int, **options):
        self.model, self.tokenizer = model, tokenizer
        self._loader, self._options = loader, options
        self._context_length = context_length
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")

    async def chat(self, messages: Sequence[Message], log_media: Callable[[list[str]], None]) -> Prompt:
        """The prompt of a conversation.

        Args:
            messages: of the request.
            log_media: called with a description of each medium.
        Raises:
            MediaError: a medium that is unreachable, broken or not allowed.
            ContextOverflowError: a prompt that is too long.
            ValueError: no conversation.
        """
        return await self._run(self._chat, await self._load(messages), log_media)

    async def count(self, messages: Sequence[Message], log_media: Callable[[list[str]], None]) -> TokenCount:
        """The number of tokens of a conversation's prompt, of any length. Arguments and errors: see `chat`."""
        return await self._run(self._count, await self._load(messages), log_media)

    async def _load(self, messages: Sequence[Message]) -> Dialogue:
        require_characters(sum(message.characters for message in messages), self._context_length)
        return await self._loader.load(parse_messages([message.plain() for message in messages]))

    def _count(self, dialogue: Dialogue, log_media: Callable[[list[str]], None]) -> TokenCount:
        log_media(describe_media(dialogue.media))
        return count_tokens(self.model, self.tokenizer, dialogue, **self._options)

    def _chat(self, dialogue: Dialogue, log_media: Callable[[list[str]], None]) -> Prompt:
        log_media(describe_media(dialogue.media))
        return build_prompt(self.model, self.tokenizer, dialogue, self._context_length, **self._options)

    async def text(self, text: str) -> Prompt:
        """The prompt of a text completion, without a template; special tokens in the text are plain text.

        Raises:
            ContextOverflowError: a text that is too long.
            ApiError: a text without tokens.
        """
        require_characters(len(text), self._context_length)
        return await self._run(self._text, text)

    def _text(self, text: str) -> Prompt:
        tokens = self.tokenizer.tokenize(text, split_special_tokens=True)
        ids = self.tokenizer.build_inputs_with_special_tokens(self.tokenizer.convert_tokens_to_ids(tokens))
        if not ids:
            raise ApiError("invalid", "prompt: it has no tokens", "prompt")
        stop = get_conv_template(self.model.template).stop
        return Prompt(ids, [], stop, self.model.end_token_ids, strip=False)

    async def _run(self, work: Callable[..., T], *arguments) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def aclose(self) -> None:
        """End the pool and the loader."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self._loader.aclose()
