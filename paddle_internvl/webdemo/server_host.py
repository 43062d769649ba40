"""`ServerHost`: the web demo's model behind the URL of an OpenAI-compatible server. Imports no Paddle.

In: a URL, a visitor's conversation and options. Out: pieces of answers as the server streams them. Media are sent as
their files' bytes; the server cuts the tiles.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import anyio

from paddle_internvl.evaluation.chat_endpoint import ChatEndpoint
from paddle_internvl.media.data_urls import encode_data_url
from paddle_internvl.preprocess.grid import TILE_SIDE, TileGrid, choose_grid
from paddle_internvl.webdemo.costs import PromptCost
from paddle_internvl.webdemo.engine_answers import Defaults
from paddle_internvl.webdemo.session import Round, SessionState
from paddle_internvl.webdemo.uploads import Attachment

_LENGTH, _TILES = 8192, 12  # of a server that doesn't name them


@dataclass(frozen=True)
class _Ending:
    """Stands for the `Response` of an answer's last piece."""

    finish_reason: str


@dataclass(frozen=True)
class _ServerPiece:
    """As `engine.request.Piece`; the server names no token ids, and `tokens` has their number alone."""

    text: str = ""
    reasoning: str = ""
    tokens: tuple[None, ...] = ()
    response: _Ending | None = None


class ServerHost:
    """A model behind a URL, with the methods of `EngineHost` and `EngineAnswers` that the page calls.

    Args:
        url: of the server, with or without /v1.
        model: its name; None: the first that the server lists.
        key: API key; None: $OPENAI_API_KEY, or none.
        concurrency: answers at once.
    Attributes:
        name: of the model.
        adapters: none; a server has them as models of other names.
        tile_side: S, the tile side in pixels at which frames are shown.
        keeps_files: True: the server gets the bytes of clips.
        shows_attention: False: a server reports none.
    Raises:
        EndpointUnavailableError: no server answers there, or it lists no model.
    """

    adapters, tile_side, keeps_files, shows_attention = (), TILE_SIDE, True, False

    def __init__(self, url: str, model: str | None = None, key: str | None = None, concurrency: int = 16):
        self._endpoint = ChatEndpoint(url, model, key, retries=1)
        self._listed = self._endpoint.describe()
        self.name = self._endpoint.model
        self._counts = self._listed.get("owned_by") == "paddle_internvl"  # has /v1/count_tokens
        self._slots = anyio.CapacityLimiter(2 * concurrency)  # of threads that wait for the server

    @property
    def answers(self) -> ServerHost:
        """What answers the page: this object."""
        return self

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def defaults(self) -> Defaults:
        """Settings of a page that has just been opened. An empty system message leaves the server's own in place."""
        return Defaults("", _TILES, self._listed.get("max_model_len") or _LENGTH)

    def facts(self, adapter: str) -> dict:
        """The server's entry of the model in /v1/models, and its address as `device`."""
        return {**self._listed, "device": self._endpoint.host}

    def cost(
        self, state: SessionState, question: str, attachments: Sequence[Attachment], options: Mapping
    ) -> PromptCost | None:
        """See `EngineAnswers.cost`; None: the server is another project's and counts no tokens."""
        if not self._counts:
            return None
        sent = _messages(state, question, attachments, options["system"], options["max_num"])
        counted = self._endpoint.count_tokens(sent)
        pictures = counted["pictures"]
        costs = iter(pictures[len(pictures) - sum(len(each.sizes) for each in attachments) :])
        grids = [
            [_grid(each, size, next(costs)["tiles"], options["max_num"]) for size in each.sizes] for each in attachments
        ]
        tile_tokens = pictures[0]["tokens"] // pictures[0]["tiles"] if pictures else 0
        return PromptCost(counted["total"], counted["visual"], grids, tile_tokens)

    async def stream(self, state: SessionState, round_: Round, options) -> AsyncIterator[_ServerPiece]:
        """See `EngineAnswers.stream`. Closing it ends the request at the server's next event."""
        fields = _fields(options)
        system, tiles = options.prompt["system"], options.max_num
        messages = await self._in_thread(_messages, state, round_.question, round_.attachments, system, tiles)
        events, count, usage, ending = self._endpoint.stream(messages, **fields), 0, {}, "stop"
        try:
            while (event := await self._in_thread(next, events, None)) is not None:
                usage = event.get("usage") or usage
                for choice in event.get("choices") or ():
                    delta, ending = choice.get("delta") or {}, choice.get("finish_reason") or ending
                    text, thoughts = delta.get("content") or "", delta.get("reasoning_content") or ""
                    if text or thoughts:
                        count += 1
                        yield _ServerPiece(text, thoughts, (None,))
        finally:
            with anyio.CancelScope(shield=True):
                await self._in_thread(events.close)
        left = max(usage.get("completion_tokens", count) - count, 0)  # some events have several tokens
        yield _ServerPiece(tokens=(None,) * left, response=_Ending(ending))

    async def _in_thread(self, call, *arguments):
        return await anyio.to_thread.run_sync(call, *arguments, limiter=self._slots)


def _fields(options) -> dict:
    """Fields of a request.

    Raises:
        ValueError: an invalid setting; names it.
    """
    options.config()
    fields = {"max_tokens": int(options.max_new_tokens), "temperature": options.temperature}
    fields |= {"top_p": options.top_p} if options.top_p != 1 else {}
    fields |= {"repetition_penalty": options.repetition_penalty} if options.repetition_penalty != 1 else {}
    template = {"enable_thinking": True} if options.thinking else {}
    template |= {} if options.keep_thoughts else {"keep_thoughts": False}
    return {**fields, **({"chat_template_kwargs": template} if template else {})}


def _messages(
    state: SessionState, question: str, attachments: Sequence[Attachment], system: str | None, tiles: int
) -> list[dict]:
    """The conversation with the bytes of its media, without fields that other servers may refuse."""

    def part(attachment: Attachment) -> dict:
        kind = mimetypes.guess_type(attachment.name)[0]
        if attachment.kind == "image":
            url = encode_data_url(attachment.source, kind or "image/png")
            return {"type": "image_url", "image_url": {"url": url, "max_dynamic_patch": tiles}}
        url = encode_data_url(attachment.file, kind or "video/mp4")
        return {"type": "video_url", "video_url": {"url": url, "num_segments": len(attachment.source)}}

    sent = [{"role": "system", "content": system}] if system else []
    for message in state.messages(question, attachments, part):
        sent.append({name: value for name, value in message.items() if value is not None})
    return sent


def _grid(attachment: Attachment, size: tuple[int, int], tiles: int, max_num: int) -> TileGrid | None:
    """The grid of a picture that the server cuts into a number of tiles; None: it is not known."""
    if attachment.kind == "video" or tiles == 1:
        return TileGrid(1, 1, False)
    grids = (choose_grid(*size, 1, max_num, use_thumbnail=thumbnail) for thumbnail in (True, False))
    return next((grid for grid in grids if grid.tiles == tiles), None)
