"""`LocalModel`: the chat's model in this process, loaded at once or in a thread while the prompt is shown.

In: a checkpoint folder and the command's flags. Out: pieces of answers, and lines about the present work.
"""

from __future__ import annotations

import argparse
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_internvl import progress, timing
from paddle_internvl.cli.chat.medium import Medium
from paddle_internvl.cli.chat.session import tiles_text, with_media

if TYPE_CHECKING:
    from paddle_internvl.engine.engine_thread import EngineThread
    from paddle_internvl.engine.response import Response
    from paddle_internvl.engine.stats import PromptProgress

_CACHE_SHARE = 0.5  # of the free memory, at most, for the KV cache of a conversation


class LocalModel:
    """A checkpoint's model.

    Args:
        folder: of the checkpoint.
        adapter: folder of a LoRA adapter, or None.
        arguments: of `chat`.
    Attributes:
        name: of the folder.
        decodes_clips: True.
        model: an `InternVLChatModel`; None until it is loaded.
        error: that ended the loading; None: there is none.
    """

    decodes_clips = True

    def __init__(self, folder: Path, adapter: Path | None, arguments: argparse.Namespace):
        self.folder, self.name = folder, folder.resolve().name
        self.model = None
        self.error: Exception | None = None
        self._adapter, self._arguments = adapter, arguments
        self._engine: EngineThread | None = None
        self._finished = threading.Event()
        self._began, self._bar = time.monotonic(), _LatestText()

    def load(self) -> None:
        """Load the model now."""
        self._load()
        self._finished.set()

    def _load(self) -> None:
        from paddle_internvl import startup

        with timing.part("imports"):
            startup.import_paddle()
            from paddle_internvl.engine.config import quantization_options
            from paddle_internvl.modeling import InternVLChatModel

        arguments = self._arguments
        with timing.part("load"):
            self.model = InternVLChatModel.from_pretrained(
                str(self.folder), dtype=arguments.dtype, device=arguments.device,
                tensor_parallel_degree=arguments.tp, adapter=self._adapter,
                **quantization_options(arguments),
            )  # fmt: skip
        limit, context_length = arguments.max_new_tokens, self.model.language_model.config.context_length
        if limit and limit > context_length:
            raise ValueError(f"--max-new-tokens {limit} is above the context of {context_length} tokens")

    def load_in_background(self, on_error: Callable[[Exception], None]) -> None:
        """Load the model in a thread, and run answers on an engine that keeps the conversation's KV cache.

        Args:
            on_error: called in the thread with an error that ends the loading.
        """

        def work() -> None:
            try:
                self._load()
                self._start_engine()
            except Exception as error:
                self.error = error
                on_error(error)
            finally:
                progress.write_to(None)
                self._finished.set()
            # Paddle leaves its dynamic mode, in all threads, when the thread that imported it ends.
            threading.Event().wait()

        progress.write_to(self._bar)
        threading.Thread(target=work, name="loading", daemon=True).start()

    def _start_engine(self) -> None:
        from paddle_internvl.engine.config import EngineConfig
        from paddle_internvl.engine.engine_thread import EngineThread
        from paddle_internvl.engine.factory import engine_of

        config = EngineConfig(max_batch_size=1, cache_max_entry_count=_CACHE_SHARE)
        engine = EngineThread(engine_of(self.model, self.model.tokenizer, config))
        engine.start()
        self._engine = engine

    @property
    def _engine_option(self) -> dict:
        return {"engine": self._engine} if self._engine else {}

    def wait(self) -> None:
        """Wait until the model is loaded.

        Raises:
            Exception: that ended the loading.
        """
        self._finished.wait()
        if self.error is not None:
            raise self.error

    def stream(self, messages: Sequence[Mapping], settings: Mapping, options: Mapping) -> Iterator[Response]:
        """See `ChatModel.stream`."""
        self.wait()
        from paddle_internvl.chat.messages import stream_responses

        yield from stream_responses(
            self.model, self.model.tokenizer, [_for_model(messages)], settings, **self._engine_option, **options
        )

    def status(self) -> str:
        """See `ChatModel.status`."""
        if not self._finished.is_set():
            return f"loading {self.name}, {time.monotonic() - self._began:.0f} s  {self._bar.text}".rstrip()
        running = self._engine.prompt_progress() if self._engine else []
        return progress_line(running[0]) if running else ""

    def cost(self, medium: Medium, options: Mapping) -> str:
        """See `ChatModel.cost`; reads config.json alone."""
        from convert.folder import read_config
        from convert.mappings import paddle_config
        from paddle_internvl.cli.info import describe_picture

        config = paddle_config(read_config(self.folder))
        max_num = options.get("max_num") if medium.kind == "image" else 1  # a frame is one tile
        costs = [describe_picture(config, *image.size, max_num) for image in medium.images]
        tiles, tokens = sum(cost["tiles"] for cost in costs), sum(cost["visual tokens"] for cost in costs)
        return f"{tiles_text(tiles)} · {tokens:,} tokens"

    def count(self, messages: Sequence[Mapping], options: Mapping) -> str:
        """See `ChatModel.count`."""
        self.wait()
        counted = self.model.count_tokens(_for_model(messages), **options)
        limit = self.model.language_model.config.context_length
        tiles = sum(picture.tiles for picture in counted.pictures)
        return f"{counted.total:,} of {limit:,} tokens, {counted.visual:,} of them from {tiles_text(tiles)}"

    def prompt(self, messages: Sequence[Mapping], options: Mapping) -> dict:
        """See `ChatModel.prompt`."""
        parts = _for_model(messages)
        costs = self.model.count_tokens(parts, **options).pictures
        return {"prompt": self.model.render_prompt(parts, **options), "pictures": [asdict(cost) for cost in costs]}


def _for_model(messages: Sequence[Mapping]) -> list[dict]:
    """Messages with opened media."""
    return [with_media(message, Medium.for_model) for message in messages]


class _LatestText(io.StringIO):
    """A stream that keeps its latest line."""

    text = ""

    def write(self, text: str) -> int:
        self.text = text.strip("\r\n ") or self.text
        return len(text)


def progress_line(state: PromptProgress) -> str:
    """Progress of a prompt for people: 'seeing tile 3 of 7', then 'prefill 40 % of 1,840 tokens'."""
    if state.tiles_done < state.tiles:
        return f"seeing tile {state.tiles_done + 1} of {state.tiles}"
    return f"prefill {100 * state.tokens_done // state.tokens} % of {state.tokens:,} tokens"
