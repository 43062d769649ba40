"""Pack buffers: where the next sample goes, and which packs are ready.

A buffer is a list of pieces; arrays are joined when a pack leaves. Buffers wait sorted by tiles, most first.
"""

from __future__ import annotations

from paddle_internvl.training.splitting import Piece, split


def count_tiles(buffer: list[Piece]) -> int:
    """Tiles of a buffer, the dummy tiles of text samples included."""
    return sum(piece.tiles for piece in buffer)


def count_tokens(buffer: list[Piece]) -> int:
    """Tokens of a buffer."""
    return sum(piece.tokens for piece in buffer)


class PackBuffers:
    """Buffers that wait for more samples.

    Attributes:
        waiting: buffers with fewer than `max_packed_tokens` tokens, most tiles first.
        full: buffers with exactly `max_packed_tokens` tokens.
        dropped: [dataset, annotation line] of samples with more than `num_images_expected` tiles.
        split: [dataset, annotation line, lost tokens] of samples that a split has taken tokens from.
    Source: upstream `dataset_packed.py`, `find_buffer`, `update_buffer_list` and the loop of `__iter__`.
    """

    def __init__(
        self,
        max_packed_tokens: int,
        num_images_expected: int,
        max_buffer_size: int,
        allow_overflow: bool,
        img_context_token_id: int | None,
    ):
        self.max_packed_tokens = max_packed_tokens
        self.num_images_expected = num_images_expected
        self.max_buffer_size = max_buffer_size
        self.allow_overflow = allow_overflow
        self.img_context_token_id = img_context_token_id
        self.waiting: list[list[Piece]] = []
        self.full: list[list[Piece]] = []
        self.dropped: list[list] = []
        self.split: list[list] = []

    def add(self, piece: Piece) -> None:
        """Put a whole sample into the first buffer it fits in, or into a new one.

        Raises:
            ValueError: the sample is longer than a pack and may not be split.
        """
        if piece.tokens > self.max_packed_tokens and not self.allow_overflow:
            raise ValueError(
                f"{piece.place}: {piece.tokens} tokens, more than "
                f"max_packed_tokens={self.max_packed_tokens}; raise max_packed_tokens, lower max_seq_length, "
                "or split samples with allow_overflow=True"
            )
        buffer = [*self._take(piece), piece]
        parts = [buffer]
        if count_tokens(buffer) > self.max_packed_tokens:
            parts, lost = split(buffer, self.max_packed_tokens, self.img_context_token_id)
            self.split.extend(lost)
        for part in parts:
            self._put(part)

    def pop(self) -> list[Piece] | None:
        """The next buffer that is ready to be a pack: full of tokens, full of tiles, or one too many; None: none is."""
        if self.full:
            return self.full.pop(0)
        if self.waiting and count_tiles(self.waiting[0]) == self.num_images_expected:
            return self.waiting.pop(0)
        if len(self.waiting) > self.max_buffer_size:
            return self.waiting.pop(0)
        return None

    def _take(self, piece: Piece) -> list[Piece]:
        """Remove and return the buffer for a sample: the first that has room for its tiles and tokens, or with
        `allow_overflow`, once half of the buffers wait, the last that has room for its tiles; else a new one."""
        overflowing = None
        for i, buffer in enumerate(self.waiting):
            if count_tiles(buffer) + piece.tiles > self.num_images_expected:
                continue
            if count_tokens(buffer) + piece.tokens <= self.max_packed_tokens:
                return self.waiting.pop(i)
            overflowing = i
        may_overflow = self.allow_overflow and len(self.waiting) >= self.max_buffer_size // 2
        return self.waiting.pop(overflowing) if overflowing is not None and may_overflow else []

    def _put(self, buffer: list[Piece]) -> None:
        """Put a buffer where its tokens and tiles belong; drop it if it holds too many tiles for a pack."""
        tiles = count_tiles(buffer)
        if tiles > self.num_images_expected:
            self.dropped.extend(piece.name for piece in buffer)
        elif count_tokens(buffer) == self.max_packed_tokens:
            self.full.append(buffer)
        else:
            position = sum(count_tiles(other) >= tiles for other in self.waiting)
            self.waiting.insert(position, buffer)
