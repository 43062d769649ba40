"""Dataset mixture: a meta JSON file and the annotation lines that it names.

In: the path of a meta JSON. Out: `DatasetSpec`s with their annotation lines, before any picture is opened.
Source: upstream `internvl_chat_finetune.py`, `build_datasets` and `LazySupervisedDataset.__init__`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FIELDS = {"root", "annotation", "data_augment", "repeat_time", "max_dynamic_patch", "length"}


class DataError(ValueError):
    """A fault of training data; the message names the file and the line."""


@dataclass(frozen=True)
class Annotation:
    """One line of an annotation file.

    Attributes:
        index: number of the line, from 0.
        text: the line, JSON of one sample.
    """

    index: int
    text: str


@dataclass(frozen=True)
class DatasetSpec:
    """One data set of a mixture.

    Attributes:
        name: key of the meta JSON.
        root: folder of the pictures and clips.
        file: annotation file.
        annotations: lines in file order, repeated or cut by `repeat_time`.
        data_augment: whether pictures get random JPEG artefacts.
        max_dynamic_patch: most tiles of a picture in this data set; None: the argument's.
    """

    name: str
    root: Path
    file: Path
    annotations: tuple[Annotation, ...]
    data_augment: bool = False
    max_dynamic_patch: int | None = None

    def parse(self, annotation: Annotation) -> dict:
        """The sample of an annotation line.

        Raises:
            DataError: the line is no JSON object.
        """
        try:
            item = json.loads(annotation.text)
        except ValueError as error:
            raise DataError(f"{self.place(annotation)}: not valid JSON: {error}") from None
        if not isinstance(item, dict):
            raise DataError(f"{self.place(annotation)}: an object with conversations is needed")
        return item

    def place(self, annotation: Annotation) -> str:
        """File and line of an annotation, the line counted from 1, for messages."""
        return f"{self.file}:{annotation.index + 1}"


def read_meta(path: str | Path) -> list[DatasetSpec]:
    """Read a meta JSON and the annotation files that it names.

    Relative paths are relative to the working directory, as upstream's, or else to the meta JSON's folder.

    Args:
        path: of the meta JSON.
    Returns:
        One `DatasetSpec` for each data set, in file order.
    Raises:
        DataError: a file that is missing or malformed, or a field that is missing, unknown or out of range.
    """
    path = Path(path)
    return [_dataset(path, name, fields) for name, fields in meta_of(path).items()]


def meta_of(path: Path) -> dict:
    """The object of a meta JSON: data sets by name.

    Raises:
        DataError: a file that is missing, or no object.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give the meta JSON of the data sets") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(meta, dict) or not meta:
        raise DataError(f"{path}: an object of data sets by name is needed")
    return meta


def _dataset(meta: Path, name: str, fields) -> DatasetSpec:
    place = f"{meta}: data set {name!r}"
    if not isinstance(fields, Mapping):
        raise DataError(f"{place}: an object is needed")
    unknown, missing = sorted(fields.keys() - _FIELDS), sorted({"annotation", "repeat_time"} - fields.keys())
    if unknown or missing:
        problem = f"{unknown[0]!r} is not known" if unknown else f"{missing[0]!r} is missing"
        raise DataError(f"{place}: {problem}; fields: {', '.join(sorted(_FIELDS))}")
    augment, limit = fields.get("data_augment", False), fields.get("max_dynamic_patch")
    if not isinstance(augment, bool):
        raise DataError(f"{place}: data_augment={augment!r} must be true or false")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise DataError(f"{place}: max_dynamic_patch={limit!r} must be a whole number above 0")
    file = resolve(meta, str(fields["annotation"]))
    if not file.is_file():
        raise DataError(f"{place}: annotation file {fields['annotation']} does not exist")
    lines = _repeat(_read_lines(file), fields["repeat_time"], place)
    return DatasetSpec(name, resolve(meta, str(fields.get("root", ""))), file, lines, augment, limit)


def resolve(meta: Path, path: str) -> Path:
    """A path of a meta JSON: relative to the working directory, or else to the meta JSON's folder."""
    return Path(path) if Path(path).is_absolute() or Path(path).exists() else meta.parent / path


def _read_lines(file: Path) -> list[Annotation]:
    """Lines of an annotation file that are not blank."""
    annotations = []
    for index, line in enumerate(file.read_bytes().split(b"\n")):
        try:
            text = line.decode("utf-8-sig" if index == 0 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{file}:{index + 1}: not UTF-8: {error}") from None
        annotations += [Annotation(index, text)] if text else []
    if not annotations:
        raise DataError(f"{file} holds no samples")
    return annotations


def _repeat(lines: list[Annotation], repeat_time, place: str) -> tuple[Annotation, ...]:
    """Lines by `repeat_time`: the first part of them below 1, all of them several times above 1."""
    number = isinstance(repeat_time, (int, float)) and not isinstance(repeat_time, bool)
    if not number or not repeat_time > 0 or (repeat_time > 1 and repeat_time != int(repeat_time)):
        raise DataError(f"{place}: repeat_time={repeat_time!r} must be a part of 1, or a whole number")
    if repeat_time < 1:
        kept = lines[: int(len(lines) * repeat_time)]
        if not kept:
            raise DataError(f"{place}: repeat_time={repeat_time} keeps none of {len(lines)} samples")
        return tuple(kept)
    return tuple(lines * int(repeat_time))
