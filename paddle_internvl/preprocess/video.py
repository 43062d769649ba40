"""Decoding of clips: video files and animated pictures to RGB frames, upright and in display order.

In: a path, or bytes of a file. Out: a `Clip`, whose frames are numbered as decoding from the start gives them. Video
files are decoded sequentially by PyAV, or by OpenCV where PyAV is not installed. Neither reader seeks, and frames are
counted by decoding: seeking and stated lengths are wrong in many AVI, MPEG-TS and MPEG-PS files, open GOPs, clips cut
without re-encoding and live recordings. (decord seeks wrongly there and also misreads small clips.)
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image, UnidentifiedImageError

_MAX_THREADS = 4  # of a decoder: each thread holds frames
# signs of a display matrix's (a, b, c, d) -> how the stored picture is shown
_TRANSPOSITIONS = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
_GIF_MILLISECONDS = 100  # of a frame without a duration, as browsers show it


@dataclass(frozen=True)
class Clip:
    """An opened clip.

    Attributes:
        frames: number of frames.
        fps: frames per second, on average.
        read: decodes frames by their indices to RGB PIL images.
        is_list: whether the source is a list of frames.
    """

    frames: int
    fps: float
    read: Callable[[Sequence[int]], list[Image.Image]]
    is_list: bool = False


@contextmanager
def open_clip(source) -> Iterator[Clip]:
    """Open a clip for as long as the context lasts.

    Args:
        source: path of a video file or an animated picture, or the bytes of one.
    Raises:
        FileNotFoundError: no such path.
        ValueError: no frame can be decoded.
        ImportError: no video reader is installed.
    """
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
    yield _animated_picture(path) or _video_file(path)


def _animated_picture(path: Path) -> Clip | None:
    """The clip of a GIF, WebP or PNG; None: the file is no picture."""
    try:
        with Image.open(path) as image:
            frames, milliseconds = getattr(image, "n_frames", 1), 0
            for index in range(frames):
                image.seek(index)
                image.load()  # WebP states a frame's duration only after decoding
                milliseconds += image.info.get("duration") or _GIF_MILLISECONDS
    except UnidentifiedImageError:
        return None
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"cannot read clip {path}: {error}") from None

    def read(indices: Sequence[int]) -> list[Image.Image]:
        with Image.open(path) as image:
            pictures = {}
            for index in sorted(set(indices)):
                image.seek(index)
                pictures[index] = image.convert("RGB")
        return [pictures[index] for index in indices]

    return Clip(frames, frames * 1000 / milliseconds, read)


def _video_file(path: Path) -> Clip:
    """The clip of a video file, by the first installed reader."""
    for reader in READERS:
        try:
            decode = reader(path)
        except ImportError:
            continue
        frames, seconds = 0, []
        for shown_at, _ in decode():
            frames += 1
            seconds += [shown_at] if shown_at is not None else []
        if not frames:
            raise ValueError(f"cannot read video {path}: it holds no frame that can be decoded")
        return Clip(frames, _average_rate(decode, seconds), partial(_read_frames, path, decode))
    raise ImportError(f"reading {path.name} needs av or opencv-python-headless; pip install av")


def _average_rate(decode, seconds: list[float]) -> float:
    """Frames per second: the stated rate, else by the times of the frames, else one frame a second."""
    if decode.rate and 0 < decode.rate <= 1000:
        return decode.rate
    span = max(seconds) - min(seconds) if seconds else 0.0
    return (len(seconds) - 1) / span if span > 0 else 1.0


def _read_frames(path: Path, decode, indices: Sequence[int]) -> list[Image.Image]:
    requested, pictures = set(indices), {}
    with closing(decode()) as frames:
        for index, (_, picture) in enumerate(frames):
            if index in requested:
                pictures[index] = picture()
            if len(pictures) == len(requested):
                return [pictures[index] for index in indices]
    raise ValueError(f"cannot read frame {max(requested)} of {path}: the file changed")


class _AvDecoder:
    """Sequential decoding by PyAV. Calling it yields for each frame its time in seconds and a function that converts
    it; `rate` is the stated number of frames per second, or None."""

    def __init__(self, path: Path):
        import av

        self._av, self._path = av, path
        with self._open() as container:
            rate = self._stream(container).average_rate
        self.rate = float(rate) if rate else None

    def __call__(self) -> Iterator[tuple[float | None, Callable[[], Image.Image]]]:
        began = False
        with self._open() as container:
            stream = self._stream(container)
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
            for packet in container.demux(stream):
                try:
                    decoded = packet.decode()
                except self._av.FFmpegError as error:
                    if began:
                        raise ValueError(f"cannot read video {self._path}: it is damaged: {error.strerror}") from None
                    continue  # a clip that was cut without re-encoding begins with frames that nothing can decode
                for frame in decoded:
                    began = True
                    yield frame.time, partial(_upright, frame)

    def _open(self):
        try:
            return self._av.open(os.fspath(self._path), options={"protocol_whitelist": "file"})
        except self._av.FFmpegError as error:
            raise ValueError(f"cannot read video {self._path}: it is broken or no video: {error.strerror}") from None

    def _stream(self, container):
        stream = container.streams.best("video")
        if stream is None:
            raise ValueError(f"cannot read video {self._path}: it holds no video stream")
        return stream


def _upright(frame) -> Image.Image:
    """The picture of a PyAV frame, turned and mirrored by the container's display matrix as players do it."""
    picture, matrix = frame.to_image(), frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(matrix))  # shown at (a x + c y, b x + d y)
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    if signs in _TRANSPOSITIONS:
        return picture.transpose(_TRANSPOSITIONS[signs])
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


class _OpencvDecoder:
    """Sequential decoding by OpenCV; it knows the angle of a turned clip, but not whether it is mirrored. See
    `_AvDecoder`."""

    def __init__(self, path: Path):
        import cv2

        self._cv2, self._path = cv2, path
        with closing(self()) as frames:
            if next(frames, None) is None:
                raise ValueError(f"cannot read video {path}: it is broken, no video, or needs PyAV; pip install av")
        capture = cv2.VideoCapture(os.fspath(path))
        self.rate = capture.get(cv2.CAP_PROP_FPS) or None
        capture.release()

    def __call__(self) -> Iterator[tuple[float | None, Callable[[], Image.Image]]]:
        capture = self._cv2.VideoCapture(os.fspath(self._path))
        capture.set(self._cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # some builds turn frames by themselves, others don't
        try:
            while capture.grab():  # decodes without converting
                yield capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000, partial(self._picture, capture)
        finally:
            capture.release()

    def _picture(self, capture) -> Image.Image:
        picture = Image.fromarray(self._cv2.cvtColor(capture.retrieve()[1], self._cv2.COLOR_BGR2RGB))
        return picture.rotate(-capture.get(self._cv2.CAP_PROP_ORIENTATION_META), expand=True)


READERS: tuple[type, ...] = (_AvDecoder, _OpencvDecoder)
