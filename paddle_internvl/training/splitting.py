"""Splitting of packs: pieces of samples, and the cut of a buffer that holds more tokens than a pack may.

A cut never goes through a picture. Tiles are counted per picture, so pictures of several tiles are split rightly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paddle_internvl.prompt.encode import IGNORED

TEXT_FIELDS = {"input_ids": np.int64, "labels": np.int64, "position_ids": np.int64}  # one value a token
TILE_FIELDS = {"pixel_values": np.float32, "image_flags": np.int64}  # one value a tile
_MIN_LEARNT_RATIO = 1 / 256  # upstream's `min_active_tokens_ratio`


@dataclass(frozen=True)
class Piece:
    """Tokens [start, stop) of a sample, with the tiles of its pictures.

    Attributes:
        draw: number of the sample in the order drawn, from 0.
        start: first token in the sample.
        stop: token after the last one.
        sample: fields of the piece: `input_ids labels position_ids` [stop - start], `pixel_values` [T, 3, S, S],
            `image_flags` [T], `num_tiles` per picture, `dataset`, `index`. `pixel_values` may be left out.
    """

    draw: int
    start: int
    stop: int
    sample: dict

    @classmethod
    def whole(cls, draw: int, sample: dict) -> Piece:
        """The piece that is a whole sample."""
        return cls(draw, 0, len(sample["input_ids"]), sample)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.stop - self.start

    @property
    def tiles(self) -> int:
        """Number of tiles, the dummy tile of a text sample included."""
        return len(self.sample["image_flags"])

    @property
    def learnt_tokens(self) -> int:
        """Number of labels that are learnt; nothing predicts the first token of a segment."""
        return int(np.count_nonzero(np.asarray(self.sample["labels"])[1:] != IGNORED))

    @property
    def name(self) -> list:
        """[dataset, annotation line from 0]."""
        return [self.sample["dataset"], self.sample["index"]]

    @property
    def place(self) -> str:
        """Data set and annotation line, the line counted from 1, for messages."""
        return f"{self.sample['dataset']}, annotation line {self.sample['index'] + 1}"

    def cut(self, start: int, stop: int, pictures: list[tuple[int, int]]) -> Piece:
        """Tokens [start, stop) of a whole sample; `pictures` are its `picture_spans`, none of them cut.

        The dummy tile of a text sample stays with the first piece.
        """
        if (start, stop) == (self.start, self.stop):
            return self
        sample = {**self.sample, **{field: self.sample[field][start:stop] for field in TEXT_FIELDS}}
        inside = [i for i, (first, end) in enumerate(pictures) if start <= first and end <= stop]
        if pictures:
            bounds = np.cumsum([0, *self.sample["num_tiles"]])
            tiles = slice(bounds[inside[0]], bounds[inside[-1] + 1]) if inside else slice(0, 0)
        else:
            tiles = slice(None) if start == 0 else slice(0, 0)
        sample |= {field: sample[field][tiles] for field in TILE_FIELDS if field in sample}
        sample["num_tiles"] = [self.sample["num_tiles"][i] for i in inside]
        return Piece(self.draw, start, stop, sample)


def picture_spans(piece: Piece, img_context_token_id: int | None = None) -> list[tuple[int, int]]:
    """Token span [start, stop) of each picture, from `<img>` to `</img>` included.

    Args:
        piece: a whole sample.
        img_context_token_id: id of `<IMG_CONTEXT>`; None: the id that fits `num_tiles`, see `_context_runs`.
    Raises:
        ValueError: no id has runs that fit the tiles of the pictures.
    """
    num_tiles = list(piece.sample["num_tiles"])
    if not num_tiles:
        return []
    ids = np.asarray(piece.sample["input_ids"])
    bounds = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1, append=ids[-1] - 1))  # of the runs of equal ids
    runs = list(zip(bounds[:-1].tolist(), bounds[1:].tolist()))
    chosen = _context_runs(piece, runs, img_context_token_id)
    if chosen is None:
        raise ValueError(
            f"{piece.place}: no runs of <IMG_CONTEXT> in input_ids for pictures of {num_tiles} tiles; "
            "num_tiles must have the tiles of each picture, and img_context_token_id the id of <IMG_CONTEXT>"
        )
    return [(start - 1, stop + 1) for start, stop in chosen]


def _context_runs(piece: Piece, runs: list[tuple[int, int]], token_id: int | None) -> list[tuple[int, int]] | None:
    """Runs [start, stop) of `<IMG_CONTEXT>`: one for each picture, with the same number of tokens for every tile.

    Where several ids have such runs: an id without learnt labels, and of these the id with most tokens a tile. None
    where no id has such runs. One token a tile does not count.
    """
    by_id: dict[int, list[tuple[int, int]]] = {}
    for start, stop in runs:
        by_id.setdefault(int(piece.sample["input_ids"][start]), []).append((start, stop))
    num_tiles, labels = piece.sample["num_tiles"], np.asarray(piece.sample["labels"])
    fitting = []
    for found in by_id.values() if token_id is None else [by_id.get(token_id, [])]:
        per_tile = {(stop - start) / tiles for (start, stop), tiles in zip(found, num_tiles)}
        if len(found) == len(num_tiles) and len(per_tile) == 1 and max(per_tile) > 1:
            learnt = any((labels[start:stop] != IGNORED).any() for start, stop in found)
            fitting.append((not learnt, max(per_tile), found))
    return max(fitting)[-1] if fitting else None


def split(
    pieces: list[Piece], max_packed_tokens: int, img_context_token_id: int | None = None
) -> tuple[list[list[Piece]], list[list]]:
    """Split a buffer whose last piece, a whole sample, goes beyond `max_packed_tokens`.

    A part ends at the limit, or before the picture that the limit would cut, which starts the next part. Where no
    picture is cut, the next part starts at the next picture: text between the limit and that picture is lost, as is a
    part without tiles or with at most 1/256 learnt tokens.

    Args:
        pieces: pieces of the buffer.
        max_packed_tokens: maximum tokens of a part.
        img_context_token_id: see `picture_spans`.
    Returns:
        The parts, each a list of pieces. And [dataset, annotation line, lost tokens] of each sample that lost any.
    Raises:
        ValueError: a picture alone is longer than `max_packed_tokens`.
    Source: upstream `dataset_packed.py`, `split_buffer`, which takes every picture for one tile.
    """
    *before, last = pieces
    pictures = picture_spans(last, img_context_token_id)
    parts: list[list[Piece]] = []
    start: int | None = 0
    while start is not None:
        limit = start + max_packed_tokens - sum(piece.tokens for piece in before)
        stop, following = _cut(start, limit, last.stop, pictures)
        if stop == start and not before:
            raise ValueError(
                f"{last.place}: a picture takes more than max_packed_tokens={max_packed_tokens} "
                "tokens; raise max_packed_tokens or lower max_dynamic_patch"
            )
        parts.append([*before, *([last.cut(start, stop, pictures)] if stop > start else [])])
        before, start = [], following
    kept = [part for part in parts if _is_worth_learning(part)]
    return kept, _losses(pieces, kept)


def _cut(start: int, limit: int, end: int, pictures: list[tuple[int, int]]) -> tuple[int, int | None]:
    """Stop of the part [start, stop), and start of the next part, or None if there is none."""
    if end <= limit:
        return end, None
    for first, stop in pictures:
        if first <= limit < stop:
            return first, first
        if first > limit:
            return limit, first
    return limit, None


def _is_worth_learning(part: list[Piece]) -> bool:
    labels = np.concatenate([piece.sample["labels"] for piece in part])
    return sum(piece.tiles for piece in part) > 0 and np.mean(labels != IGNORED) > _MIN_LEARNT_RATIO


def _losses(pieces: list[Piece], kept: list[list[Piece]]) -> list[list]:
    """[dataset, annotation line, lost tokens] of each piece of which the parts do not hold every token."""
    lost = {piece.draw: piece.tokens for piece in pieces}
    for piece in (piece for part in kept for piece in part):
        lost[piece.draw] -= piece.tokens
    return [[*piece.name, lost[piece.draw]] for piece in pieces if lost[piece.draw]]
