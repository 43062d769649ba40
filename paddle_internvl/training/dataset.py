"""SFT data set: the samples of a mixture, one dict for each annotation line.

In: a meta JSON, a checkpoint folder, data arguments. Out: `SFTDataset`. Reads no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from paddle_internvl.training.arguments import DataArguments
from paddle_internvl.training.mixture import Annotation, DataError, DatasetSpec, read_meta
from paddle_internvl.training.sample import SampleBuilder


class SFTDataset:
    """Samples of supervised fine-tuning. Thread-safe, and the same for every process: the random choices of a sample
    are a function of (seed, epoch, its place in the mixture).

    Args:
        meta_path: meta JSON of the data sets, as upstream's.
        checkpoint_dir: folder of a checkpoint, for its tokenizer and config.
        data_arguments: fields of `DataArguments`; what is not given comes from the checkpoint's config.
    Attributes:
        datasets: the data sets of the mixture.
        arguments: the `DataArguments`.
    Raises:
        DataError: a malformed meta JSON or annotation file.
        ValueError: an unknown argument, or a value out of range.
    """

    def __init__(self, meta_path: str | Path, checkpoint_dir: str | Path, **data_arguments):
        from paddlenlp.transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(str(checkpoint_dir))
        self.arguments = DataArguments.from_config(config, **data_arguments)
        self.datasets: list[DatasetSpec] = read_meta(meta_path)
        self._builder = SampleBuilder(AutoTokenizer.from_pretrained(str(checkpoint_dir)), config, self.arguments)
        self._places = [(dataset, annotation) for dataset in self.datasets for annotation in dataset.annotations]

    @property
    def tokenizer(self):
        """The checkpoint's tokenizer."""
        return self._builder.tokenizer

    @property
    def tokens_per_tile(self) -> int:
        """N, visual tokens of a tile."""
        return self._builder.tokens_per_tile

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> dict:
        """Sample number i: see `SampleBuilder.build`; with `dataset` (name) and `index` (annotation line, from 0).

        Raises:
            DataError: a bad sample; the message names file and line.
        """
        return self.build(range(len(self))[i])

    def __iter__(self) -> Iterator[dict]:
        return map(self.build, range(len(self)))

    def place(self, i: int) -> tuple[DatasetSpec, Annotation]:
        """Data set and annotation line of sample number i."""
        return self._places[i]

    def build(self, i: int, pixels: bool = True, epoch: int = 0) -> dict:
        """Sample number i, by the random choices of an epoch, without `pixel_values` if pixels is False.

        See `__getitem__`, which gives the samples of epoch 0.
        """
        dataset, annotation = self._places[i]
        try:
            rng = np.random.default_rng([self.arguments.seed, epoch, i])
            sample = self._sample(dataset, dataset.parse(annotation), rng, pixels)
        except DataError:
            raise
        except (ValueError, OSError, ImportError) as error:
            raise DataError(f"{dataset.place(annotation)}: {error}") from error
        return {"dataset": dataset.name, "index": annotation.index, **sample}

    def _sample(self, dataset: DatasetSpec, item: Mapping, rng: np.random.Generator, pixels: bool) -> dict:
        return self._builder.build(dataset, item, rng, pixels)
