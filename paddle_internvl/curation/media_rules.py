"""Media rules: pictures without marks, marks without pictures, pictures and clips that can't be read.

In: `SampleTexts`. Out: scores, as `text_rules`.
"""

from __future__ import annotations

import functools
from pathlib import Path

from paddle_internvl.curation.sample_texts import SampleTexts
from paddle_internvl.curation.text_rules import Score


def picture_count(sample: SampleTexts) -> Score:
    """Difference between the numbers of `<image>` (or `<video>`) marks of the user and of pictures (clips).

    One picture or clip needs no mark: training puts it at the front of the first question.
    """
    for mark, name, files in (("<image>", "pictures", sample.images), ("<video>", "clips", sample.videos)):
        marks = sum(text.count(mark) for text in sample.prompts)
        if marks != len(files) and (marks, len(files)) != (0, 1):
            return float(abs(marks - len(files))), f"{marks} {mark} for {len(files)} {name}"
    return 0.0, ""


def unreadable_media(sample: SampleTexts) -> Score:
    """Number of pictures that are missing or can't be decoded, and of clips that are missing."""
    faults = [_picture_fault(file) for file in sample.images]
    faults += [None if file.exists() else f"{file.name} is missing" for file in sample.videos]
    found = [fault for fault in faults if fault]
    return float(len(found)), "; ".join(found)


@functools.lru_cache(maxsize=1 << 14)  # samples of one picture are near each other
def _picture_fault(file: Path) -> str | None:
    from paddle_internvl.media.images import open_image

    if not file.is_file():
        return f"{file.name} is missing"
    try:
        open_image(str(file))
    except (OSError, ValueError) as error:
        return str(error).replace(str(file), file.name)
    return None
