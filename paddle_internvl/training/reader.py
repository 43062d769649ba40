"""Sample reader: samples of a data set in a given order, read ahead, bad samples as errors or skipped and reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from paddle_internvl.jsonl import append_objects, read_objects
from paddle_internvl.training.mixture import DataError
from paddle_internvl.training.prefetch import prefetch
from paddle_internvl.training.recipe import ON_BAD_SAMPLE

SKIPPED = "skipped.jsonl"  # report of a run, in OUTPUT


class SampleReader:
    """Reads samples of a data set, in worker processes ahead of their use.

    Args:
        dataset: an `SFTDataset`, or any sequence; `[i]` gives a sample or raises DataError.
        workers: number of worker processes; 0 reads in this process. The samples are the same.
        on_bad_sample: 'error' raises the DataError, 'skip' gives None for the sample.
        report: file that lists the skipped samples, one JSON object a line, and is continued; None: no file.
        max_tiles: maximum tiles of a sample, the dummy tile of a text sample included; None: no limit.
    """

    def __init__(
        self,
        dataset,
        workers: int = 0,
        on_bad_sample: str = "error",
        report: Path | None = None,
        max_tiles: int | None = None,
    ):
        if on_bad_sample not in ON_BAD_SAMPLE:
            raise ValueError(f"on_bad_sample={on_bad_sample!r}; use {' or '.join(ON_BAD_SAMPLE)}")
        self.dataset = dataset
        self._workers, self._on_bad_sample, self._report, self._max_tiles = workers, on_bad_sample, report, max_tiles

    def read(self, places: Iterable[tuple[int, int]]) -> Iterator[dict | None]:
        """Samples of (epoch, index) in order; None for each skipped one.

        Raises:
            DataError: a bad sample; the message names file and line.
        """
        return map(self._checked, prefetch(self._read, places, self._workers))

    def read_here(self, place: tuple[int, int]) -> dict | None:
        """One sample, read in this process. See `read`."""
        return self._checked(self._read(place))

    @property
    def skipped(self) -> list[dict]:
        """`dataset`, `line` (from 1) and `reason` of each skipped sample, listed once."""
        return list(self._skipped.values())

    @cached_property
    def _skipped(self) -> dict[tuple[str | None, int], dict]:
        """Entries of the report by data set and line, those of the interrupted run included."""
        entries = [] if self._report is None else read_objects(self._report)
        return {(entry["dataset"], entry["line"]): entry for entry in entries}

    def _read(self, place: tuple[int, int]) -> tuple[int, dict | None, str | None]:
        """Index, sample and None; or index, None and the reason why the sample is bad."""
        epoch, index = place
        try:
            build = getattr(self.dataset, "build", None)
            sample = self.dataset[index] if build is None else build(index, epoch=epoch)
            tiles = len(sample["image_flags"]) if self._max_tiles is not None else 0
            if self._max_tiles is not None and tiles > self._max_tiles:
                limit = f"num_images_expected={self._max_tiles}; raise it or lower max_dynamic_patch"
                raise DataError(f"{self._source(index)[2]}: {tiles} tiles are more than {limit}")
        except DataError as error:
            return index, None, str(error)
        return index, sample, None

    def _checked(self, result: tuple[int, dict | None, str | None]) -> dict | None:
        """The sample of a result of `_read`; a bad one is an error, or reported the first time."""
        index, sample, reason = result
        if reason is None:
            return sample
        if self._on_bad_sample == "error":
            raise DataError(reason)
        dataset, line, _ = self._source(index)
        if (dataset, line) not in self._skipped:
            self._skipped[dataset, line] = {"dataset": dataset, "line": line, "reason": reason}
            if self._report is not None:
                append_objects(self._report, [self._skipped[dataset, line]])
        return None

    def _source(self, index: int) -> tuple[str | None, int, str]:
        """Data set and line (from 1) of a sample, and both for messages."""
        if not hasattr(self.dataset, "place"):
            return None, index + 1, f"sample {index + 1}"
        spec, annotation = self.dataset.place(index)
        return spec.name, annotation.index + 1, spec.place(annotation)
