"""Tiny_DEV: questions about held-out scenes as a benchmark in VLMEvalKit's TSV format.

    python -m demo.tiny.benchmark Tiny_DEV.tsv [--per-kind 10]

In: the scenes of `demo.tiny.cases`. Out: index, image (base64 PNG, a list where there are several, the index of an
earlier row with the same pictures), question, answer, category.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
from pathlib import Path

from PIL import Image

from demo.tiny.cases import Case, collect
from demo.tiny.evaluate import without_marks

# other tile limits, clips, no picture, answers that are scored by overlap
_LEFT_OUT = ("small print, one tile", "motion", "talk", "box")


def write_benchmark(file: Path, per_kind: int = 10) -> int:
    """Write Tiny_DEV.

    Args:
        file: TSV to be written.
        per_kind: questions of each kind.
    Returns:
        The number of rows.
    """
    kept = [case for case in collect(per_kind) if case.kind not in _LEFT_OUT]
    first: dict[tuple[int, ...], int] = {}
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, delimiter="\t", lineterminator="\n")
        table.writerow(("index", "image", "question", "answer", "category"))
        for index, case in enumerate(kept):
            earlier = first.setdefault(tuple(map(id, case.scenes)), index)
            image = _cell(case) if earlier == index else str(earlier)
            table.writerow((index, image, case.question.text, without_marks(case.question.answer), case.kind))
    return len(kept)


def _cell(case: Case) -> str:
    pictures = [_base64_png(picture) for picture in case.pictures]
    return pictures[0] if len(pictures) == 1 else str(pictures)


def _base64_png(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--per-kind", type=int, default=10, help="questions of each kind (default: 10)")
    arguments = parser.parse_args()
    print(f"{write_benchmark(arguments.file, arguments.per_kind)} rows: {arguments.file}")


if __name__ == "__main__":
    main()
