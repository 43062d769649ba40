"""Data sets of a filter: one JSONL file, a folder of them, or a meta JSON.

In: a path. Out: `FilterSource`s in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.curation.jsonl import input_files
from paddle_internvl.training.mixture import DataError, meta_of, resolve


@dataclass(frozen=True)
class FilterSource:
    """A data set to be filtered.

    Attributes:
        name: file name without its ending, or key of the meta JSON.
        file: JSONL.
        root: folder of its pictures and clips.
    """

    name: str
    file: Path
    root: Path


def filter_sources(source: Path, root: Path | None = None) -> list[FilterSource]:
    """Data sets of a path.

    Args:
        source: a .jsonl file, a folder of .jsonl files, or a meta JSON (.json), whose relative paths are relative to
            the working directory or else to its folder.
        root: folder of the media; None: the folder of a JSONL file, or the meta JSON's `root`.
    Raises:
        DataError: a file that is missing, or a meta JSON without `annotation`.
    """
    if source.suffix != ".json":
        return [FilterSource(file.stem, file, root or file.parent) for file in input_files(source)]
    meta = meta_of(source)
    if not all(isinstance(part, dict) and "annotation" in part for part in meta.values()):
        raise DataError(f"{source}: an object of data sets with annotation is needed")
    sources = []
    for name, part in meta.items():
        (file,) = input_files(resolve(source, part["annotation"]))
        sources.append(FilterSource(name, file, root or resolve(source, part.get("root", ""))))
    return sources
