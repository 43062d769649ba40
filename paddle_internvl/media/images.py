"""Open a picture, and make its pixel tiles: `open_image`, and `load_image` of the model cards.

In: a path, URL, bytes, file object or PIL image. Out: an RGB PIL image, or pixel_values [T, 3, S, S].

Pictures are decoded as upstream does, `Image.open(...).convert("RGB")`: EXIF orientation is not applied, the alpha
channel is dropped, an animation gives its first frame, 16-bit levels are clipped to 255; `picture_warnings` warns once.
"""

from __future__ import annotations

import io
import os

from PIL import Image, UnidentifiedImageError

from paddle_internvl.media.picture_warnings import warn_once
from paddle_internvl.media.urls import download, is_url, short_name
from paddle_internvl.preprocess.grid import TILE_SIDE, choose_grid
from paddle_internvl.preprocess.pixels import as_tensor
from paddle_internvl.preprocess.tiling import tile_pixels


def open_image(source) -> Image.Image:
    """Decode a picture to RGB. Thread-safe, except that one file object or PIL image belongs to one thread at a time.

    Args:
        source: path, http(s) or data URL, bytes, binary file object or PIL image.
    Returns:
        A PIL image in mode RGB, of the picture's own size.
    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: a folder.
        ValueError: no picture, or a broken or truncated one; names the source.
        TypeError: a source of another type.
    """
    if isinstance(source, Image.Image):
        return _rgb(source, "a picture")
    if is_url(source):
        name, opened = short_name(source), io.BytesIO(download(source))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name, opened = f"{len(source)} bytes", io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        name, opened = os.fspath(source), source
        refuse_pipe(source)
    elif hasattr(source, "read"):
        name, opened = getattr(source, "name", "file object"), source
    else:
        raise TypeError(f"a picture is a path, bytes, a file object or a PIL image, not {type(source).__name__}")
    try:
        with Image.open(opened) as image:
            return _rgb(image, name)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such picture: {name}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a picture that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, PermissionError):
            raise
        if isinstance(error, IsADirectoryError):
            raise IsADirectoryError(f"{name} is a folder; give a picture's file") from None
        raise ValueError(f"{name} can't be decoded: {error}") from error


def refuse_pipe(path) -> None:
    """Refuse a pipe, device or socket: opening may wait for ever, and reading never end.

    Raises:
        ValueError: names the path.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise ValueError(f"{os.fspath(path)} is a pipe, device or socket; give a file")


def _rgb(image: Image.Image, name: str) -> Image.Image:
    rgb = image.convert("RGB")
    warn_once(image, name)
    return rgb


def image_tiles(
    source,
    input_size: int = TILE_SIDE,
    min_num: int = 1,
    max_num: int = 12,
    use_thumbnail: bool = True,
):
    """Pixel tiles of one picture as a numpy array.

    Args:
        source: see `open_image`.
        input_size: S, the tile side in pixels.
        min_num, max_num: limits of the number of tiles, thumbnail not counted.
        use_thumbnail: append the whole picture to several tiles.
    Returns:
        float32 [T, 3, S, S].
    Raises:
        FileNotFoundError, ValueError, TypeError: see `open_image`.
    """
    image = open_image(source)
    grid = choose_grid(*image.size, min_num, max_num, input_size, use_thumbnail)
    return tile_pixels(image, grid, input_size)


def load_image(image_file, input_size: int = TILE_SIDE, max_num: int = 12):
    """Pixel tiles of one picture, ready for `model.chat`. Thread-safe, as `open_image`.

    Args:
        image_file: see `open_image`.
        input_size: S, the tile side in pixels.
        max_num: most tiles, thumbnail not counted.
    Returns:
        paddle.Tensor float32 [T, 3, S, S]: tiles row by row, then a thumbnail if there are several.
    Raises:
        FileNotFoundError, ValueError, TypeError: see `open_image`.
    Source: upstream model cards, `load_image`.
    """
    return as_tensor(image_tiles(image_file, input_size, max_num=max_num))
