"""`RemoteModel`: the chat's model behind the URL of an OpenAI-compatible server. Imports no Paddle.

In: a URL. Out: pieces of answers as the server streams them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from paddle_internvl.cli.chat.medium import Medium
from paddle_internvl.cli.chat.session import tiles_text, with_media
from paddle_internvl.engine.response import Response

# setting -> the server's name and the value that need not be sent: other servers may not know the name
_FIELDS = {
    "max_new_tokens": ("max_tokens", None),
    "temperature": ("temperature", None),
    "top_p": ("top_p", 1.0),
    "top_k": ("top_k", 50),
    "repetition_penalty": ("repetition_penalty", 1.0),
    "seed": ("seed", None),
    "guided_choice": ("guided_choice", None),
    "guided_json": ("guided_json", None),
}


class RemoteModel:
    """A model behind a URL.

    Args:
        url: of the server, with or without /v1.
        model: its name; None: the first that the server lists.
        key: API key; None: $OPENAI_API_KEY, or none.
    Attributes:
        name: of the server.
        decodes_clips: False: the server decodes them.
        error: always None: an error of the server is the question's.
    """

    decodes_clips, error = False, None

    def __init__(self, url: str, model: str | None = None, key: str | None = None):
        self.name = model or urlsplit(url).netloc or url
        self._url, self._model, self._key = url, model, key
        self._endpoint = None
        self._lock = threading.Lock()
        self._waiting = False

    def connect_in_background(self) -> None:
        """Import the HTTP client while the prompt is shown."""
        threading.Thread(target=self._connected, name="connecting", daemon=True).start()

    def _connected(self):
        with self._lock:
            if self._endpoint is None:
                from paddle_internvl.evaluation.chat_endpoint import ChatEndpoint

                self._endpoint = ChatEndpoint(self._url, self._model, self._key, retries=1)
            return self._endpoint

    def stream(self, messages: Sequence[Mapping], settings: Mapping, options: Mapping) -> Iterator[Response]:
        """See `ChatModel.stream`."""
        sent = _sent(messages, options)
        if options.get("system") is not None:
            sent.insert(0, {"role": "system", "content": options["system"]})
        self._waiting, count, usage, finish_reason = True, 0, {}, None
        try:
            for event in self._connected().stream(sent, **_fields(settings, options)):
                usage = event.get("usage") or usage
                for choice in event.get("choices") or ():
                    delta, finish_reason = choice.get("delta") or {}, choice.get("finish_reason") or finish_reason
                    text, thoughts = delta.get("content") or "", delta.get("reasoning_content")
                    if text or thoughts:
                        self._waiting, count = False, count + 1
                        yield Response(text, count, 0, None, reasoning=thoughts)
        finally:
            self._waiting = False
        yield Response("", usage.get("completion_tokens", count), usage.get("prompt_tokens", 0), finish_reason)

    def status(self) -> str:
        """See `ChatModel.status`."""
        return f"waiting for {self.name}" if self._waiting else ""

    def cost(self, medium: Medium, options: Mapping) -> str:
        """See `ChatModel.cost`; the server cuts the tiles."""
        return ""

    def count(self, messages: Sequence[Mapping], options: Mapping) -> str:
        """See `ChatModel.count`; asks `/v1/count_tokens`, which servers of ours have."""
        counted = self._connected().count_tokens(_sent(messages, options))
        tiles = sum(picture["tiles"] for picture in counted["pictures"])
        return f"{counted['total']:,} tokens, {counted['visual']:,} of them from {tiles_text(tiles)}"

    def prompt(self, messages: Sequence[Mapping], options: Mapping) -> dict:
        """See `ChatModel.prompt`."""
        return {}


def _sent(messages: Sequence[Mapping], options: Mapping) -> list[dict]:
    """Messages with the bytes of their media."""
    tiles = {"max_dynamic_patch": options["max_num"]} if options.get("max_num") else {}

    def part(medium: Medium) -> dict:
        made = medium.for_server()
        if medium.kind == "image":
            made["image_url"] |= tiles
        return made

    return [with_media(message, part) for message in messages]


def _fields(settings: Mapping, options: Mapping) -> dict:
    """Fields of a request."""
    fields = {
        name: settings[setting]
        for setting, (name, usual) in _FIELDS.items()
        if settings.get(setting) is not None and settings[setting] != usual
    }
    if "guided_json" in fields:
        fields["guided_json"] = json.loads(fields["guided_json"])
    template = {"enable_thinking": True} if options.get("thinking") else {}
    template |= {} if options.get("keep_thoughts", True) else {"keep_thoughts": False}
    return {**fields, **({"chat_template_kwargs": template} if template else {})}
