"""Cropping of a picture into tiles: PIL images in, PIL images out."""

from __future__ import annotations

from PIL import Image

from paddle_internvl.preprocess.grid import TILE_SIDE, TileGrid, choose_grid


def cut(image: Image.Image, grid: TileGrid, image_size: int = TILE_SIDE) -> list[Image.Image]:
    """Crop a picture by its grid; resized with PIL's default (bicubic).

    Args:
        image: RGB PIL image.
        grid: of the picture.
        image_size: S, the tile side in pixels.
    Returns:
        Tiles of S x S pixels row by row, then the thumbnail.
    """
    resized = image.resize((image_size * grid.columns, image_size * grid.rows))
    tiles = [
        resized.crop((x * image_size, y * image_size, (x + 1) * image_size, (y + 1) * image_size))
        for y in range(grid.rows)
        for x in range(grid.columns)
    ]
    if grid.thumbnail:
        tiles.append(image.resize((image_size, image_size)))
    return tiles


def dynamic_preprocess(
    image: Image.Image, min_num: int = 1, max_num: int = 12, image_size: int = TILE_SIDE, use_thumbnail: bool = False
) -> list[Image.Image]:
    """Cut a picture into the tiles of the grid nearest to its shape.

    Args:
        image: a PIL image, RGB (a palette image would be resized without interpolation).
        min_num: least number of tiles.
        max_num: largest number of tiles.
        image_size: S, the tile side in pixels.
        use_thumbnail: append the whole picture to several tiles.
    Returns:
        T images of S x S pixels, row by row.
    Source: upstream model cards, `dynamic_preprocess`.
    """
    grid = choose_grid(*image.size, min_num, max_num, image_size, use_thumbnail)
    return cut(image, grid, image_size)
