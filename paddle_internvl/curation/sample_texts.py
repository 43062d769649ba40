"""Texts and media of a line of training data: SFT conversations, preference pairs, sampled responses.

In: the object of a JSONL line. Out: `SampleTexts`. Formats: upstream's annotation and preference JSONL.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PROMPTS, _ANSWERS = ("question",), ("response", "chosen", "rejected", "answer")


@dataclass(frozen=True)
class SampleTexts:
    """What the rules look at.

    Attributes:
        prompts: texts of the user and the system, in order.
        answers: texts of the assistant, in order.
        images: files of pictures.
        videos: files of clips; one or none.
    """

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()


def sample_texts(item: dict, root: Path) -> SampleTexts:
    """Texts and media of a sample.

    Args:
        item: with `conversations`, or `question` and one of `response`, `chosen` and `rejected`, `answer`; with `image`
            (a path or a list of paths) or `video`.
        root: folder of the media.
    Raises:
        ValueError: the object is no sample; the message says why.
    """
    images, video = media_names(item)
    videos = (root / video,) if video else ()
    if "conversations" in item:
        prompts, answers = _turns(item["conversations"])
    else:
        prompts = [item[name] for name in _PROMPTS if name in item]
        answers = [item[name] for name in _ANSWERS if name in item]
    if not prompts or not answers or not all(isinstance(text, str) for text in (*prompts, *answers)):
        raise ValueError("conversations with a human and a gpt item, or question and an answer, are needed")
    return SampleTexts(tuple(prompts), tuple(answers), tuple(root / name for name in images), videos)


def media_names(item: dict) -> tuple[list[str], str | None]:
    """Paths of the pictures and of the clip of a sample.

    Raises:
        ValueError: `image` or `video` is of another form, or both are given.
    """
    images, video = picture_names(item), item.get("video") or None
    if not isinstance(video, str | None) or (video and images):
        raise ValueError("video: one path is needed, and no image beside it")
    return images, video


def picture_names(item: dict) -> list[str]:
    """Paths of the pictures of a sample, as its `image` has them.

    Raises:
        ValueError: `image` is neither a path nor a list of paths.
    """
    images = item.get("image") or []
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise ValueError("image: a path or a list of paths is needed")
    return images


def _turns(conversations) -> tuple[list, list]:
    """Texts of the user and of the assistant."""
    turns = conversations if isinstance(conversations, list) else []
    if not turns or not all(isinstance(turn, dict) and {"from", "value"} <= turn.keys() for turn in turns):
        raise ValueError("conversations: a list of objects with from and value is needed")
    unknown = [turn["from"] for turn in turns if turn["from"] not in ("system", "human", "gpt")]
    if unknown:
        raise ValueError(f"conversations: from is {unknown[0]!r}; use system, human or gpt")
    sides: tuple[list, list] = ([], [])
    for turn in turns:
        sides[turn["from"] == "gpt"].append(turn["value"])
    return sides
