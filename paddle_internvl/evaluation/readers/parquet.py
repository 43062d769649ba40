"""Parquet files of Hugging Face's hub: MMMU, MMMU-Pro and MathVista, as upstream's scripts load them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.readers.errors import ReadError
from paddle_internvl.evaluation.readers.records import item_of_record

_ROWS = 32  # read at a time
_SPLITS = ("validation", "testmini", "test", "dev")  # a folder's first of these is read


def read_parquet(benchmark: Benchmark, place: Path, pictures: bool = True) -> Iterator[Item]:
    """Items of a parquet file, or of the files of a folder's split in the order of their paths.

    The split is the one that the benchmark's name ends with, else the first of validation, testmini, test and dev.

    Raises:
        ReadError: pyarrow is not installed, a file is broken, a field is missing, or an index is there twice.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ReadError(f"{place}: reading parquet needs pyarrow; pip install pyarrow") from None
    indices: set[Index] = set()
    for file in [place] if place.is_file() else _files(benchmark, place):
        number = 0
        try:
            for batch in ParquetFile(file).iter_batches(_ROWS):
                for record in batch.to_pylist():
                    item = item_of_record(record, f"{file}, row {number}", file, pictures=pictures)
                    if item.index in indices:
                        raise ReadError(f"{file}, row {number}: index {item.index} is there twice")
                    indices.add(item.index)
                    number += 1
                    yield replace(item, category=item.category or _subject(item.index))
        except (ArrowException, OSError) as error:
            raise ReadError(f"{file}: {str(error).splitlines()[0]}") from None


def _files(benchmark: Benchmark, folder: Path) -> list[Path]:
    files = sorted(folder.glob("**/*.parquet"))
    in_name = [split for split in _SPLITS if benchmark.name.lower().endswith(split)]
    for split in in_name or _SPLITS:
        if named := [file for file in files if file.name.startswith(split)]:
            return named
    return files


def _subject(index: Index) -> str:
    """MMMU's subject, from an index such as `validation_Art_1`."""
    parts = str(index).split("_")
    return "_".join(parts[1:-1]) if len(parts) > 2 else ""
