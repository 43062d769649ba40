"""Subtitles of sampled frames: the cues of an .srt file at the times of the frames."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TIME = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})[.,](\d{1,3})")
_NEXT_NUMBER = re.compile(r"\n+ *\d+ *$")  # of the cue that follows
_ONLY_NUMBER = re.compile(r"\s*\d+\s*")
_STYLE = re.compile(r"< *(/?) *([isub]) *>")
_TAG = re.compile(r"< */? *[a-zA-Z][^>]*>")


@dataclass(frozen=True)
class Cue:
    """A subtitle: shown from `start` to `end`, in milliseconds; `text` is one line."""

    start: int
    end: int
    text: str


def read_cues(file: Path) -> list[Cue]:
    """Cues of an .srt file, in the file's order.

    Source: VLMEvalKit reads them by pysubs2, which writes the tags of italics and the like as SubStation's, and drops
    other tags.
    """
    times: list[tuple[int, int]] = []
    blocks: list[list[str]] = []
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        stamps = _TIME.findall(line)
        if len(stamps) == 2:
            times.append((_milliseconds(*stamps[0]), _milliseconds(*stamps[1])))
            blocks.append([])
        elif blocks:
            blocks[-1].append(line)
    return [Cue(start, end, _cue_text(lines)) for (start, end), lines in zip(times, blocks)]


def frame_subtitles(cues: Sequence[Cue], indices: Sequence[int], fps: float) -> str:
    """A line for each frame that lies within a cue: the first such cue, again for every frame.

    Args:
        cues: in the file's order.
        indices: of the frames.
        fps: frames per second of the clip.
    """
    lines = []
    for index in indices:
        now = round(index * (1000 / fps))
        text = next((cue.text for cue in cues if cue.start < now < cue.end), "")
        lines += [text] if text.strip() else []
    return "\n".join(lines)


def _milliseconds(hours: str, minutes: str, seconds: str, fraction: str) -> int:
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(fraction.ljust(3, "0"))


def _cue_text(lines: list[str]) -> str:
    if len(lines) >= 2 and not "".join(lines[:-1]).strip() and _ONLY_NUMBER.fullmatch(lines[-1]):
        return ""
    text = _NEXT_NUMBER.sub("", "\n".join(lines).strip())
    text = _STYLE.sub(lambda tag: f"{{\\{tag[2]}{0 if tag[1] else 1}}}", text)
    return _TAG.sub("", text).replace("\n", " ").replace("\\N", " ")
