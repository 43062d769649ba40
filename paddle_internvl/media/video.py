"""Clips from any source, and pixel tiles of their frames: `open_source`, and `load_video` of the model cards.

In: a path, URL, bytes, folder of pictures or list of pictures. Out: a `Clip`, or pixel_values and tiles per frame.
`preprocess.video` decodes files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np

from paddle_internvl.media.images import open_image, refuse_pipe
from paddle_internvl.media.urls import download, is_url
from paddle_internvl.preprocess.frames import frame_range, get_index
from paddle_internvl.preprocess.grid import TILE_SIDE, choose_grid
from paddle_internvl.preprocess.pixels import as_tensor
from paddle_internvl.preprocess.tiling import all_pixels
from paddle_internvl.preprocess.video import Clip, open_clip

_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_FOLDER_FPS = 1.0  # of frames without a rate: a folder's or a list's


@contextmanager
def open_source(source) -> Iterator[Clip]:
    """Open a clip from any source for as long as the context lasts.

    Args:
        source: path or URL of a video or an animated picture, a folder of pictures (in the order of their names),
            bytes of a file, or a list of sources of `open_image`.
    Raises:
        FileNotFoundError: no such path.
        ValueError: no frame can be decoded.
        ImportError: no video reader is installed.
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise ValueError("a clip of no frames")
        yield Clip(len(source), _FOLDER_FPS, lambda indices: [open_image(source[i]) for i in indices], is_list=True)
        return
    is_path = isinstance(source, (str, PathLike)) and not is_url(source)
    if is_path and Path(source).is_dir():
        files = sorted(file for file in Path(source).iterdir() if file.suffix.lower() in _PICTURES)
        if not files:
            raise ValueError(f"{source} holds no pictures ({', '.join(sorted(_PICTURES))})")
        yield Clip(len(files), _FOLDER_FPS, lambda indices: [open_image(files[i]) for i in indices])
        return
    if is_path:
        refuse_pipe(source)
    with open_clip(download(source) if is_url(source) else source) as clip:
        yield clip


def load_video(video_path, bound=None, input_size: int = TILE_SIDE, max_num: int = 1, num_segments: int = 32):
    """Pixel tiles of frames spread over a clip, ready for `model.chat`. Thread-safe: each call opens its own reader.

    Args:
        video_path: see `open_source`.
        bound: (start, end) in seconds; None: the whole clip.
        input_size: S, the tile side in pixels.
        max_num: most tiles of a frame, thumbnail not counted.
        num_segments: number of frames.
    Returns:
        pixel_values: paddle.Tensor float32 [T, 3, S, S].
        num_patches_list: tiles of each frame.
    Raises:
        ValueError: a bound without a frame in the clip.
        FileNotFoundError, ImportError: see `open_source`.
    Source: upstream model cards, `load_video`.
    """
    with open_source(video_path) as clip:
        frame_range(clip, bound)
        indices = get_index(bound, clip.fps, clip.frames - 1, num_segments=num_segments)
        frames = clip.read(indices.tolist())
    grids = [choose_grid(*frame.size, max_num=max_num, image_size=input_size) for frame in frames]
    tiles = all_pixels(frames, grids, input_size)
    return as_tensor(np.concatenate(tiles)), [len(frame) for frame in tiles]
