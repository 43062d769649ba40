"""Keys of what KV blocks hold, so that a prompt finds the work that was done for an earlier one.

In: token ids, and where pictures stand among them. Out: one key a full block, a hash over everything up to its end: two
blocks have the same key only if the texts and pictures before and in them are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """Positions `start` to `stop` hold the visual tokens of the picture with this key."""

    start: int
    stop: int
    key: bytes


def spans(ids: Sequence[int], context_id: int, keys: Sequence[bytes], lengths: Sequence[int]) -> list[Span]:
    """Where pictures stand.

    Args:
        ids: of a prompt. context_id: of `<IMG_CONTEXT>`. keys: of each picture in order. lengths: how many ids each
            takes.
    """
    places = np.flatnonzero(np.asarray(ids) == context_id)
    found, first = [], 0
    for key, length in zip(keys, lengths):
        found.append(Span(int(places[first]), int(places[first + length - 1]) + 1, key))
        first += length
    return found


def block_keys(ids: Sequence[int], pictures: Sequence[Span], size: int) -> list[bytes]:
    """Keys of the full blocks of `size` positions."""
    whole = np.asarray(ids, np.int64)
    keys, before = [], b""
    for start in range(0, len(whole) - size + 1, size):
        digest = hashlib.blake2b(before, digest_size=32)
        digest.update(whole[start : start + size].tobytes())
        for span in pictures:
            if span.start < start + size and span.stop > start:
                digest.update(span.key + (start - span.start).to_bytes(8, "little", signed=True))
        before = digest.digest()
        keys.append(before)
    return keys
