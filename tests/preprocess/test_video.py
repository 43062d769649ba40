"""Frames of clips: every container gives the frames of decoding from the start, with every reader."""

import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.preprocess import video
from paddle_internvl.preprocess.video import open_clip

av = pytest.importorskip("av")
FRAMES = 60


def numbered(number, width, height):
    """A frame that shows its number in binary, as nine black or white columns."""
    pixels = np.full((height, width, 3), 30, np.uint8)
    for bit in range(9):
        if number >> bit & 1:
            pixels[:, width * bit // 9 + 1 : width * (bit + 1) // 9 - 1] = 255
    return pixels


def number_of(frame):
    pixels = np.asarray(frame)[:, :, 0]
    edges = [(frame.width * bit // 9, frame.width * (bit + 1) // 9) for bit in range(9)]
    return sum(
        1 << bit for bit, (a, b) in enumerate(edges) if pixels[:, (2 * a + b) // 3 : (a + 2 * b) // 3].mean() > 140
    )


def write(path, codec="libx264", width=180, height=96, muxer=None, pix_fmt="yuv420p", mark=False, **options):
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        for number in range(FRAMES):
            pixels = numbered(number, width, height)
            if mark:
                pixels[-16:, :16] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(source, path, first):
    """Packets from `first` on, copied: the clip begins within a group of pictures."""
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in list(container.demux(video=0))[first:]:
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return path


CLIPS = {
    "a.mp4": {},
    "a.avi": {},
    "a.ts": {},
    "a.mkv": {},
    "mpeg4.avi": {"codec": "mpeg4"},
    "a.mpg": {"codec": "mpeg2video"},
    "a.vob": {"codec": "mpeg2video"},
    "open_gop.mp4": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"},
    "no_length.mkv": {"muxer": {"live": "1"}},
    "no_length.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8", "muxer": {"live": "1"}},
    "small.mp4": {"width": 48, "height": 16},
    "ten_bits.mp4": {"pix_fmt": "yuv420p10le"},
}


@pytest.fixture(params=video.READERS, ids=lambda reader: reader.__name__)
def reader(request, monkeypatch):
    monkeypatch.setattr(video, "READERS", (request.param,))


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_decoding_from_the_start(tmp_path, reader, name):
    path = write(tmp_path / name, **CLIPS[name])
    with open_clip(path) as clip:
        assert (clip.frames, clip.fps) == (FRAMES, 25.0)
        assert [number_of(frame) for frame in clip.read([50, 3, 17, 3, FRAMES - 1])] == [50, 3, 17, 3, FRAMES - 1]
    with open_clip(path.read_bytes()) as clip:
        assert [number_of(frame) for frame in clip.read([20])] == [20]


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.ts", "a.mpg", "open_gop.mp4"])
def test_a_clip_cut_without_encoding(tmp_path, reader, name):
    """Frames that nothing can decode are not counted; the others keep their order."""
    path = cut(write(tmp_path / name, **CLIPS[name]), tmp_path / f"cut_{name}", 17)
    with open_clip(path) as clip:
        numbers = [number_of(frame) for frame in clip.read(range(clip.frames))]
    assert numbers == list(range(numbers[0], FRAMES)) and 17 <= numbers[0] <= 25


def with_display_matrix(source, path, a, b, c, d):
    """The same clip as a phone leaves it that is held another way: the track's header says how it is shown."""
    data = source.read_bytes()
    at = data.index(b"tkhd") + 44  # ISO/IEC 14496-12: a, b, u, c, d, v, x, y, w
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + matrix + data[at + len(matrix) :])
    return path


TURNED = {  # display matrix -> what turns the frame that is shown back into the stored one
    (0, 1, -1, 0): Image.Transpose.ROTATE_90,  # shown turned clockwise by 90 degrees
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_270,
}
MIRRORED = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


def is_shown_as(path, back):
    """Whether a clip's frames are the stored ones of `marked`, which have no symmetry, seen through `back`."""
    with open_clip(path) as clip:
        (frame,) = clip.read([6])
    stored = frame.transpose(back)
    return stored.size == (180, 96) and number_of(stored) == 6 and np.asarray(stored)[85:, :10].mean() > 140


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """Frames with a white corner, bottom left."""
    return write(tmp_path_factory.mktemp("marked") / "a.mp4", mark=True)


@pytest.mark.parametrize("matrix", TURNED)
def test_a_turned_clip_is_upright(tmp_path, reader, marked, matrix):
    assert is_shown_as(with_display_matrix(marked, tmp_path / "turned.mp4", *matrix), TURNED[matrix])


@pytest.mark.parametrize("matrix", MIRRORED)
def test_a_mirrored_clip_is_shown_as_players_show_it(tmp_path, marked, matrix):
    """By PyAV; OpenCV does not give the matrix."""
    assert is_shown_as(with_display_matrix(marked, tmp_path / "mirrored.mp4", *matrix), MIRRORED[matrix])


def test_av1_needs_pyav(tmp_path, monkeypatch):
    # SVT-AV1 makes its caller's thread a real-time one where it may (root): later tests' processes would inherit it.
    policy, encode = os.sched_getscheduler(0), partial(write, width=192, **{"svtav1-params": "preset=12"})
    with ThreadPoolExecutor(1) as pool:
        path = pool.submit(encode, tmp_path / "av1.mp4", "libsvtav1").result()
    assert os.sched_getscheduler(0) == policy
    with open_clip(path) as clip:
        assert [number_of(frame) for frame in clip.read([0, 41])] == [0, 41]
    monkeypatch.setattr(video, "READERS", video.READERS[1:])
    with pytest.raises(ValueError, match=r"av1.mp4: it is broken, no video, or needs PyAV; pip install av"):
        open_clip(path).__enter__()


def test_durations_of_an_animation():
    frames = [Image.new("RGB", (8, 8), (40 * k,) * 3) for k in range(4)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=[900, 20, 40, 40])
    with open_clip(buffer.getvalue()) as clip:
        assert clip.frames == 4 and clip.fps == pytest.approx(4)


def test_broken_video(tmp_path, reader):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(ValueError, match=r"cannot read video .*broken.mp4"):
        open_clip(tmp_path / "broken.mp4").__enter__()


def test_no_file_and_no_reader(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such video"):
        open_clip(tmp_path / "none.mp4").__enter__()
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setattr(video, "READERS", ())
    with pytest.raises(ImportError, match="reading a.mp4 needs av or opencv-python-headless; pip install av"):
        open_clip(tmp_path / "a.mp4").__enter__()
