"""Training batches of one rank: an endless stream of micro-batches of samples or of packs, and its state.

In: a data set, a recipe, PaddleNLP's TrainingArguments. Out: `train_batches`. The stream is a function of seed, rank
and number of ranks, so that a run resumed with the state of the stream sees what an uninterrupted one would.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice

import numpy as np

from paddle_internvl.prompt.encode import IGNORED
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT
from paddle_internvl.training.collate import collate
from paddle_internvl.training.dataset import SFTDataset
from paddle_internvl.training.draws import OrderedSamples, dataset_weights, mixture_draws
from paddle_internvl.training.lengths import sample_lengths
from paddle_internvl.training.order import RankBatches, length_grouped, sequential, shuffled, weighted
from paddle_internvl.training.pack_stream import PackStream
from paddle_internvl.training.reader import SampleReader
from paddle_internvl.training.recipe import Recipe


class SampleBatches:
    """Micro-batches of samples, padded to one length, without end.

    A skipped sample makes its batch smaller; a batch of skipped samples alone has nothing to learn. So batch k of a run
    is the same whatever was skipped before it.

    Args:
        reader: of the samples.
        sampler: of the rank.
        tile_side: S, for batches without samples.
    Attributes:
        start: first micro-batch, counted from the start of the run.
        stop: micro-batch to stop before; None: none.
    """

    def __init__(self, reader: SampleReader, sampler: RankBatches, tile_side: int):
        self.reader, self._sampler, self._tile_side = reader, sampler, tile_side
        self.start, self.stop = 0, None
        self._done = 0

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self._done / self._sampler.batches_per_epoch

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of an epoch."""
        return self._sampler.batches_per_epoch

    def __iter__(self) -> Iterator[dict]:
        steps = range(self.start, sys.maxsize if self.stop is None else self.stop)
        samples = self.reader.read(place for step in steps for place in self._sampler[step])
        for step in steps:
            batch = [sample for sample in islice(samples, self._sampler.batch_size) if sample is not None]
            self._done = step + 1
            yield collate(batch) if batch else nothing_to_learn(self._tile_side)

    def state_dict(self) -> dict:
        """State beside `start`: none."""
        return {}

    def load_state_dict(self, state: dict | None) -> None:
        """Resume: `start` is enough, for a run on any number of ranks."""


class PackBatches:
    """Micro-batches of one pack each, without end.

    Args:
        reader: of the samples.
        stream: of the rank's packs.
        samples_per_epoch: of the rank.
    Attributes:
        start: first micro-batch, counted from the start of the run.
        stop: micro-batch to stop before; None: none.
    """

    batches_per_epoch = None  # not fixed beforehand

    def __init__(self, reader: SampleReader, stream: PackStream, samples_per_epoch: int):
        self.start, self.stop = 0, None
        self.reader, self._stream, self._samples_per_epoch = reader, stream, samples_per_epoch

    @property
    def epoch(self) -> float:
        """Epochs done, by the samples drawn."""
        return self._stream.epoch + self._stream.drawn / self._samples_per_epoch

    def __iter__(self) -> Iterator[dict]:
        number = None if self.stop is None else self.stop - self.start
        return (collate([pack]) for pack in islice(self._stream, number))

    def state_dict(self) -> dict:
        """State after the last pack, for JSON, see `PackStream.state_dict`."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict | None) -> None:
        """Resume: the next iteration gives the packs that would have followed `state`.

        Raises:
            ValueError: no state, of a run on another number of ranks.
        """
        if state is None:
            raise ValueError("packed training resumes on as many ranks as the checkpoint was saved on")
        self._stream.load_state_dict(state)


def train_batches(dataset: Sequence[dict], recipe: Recipe, args, tile_side: int, report=None):
    """The stream of micro-batches of this rank.

    Args:
        dataset: an `SFTDataset`, or a sequence of samples or of packs.
        recipe: of the run.
        args: PaddleNLP's TrainingArguments: seed, batch size, accumulation, rank, data workers.
        tile_side: S.
        report: file that lists the skipped samples; None: no file.
    Returns:
        `PackBatches` if the recipe packs samples, else `SampleBatches`.
    """
    rank, world, packing = args.dataset_rank, args.dataset_world_size, recipe.packing
    max_tiles = packing.num_images_expected if packing.use_packed_ds else None
    reader = SampleReader(dataset, args.dataloader_num_workers, recipe.run.on_bad_sample, report, max_tiles)
    if not packing.use_packed_ds:
        order = epoch_order(dataset, recipe, args)
        return SampleBatches(reader, RankBatches(order, args.per_device_train_batch_size, rank, world), tile_side)
    options = {name: value for name, value in asdict(packing).items() if name not in _NOT_OF_PACKS}
    if hasattr(dataset, "tokenizer"):
        options["img_context_token_id"] = dataset.tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    stream = PackStream(lambda epoch: OrderedSamples(reader, _draws(dataset, recipe, args, epoch), epoch), **options)
    return PackBatches(reader, stream, len(range(rank, len(dataset), world)))


_NOT_OF_PACKS = ("use_packed_ds", "replacement", "loss_reduction_all_gather")


def epoch_order(dataset: Sequence[dict], recipe: Recipe, args) -> Callable[[int], Sequence[int]]:
    """Order of the samples of an epoch, as a function of the epoch.

    File order with `shuffle` False. Else shuffled, or by weight of the data sets with `use_data_resampling`; and
    grouped by length, unless `group_by_length` is False, or is not given with samples that are no `SFTDataset`.
    """
    sizes, seed = dataset_sizes(dataset), args.seed
    if not recipe.run.shuffle:
        return lambda _epoch: sequential(len(dataset))

    def drawn(epoch: int) -> np.ndarray:
        if recipe.run.use_data_resampling:
            return weighted(sizes, dataset_weights(sizes, True), seed, epoch)
        return shuffled(len(dataset), seed, epoch)

    if not recipe.data.get("group_by_length", isinstance(dataset, SFTDataset)):
        return drawn
    lengths = sample_lengths(dataset)
    shape = (args.per_device_train_batch_size, args.dataset_world_size, args.gradient_accumulation_steps)
    return lambda epoch: length_grouped(drawn(epoch), lengths, *shape)


def _draws(dataset: Sequence[dict], recipe: Recipe, args, epoch: int):
    """Draw order of this rank's samples of an epoch, for packing."""
    rank, world = args.dataset_rank, args.dataset_world_size
    if not recipe.run.shuffle:
        return range(rank, len(dataset), world)
    sizes = dataset_sizes(dataset)
    weights = dataset_weights(sizes, recipe.run.use_data_resampling)
    options = {"worker": rank, "workers": world, "replacement": recipe.packing.replacement}
    return mixture_draws(sizes, weights, seed=args.seed, epoch=epoch, **options)


def dataset_sizes(dataset: Sequence[dict]) -> list[int]:
    """Samples of each data set of a mixture; of the only one where a sequence of samples is given."""
    return [len(spec.annotations) for spec in getattr(dataset, "datasets", ())] or [len(dataset)]


def nothing_to_learn(tile_side: int) -> dict:
    """A batch of one row without labels and without pictures: its loss and all gradients are 0."""
    return {
        "input_ids": np.zeros([1, 2], np.int64),
        "labels": np.full([1, 2], IGNORED, np.int64),
        "position_ids": np.arange(2)[None],
        "attention_mask": np.ones([1, 2], np.int64),
        "pixel_values": np.zeros([1, 3, tile_side, tile_side], np.float32),
        "image_flags": np.zeros(1, np.int64),
        "samples": [],
    }
