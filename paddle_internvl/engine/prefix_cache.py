"""Prefix-cache keys of KV blocks: a hash over all token ids and pictures up to the end of a block.

Two full blocks have the same key only if the texts and pictures before and within them are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PictureSpan:
    """Positions of a prompt that hold the visual tokens of one picture.

    Attributes:
        start: first position.
        stop: position after the last.
        key: `picture_key` of the picture.
    """

    start: int
    stop: int
    key: bytes


def picture_spans(
    ids: Sequence[int], context_id: int, keys: Sequence[bytes], lengths: Sequence[int]
) -> list[PictureSpan]:
    """Spans of a prompt's pictures.

    Args:
        ids: token ids of the prompt.
        context_id: id of `<IMG_CONTEXT>`.
        keys: `picture_key` of each picture, in order.
        lengths: visual tokens of each picture.
    """
    positions = np.flatnonzero(np.asarray(ids) == context_id)
    spans, first = [], 0
    for key, length in zip(keys, lengths):
        spans.append(PictureSpan(int(positions[first]), int(positions[first + length - 1]) + 1, key))
        first += length
    return spans


def block_keys(ids: Sequence[int], pictures: Sequence[PictureSpan], block_size: int) -> list[bytes]:
    """Prefix-cache keys of the full blocks of `block_size` positions, in order."""
    array = np.asarray(ids, np.int64)
    keys, key = [], b""
    for start in range(0, len(array) - block_size + 1, block_size):
        digest = hashlib.blake2b(key, digest_size=32)
        digest.update(array[start : start + block_size].tobytes())
        for picture in pictures:
            if picture.start < start + block_size and picture.stop > start:
                digest.update(picture.key + (start - picture.start).to_bytes(8, "little", signed=True))
        key = digest.digest()
        keys.append(key)
    return keys
