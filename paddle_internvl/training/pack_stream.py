"""Pack stream: the packs of one data worker over all epochs, without end, and its state for a resumed run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from paddle_internvl.training.packing import PackedDataset


class PackStream:
    """Packs of one epoch after the other. Every epoch ends with its own unfinished packs.

    Args:
        samples: the samples of an epoch from 0 in the order drawn, a sequence such as `OrderedSamples`.
        packing: arguments of `PackedDataset`.
    Raises:
        ValueError: while iterating, when an epoch gives no pack.
    """

    def __init__(self, samples: Callable[[int], object], **packing):
        self._samples = samples
        self._packing = packing
        self._start_epoch(0)

    @property
    def epoch(self) -> int:
        """Epoch of the last pack."""
        return self._epoch

    @property
    def drawn(self) -> int:
        """Number of samples drawn in that epoch."""
        return self._packed.drawn

    def __iter__(self) -> Iterator[dict]:
        while True:
            packs = 0
            for pack in self._packed:
                packs += 1
                yield pack
            if not packs and not self._resumed:
                raise ValueError(f"epoch {self._epoch} has no sample that can be packed for this data worker")
            self._start_epoch(self._epoch + 1)

    def state_dict(self) -> dict:
        """State after the last pack, for JSON: the epoch, and the state of its `PackedDataset`."""
        return {"epoch": self._epoch, "packing": self._packed.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Resume: the next iteration gives the packs that would have followed `state`."""
        self._start_epoch(state["epoch"])
        self._packed.load_state_dict(state["packing"])
        self._resumed = True

    def _start_epoch(self, epoch: int) -> None:
        self._epoch, self._resumed = epoch, False
        self._packed = PackedDataset(self._samples(epoch), **self._packing)
