"""Open a clip, and make pixel tiles of its frames: `open_clip`, and `load_video` of the model cards.

In: a path, URL, bytes, folder of pictures or list of pictures. Out: RGB frames, or pixel_values and tiles per frame.
Files are decoded by the first installed reader of decord, OpenCV and PyAV; frames that are not requested are skipped
where the format allows it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from paddle_internvl.media.images import open_image
from paddle_internvl.media.urls import download, is_url
from paddle_internvl.preprocess.frames import frame_range, get_index
from paddle_internvl.preprocess.grid import TILE_SIDE, choose_grid
from paddle_internvl.preprocess.pixels import as_tensor
from paddle_internvl.preprocess.tiling import all_pixels

_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_FOLDER_FPS = 1.0  # of frames without a rate: a folder's or a list's


@dataclass(frozen=True)
class Clip:
    """An opened clip.

    Attributes:
        frames: number of frames.
        fps: frames per second.
        read: decodes frames by their indices to RGB PIL images.
        is_list: whether the source is a list of frames.
    """

    frames: int
    fps: float
    read: Callable[[Sequence[int]], list[Image.Image]]
    is_list: bool = False


@contextmanager
def open_clip(source):
    """A `Clip` for as long as the context lasts.

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
    if is_url(source):
        source = download(source)
    if isinstance(source, (bytes, bytearray)):
        with tempfile.NamedTemporaryFile(suffix=".video") as file:
            file.write(source)
            file.flush()
            with open_clip(file.name) as clip:
                yield clip
        return
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no such video: {path}")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
        if not files:
            raise ValueError(f"{path} holds no pictures ({', '.join(sorted(_PICTURES))})")
        yield Clip(len(files), _FOLDER_FPS, lambda indices: [open_image(files[i]) for i in indices])
        return
    for opener in (_animated_picture, *_READERS):
        clip = opener(path)
        if clip is not None:
            yield clip
            return
    raise ImportError(
        f"reading {path.name} needs one of decord, opencv-python-headless, av; pip install opencv-python-headless"
    )


def load_video(video_path, bound=None, input_size: int = TILE_SIDE, max_num: int = 1, num_segments: int = 32):
    """Pixel tiles of frames spread over a clip, ready for `model.chat`.

    Args:
        video_path: see `open_clip`.
        bound: (start, end) in seconds; None: the whole clip.
        input_size: S, the tile side in pixels.
        max_num: most tiles of a frame, thumbnail not counted.
        num_segments: number of frames.
    Returns:
        pixel_values: paddle.Tensor float32 [T, 3, S, S].
        num_patches_list: tiles of each frame.
    Raises:
        ValueError: a bound without a frame in the clip.
        FileNotFoundError, ImportError: see `open_clip`.
    Source: upstream model cards, `load_video`.
    """
    with open_clip(video_path) as clip:
        frame_range(clip, bound)
        indices = get_index(bound, clip.fps, clip.frames - 1, num_segments=num_segments)
        frames = clip.read(indices.tolist())
    grids = [choose_grid(*frame.size, max_num=max_num, image_size=input_size) for frame in frames]
    tiles = all_pixels(frames, grids, input_size)
    return as_tensor(np.concatenate(tiles)), [len(frame) for frame in tiles]


def _animated_picture(path: Path) -> Clip | None:
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            milliseconds = image.info.get("duration") or 100
    except (UnidentifiedImageError, OSError):
        return None

    def read(indices):
        with Image.open(path) as image:
            pictures = []
            for index in indices:
                image.seek(index)
                pictures.append(image.convert("RGB"))
        return pictures

    return Clip(frames, 1000 / milliseconds, read)


def _decord(path: Path) -> Clip | None:
    try:
        import decord
    except ImportError:
        return None
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise ValueError(f"cannot read video {path} with decord: {str(error).splitlines()[0]}") from None
    if len(reader) == 0:
        raise ValueError(f"cannot read video {path} with decord: it has no frames")
    return Clip(
        len(reader),
        float(reader.get_avg_fps()),
        lambda indices: [Image.fromarray(frame) for frame in reader.get_batch(indices).asnumpy()],
    )


def _opencv(path: Path) -> Clip | None:
    try:
        import cv2
    except ImportError:
        return None
    capture = cv2.VideoCapture(os.fspath(path))
    frames, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    if frames <= 0 or fps <= 0:
        raise ValueError(f"cannot read video {path} with opencv: it is broken or no video")

    def read(indices):
        capture = cv2.VideoCapture(os.fspath(path))
        requested, pictures, position = set(indices), {}, 0
        try:
            while position <= max(requested):  # frames in between are skipped without being converted
                if not capture.grab():
                    raise ValueError(f"cannot read frame {position} of {path}, which claims {frames}; it is truncated")
                if position in requested:
                    pictures[position] = Image.fromarray(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
                position += 1
        finally:
            capture.release()
        return [pictures[index] for index in indices]

    return Clip(frames, fps, read)


def _av(path: Path) -> Clip | None:
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(os.fspath(path)) as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate)
            frames = stream.frames or sum(1 for _ in container.decode(stream))
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"cannot read video {path} with av: {error}") from None

    def read(indices):
        pictures = {}
        with av.open(os.fspath(path)) as container:
            for position, frame in enumerate(container.decode(video=0)):
                if position in indices:
                    pictures[position] = frame.to_image().convert("RGB")
                if position >= max(indices):
                    break
        return [pictures[index] for index in indices]

    return Clip(frames, fps, read)


_READERS = (_decord, _opencv, _av)
