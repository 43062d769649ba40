"""Normalisation of tiles: PIL images in, float32 arrays out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from paddle_internvl.preprocess.grid import TILE_SIDE

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@cache
def _lookup() -> np.ndarray:
    """Normalised value of every byte in every channel, as torchvision computes it: float32 [3, 256]."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    return (levels - mean[:, None]) / std[:, None]


def normalize(tile: Image.Image, input_size: int) -> np.ndarray:
    """Normalise one tile: RGB, bicubic resize to S x S if needed, / 255, ImageNet mean and standard deviation.

    Args:
        tile: PIL image of any size and mode.
        input_size: S, the tile side in pixels.
    Returns:
        float32 [3, S, S].
    """
    if tile.mode != "RGB":
        tile = tile.convert("RGB")
    if tile.size != (input_size, input_size):
        tile = tile.resize((input_size, input_size), Image.Resampling.BICUBIC)
    out = np.empty((3, input_size, input_size), np.float32)
    fill_pixels(np.asarray(tile), out)
    return out


def normalized(tiles: np.ndarray) -> np.ndarray:
    """Tiles [T, 3, S, S] as normalised float32; uint8 tiles are normalised, others are returned as they are."""
    if tiles.dtype != np.uint8:
        return tiles
    out = np.empty(tiles.shape, np.float32)
    for levels, tile in zip(tiles, out):
        fill_pixels(levels.transpose(1, 2, 0), tile)
    return out


def build_transform(input_size: int = TILE_SIDE) -> Callable:
    """The normalisation of one tile as a function.

    Args:
        input_size: S, the tile side in pixels.
    Returns:
        A function from a PIL image of any size and mode to a Paddle tensor float32 [3, S, S].
    Source: upstream model cards, `build_transform` (torchvision Resize, ToTensor, Normalize).
    """
    import paddle

    return lambda image: paddle.to_tensor(normalize(image, input_size))


def fill_pixels(levels: np.ndarray, out: np.ndarray) -> None:
    """Fill [3, H, W] from bytes [H, W, 3]: float32 with normalised values, uint8 with the bytes."""
    if out.dtype == np.uint8:
        out[...] = levels.transpose(2, 0, 1)
        return
    for channel, table in enumerate(_lookup()):
        np.take(table, levels[:, :, channel], out=out[channel], mode="clip")  # other modes copy `out` first


def as_tensor(pixels: np.ndarray):
    """Pixels as a Paddle tensor: without a copy on a CPU, where the copy is a third of the time; copied to a card."""
    import paddle

    return paddle.from_dlpack(pixels) if paddle.get_device() == "cpu" else paddle.to_tensor(pixels)


def normalize_all(tiles: list[Image.Image], input_size: int) -> np.ndarray:
    """Normalised tiles: float32 [T, 3, S, S]."""
    return np.stack([normalize(tile, input_size) for tile in tiles])
