"""Duplicate samples: exact ones by a digest, near ones by MinHash and locality-sensitive hashing.

In: samples in order. Out: for each the earlier sample that it repeats. The index is a SQLite file, so that memory does
not grow with the number of samples; an interrupted filter continues with it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from paddle_internvl.curation.repetition import WORD
from paddle_internvl.curation.sample_texts import SampleTexts

_WIDTH = 3  # words of a shingle
_LEAST_SHINGLES = 8  # of a sample that near duplicates are looked for
_PERMUTATIONS = 128
_WEIGHTS = (0.1, 0.9)  # of false and missed candidates; candidates are compared word by word


class Place(NamedTuple):
    """Where a sample is: number of its file, line from 1, offset of the line."""

    file: int
    line: int
    offset: int


class DuplicateIndex:
    """Index of the samples so far.

    Args:
        connection: of the SQLite file; the caller commits.
        threshold: least Jaccard similarity of near duplicates; None: exact duplicates only.
    Raises:
        ImportError: near duplicates need datasketch, which is not installed.
    """

    def __init__(self, connection: sqlite3.Connection, threshold: float | None = None):
        self._connection, self._threshold = connection, threshold
        columns = "(key BLOB PRIMARY KEY, file INTEGER, line INTEGER, offset INTEGER) WITHOUT ROWID"
        for table in ("samples", "bands"):
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} {columns}")
        if threshold is not None:
            try:
                from datasketch import MinHash, MinHashLSH
            except ImportError:
                raise ImportError("near duplicates need datasketch: pip install 'paddle_internvl[curate]'") from None
            self._minhash = MinHash(num_perm=_PERMUTATIONS)
            lsh = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=_WEIGHTS)
            self._bands, self._rows = lsh.b, lsh.r

    def exact(self, sample: SampleTexts, place: Place) -> Place | None:
        """The first sample with these texts and media; a new sample is added."""
        return self._first("samples", _digest(_normalized(sample), _media(sample)), place)

    def near(
        self, sample: SampleTexts, place: Place, read: Callable[[Place], SampleTexts]
    ) -> tuple[Place, float] | None:
        """A sample with equal media whose Jaccard similarity is at least the threshold, and the similarity.

        Args:
            sample: of the place.
            place: of the sample, which is added.
            read: reads the sample of a place again.
        """
        shingles = _shingles(sample)
        if len(shingles) < _LEAST_SHINGLES:
            return None
        signature = self._minhash.copy()
        signature.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in sorted(shingles)])
        media, found = _media(sample), set()
        for band in range(self._bands):
            values = signature.hashvalues[band * self._rows : (band + 1) * self._rows]
            key = hashlib.blake2b(bytes([band]) + values.tobytes() + media.encode(), digest_size=12).digest()
            first = self._first("bands", key, place)
            found |= {first} if first else set()
        similar = [(self._similarity(shingles, read(first)), first) for first in sorted(found)]
        similarity, first = max(similar, default=(0.0, None), key=lambda pair: pair[0])
        return (first, similarity) if similarity >= self._threshold else None

    def _first(self, table: str, key: bytes, place: Place) -> Place | None:
        """The place of a key at an earlier sample; a new key gets this place.

        A continued filter finds the samples that were looked up, but not written, before it was interrupted: their keys
        have their own places.
        """
        row = self._connection.execute(f"SELECT file, line, offset FROM {table} WHERE key = ?", (key,)).fetchone()
        if row is None:
            self._connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", (key, *place))
            return None
        return Place(*row) if tuple(row) < place[:3] else None

    @staticmethod
    def _similarity(shingles: set[str], other: SampleTexts) -> float:
        others = _shingles(other)
        return len(shingles & others) / len(shingles | others)


def _normalized(sample: SampleTexts) -> str:
    return "\0".join(" ".join(text.casefold().split()) for text in (*sample.prompts, "\1", *sample.answers))


def _media(sample: SampleTexts) -> str:
    return "\0".join(map(str, (*sample.images, *sample.videos)))


def _digest(*texts: str) -> bytes:
    return hashlib.blake2b("\2".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _shingles(sample: SampleTexts) -> set[str]:
    words = WORD.findall(" ".join((*sample.prompts, *sample.answers)).casefold())
    return {" ".join(words[i : i + _WIDTH]) for i in range(max(1, len(words) - _WIDTH + 1))}
