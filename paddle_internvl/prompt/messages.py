"""OpenAI-style messages parsed into turns of text and media, and turns put into a conversation template.

In: a list of {"role", "content"} dicts. Out: a `Dialogue`: the system message, and `Turn`s whose `Media` stand where
they belong. Opens no file and decodes no picture: `media` does. As in LMDeploy and vLLM, turns need not alternate: two
messages of the user in a row, a greeting of the assistant first, and system messages anywhere are rendered in order.

Content is a string, or a list of parts:
    {"type": "text", "text": ...}
    {"type": "image_url", "image_url": {"url": path | http(s) URL | data URL, ...}}         or the URL by itself
    {"type": "image", "image": path | bytes | PIL image, ...}
    {"type": "image_data", "image_data": {"data": PIL image, ...}}
    {"type": "video_url", "video_url": {"url": path | http(s) URL | data URL, ...}}
    {"type": "video", "video": path | bytes | list of PIL images, ...}
where ... are the options of `media.options`.

An assistant's message may hold its thoughts in "reasoning_content": they stand before its content, as in upstream's
history.

An assistant's message may hold OpenAI's "tool_calls"; a message {"role": "tool", "content": text} is the result of one.

A last message {"role": "assistant", "content": ..., "prefix": True} is the beginning of an answer, which the model
continues, as in Mistral's API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from paddle_internvl.prompt.special_tokens import GROUNDING, IMAGE_TOKEN
from paddle_internvl.prompt.templates import Conversation, Slot
from paddle_internvl.prompt.thinking import join_thoughts, split_thoughts
from paddle_internvl.prompt.tools import ToolCall, ToolFormat, ToolUse, parse_calls

_ROLES = {  # of a message -> turn
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip
# type of a part -> kind of media, and the key of the source inside the part's own field
_MEDIA = {
    "image_url": ("image", "url"),
    "image_data": ("image", "data"),
    "image": ("image", None),
    "video_url": ("video", "url"),
    "video_data": ("video", "data"),
    "video": ("video", None),
}


@dataclass(frozen=True)
class Media:
    """A picture or a clip in a turn, not opened yet.

    Attributes:
        kind: 'image' or 'video'.
        source: what `media.opening.open_media` opens.
        options: tile and frame options, see `media.options`.
        place: of the part in the messages, such as 'messages[0].content[1]', for error messages.
        pixels: of a loaded picture or of all frames of a loaded clip; 0: not loaded.
    """

    kind: str
    source: object
    options: Mapping = field(default_factory=dict)
    place: str = field(default="", compare=False)
    pixels: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Turn:
    """One message of the user or the assistant.

    Attributes:
        role: 'user', 'assistant', 'tool' (the result of a tool call) or 'system' (a system message that is not the
            conversation's first message).
        parts: texts and media in order. Only a user's turn holds media.
        calls: tool calls behind an assistant's text.
    """

    role: str
    parts: tuple[str | Media, ...]
    calls: tuple[ToolCall, ...] = ()

    @property
    def media(self) -> list[Media]:
        """The turn's pictures and clips in order."""
        return [part for part in self.parts if isinstance(part, Media)]

    def without_thoughts(self) -> Turn:
        """The turn; the assistant's without the thoughts that its text begins with."""
        if self.role != "assistant":
            return self
        return replace(self, parts=(split_thoughts("\n".join(self.parts)).answer,))


@dataclass(frozen=True)
class Dialogue:
    """Parsed messages.

    Attributes:
        system: the first message, if it is a system message; None: it is not; "": no system turn at all.
        turns: the other messages; the last one is not the assistant's.
        answer_prefix: beginning of the answer, which the model continues.
        tools: that the answer may call; None: it calls none.
    """

    system: str | None
    turns: list[Turn]
    answer_prefix: str = ""
    tools: ToolUse | None = None

    @property
    def calls_tools(self) -> bool:
        """Whether the prompt has tools, tool calls or their results."""
        return self.tools is not None or any(turn.calls or turn.role == "tool" for turn in self.turns)

    @property
    def media(self) -> list[Media]:
        """The pictures and clips of all turns in order."""
        return [media for turn in self.turns for media in turn.media]

    @property
    def pixels(self) -> int:
        """Pixels of all loaded media."""
        return sum(medium.pixels for medium in self.media)

    def substitute_media(self, media: Iterable[Media]) -> Dialogue:
        """The dialogue with other media in the places of its own.

        Args:
            media: one for each of `self.media`, in order.
        """
        substitutes = iter(media)
        return replace(
            self,
            turns=[
                replace(turn, parts=tuple(next(substitutes) if isinstance(p, Media) else p for p in turn.parts))
                for turn in self.turns
            ],
        )


def parse_messages(messages: Sequence[Mapping]) -> Dialogue:
    """Parse OpenAI-style messages.

    Raises:
        ValueError: not a conversation that ends with a user's turn; names the message.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Iterable):
        raise ValueError(f"messages are a list of dicts with role and content, not {type(messages).__name__}")
    system, turns = None, []
    for i, message in enumerate(messages):
        place = f"messages[{i}]"
        if not isinstance(message, Mapping) or "role" not in message:
            raise ValueError(f"{place} is no dict with a role")
        if not isinstance(message["role"], str) or message["role"] not in _ROLES:
            raise ValueError(f"{place} has role {message['role']!r}; supported: {', '.join(_ROLES)}")
        role, calls = _ROLES[message["role"]], ()
        if role == "assistant" and message.get("tool_calls"):
            calls = parse_calls(message["tool_calls"], place)
        content = message.get("content")
        parts = _parts("" if calls and content is None else content, place)
        if role != "user" and not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{place}: media belong in a user's message")
        if role == "system":
            parts = ["\n".join(parts)]
        if role == "assistant":
            parts = [join_thoughts(_thoughts(message, place), "\n".join(parts))]
        if role == "system" and i == 0:
            (system,) = parts
        else:
            turns.append(Turn(role, tuple(parts), calls))
    prefix = ""
    if turns and turns[-1].role == "assistant" and messages[-1].get("prefix") is True:
        if turns[-1].calls:
            raise ValueError("an answer that is continued (prefix) has no tool_calls")
        (prefix,) = turns.pop().parts
    if not any(turn.role == "user" for turn in turns) or turns[-1].role == "assistant":
        raise ValueError("the last message must be the user's, or a tool's")
    return Dialogue(system, turns, prefix)


def _thoughts(message: Mapping, place: str) -> str | None:
    thoughts = message.get("reasoning_content")
    if not isinstance(thoughts, (str, type(None))):
        raise ValueError(f"{place}: reasoning_content is a string, not {type(thoughts).__name__}")
    return thoughts


def _parts(content, place: str) -> list[str | Media]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, Mapping) or not isinstance(content, Iterable):
        raise ValueError(f"{place}: content is a string or a list of parts, not {type(content).__name__}")
    return [_part(part, f"{place}.content[{i}]") for i, part in enumerate(content)]


def _part(part, place: str) -> str | Media:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if not isinstance(kind, str) or kind not in _MEDIA or part.get(kind) is None:
        raise ValueError(
            f"{place} is neither {{'type': 'text', 'text': ...}} nor a picture or clip ({', '.join(_MEDIA)})"
        )
    medium, inner = _MEDIA[kind]
    source, options = part[kind], {name: value for name, value in part.items() if name not in ("type", kind)}
    if inner and isinstance(source, Mapping):
        if source.get(inner) is None:
            raise ValueError(f"{place}.{kind} has no {inner!r}")
        options |= {name: value for name, value in source.items() if name != inner}
        source = source[inner]
    return Media(medium, source, options, place)


def apply_template(
    conversation: Conversation,
    turns: Sequence[Turn],
    picture_counts: Sequence[int],
    tool_format: ToolFormat | None = None,
) -> None:
    """Put turns into a conversation template, and open the assistant's turn that is to be generated.

    A turn's pictures stand before its text, numbered where there are several or earlier ones, as upstream was trained;
    between several texts they stay where they are, and `<IMAGE_TOKEN>` in a text places one picture, as in LMDeploy.

    Args:
        conversation: an empty conversation of the template; changed in place.
        turns: of a `Dialogue`.
        picture_counts: pictures of each medium in order: 1, or a clip's frames.
        tool_format: of tool calls and their results; None: there are none.
    Raises:
        ValueError: marks and pictures of a turn differ in number.
    """
    prefixes = dict(zip(("user", "assistant"), conversation.roles), system=conversation.system_prefix)
    counts, earlier = iter(picture_counts), 0
    for role, group in groupby(turns, key=lambda turn: turn.role):
        if role == "tool":
            tool_format.append_results(conversation, ["\n".join(turn.parts) for turn in group])
            continue
        for turn in group:
            media = [(medium.kind, next(counts)) for medium in turn.media]
            content = _content(turn, media, earlier)
            if turn.calls:
                content += tool_format.calls(turn.calls, after=content)
            conversation.append_message(prefixes[role], content)
            earlier += sum(count for _, count in media)
    conversation.append_message(conversation.roles[1], None)


def _content(turn: Turn, media: list[tuple[str, int]], earlier: int) -> list[str | Slot]:
    """A turn's texts and picture slots.

    Args:
        turn: of text and media.
        media: kind and number of pictures of each medium of the turn.
        earlier: number of pictures before the turn.
    """
    texts = [part for part in turn.parts if isinstance(part, str)]
    marks = sum(text.count(IMAGE_TOKEN) for text in texts) if media else 0
    if marks:
        pictures = sum(count for _, count in media)
        if marks != pictures:
            raise ValueError(f"the prompt has {marks} {IMAGE_TOKEN} marks but {pictures} pictures were given")
        first, *rest = "\n".join(texts).split(IMAGE_TOKEN)
        return [first, *(part for chunk in rest for part in (Slot.PICTURE, chunk))]
    pictures = sum(count for kind, count in media if kind == "image")
    numbered, number, blocks = pictures > 1 or earlier > 0, earlier, []
    for kind, count in media:
        if kind == "video":
            blocks.append([part for k in range(count) for part in (f"Frame{k + 1}: ", Slot.PICTURE, "\n")])
        else:
            blocks.append([f"Image-{number + 1}: " if numbered else "", Slot.PICTURE, "\n"])
        number += count
    if len(texts) <= 1:
        return [part for block in blocks for part in block] + texts
    remaining, out = iter(blocks), []
    for i, part in enumerate(turn.parts):
        follows_text = i > 0 and isinstance(turn.parts[i - 1], str)
        out += ["\n"] if follows_text else []
        out += next(remaining) if isinstance(part, Media) else [part]
    return out


def grounding_question(description: str) -> str:
    """The question that upstream's models answer with a bounding box (grounding).

    Args:
        description: of the thing that is looked for, such as "the red circle".
    Returns:
        The question, with upstream's `<ref>` marks.
    """
    start, end = GROUNDING[:2]
    return (
        f"Please provide the bounding box coordinate of the region this sentence describes: {start}{description}{end}"
    )
