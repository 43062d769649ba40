"""Readers: files of the benchmarks -> `Item`s, streamed and checked."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.readers.errors import ReadError
from paddle_internvl.evaluation.readers.jsonl import read_captions, read_jsonl, read_pages
from paddle_internvl.evaluation.readers.mme import read_mme
from paddle_internvl.evaluation.readers.mvbench import read_mvbench
from paddle_internvl.evaluation.readers.parquet import read_parquet
from paddle_internvl.evaluation.readers.places import find_place
from paddle_internvl.evaluation.readers.tsv import read_tsv
from paddle_internvl.evaluation.readers.video_tsv import read_video_tsv

__all__ = ["READERS", "ReadError", "default_rules", "read_items"]

Reader = Callable[[Benchmark, Path, bool], Iterator[Item]]
READERS: dict[str, Reader] = {
    "tsv": read_tsv,
    "video_tsv": read_video_tsv,
    "jsonl": read_jsonl,
    "pages": read_pages,
    "captions": read_captions,
    "mme": read_mme,
    "mvbench": read_mvbench,
    "parquet": read_parquet,
}
_BY_SUFFIX = {".jsonl": "jsonl", ".parquet": "parquet"}


def default_rules(benchmark: Benchmark, path: str | Path) -> str:
    """Name of the rules that the format of a benchmark's data stands for.

    Args:
        benchmark, path: see `read_items`.
    Returns:
        "vlmevalkit" for VLMEvalKit's TSV files, "internvl" for the files of upstream's scripts.
    """
    task, place = benchmark.upstream, find_place(benchmark, Path(path), None)
    is_tsv = place.suffix == ".tsv" and (task is None or place.name != Path(task.file).name)
    return "vlmevalkit" if task is None or is_tsv else "internvl"


def read_items(
    benchmark: Benchmark, path: str | Path, rules: str | None = None, pictures: bool = True
) -> Iterator[Item]:
    """Items of a benchmark's data, one at a time.

    Args:
        benchmark: its row of the table.
        path: the file, or a folder that holds it under VLMEvalKit's or upstream's name.
        rules: toolkit whose file is taken where a folder holds both; None: VLMEvalKit's.
        pictures: False leaves `Item.pictures` and `Item.clip` empty, as scorers need none.
    Raises:
        ReadError: the data is missing or faulty; names file and row.
    """
    place = find_place(benchmark, Path(path), rules)
    items = READERS[_reader_name(benchmark, place)](benchmark, place, pictures)
    first = next(items, None)
    if first is None:
        raise ReadError(f"{place} has no rows of {benchmark.name}")
    return chain([first], items)


def _reader_name(benchmark: Benchmark, place: Path) -> str:
    if place.suffix == ".tsv":
        return "video_tsv" if benchmark.video else "tsv"
    if name := _BY_SUFFIX.get(place.suffix):
        return name
    reader = benchmark.upstream.reader if benchmark.upstream else "jsonl"
    return "jsonl" if reader in ("parquet", "tsv") and place.suffix == ".json" else reader
