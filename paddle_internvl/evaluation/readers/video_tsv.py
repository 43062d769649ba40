"""TSV files of VLMEvalKit about clips: MVBench, Video-MME and MMBench-Video."""

import string
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.cells import list_text
from paddle_internvl.evaluation.item import Clip, Item
from paddle_internvl.evaluation.readers.errors import ReadError
from paddle_internvl.evaluation.readers.mvbench import FRAMES_PER_SECOND
from paddle_internvl.evaluation.readers.tsv import item_of_row, read_rows, survey


def read_video_tsv(benchmark: Benchmark, file: Path, pictures: bool = True) -> Iterator[Item]:
    """Items of a TSV file whose clips lie beside it.

    Raises:
        ReadError: a missing column, a duplicate index, or a bound that is no number; names file and row.
    """
    integers, _ = survey(file, ("video", "question"))
    for number, row in read_rows(file):
        item = item_of_row(row, int(row["index"]) if integers else row["index"])
        yield replace(
            item,
            options=item.options or _options(row.get("candidates", ""), benchmark.video == "video_mme"),
            category=item.category or row.get("task_type", ""),
            clip=_clip(row, file, number) if pictures else None,
        )


def _options(cell: str, lettered: bool) -> dict[str, str]:
    """Options by letter from a list of candidates, which Video-MME writes as "A. text"."""
    texts = list_text(cell) if cell else []
    options = dict(zip(string.ascii_uppercase, texts))
    return {letter: text.removeprefix(f"{letter}. ") if lettered else text for letter, text in options.items()}


def _clip(row: Mapping[str, str], file: Path, number: int) -> Clip:
    bound: list[float | None] = [None, None]
    if row.get("bound") == "True":
        try:
            bound = [float(row["start"]), float(row["end"])]
        except (KeyError, ValueError):
            raise ReadError(f"{file}, row {number}: start and end are no numbers, but bound is True") from None
    subtitles = file.parent / row["subtitle_path"] if row.get("subtitle_path") else None
    rate = FRAMES_PER_SECOND if row.get("data_type") == "frame" else None
    return Clip(_path(row, file.parent), *bound, rate, subtitles)


def _path(row: Mapping[str, str], root: Path) -> Path:
    if "prefix" in row:
        return root / row["prefix"] / row["video"]
    candidates = [root / "video" / f"{row['video']}.mp4", root / f"{row['video']}.mp4"]
    if row.get("video_path"):
        candidates.insert(0, root / row["video_path"])
    return next((path for path in candidates if path.exists()), candidates[0])
