"""Maps of visual tokens over a picture, and their drawing as a heat map.

In: one number for each visual token of a picture, and its `TileGrid`. Out: maps whose cells are where the tokens are in
the picture, and a PIL image with the map over it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from paddle_internvl.preprocess.grid import TileGrid

# Colours of 0, 1/4 .. 1: matplotlib's inferno, which grows in lightness, so that it reads without colours too.
_COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
_OPACITY = 0.6


@dataclass(frozen=True)
class AttentionMap:
    """Attention to one picture.

    Attributes:
        grid: of the picture.
        tiles: float32 [rows·n, columns·n], a cell for each visual token of the crops; n² = N.
        thumbnail: float32 [n, n], the same of the thumbnail tile, over the whole picture; None: there is none.
    """

    grid: TileGrid
    tiles: np.ndarray
    thumbnail: np.ndarray | None

    @property
    def share(self) -> float:
        """Share of the attention that goes to the picture, 0 to 1."""
        return float(self.tiles.sum() + (0 if self.thumbnail is None else self.thumbnail.sum()))

    @property
    def highest(self) -> float:
        """The largest weight of a visual token."""
        return float(max(each.max() for each in (self.tiles, self.thumbnail) if each is not None))


def attention_map(weights: np.ndarray, grid: TileGrid, transposed: bool = False) -> AttentionMap:
    """Put the weights of a picture's visual tokens where the tokens are in the picture.

    Args:
        weights: float32 [T·N], in the order of the prompt: crops row by row, then the thumbnail.
        grid: of the picture.
        transposed: whether tokens run by columns within a tile, as `pixel_shuffle` of version 'v1' leaves them.
    Raises:
        ValueError: the number of weights is not that of T square tiles.
    """
    n = math.isqrt(len(weights) // grid.tiles)
    if n * n * grid.tiles != len(weights):
        raise ValueError(f"{len(weights)} weights are not those of {grid.tiles} square tiles")
    tiles = weights.reshape([grid.tiles, n, n])
    tiles = tiles.transpose([0, 2, 1]) if transposed else tiles
    crops = tiles[: grid.rows * grid.columns].reshape([grid.rows, grid.columns, n, n])
    joined = crops.transpose([0, 2, 1, 3]).reshape([grid.rows * n, grid.columns * n])
    return AttentionMap(grid, joined, tiles[-1] if grid.thumbnail else None)


def draw_attention(image: Image.Image, cells: np.ndarray, highest: float) -> Image.Image:
    """A copy of a picture under its heat map, one square for each visual token.

    Args:
        image: PIL image.
        cells: [rows, columns] weights over the whole picture.
        highest: weight of the lightest colour; 0 has the darkest.
    """
    level = np.clip(cells / highest, 0, 1) if highest > 0 else np.zeros(cells.shape)
    steps = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(level, steps, channel) for channel in _COLOURS.T], axis=-1)
    heat = Image.fromarray(colours.round().astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(image.convert("L").convert("RGB"), heat, _OPACITY)
