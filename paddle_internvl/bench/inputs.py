"""Inputs of a benchmark: random pixels, token ids and pictures, equal for both sides.

In: sizes. Out: numpy arrays and PIL images. Imports no framework.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_SEED = 8


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.default_rng([_SEED, *numbers])


def pixels(tiles: int, side: int) -> np.ndarray:
    """float32 [T, 3, S, S], like normalised pictures."""
    return _generator(tiles, side).standard_normal((tiles, 3, side, side), np.float32)


def features(tiles: int, patches: int, width: int) -> np.ndarray:
    """float32 [T, 1+P, C], like a vision tower's."""
    return _generator(tiles, patches, width).standard_normal((tiles, 1 + patches, width), np.float32)


def token_ids(length: int, vocabulary: int) -> np.ndarray:
    """int64 [1, L] of a vocabulary whose last id, `image_token`'s, is left out."""
    return _generator(length).integers(0, vocabulary - 1, (1, length))


def image_token(vocabulary: int) -> int:
    """Token id of a visual token's slot; a random checkpoint has no tokenizer to define it."""
    return vocabulary - 1


def prompt(text: int, visual: int, vocabulary: int) -> np.ndarray:
    """int64 [1, L]: half of the text, room for visual tokens, the other half."""
    words, slots = token_ids(text, vocabulary), np.full((1, visual), image_token(vocabulary))
    return np.concatenate([words[:, : text // 2], slots, words[:, text // 2 :]], axis=1)


def picture(width: int, height: int) -> Image.Image:
    """An RGB picture with detail everywhere."""
    levels = _generator(width, height).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def training_batch(tiles: int, text: int, tile_tokens: int, side: int, vocabulary: int) -> dict:
    """A batch of one sample for `sft_loss`: visual tokens of `tiles` tiles within a text, all of which is learnt."""
    ids = prompt(text, tiles * tile_tokens, vocabulary)
    return {
        "input_ids": ids, "labels": np.where(ids == image_token(vocabulary), -100, ids),
        "position_ids": np.arange(ids.shape[1])[None], "attention_mask": np.ones_like(ids),
        "pixel_values": pixels(tiles, side), "image_flags": np.ones(tiles, np.int64),
    }  # fmt: skip
