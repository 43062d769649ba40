"""Answer files: predictions of a run, of VLMEvalKit, or of anybody, read as text by index.

In: .json (`{index: answer}`), .jsonl, .csv, .tsv or VLMEvalKit's .xlsx. Out: `{str(index): answer}`. Answers stay text:
"None", "NA" and "" are what they are; a row whose answer is null has none.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

_INDEX_COLUMNS = ("index", "question_id", "questionId", "id")
# VLMEvalKit's tables hold the reference as `answer`, beside the prediction
_ANSWER_COLUMNS = ("prediction", "answer", "response", "text")
_CELL_LIMIT = 1 << 27  # characters of a .csv or .tsv cell: base64 pictures

PREDICTION_ENDINGS = (".xlsx", ".tsv", ".json")  # of VLMEvalKit's files of predictions


class AnswerError(ValueError):
    """An answer file that can't be read."""


def read_answers(file: Path) -> dict[str, str]:
    """Answers by index.

    Args:
        file: its ending names the format.
    Raises:
        AnswerError: no such file, an unknown ending, a line without index or answer, or two answers to one index;
            names file and row.
        ImportError: an .xlsx file, and openpyxl is not installed.
    """
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise AnswerError(f"{file}: answers are read from {', '.join(_READERS)} files")
    if not file.is_file():
        raise AnswerError(f"{file}: no such file")
    answers: dict[str, str] = {}
    try:
        for place, index, answer in reader(file):
            if index in answers:
                raise AnswerError(f"{place}: a second answer to index {index}; leave one of them out")
            if answer is not None:
                answers[index] = answer
    except UnicodeDecodeError as error:
        raise AnswerError(f"{file}: the file is no UTF-8 text: {error.reason} at byte {error.start}") from None
    return answers


def _json_answers(file: Path) -> Iterator[tuple[str, str, str | None]]:
    pairs: list[tuple[str, object]] = []

    def keep_pairs(items: list) -> dict:
        pairs[:] = items  # the outermost object is built last; a dict would drop repeated keys
        return dict(items)

    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=keep_pairs)
    except ValueError as error:
        raise AnswerError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(document, dict):
        yield from _rows(file, enumerate(document, 1))
        return
    for index, answer in pairs:
        yield f"{file}: {index}", index, _text(answer, f"{file}: {index}")


def _jsonl_answers(file: Path) -> Iterator[tuple[str, str, str | None]]:
    with open(file, encoding="utf-8-sig") as stream:
        yield from _rows(
            file, ((number, _object(line, file, number)) for number, line in enumerate(stream, 1) if line.strip())
        )


def _object(line: str, file: Path, number: int) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        raise AnswerError(f"{file}:{number}: not valid JSON: {error}") from None


def _table_answers(file: Path) -> Iterator[tuple[str, str, str | None]]:
    csv.field_size_limit(_CELL_LIMIT)
    with open(file, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
        yield from _rows(file, enumerate(reader, 2))


def _workbook_answers(file: Path) -> Iterator[tuple[str, str, str | None]]:
    try:
        import openpyxl
    except ImportError:
        raise ImportError(f"{file} needs openpyxl: pip install 'paddle_internvl[evaluation]'") from None
    sheet = openpyxl.load_workbook(file, read_only=True).worksheets[0]
    header, *rows = ([cell if cell is not None else "" for cell in row] for row in sheet.iter_rows(values_only=True))
    yield from _rows(file, ((number, dict(zip(header, row))) for number, row in enumerate(rows, 2)))


_READERS = {
    ".json": _json_answers,
    ".jsonl": _jsonl_answers,
    ".csv": _table_answers,
    ".tsv": _table_answers,
    ".xlsx": _workbook_answers,
}


def _rows(file: Path, rows) -> Iterator[tuple[str, str, str | None]]:
    """Place, index and answer of rows that are objects with columns."""
    for number, row in rows:
        place = f"{file}:{number}"
        if not isinstance(row, dict):
            raise AnswerError(f"{place}: not an object")
        index = next((row[name] for name in _INDEX_COLUMNS if row.get(name) not in (None, "")), None)
        name = next((name for name in _ANSWER_COLUMNS if name in row), None)
        if index is None or name is None:
            raise AnswerError(
                f"{place}: a row has one of {', '.join(_INDEX_COLUMNS)} and of {', '.join(_ANSWER_COLUMNS)}"
            )
        yield place, _key(index), _text(row[name], place)


def _key(index: object) -> str:
    return str(int(index)) if isinstance(index, float) and index.is_integer() else str(index)


def _text(answer: object, place: str) -> str | None:
    if answer is None or isinstance(answer, str):
        return answer
    if isinstance(answer, (int, float)):
        return str(answer)
    raise AnswerError(f"{place}: an answer is text, not {type(answer).__name__}")
