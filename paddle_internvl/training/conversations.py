"""Training conversations: annotation items of upstream in a conversation template, media marks replaced by pictures.

In: the `conversations` of an annotation item. Out: a `Conversation` whose picture slots stand where upstream puts them.
Source: upstream `internvl_chat_finetune.py` (`multi_modal_get_item` and its kin) and `dataset.py` (`preprocess_*`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER
from paddle_internvl.prompt.templates import Conversation, Slot, get_conv_template

VIDEO_PLACEHOLDER = "<video>"
_ROLES = ("system", "human", "gpt")
_LEARNS_GREETINGS = ("internvl2_5",)  # upstream's other templates leave out an answer before the first question


def training_conversation(template: str, items: Sequence[Mapping], pictures: int, frames: int | None) -> Conversation:
    """A conversation of an annotation item.

    Args:
        template: name of the conversation template.
        items: {"from": "system" | "human" | "gpt", "value": text}, as upstream's.
        pictures: number of pictures of the item.
        frames: number of frames of the item's clip; None: it has no clip.
    Returns:
        The conversation, whose `<image>` marks in human turns are picture slots, in order; surplus marks stay text.
    Raises:
        ValueError: a malformed item, or fewer marks than pictures.
    """
    turns = [_turn(item, k) for k, item in enumerate(items)] if isinstance(items, Sequence) else []
    if turns and turns[0][0] == "gpt" and template not in _LEARNS_GREETINGS:
        turns = turns[1:]
    if not any(role == "gpt" for role, _ in turns):
        raise ValueError("conversations: a list with an answer (from: gpt) is needed")
    if frames is not None:
        turns, pictures = _with_mark(turns, VIDEO_PLACEHOLDER), frames
        marks = "\n".join(f"Frame-{k + 1}: {IMAGE_PLACEHOLDER}" for k in range(frames))
        turns = _replace_first(turns, f"{VIDEO_PLACEHOLDER}\n", f"{marks}\n")
    elif pictures == 1:
        turns = _with_mark(turns, IMAGE_PLACEHOLDER)
    conversation, remaining = get_conv_template(template), pictures
    for k, (role, text) in enumerate(turns):
        if template == "internlm2-chat":
            text = text.strip()
        if role == "system" and k == 0:
            conversation.system_message = text
            continue
        if role == "human":
            content, used = _slots(text, remaining)
            remaining -= used
        else:
            content = [text]
        prefixes = {"system": conversation.system_prefix, "human": conversation.roles[0], "gpt": conversation.roles[1]}
        conversation.append_message(prefixes[role], content)
    if remaining:
        raise ValueError(f"{pictures} pictures but {pictures - remaining} {IMAGE_PLACEHOLDER} marks in the questions")
    return conversation


def _turn(item, k: int) -> tuple[str, str]:
    role, text = (item.get("from"), item.get("value")) if isinstance(item, Mapping) else (None, None)
    if role not in _ROLES or not isinstance(text, str):
        raise ValueError(f"conversations[{k}]: from ({', '.join(_ROLES)}) and value (text) are needed")
    return role, text


def _with_mark(turns: list[tuple[str, str]], mark: str) -> list[tuple[str, str]]:
    """Turns with the mark of the only picture or clip, which is put in front where the first turn lacks it.

    Upstream looks into the first turn alone, even if that is a system message: then the mark stays text there, and the
    first question must have one of its own.
    """
    turns = list(turns)
    if mark not in turns[0][1]:
        turns[0] = (turns[0][0], f"{mark}\n{turns[0][1]}")
    first = next((k for k, (role, _) in enumerate(turns) if role == "human"), None)
    if first and not any(mark in text for role, text in turns if role == "human"):  # upstream fails here
        turns[first] = ("human", f"{mark}\n{turns[first][1]}")
    return turns


def _replace_first(turns: list[tuple[str, str]], old: str, new: str) -> list[tuple[str, str]]:
    """Turns with `old` replaced in the first question that holds it."""
    at = next((k for k, (role, text) in enumerate(turns) if role == "human" and old in text), None)
    if at is None:
        raise ValueError(f"the mark {old!r} must stand in a question, with a line break behind it")
    return [(role, text.replace(old, new, 1)) if k == at else (role, text) for k, (role, text) in enumerate(turns)]


def _slots(text: str, pictures: int) -> tuple[list[str | Slot], int]:
    """A question with its first marks as picture slots, at most `pictures` of them; and their number."""
    first, *rest = text.split(IMAGE_PLACEHOLDER)
    content: list[str | Slot] = [first]
    used = min(pictures, len(rest))
    for k, part in enumerate(rest):
        content += [Slot.PICTURE if k < used else IMAGE_PLACEHOLDER, part]
    return content, used
