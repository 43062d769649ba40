"""OpenAI-style messages to turns of text and media, and turns to what a template's conversation holds.

In: a list of {"role", "content"} dicts. Out: a system message and `Turn`s whose media stand where they belong.
Reads no file, decodes no picture and knows no tokens: `preprocess.media` turns `Media` into pixels.

Content is a string, or a list of parts:
    {"type": "text", "text": ...}
    {"type": "image_url", "image_url": {"url": path | http(s) URL | data URL, ...}}         or the URL by itself
    {"type": "image", "image": path | bytes | PIL image, ...}
    {"type": "image_data", "image_data": {"data": PIL image, ...}}
    {"type": "video_url", "video_url": {"url": path | http(s) URL | data URL, ...}}
    {"type": "video", "video": path | bytes | list of PIL images, ...}
where ... are the options of `preprocess.media.TILE_OPTIONS` and `FRAME_OPTIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from paddle_internvl.prompt.special_tokens import GROUNDING
from paddle_internvl.prompt.templates import Conversation, Slot

_ROLES = ("user", "assistant")
# type -> (kind, where the source stands inside the part's own field)
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
    """A picture or a clip in a turn.

    Attributes:
        kind: 'image' or 'video'. source: what `preprocess.media` can open. options: how it is cut into tiles.
    """

    kind: str
    source: object
    options: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """What one side said: texts and media in order. Only a user's turn holds media."""

    role: str
    parts: tuple[str | Media, ...]


def parse_messages(messages: Sequence[Mapping]) -> tuple[str | None, list[Turn]]:
    """The system message (None: none given, "": none wanted) and the turns.

    Raises:
        ValueError: not a conversation that ends with a user's turn; names the message.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Iterable):
        raise ValueError(f"messages are a list of dicts with role and content, not {type(messages).__name__}")
    system, turns = None, []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping) or "role" not in message:
            raise ValueError(f"{where} is no dict with a role")
        role, parts = message["role"], _parts(message.get("content"), where)
        if role == "system":
            if i > 0:
                raise ValueError(f"{where} is a system message; only the first message can be one")
            if not all(isinstance(part, str) for part in parts):
                raise ValueError(f"{where}: a system message holds text only")
            system = "\n".join(parts)
            continue
        if role not in _ROLES:
            raise ValueError(f"{where} has role {role!r}; supported: system, {', '.join(_ROLES)}")
        if role == "assistant" and not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{where}: media belong in a user's message")
        if role != _ROLES[len(turns) % 2]:
            raise ValueError(f"{where} is the {role}'s, but the turns must alternate, the user's first")
        turns.append(Turn(role, tuple(parts)))
    if not turns or turns[-1].role != "user":
        raise ValueError("the last message must be the user's")
    return system, turns


def _parts(content, where: str) -> list[str | Media]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, Mapping) or not isinstance(content, Iterable):
        raise ValueError(f"{where}: content is a string or a list of parts, not {type(content).__name__}")
    return [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]


def _part(part, where: str) -> str | Media:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if not isinstance(kind, str) or kind not in _MEDIA or part.get(kind) is None:
        raise ValueError(
            f"{where} is neither {{'type': 'text', 'text': ...}} nor a picture or clip ({', '.join(_MEDIA)})"
        )
    medium, inner = _MEDIA[kind]
    source, options = part[kind], {name: value for name, value in part.items() if name not in ("type", kind)}
    if inner and isinstance(source, Mapping):
        if source.get(inner) is None:
            raise ValueError(f"{where}.{kind} has no {inner!r}")
        options |= {name: value for name, value in source.items() if name != inner}
        source = source[inner]
    return Media(medium, source, options)


def fill(conversation: Conversation, turns: Sequence[Turn], frames: Sequence[int], mark: str | None = None) -> None:
    """Put the turns into a template's conversation, and open the turn that is to be generated.

    A turn's pictures stand before its text, numbered where there are several or earlier ones, as upstream was trained;
    between several texts they stay where they are.

    Args:
        frames: of each medium in order, how many pictures it is. mark: text that stands for one picture of its turn
            (LMDeploy's `<IMAGE_TOKEN>`); None: no text does.
    Raises:
        ValueError: marks and pictures of a turn differ in number.
    """
    counts, before = iter(frames), 0
    for turn in turns:
        media = [part for part in turn.parts if isinstance(part, Media)]
        here = [(part.kind, next(counts)) for part in media]
        conversation.append_message(
            conversation.roles[_ROLES.index(turn.role)], _content(turn, here, before, mark if media else None)
        )
        before += sum(count for _, count in here)
    conversation.append_message(conversation.roles[1], None)


def _content(turn: Turn, media: list[tuple[str, int]], before: int, mark: str | None) -> list[str | Slot]:
    texts = [part for part in turn.parts if isinstance(part, str)]
    marks = sum(text.count(mark) for text in texts) if mark else 0
    if marks:
        pictures = sum(count for _, count in media)
        if marks != pictures:
            raise ValueError(f"the prompt has {marks} {mark} marks but {pictures} pictures were given")
        first, *rest = "\n".join(texts).split(mark)
        return [first, *(part for chunk in rest for part in (Slot.PICTURE, chunk))]
    pictures = sum(count for kind, count in media if kind == "image")
    numbered, number, blocks = pictures > 1 or before > 0, before, []
    for kind, count in media:
        if kind == "video":
            blocks.append([part for k in range(count) for part in (f"Frame{k + 1}: ", Slot.PICTURE, "\n")])
        else:
            blocks.append([f"Image-{number + 1}: " if numbered else "", Slot.PICTURE, "\n"])
        number += count
    if len(texts) <= 1:
        return [part for block in blocks for part in block] + texts
    waiting, out = iter(blocks), []
    for i, part in enumerate(turn.parts):
        follows_text = i > 0 and isinstance(turn.parts[i - 1], str)
        out += ["\n"] if follows_text else []
        out += next(waiting) if isinstance(part, Media) else [part]
    return out


def grounding_question(description: str) -> str:
    """The question that upstream's models answer with a bounding box.

    Args:
        description: of the thing that is looked for, such as "the red circle".
    Returns:
        The question, with upstream's `<ref>` marks.
    """
    start, end = GROUNDING[:2]
    return (
        f"Please provide the bounding box coordinate of the region this sentence describes: {start}{description}{end}"
    )
