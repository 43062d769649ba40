"""Prompts of requests: media loaded, pictures cut into tiles and text tokenized, in threads off the event loop.

In: a request's messages or text. Out: a `Prompt`, and descriptions of its media for the access log. Large pictures have
threads of their own, so that text and small pictures don't wait for them; a request that is cancelled while it waits
for a thread leaves the queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from paddle_internvl.chat.messages import TokenCount, build_prompt, count_tokens
from paddle_internvl.engine.request import Prompt, require_characters
from paddle_internvl.engine.tool_calls import tools_format
from paddle_internvl.generation.constraints.compiler import compiler_of
from paddle_internvl.generation.constraints.formats import ResponseFormat
from paddle_internvl.media.loader import MediaLoader
from paddle_internvl.prompt.messages import Dialogue, parse_messages
from paddle_internvl.prompt.templates import get_conv_template
from paddle_internvl.serve.accesslog import describe_media
from paddle_internvl.serve.errors import ApiError
from paddle_internvl.serve.schema import Message
from paddle_internvl.serve.work_queue import WorkQueue

T = TypeVar("T")
_SMALL_PIXELS = 4_000_000  # of all pictures of a request that is prepared among those of text alone


class Preparer:
    """Makes the prompts of all requests.

    Args:
        model, tokenizer: the engine's.
        loader: of media.
        context_length: most tokens of a prompt and its answer; None: any number.
        threads: for large pictures, and as many for all other requests.
        options: keyword arguments of `chat.messages.parse`.
    """

    def __init__(self, model, tokenizer, loader: MediaLoader, context_length: int | None, threads: int, **options):
        self.model, self.tokenizer = model, tokenizer
        self._loader, self._options = loader, options
        self._context_length = context_length
        self._small, self._large = WorkQueue(threads, "prepare-small"), WorkQueue(threads, "prepare-large")

    async def chat(
        self, messages: Sequence[Message], log_media: Callable[[list[str]], None], **prompt_options
    ) -> Prompt:
        """The prompt of a conversation.

        Args:
            messages: of the request.
            log_media: called with a description of each medium.
            prompt_options: of the request, for `chat.messages.parse`.
        Raises:
            MediaError: a medium that is unreachable, broken or not allowed.
            ContextOverflowError: a prompt that is too long.
            ValueError: no conversation.
        """
        async with self._loaded(messages, prompt_options) as dialogue:
            return await self._run(dialogue.pixels, self._chat, dialogue, log_media, prompt_options)

    async def count(
        self, messages: Sequence[Message], log_media: Callable[[list[str]], None], **prompt_options
    ) -> TokenCount:
        """The number of tokens of a conversation's prompt, of any length. Arguments and errors: see `chat`."""
        async with self._loaded(messages, prompt_options) as dialogue:
            return await self._run(dialogue.pixels, self._count, dialogue, log_media, prompt_options)

    @asynccontextmanager
    async def _loaded(self, messages: Sequence[Message], prompt_options: dict) -> AsyncIterator[Dialogue]:
        characters = sum(message.characters for message in messages) + len(str(prompt_options.get("tools") or ""))
        require_characters(characters, self._context_length)
        async with self._loader.loaded(parse_messages([message.plain() for message in messages])) as dialogue:
            yield dialogue

    def _count(self, dialogue: Dialogue, log_media: Callable[[list[str]], None], prompt_options: dict) -> TokenCount:
        log_media(describe_media(dialogue.media))
        return count_tokens(self.model, self.tokenizer, dialogue, **self._options, **prompt_options)

    def _chat(self, dialogue: Dialogue, log_media: Callable[[list[str]], None], prompt_options: dict) -> Prompt:
        log_media(describe_media(dialogue.media))
        limit = self._context_length
        prompt = build_prompt(self.model, self.tokenizer, dialogue, limit, **self._options, **prompt_options)
        if prompt.tools is not None:
            try:
                tools_format(self.model, self.tokenizer, prompt)
            except ImportError as error:
                raise ApiError("unsupported", str(error), "tools") from error
        return prompt

    async def text(self, text: str) -> Prompt:
        """The prompt of a text completion, without a template; special tokens in the text are plain text.

        Raises:
            ContextOverflowError: a text that is too long.
            ApiError: a text without tokens.
        """
        require_characters(len(text), self._context_length)
        return await self._run(0, self._text, text)

    def _text(self, text: str) -> Prompt:
        tokens = self.tokenizer.tokenize(text, split_special_tokens=True)
        ids = self.tokenizer.build_inputs_with_special_tokens(self.tokenizer.convert_tokens_to_ids(tokens))
        if not ids:
            raise ApiError("invalid", "prompt: it has no tokens", "prompt")
        return self._prompt(ids)

    def token_ids(self, ids: Sequence[int]) -> Prompt:
        """The prompt of a completion that is given as token ids.

        Raises:
            ApiError: an id that the tokenizer does not have, or the place of a picture.
        """
        self._require_ids(ids, "input_ids")
        if self.model.img_context_token_id in ids:
            raise ApiError("invalid", f"input_ids: {self.model.img_context_token_id} is a picture's place", "input_ids")
        return self._prompt(list(ids))

    def _prompt(self, ids: list[int]) -> Prompt:
        stop = get_conv_template(self.model.template).stop
        return Prompt(ids, [], stop, self.model.end_token_ids, strip=False)

    async def compile(self, response_format: ResponseFormat, prompt: Prompt) -> None:
        """Compile a response format, which is kept for the request.

        Raises:
            ConstraintError: a format with an error, or that is not supported.
            ApiError: llguidance is not installed.
        """
        await self._run(0, self._compile, response_format, not prompt.answer_prefix)

    def _compile(self, response_format: ResponseFormat, begins: bool) -> None:
        try:
            compiler = compiler_of(self.tokenizer, self.model.config.llm_config.vocab_size)
        except ImportError as error:
            raise ApiError("unsupported", str(error), "response_format") from error
        compiler.compile(response_format, begins)

    async def detokenized(self, ids: Sequence[int]) -> str:
        """The text of token ids.

        Raises:
            ApiError: an id that the tokenizer does not have.
        """
        self._require_ids(ids, "tokens")
        return await self._run(0, self.tokenizer.decode, ids)

    def _require_ids(self, ids: Sequence[int], field: str) -> None:
        size = len(self.tokenizer)
        if max(ids, default=0) >= size:
            raise ApiError("invalid", f"{field}: {max(ids)} is no id; the tokenizer has {size}", field)

    async def _run(self, pixels: int, work: Callable[..., T], *arguments) -> T:
        threads = self._small if pixels <= _SMALL_PIXELS else self._large
        return await threads.run(pixels, work, *arguments)

    async def aclose(self) -> None:
        """End the threads and the loader."""
        self._small.close()
        self._large.close()
        await self._loader.aclose()
