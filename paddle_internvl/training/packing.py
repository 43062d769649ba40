"""Packing: several samples in one sequence of at most `max_packed_tokens` tokens, attention within each sample only.

In: samples in the order drawn. Out: packs, with the segment bounds `cu_seqlens` and the loss weight of every token.
Numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from paddle_internvl.prompt.encode import IGNORED
from paddle_internvl.training.arguments import LOSS_REDUCTIONS
from paddle_internvl.training.buffers import PackBuffers
from paddle_internvl.training.splitting import TEXT_FIELDS, TILE_FIELDS, Piece, picture_spans

_PADDING = {"input_ids": 0, "labels": IGNORED, "position_ids": 0, "loss_weight": 0.0}


class PackedDataset:
    """Packed samples, by upstream's packing algorithm. An iteration gives dicts of

    - `input_ids`, `labels`, `position_ids` int64 [L]: positions are those in the sample;
    - `loss_weight` float32 [L]: weight of each label, at the label's own place, 0 where nothing is learnt;
    - `cu_seqlens` int32: bounds of the segments; padding is the last segment;
    - `pixel_values` float32 [T, 3, S, S], unless the samples have none;
    - `image_flags` int64 [T]: 0 for dummy tiles and padding tiles;
    - `num_tiles`: tiles of each picture;
    - `samples`: [dataset, annotation line from 0] of each segment but the padding.

    Args:
        samples: sample dicts in the order drawn, None for a sample that was skipped; a sequence such as
            `OrderedSamples` if packing is to resume.
        max_packed_tokens: maximum tokens of a pack.
        num_images_expected: maximum tiles of a pack; the dummy tile of a text sample counts.
        max_buffer_size: maximum number of unfinished packs that wait for more samples.
        allow_overflow: let a sample go beyond `max_packed_tokens` and split the pack there.
        strict_mode: pad every pack to `max_packed_tokens` tokens and `num_images_expected` tiles.
        loss_reduction: 'token': every learnt token has weight 1; 'sample': 1 / learnt tokens of its sample;
            'square': 1 / square root of them.
        img_context_token_id: id of `<IMG_CONTEXT>`, by which a split finds the pictures; None: the id whose runs in the
            sample fit `num_tiles`.
    Attributes:
        dropped: [dataset, annotation line] of each sample left out because it has more than `num_images_expected`
            tiles, in the last iteration so far.
        split: [dataset, annotation line, lost tokens] of each sample that a split has taken tokens from, likewise.
    Raises:
        ValueError: while iterating, for a sample longer than `max_packed_tokens` without `allow_overflow`.
    Source: upstream `dataset_packed.py`, `PackedDataset` and `packed_collate_fn`.
    """

    def __init__(
        self,
        samples: Iterable[dict | None],
        max_packed_tokens: int = 8192,
        num_images_expected: int = 40,
        max_buffer_size: int = 20,
        allow_overflow: bool = False,
        strict_mode: bool = False,
        loss_reduction: str = "token",
        img_context_token_id: int | None = None,
    ):
        if loss_reduction not in LOSS_REDUCTIONS:
            raise ValueError(f"loss_reduction {loss_reduction!r}; use one of {', '.join(LOSS_REDUCTIONS)}")
        self.samples = samples
        self.strict_mode = strict_mode
        self.loss_reduction = loss_reduction
        self._limits = (max_packed_tokens, num_images_expected, max_buffer_size, allow_overflow, img_context_token_id)
        self._buffers = PackBuffers(*self._limits)
        self._drawn = 0
        self._resumed = False

    @property
    def drawn(self) -> int:
        """Number of samples drawn for the packs so far."""
        return self._drawn

    @property
    def dropped(self) -> list[list]:
        """[dataset, annotation line] of each sample with more than `num_images_expected` tiles."""
        return self._buffers.dropped

    @property
    def split(self) -> list[list]:
        """[dataset, annotation line, lost tokens] of each sample that a split has taken tokens from."""
        return self._buffers.split

    def __iter__(self) -> Iterator[dict]:
        if not self._resumed:
            self._buffers, self._drawn = PackBuffers(*self._limits), 0
        self._resumed = False
        yield from self._ready()  # of a restored state
        for sample in _from_draw(self.samples, self._drawn):
            self._drawn += 1
            if sample is not None:
                self._buffers.add(Piece.whole(self._drawn - 1, sample))
            yield from self._ready()
        while self._buffers.waiting:
            yield self._pack(self._buffers.waiting.pop(0))

    def state_dict(self) -> dict:
        """State after the last pack, for JSON: number of samples drawn, pieces in the buffers, dropped samples."""
        pieces = {
            name: [[[piece.draw, piece.start, piece.stop] for piece in buffer] for buffer in buffers]
            for name, buffers in (("waiting", self._buffers.waiting), ("full", self._buffers.full))
        }
        return {"drawn": self._drawn, **pieces, "dropped": [*self.dropped], "split": [*self.split]}

    def load_state_dict(self, state: dict) -> None:
        """Resume: the next iteration gives the packs that would have followed `state`. Buffered samples are read again.

        Raises:
            TypeError: `samples` is no sequence.
        """
        if not hasattr(self.samples, "__getitem__"):
            raise TypeError("packing resumes only over a sequence of samples; use OrderedSamples(reader, order)")
        self._buffers = PackBuffers(*self._limits)
        self._buffers.waiting = [[self._read_piece(*piece) for piece in buffer] for buffer in state["waiting"]]
        self._buffers.full = [[self._read_piece(*piece) for piece in buffer] for buffer in state["full"]]
        self._buffers.dropped, self._buffers.split = [*state["dropped"]], [*state["split"]]
        self._drawn = state["drawn"]
        self._resumed = True

    def _read_piece(self, draw: int, start: int, stop: int) -> Piece:
        piece = Piece.whole(draw, self.samples[draw])
        if (start, stop) == (piece.start, piece.stop):
            return piece
        return piece.cut(start, stop, picture_spans(piece, self._buffers.img_context_token_id))

    def _ready(self) -> Iterator[dict]:
        while (buffer := self._buffers.pop()) is not None:
            yield self._pack(buffer)

    def _pack(self, buffer: list[Piece]) -> dict:
        pack = join(buffer, self.loss_reduction)
        if self.strict_mode:
            pad(pack, self._buffers.max_packed_tokens, self._buffers.num_images_expected)
        return pack


def join(buffer: list[Piece], loss_reduction: str) -> dict:
    """The pack of a buffer, without padding."""
    pack = {
        field: np.concatenate([piece.sample[field] for piece in buffer]).astype(dtype, copy=False)
        for field, dtype in (TEXT_FIELDS | TILE_FIELDS).items()
        if field in buffer[0].sample
    }
    pack["loss_weight"] = np.concatenate([loss_weight(piece, loss_reduction) for piece in buffer])
    pack["cu_seqlens"] = np.cumsum([0, *(piece.tokens for piece in buffer)], dtype=np.int32)
    pack["num_tiles"] = [tiles for piece in buffer for tiles in piece.sample["num_tiles"]]
    pack["samples"] = [piece.name for piece in buffer]
    return pack


def loss_weight(piece: Piece, loss_reduction: str) -> np.ndarray:
    """Loss weight of each token of a piece, float32 [L]: the same at every learnt label, 0 elsewhere.

    The first label has weight 0: the token before it is another sample's.
    Source: upstream `internvl_chat_finetune.py`, `len2weight`.
    """
    learnt = np.asarray(piece.sample["labels"]) != IGNORED
    learnt[0] = False
    return learnt * np.float32(max(piece.learnt_tokens, 1) ** LOSS_REDUCTIONS[loss_reduction])


def pad(pack: dict, max_packed_tokens: int, num_images_expected: int) -> None:
    """Pad a pack in place: tokens as one more segment that is not learnt, tiles of zeros with flag 0."""
    tokens = max_packed_tokens - len(pack["input_ids"])
    for field, value in _PADDING.items():
        pack[field] = np.pad(pack[field], (0, tokens), constant_values=value)
    if tokens:
        pack["cu_seqlens"] = np.append(pack["cu_seqlens"], np.int32(max_packed_tokens))
    tiles = num_images_expected - len(pack["image_flags"])
    pack["image_flags"] = np.pad(pack["image_flags"], (0, tiles))
    if "pixel_values" in pack:
        pack["pixel_values"] = np.pad(pack["pixel_values"], ((0, tiles), (0, 0), (0, 0), (0, 0)))


def _from_draw(samples: Iterable[dict | None], draw: int) -> Iterator[dict | None]:
    """Samples from a draw on; those of a sequence are read by number, so that the samples before are not read."""
    if hasattr(samples, "from_draw"):  # OrderedSamples
        return samples.from_draw(draw)
    return (samples[number] for number in range(draw, len(samples))) if draw else iter(samples)
