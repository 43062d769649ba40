"""Records -> items: objects of upstream's JSON and JSONL files and rows of Hugging Face's parquet files."""

import ast
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.readers.errors import ReadError
from paddle_internvl.evaluation.readers.places import find_picture
from paddle_internvl.media.data_urls import encode_data_url

_INDEX = ("question_id", "questionId", "id", "pid", "index")
_QUESTION = ("query", "question", "text", "sent")
_ANSWER = ("answer", "answers", "label", "bbox")
_PICTURES = ("decoded_image", "image", *(f"image_{i}" for i in range(1, 8)))
_FOLDERS = ("images", "val2014")  # of pictures, beside the file that names them


def item_of_record(
    record: Mapping,
    place: str,
    file: Path,
    index: Index | None = None,
    split: str = "none",
    answer: str | None = None,
    pictures: bool = True,
) -> Item:
    """The item of a record.

    Args:
        record: fields by upstream's names.
        place: file and line, for errors.
        file: pictures are looked for from here.
        index: of the item; None: the record's.
        split: name of the split.
        answer: reference answer; None: the record's.
        pictures: False leaves `Item.pictures` empty.
    Raises:
        ReadError: a field is missing.
    """
    if not isinstance(record, Mapping):
        raise ReadError(f"{place}: not a JSON object")
    options = option_texts(record, place)
    return Item(
        index=index if index is not None else _index(record, place),
        question=str(_first(record, _QUESTION, place)),
        answer=answer if answer is not None else _answer(record, list(options)),
        options=options,
        hint=record.get("hint") or "",
        category=str(record.get("category") or ""),
        split=split,
        pictures=_pictures(record, place, file) if pictures else (),
        columns={name: text_of(value) for name, value in record.items() if name not in _PICTURES},
    )


def text_of(value: object) -> str:
    """A value of JSON or parquet as VLMEvalKit's TSV files have it: a list as Python writes it, nothing as ""."""
    if value is None:
        return ""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, str) else repr(value)


def references_text(value: object) -> str:
    """Reference answers as the text of a list, and a single one as itself. VQA's answers are objects with `answer`."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        texts = [str(entry["answer"] if isinstance(entry, Mapping) else entry) for entry in value]
        return texts[0] if len(texts) == 1 else repr(texts)
    return text_of(value)


def option_texts(record: Mapping, place: str) -> dict[str, str]:
    """Texts of the options by letter, from `choices` or MMMU's `options`, which may be the text of a list."""
    if "query" in record:  # MathVista's has the options in it
        return {}
    options = record.get("options") or ()
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError):
            raise ReadError(f"{place}: 'options' is no list") from None
    texts = record.get("choices") or [str(option).strip() for option in options]
    return dict(zip(string.ascii_uppercase, map(str, texts)))


def has_index(record: Mapping) -> bool:
    """Whether a record has a field that is its index."""
    return any(record.get(name) is not None for name in _INDEX)


def _first(record: Mapping, names: Sequence[str], place: str) -> object:
    name = next((name for name in names if record.get(name) is not None), None)
    if name is None:
        raise ReadError(f"{place}: there is no field {' or '.join(map(repr, names))}")
    return record[name]


def _index(record: Mapping, place: str) -> Index:
    index = _first(record, _INDEX, place)
    return index if isinstance(index, int) else str(index)


def _answer(record: Mapping, letters: Sequence[str]) -> str | None:
    value = next((record[name] for name in _ANSWER if record.get(name) is not None), None)
    if isinstance(value, int) and 0 <= value < len(letters):
        return letters[value]
    if isinstance(value, Sequence) and value and all(isinstance(number, (int, float)) for number in value):
        return repr(list(value))  # a box
    return references_text(value) or None


def _pictures(record: Mapping, place: str, file: Path) -> tuple[str | Path, ...]:
    names = [name for name in _PICTURES if record.get(name) is not None]
    if "decoded_image" in names:  # `image` is its name in the archive
        names.remove("image")
    values = [value for name in names for value in _listed(record[name])]
    if not values:
        raise ReadError(f"{place}: there is no field 'image'")
    return tuple(_source(value, file) for value in values)


def _listed(value: object) -> Sequence:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _source(value: object, file: Path) -> str | Path:
    """What `media` opens, from a path or Hugging Face's picture of `bytes`."""
    if isinstance(value, Mapping):
        if value.get("bytes") is None:
            return find_picture(str(value.get("path")), file, _FOLDERS)
        return encode_data_url(value["bytes"], "application/octet-stream")
    return find_picture(str(value), file, _FOLDERS)
