"""Item: one row of a benchmark, the same for every file format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Index = int | str


@dataclass(frozen=True)
class Clip:
    """The video of an item.

    Attributes:
        path: video file, or folder of frames (`frames_per_second` is set then).
        start: first second of the part that is asked about; None: the beginning.
        end: last second of it; None: the end.
        frames_per_second: of a folder of frames, whose names count from 1; None for a video file.
        subtitles: .srt file beside the video, or None.
    """

    path: Path
    start: float | None = None
    end: float | None = None
    frames_per_second: float | None = None
    subtitles: Path | None = None


@dataclass(frozen=True)
class Item:
    """One row of a benchmark: a question, its pictures or clip, and the reference answer.

    Attributes:
        index: key of the row: VLMEvalKit's `index`, `question_id`, `<task>/<n>` (MVBench), `<split>/<n>` (RefCOCO)
            or `<category>/<n>` (MME). An integer where all indices of the file are integers.
        question: text of the question, without hint and options.
        answer: reference answer as the file has it; None where the file publishes none (test splits).
        options: text of every option that is present, by letter; {} for an open question.
        hint: text that VLMEvalKit puts before the question; "" without one.
        category: column `category`; "" without one.
        split: column `split`; "none" without one, as in VLMEvalKit's score tables.
        pictures: sources that `media` opens: data URLs and paths, in the order of the prompt.
        clip: the video, or None.
        columns: every column of the row but its pictures, as text, by the file's own name.
    """

    index: Index
    question: str
    answer: str | None
    options: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    category: str = ""
    split: str = "none"
    pictures: tuple[str | Path, ...] = ()
    clip: Clip | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
