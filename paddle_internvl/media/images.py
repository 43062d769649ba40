"""One picture from wherever it is to pixel tiles: `load_image` and the cards' other picture functions.

In: a path, bytes, a file object or a PIL image. Out: an RGB PIL image, or pixel_values [T, 3, S, S].

Pictures are read as upstream reads them, `Image.open(...).convert("RGB")`: an EXIF orientation is not applied, an
alpha channel is dropped, of an animation the first frame counts, 16-bit levels are clipped to 255 as Pillow does.
"""

from __future__ import annotations

import io
import os

from PIL import Image, UnidentifiedImageError

from paddle_internvl.media.urls import fetch, is_url, short_name
from paddle_internvl.preprocess.grid import TILE_SIDE, choose_grid
from paddle_internvl.preprocess.pixels import as_tensor
from paddle_internvl.preprocess.tiling import tile_pixels


def open_image(source) -> Image.Image:
    """The picture as RGB, fully decoded.

    Args:
        source: path, http(s) or data URL, bytes, binary file object or PIL image.
    Returns:
        A PIL image in mode RGB, of the picture's own size.
    Raises:
        FileNotFoundError: no such file. ValueError: not a picture, or a broken or truncated one; names the source.
    """
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    if is_url(source):
        name, opened = short_name(source), io.BytesIO(fetch(source))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name, opened = f"{len(source)} bytes", io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        name, opened = os.fspath(source), source
    elif hasattr(source, "read"):
        name, opened = getattr(source, "name", "file object"), source
    else:
        raise TypeError(f"a picture is a path, bytes, a file object or a PIL image, not {type(source).__name__}")
    try:
        with Image.open(opened) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"no such picture: {name}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a picture that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, (PermissionError, IsADirectoryError)):
            raise
        raise ValueError(f"{name} can't be decoded: {error}") from error


def image_tiles(
    source,
    input_size: int = TILE_SIDE,
    min_num: int = 1,
    max_num: int = 12,
    use_thumbnail: bool = True,
):
    """Pixel tiles of one picture as a numpy array, float32 [T, 3, S, S]. Arguments and errors: see `load_image`."""
    image = open_image(source)
    grid = choose_grid(*image.size, min_num, max_num, input_size, use_thumbnail)
    return tile_pixels(image, grid, input_size)


def load_image(image_file, input_size: int = TILE_SIDE, max_num: int = 12):
    """Pixel tiles of one picture, ready for `model.chat`.

    Args:
        image_file: see `open_image`. input_size: S, the model's tile side in pixels.
        max_num: the most tiles, the thumbnail not counted.
    Returns:
        paddle.Tensor float32 [T, 3, S, S]: the crops row by row, then a thumbnail when there is more than one.
    Raises:
        FileNotFoundError, ValueError, TypeError: see `open_image`.
    Source: upstream model cards, `load_image`.
    """
    return as_tensor(image_tiles(image_file, input_size, max_num=max_num))
