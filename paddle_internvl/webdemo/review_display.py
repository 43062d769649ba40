"""Display of a flagged sample as HTML: reasons, pictures, frames of clips, texts; and the progress of a review.

In: a `FlaggedSample`, a language. Out: HTML. Pictures are in the page itself as data URLs, so that no file is served.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from paddle_internvl.curation.review import FlaggedSample
from paddle_internvl.media.images import open_image
from paddle_internvl.media.video import open_source
from paddle_internvl.preprocess.frames import get_index
from paddle_internvl.webdemo.display import frame_captions, problem
from paddle_internvl.webdemo.pictures import data_url, figure, figures, small, strip
from paddle_internvl.webdemo.texts import text

_LARGE, _SIDE, _FRAME_SIDE = 1024, 512, 320  # pixels: the only picture, several pictures, frames
_FRAMES = 8


def sample_html(sample: FlaggedSample, language: str) -> str:
    """A sample with the reasons why it was flagged. A picture that can't be read is an error message in its place."""
    place = text("place", language, dataset=sample.dataset, line=sample.line)
    side = _LARGE if len(sample.images) == 1 else _SIDE
    return "".join(
        [
            f"<h2>{html.escape(place)}</h2>",
            _reasons(sample.reasons, language),
            figures([_picture(file, side) for file in sample.images]),
            *(_clip(file, language) for file in sample.videos),
            "<dl>",
            *(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in sample.texts),
            "</dl>",
        ]
    )


def progress_html(counts: dict[str, int], language: str) -> str:
    """The progress of a review in words and as a bar."""
    words = html.escape(text("progress", language, **counts))
    bar = f'<progress value="{counts["decided"]}" max="{max(1, counts["total"])}" aria-label="{words}"></progress>'
    return f'{bar}<p role="status">{words}</p>'


def _reasons(reasons: Sequence[dict], language: str) -> str:
    """Table of the findings."""
    names = ("rule", "score", "detail")
    head = "".join(f'<th scope="col">{html.escape(text(name, language))}</th>' for name in names)
    rows = ("".join(f"<td>{html.escape(str(reason.get(name, '')))}</td>" for name in names) for reason in reasons)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _picture(file: Path, side: int) -> str:
    try:
        image = open_image(str(file))
    except (OSError, ValueError) as error:
        return problem(str(error))
    return figure(data_url(small(image, side)), f"{file.name} · {image.width} × {image.height}", file.name)


def _clip(file: Path, language: str) -> str:
    """Frames spread over a clip."""
    try:
        with open_source(file) as clip:
            frames = clip.read(get_index(None, clip.fps, clip.frames - 1, num_segments=_FRAMES).tolist())
    except (OSError, ValueError, ImportError) as error:
        return problem(str(error))
    urls = [data_url(small(frame, _FRAME_SIDE)) for frame in frames]
    return strip(urls, frame_captions(len(urls), language), file.name, file.name)
