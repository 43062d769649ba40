"""JSONL and JSON files of upstream's scripts, with the reference answers of their annotation files."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.readers.errors import ReadError
from paddle_internvl.evaluation.readers.places import find_picture
from paddle_internvl.evaluation.readers.records import has_index, item_of_record, references_text, text_of

_POPE_LABELS = "coco_pope_*.json"


def read_jsonl(benchmark: Benchmark, place: Path, pictures: bool = True) -> Iterator[Item]:
    """Items of a JSONL file, a JSON file of records, or of every JSONL file of a folder (ChartQA, RefCOCO).

    An item of a folder has the file's name as its split. Its index is the record's; where two files of the folder share
    indices, `<split>/<index>`; in RefCOCO `<split>/<number from 0>`.

    Raises:
        ReadError: a line that is no JSON, a missing field, or a duplicate index; names file and line.
    """
    grounding = benchmark.question_type == "GROUNDING"
    parts = benchmark.upstream.parts if benchmark.upstream else ()
    files = [file for part in parts if (file := place / f"{part}.jsonl").is_file()] if place.is_dir() else [place]
    prefixed = grounding or len(files) > 1 and _share_indices(files)
    for file in files:
        answers = _Annotations(benchmark, file)
        split = file.stem if grounding or file.stem in parts else "none"
        lines: dict[Index, int] = {}
        for number, record in enumerate(_records(file), start=1):
            where = f"{file}, {'line' if file.suffix == '.jsonl' else 'record'} {number}"
            index = number - 1 if grounding or not has_index(record) else None
            item = item_of_record(record, where, file, index, split, answers.find(record), pictures)
            if item.index in lines:
                raise ReadError(f"{where}: index {item.index} is also that of line {lines[item.index]}")
            lines[item.index] = number
            yield replace(item, index=f"{split}/{item.index}") if prefixed else item


def _share_indices(files: Sequence[Path]) -> bool:
    """Whether an index is in more than one file."""
    indices = [{_identity(record) for record in _records(file)} for file in files]
    return sum(map(len, indices)) > len(set().union(*indices))


def read_json(file: Path) -> object:
    """Content of a JSON file.

    Raises:
        ReadError: the file is no JSON; names file and line.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ReadError(f"{file}, line {error.lineno}: no JSON: {error.msg}") from None


def _records(file: Path) -> Iterator[Mapping]:
    if file.suffix == ".jsonl":
        with open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ReadError(f"{file}, line {number}: no JSON: {error.msg}") from None
                if not isinstance(record, dict):
                    raise ReadError(f"{file}, line {number}: not a JSON object")
                yield record
        return
    content = read_json(file)
    if isinstance(content, dict):  # by index, as MathVista's, or below `data`
        content = content.get("data") or list(content.values())
    if not isinstance(content, list):
        raise ReadError(f"{file}: neither a list of records nor an object that holds one")
    yield from content


class _Annotations:
    """Reference answers of the annotation file of a file of questions, where there is one."""

    def __init__(self, benchmark: Benchmark, file: Path):
        place = _annotation_place(benchmark, file)
        self._by_id: dict[str, str] = {}
        self._labels: dict[str, Iterator[str]] = {}
        if place is None:
            return
        if place.is_dir():
            self._labels = _pope_labels(place)
        else:
            content = read_json(place)
            for entry in content.get("annotations") or content.get("data") or ():
                if entry.get("answers"):
                    self._by_id[_identity(entry)] = references_text(entry["answers"])

    def find(self, record: Mapping) -> str | None:
        """The answer to a record; None: the annotation has none."""
        if self._labels:
            return next(self._labels.get(record.get("category"), iter(())), None)
        return self._by_id.get(_identity(record))


def _identity(entry: Mapping) -> str:
    return text_of(entry.get("question_id", entry.get("questionId")))


def _annotation_place(benchmark: Benchmark, file: Path) -> Path | None:
    task = benchmark.upstream
    if task is None or file.suffix != ".jsonl":
        return None
    candidates = [file.with_name(f"{file.stem}_annotation{ending}.json") for ending in ("", "s")]
    if task.annotation:
        path = Path(task.annotation)
        candidates = [file.parent / path.relative_to(Path(task.file).parent), file.parent / path.name, *candidates]
    if any(file.parent.glob(_POPE_LABELS)):
        candidates.append(file.parent)
    return next((place for place in candidates if place.exists()), None)


def _pope_labels(folder: Path) -> dict[str, Iterator[str]]:
    """Labels of POPE's files `coco_pope_<category>.json`, in their order, by category."""
    labels: dict[str, list[str]] = defaultdict(list)
    for file in sorted(folder.glob(_POPE_LABELS)):
        with open(file, encoding="utf-8") as lines:
            labels[file.stem.removeprefix("coco_pope_")] = [json.loads(line)["label"] for line in lines if line.strip()]
    return {category: iter(texts) for category, texts in labels.items()}


def read_pages(benchmark: Benchmark, file: Path, pictures: bool = True) -> Iterator[Item]:
    """Items of MP-DocVQA's JSON file, whose pages are `images/<page id>.jpg` beside it."""
    content = read_json(file)
    for number, record in enumerate(content.get("data", ()) if isinstance(content, dict) else (), start=1):
        where = f"{file}, record {number}"
        if not record.get("page_ids"):
            raise ReadError(f"{where}: there is no field 'page_ids'")
        item = item_of_record(record, where, file, pictures=False)
        sources = [find_picture(f"images/{page}.jpg", file) for page in record["page_ids"]] if pictures else []
        yield replace(item, pictures=tuple(sources))


def read_captions(benchmark: Benchmark, file: Path, pictures: bool = True) -> Iterator[Item]:
    """Items of the Karpathy splits of COCO and Flickr30k and of NoCaps: a picture, and its captions as the answer."""
    content = read_json(file)
    references: dict[str, list[str]] = defaultdict(list)
    truth = file.with_name(f"{file.stem}_gt.json")
    annotated = read_json(truth) if truth.is_file() else content
    for entry in annotated.get("annotations", ()) if isinstance(annotated, dict) else ():
        references[text_of(entry["image_id"])].append(entry["caption"])
    for number, record in enumerate(content["images"] if isinstance(content, dict) else content, start=1):
        path = record.get("file_name", record.get("image"))
        if path is None:
            raise ReadError(f"{file}, record {number}: there is neither 'file_name' nor 'image'")
        index = record["id"] if "id" in record else int(Path(path).stem.rsplit("_", 1)[-1])
        texts = references.get(text_of(index)) or record.get("caption")
        yield Item(
            index, benchmark.question, repr(list(texts)) if texts else None,
            pictures=(find_picture(path, file, ("images", "..", "../images")),) if pictures else (),
            columns={"image": path},
        )  # fmt: skip
