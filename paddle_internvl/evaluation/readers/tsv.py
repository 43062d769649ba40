"""TSV files of VLMEvalKit: pictures as base64, as the index of another row, as lists, or as paths.

Cells are text: only an empty cell is missing, where pandas also takes "None", "NA" and "null" for missing and rewrites
columns of numbers.
"""

import csv
import logging
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.cells import list_text
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.readers.errors import ReadError
from paddle_internvl.evaluation.readers.places import find_picture
from paddle_internvl.media.data_urls import decode_data_url
from paddle_internvl.media.errors import MediaError

_MAX_CELL = 2**31 - 1  # characters; csv's own limit is 128 KiB
_LONGEST_REFERENCE = 64  # characters of an image cell that holds the index of another row
_IMAGE_COLUMNS = ("image", "image_path")
_MEDIA_TYPES = {"/9j/": "jpeg", "iVBOR": "png", "R0lGOD": "gif", "UklGR": "webp", "Qk": "bmp"}  # of base64's start

logger = logging.getLogger(__name__)


def read_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a TSV file with a header: number of the row from 1, and its cells by column.

    Raises:
        ReadError: no header, or a row with more cells than the header.
    """
    csv.field_size_limit(_MAX_CELL)
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, delimiter="\t")
            header = next(rows, None)
            if not header or "question" not in header and "image" not in header:
                raise ReadError(f"{file}: the first line is no header of a TSV file with a column 'question'")
            for number, cells in enumerate(filter(None, rows), start=1):
                if len(cells) > len(header):
                    raise ReadError(f"{file}, row {number}: {len(cells)} cells, but the header has {len(header)}")
                yield number, dict(zip(header, chain(cells, [""] * (len(header) - len(cells)))))
    except csv.Error as error:
        raise ReadError(f"{file}: no TSV file: {error}") from None
    except UnicodeDecodeError as error:
        raise ReadError(f"{file}: the file is no UTF-8 text: {error.reason} at byte {error.start}") from None


def read_tsv(benchmark: Benchmark, file: Path, pictures: bool = True) -> Iterator[Item]:
    """Items of a file about pictures, in the file's order; the file is read twice, a row at a time.

    Rows without a picture are left out, as in VLMEvalKit, and their number is logged. A row of RefCOCO belongs to the
    benchmark of its split, and its index is `<split>_<index>`, as in VLMEvalKit.

    Args:
        benchmark: its row of the table.
        file: the TSV file.
        pictures: False leaves `Item.pictures` empty.
    Raises:
        ReadError: a missing column, a duplicate index, broken base64, or a reference to a row without a picture.
    """
    grounding = benchmark.question_type == "GROUNDING"
    integers, referenced = survey(file, (), _IMAGE_COLUMNS, _split_index if grounding else _index)
    shared = _shared_pictures(file, referenced) if pictures and referenced else {}
    dropped = 0
    for number, row in read_rows(file):
        cell = row.get("image", "")
        if grounding and benchmark.name not in ("RefCOCO", row.get("split")):
            continue
        if "image" in row and not cell:
            dropped += 1
            continue
        sources: tuple[str | Path, ...] = ()
        if pictures and cell:
            owner = cell if len(cell) <= _LONGEST_REFERENCE else row["index"]
            sources = shared[owner] if owner in shared else _data_urls(cell, file, number)
        elif pictures:
            folders = (f"images/{benchmark.name}", "images")  # of VLMEvalKit
            sources = tuple(find_picture(part, file, folders) for part in list_text(row["image_path"]))
        index = _split_index(row) if grounding else int(row["index"]) if integers else row["index"]
        item = item_of_row(row, index, sources)
        yield item if "question" in row else replace(item, question=benchmark.question)
    if dropped:
        logger.warning("%s: %d rows without a picture are left out", file, dropped)


def item_of_row(row: Mapping[str, str], index: Index, pictures: tuple[str | Path, ...] = (), **fields) -> Item:
    """The item of a row of VLMEvalKit's columns."""
    return Item(
        index=index,
        question=row.get("question", ""),
        answer=row.get("answer") or row.get("answers") or None,
        options={letter: row[letter] for letter in string.ascii_uppercase if row.get(letter)},
        hint=row.get("hint", ""),
        category=row.get("category", ""),
        split=row.get("split") or "none",
        pictures=pictures,
        columns={name: text for name, text in row.items() if name != "image"},
        **fields,
    )


def _index(row: Mapping[str, str]) -> str:
    return row["index"]


def _split_index(row: Mapping[str, str]) -> str:
    split, index = row.get("split", ""), row["index"]
    return index if not split or index.startswith(split) else f"{split}_{index}"


def survey(
    file: Path,
    needed: Sequence[str],
    either: Sequence[str] = (),
    index_of: Callable[[Mapping[str, str]], str] = _index,
) -> tuple[bool, dict[str, int]]:
    """A first reading of a file: checks of its columns and indices.

    Args:
        file: the TSV file.
        needed: columns beside `index`.
        either: columns of which one is enough.
        index_of: index of a row.
    Returns:
        Whether all indices are integers, and the first row that shows the picture of another row, by that row's index.
    Raises:
        ReadError: a missing column or a duplicate index.
    """
    rows_by_index: dict[str, int] = {}
    referenced: dict[str, int] = {}
    for number, row in read_rows(file):
        for name in ("index", *needed):
            if name not in row:
                raise ReadError(f"{file}: there is no column {name!r}")
        if either and not any(name in row for name in either):
            raise ReadError(f"{file}: there is no column {' or '.join(map(repr, either))}")
        index = index_of(row)
        if index in rows_by_index:
            raise ReadError(f"{file}, row {number}: index {index} is also that of row {rows_by_index[index]}")
        rows_by_index[index] = number
        if 0 < len(row.get("image", "")) <= _LONGEST_REFERENCE:
            referenced.setdefault(row["image"], number)
    return all(_is_integer(index) for index in rows_by_index), referenced


def _is_integer(text: str) -> bool:
    try:
        return str(int(text)) == text
    except ValueError:
        return False


def _shared_pictures(file: Path, referenced: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Pictures of the rows whose pictures other rows show, by index."""
    shared = {
        row["index"]: _data_urls(row["image"], file, number)
        for number, row in read_rows(file)
        if row["index"] in referenced and len(row["image"]) > _LONGEST_REFERENCE
    }
    for index, number in referenced.items():
        if index not in shared:
            raise ReadError(f"{file}, row {number}: the picture is that of index {index}, a row without a picture")
    return shared


def _data_urls(cell: str, file: Path, number: int) -> tuple[str, ...]:
    return tuple(_data_url(text, file, number) for text in list_text(cell))


def _data_url(text: str, file: Path, number: int) -> str:
    """A picture as a data URL, from base64 or such a URL."""
    kind = next((kind for start, kind in _MEDIA_TYPES.items() if text.startswith(start)), None)
    media_type = f"image/{kind}" if kind else "application/octet-stream"
    url = text if text.startswith("data:") else f"data:{media_type};base64,{text}"
    try:
        decode_data_url(url)
    except MediaError as error:
        raise ReadError(f"{file}, row {number}: {error}") from None
    return url
