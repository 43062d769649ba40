"""A conversation: messages, the media of the next question, and the settings of its answers.

In: questions, and a `ChatModel` that answers. Out: `Response`s. An answer that breaks off, by Ctrl-C or an error, stays
in the conversation as far as it came; without any text the conversation stays as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from paddle_internvl.cli.chat.medium import Medium, medium_of_part, open_medium
from paddle_internvl.cli.first_token import FirstToken

if TYPE_CHECKING:
    from paddle_internvl.engine.response import Response


class ChatModel(Protocol):
    """A model that answers a conversation, in this process or behind a URL.

    Attributes:
        name: of the model.
        decodes_clips: whether clips reach it as frames.
    """

    name: str
    decodes_clips: bool

    def stream(self, messages: Sequence[Mapping], settings: Mapping, options: Mapping) -> Iterator[Response]:
        """Pieces of an answer; the last one has the finish_reason.

        Args:
            messages: OpenAI-style, with `Medium`s in the content.
            settings: of the generation.
            options: of the prompt, see `chat.messages.parse`.
        """

    def status(self) -> str:
        """The present work, such as 'seeing tile 3 of 7'; '' if the model waits for a question."""

    def cost(self, medium: Medium, options: Mapping) -> str:
        """Tiles and tokens of a medium for people; '' where they are not known."""

    def count(self, messages: Sequence[Mapping], options: Mapping) -> str:
        """Token count of a conversation for people."""

    def prompt(self, messages: Sequence[Mapping], options: Mapping) -> dict:
        """Text of the prompt and tiles of its pictures, for `--json`; {} where a server renders the prompt."""


class Session:
    """A conversation with a model.

    Args:
        settings: of every answer's generation.
        frames: frames taken from a clip.
        options: tile limit, system message and thinking, see `chat.messages.parse`.
    Attributes:
        model: set before the first question.
        first_token: notified of every piece of an answer; None: nobody is.
        markdown: whether answers are rendered as Markdown on a terminal.
        messages: of the conversation so far, with `Medium`s in their content.
        media: of the next question.
    """

    def __init__(self, settings: dict, frames: int, **options):
        self.settings, self.frames, self.options = settings, frames, options
        self.markdown = True
        self.model: ChatModel | None = None
        self.first_token: FirstToken | None = None
        self.reset()

    def reset(self) -> None:
        """Begin a new conversation."""
        self.messages: list[dict] = []
        self.media: list[Medium] = []

    def add(self, kind: str, source: str) -> Medium:
        """Add a picture or clip to the next question.

        Args:
            kind: 'image' or 'video'.
            source: path or URL.
        """
        medium = open_medium(kind, source, self.frames, self._decodes_clips)
        self.media.append(medium)
        return medium

    def ask(self, question: str, show: Callable[[Response], None] = lambda piece: None) -> Response:
        """The answer to a question.

        Args:
            question: its text.
            show: called with the answer's pieces as they are made.
        Raises:
            KeyboardInterrupt: Ctrl-C; the part of the answer that there is stays in the conversation.
        """
        message = {"role": "user", "content": [*self.media, {"type": "text", "text": question}]}
        request, answer = [*self.messages, message], None
        text = reasoning = ""
        with closing(self.model.stream(request, self.settings, self.options)) as pieces:
            try:
                for piece in pieces:
                    if self.first_token:
                        self.first_token.record()
                    show(piece)
                    text += piece.text
                    reasoning += piece.reasoning or ""
                    answer = replace(piece, text=text, reasoning=reasoning or None)
            finally:
                if answer and (answer.finish_reason or text):
                    self.messages, self.media = [*request, answer.message], []
        return answer

    def undo(self) -> dict | None:
        """Remove the last question and its answer; returns the question's message, None if there is none."""
        users = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not users:
            return None
        question = self.messages[users[-1]]
        del self.messages[users[-1] :]
        return question

    def last_picture(self) -> Medium | None:
        """The picture that boxes of an answer lie in: that of the last question with media, if it has one picture."""
        for message in reversed(self.messages):
            media = media_of(message)
            if media:
                return media[0] if len(media) == 1 and media[0].kind == "image" else None
        return None

    def save(self, file: Path) -> None:
        """Write the conversation as JSON with OpenAI-style messages; pictures by their paths."""
        messages = [with_media(message, Medium.for_file) for message in self.messages]
        document = {"system": self.options.get("system"), "messages": messages}
        file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def load(self, file: Path) -> None:
        """Go on with the conversation of a file that `save` wrote, or with a list of messages.

        Raises:
            ValueError: the file holds no conversation.
        """
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            document = {"messages": document} if isinstance(document, list) else document
            messages = [self._opened(message) for message in document["messages"]]
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} holds no conversation: {type(error).__name__} {error}") from None
        self.messages, self.media = messages, []
        if document.get("system") is not None:
            self.options["system"] = document["system"]

    def _opened(self, message: dict) -> dict:
        if isinstance(message["content"], str):
            return message
        parts = [
            part if part["type"] == "text" else medium_of_part(part, self.frames, self._decodes_clips)
            for part in message["content"]
        ]
        return {**message, "content": parts}

    @property
    def _decodes_clips(self) -> bool:
        """Whether clips are decoded here: a model that is not set yet is one of this process."""
        return self.model is None or self.model.decodes_clips


def media_of(message: Mapping) -> list[Medium]:
    """The media of a message."""
    content = message["content"]
    return [] if isinstance(content, str) else [part for part in content if isinstance(part, Medium)]


def tiles_text(tiles: int) -> str:
    """A number of tiles for people."""
    return f"{tiles} tile{'s' * (tiles != 1)}"


def text_of(message: Mapping) -> str:
    """The text of a message."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content if isinstance(part, dict))


def with_media(message: Mapping, convert: Callable[[Medium], dict]) -> dict:
    """A message whose media are the parts that `convert` makes of them."""
    if isinstance(message["content"], str):
        return dict(message)
    parts = [convert(part) if isinstance(part, Medium) else part for part in message["content"]]
    return {**message, "content": parts}
