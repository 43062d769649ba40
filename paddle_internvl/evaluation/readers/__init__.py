"""Readers: files of the benchmarks -> `Item`s, streamed and checked."""

from collections.abc import Iterator
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.readers.errors import ReadError
from paddle_internvl.evaluation.readers.tsv import read_tsv

__all__ = ["ReadError", "default_rules", "read_items"]


def default_rules(benchmark: Benchmark, path: Path) -> str:
    """Name of the rules that a file's format stands for: "vlmevalkit" for its TSV files, "internvl" for the rest."""
    return "vlmevalkit"


def read_items(
    benchmark: Benchmark, path: str | Path, rules: str | None = None, pictures: bool = True
) -> Iterator[Item]:
    """Items of a benchmark's file or folder, one at a time.

    Args:
        benchmark: its row of the table.
        path: the file, or a folder that holds it under VLMEvalKit's or upstream's name.
        rules: toolkit whose files are preferred in a folder; None: VLMEvalKit's TSV file where there is one.
        pictures: False leaves `Item.pictures` empty, as scorers need none.
    Raises:
        ReadError: the file is missing or faulty; names file and row.
    """
    path = Path(path)
    if path.is_dir() and benchmark.file:
        path = path / benchmark.file
    if not path.is_file():
        raise ReadError(f"{path}: no such file")
    return read_tsv(benchmark, path, pictures)
