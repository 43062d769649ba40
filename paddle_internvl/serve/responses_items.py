"""Output items of OpenAI's Responses API: thoughts, text and tool calls, whole and as the events of a stream.

In: the parts of an answer. Out: JSON objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from paddle_internvl.prompt.call_splitter import CallDelta
from paddle_internvl.prompt.tools import ToolCall


@dataclass(frozen=True)
class ItemKind:
    """Fields of one kind of items.

    Attributes:
        type: of the item.
        prefix: of ids.
        fields: of the item, besides its text.
        part: the item's part of content, without its text; None: the item has its text in `text_field`.
        text_event: name of the events of its text.
        text_field: of the text in its last event.
        event_fields: of the events of its text.
    """

    type: str
    prefix: str
    fields: dict
    part: dict | None
    text_event: str
    text_field: str = "text"
    event_fields: dict | None = None


REASONING = ItemKind("reasoning", "rs", {"summary": []}, {"type": "reasoning_text"}, "reasoning_text")
MESSAGE = ItemKind(
    "message", "msg", {"role": "assistant"}, {"type": "output_text", "annotations": [], "logprobs": []},
    "output_text", event_fields={"logprobs": []},
)  # fmt: skip
CALL = ItemKind("function_call", "fc", {}, None, "function_call_arguments", "arguments")


class Part(NamedTuple):
    """Text of an item.

    Attributes:
        kind: of the item.
        fields: id and name of a call, in its first text.
        text: new text of the item.
    """

    kind: ItemKind
    fields: dict
    text: str


NO_TEXT = Part(MESSAGE, {}, "")  # of an empty answer


def event(name: str, **fields) -> dict:
    """An event, without its sequence number."""
    return {"type": f"response.{name}", **fields}


def parts(reasoning: str | None, text: str, calls: Sequence[CallDelta | ToolCall]) -> list[Part]:
    """The texts of the items of an answer, or of a piece of an answer."""
    texts = [Part(kind, {}, text) for kind, text in ((REASONING, reasoning), (MESSAGE, text)) if text]
    ids = [{} if call.name is None else {"call_id": call.id, "name": call.name} for call in calls]
    return texts + [Part(CALL, fields, call.arguments) for fields, call in zip(ids, calls)]


@dataclass(frozen=True)
class OutputItem:
    """One item of a response. The events have no sequence number yet.

    Attributes:
        kind: of the item.
        uid: of the response.
        index: number of the item in the response.
        fields: id and name of a call.
    """

    kind: ItemKind
    uid: str
    index: int
    fields: dict

    @property
    def id(self) -> str:
        """Id of the item."""
        return f"{self.kind.prefix}_{self.uid}{self.index}"

    def whole(self, text: str, status: str) -> dict:
        """The item with its text."""
        return self._item(status, text, [] if self.kind.part is None else [self._part(text)])

    def opening(self) -> list[dict]:
        """The first events of the item."""
        added = event("output_item.added", output_index=self.index, item=self._item("in_progress", "", []))
        return [added, *self._part_event("added", "")]

    def delta(self, text: str) -> dict:
        """The event of new text."""
        return self._text_event("delta", {"delta": text})

    def closing(self, text: str, status: str) -> list[dict]:
        """The last events of the item, with its whole text."""
        done = event("output_item.done", output_index=self.index, item=self.whole(text, status))
        return [self._text_event("done", {self.kind.text_field: text}), *self._part_event("done", text), done]

    def _item(self, status: str, text: str, content: list[dict]) -> dict:
        written = {self.kind.text_field: text} if self.kind.part is None else {"content": content}
        return {"type": self.kind.type, "id": self.id, "status": status, **self.kind.fields, **self.fields, **written}

    def _part(self, text: str) -> dict:
        return {**self.kind.part, "text": text}

    @property
    def _place(self) -> dict:
        content = {} if self.kind.part is None else {"content_index": 0}
        return {"item_id": self.id, "output_index": self.index, **content}

    def _part_event(self, name: str, text: str) -> list[dict]:
        return [] if self.kind.part is None else [event(f"content_part.{name}", **self._place, part=self._part(text))]

    def _text_event(self, name: str, fields: dict) -> dict:
        return event(f"{self.kind.text_event}.{name}", **self._place, **fields, **(self.kind.event_fields or {}))


class ItemStream:
    """The items of a response while their text comes. The events have no sequence number yet.

    Args:
        uid: of the response.
    """

    def __init__(self, uid: str):
        self._uid, self._item, self._text = uid, None, ""

    @property
    def empty(self) -> bool:
        """Whether there is no item."""
        return self._item is None

    def push(self, part: Part) -> list[dict]:
        """The events of new text, which may be that of the next item."""
        events = []
        if self._item is None or part.kind is not self._item.kind or part.fields:
            events += self.close("completed")
            index = 0 if self._item is None else self._item.index + 1
            self._item, self._text = OutputItem(part.kind, self._uid, index, part.fields), ""
            events += self._item.opening()
        self._text += part.text
        return [*events, self._item.delta(part.text)] if part.text else events

    def close(self, status: str) -> list[dict]:
        """The last events of the latest item."""
        return [] if self._item is None else self._item.closing(self._text, status)
