"""Rows 5 and 6: pixels of a picture by its header; decompression bombs are refused before they are decoded."""

import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.images import open_image
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.picture_checks import check_picture

LIMITS = MediaLimits()


def encoded(image, form="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(width=9, height=6, mode="RGB"):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def error(data, **limits):
    with warnings.catch_warnings(), pytest.raises(MediaError) as caught:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        check_picture(data, MediaLimits(**limits))
    return caught.value


def chunk(name, data=b""):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *before, data=b"x"):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(before) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + body


MODES = {"PNG": ["RGB", "L", "LA", "P", "RGBA", "1", "I;16"], "JPEG": ["RGB", "L", "CMYK"], "BMP": ["RGB", "L", "P"]}
MODES |= {"WEBP": ["RGB", "RGBA"], "GIF": ["P", "L"]}
OTHERS = ["TIFF", "ICO", "PPM", "TGA", "PCX", "ICNS", "IM", "SGI", "EPS", "JPEG2000", "DDS", "PDF"]


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
@pytest.mark.parametrize("size", [(9, 6), (1, 1), (200, 1), (1, 200)])
def test_honest(form, mode, size):
    image = noise(*size, "L" if mode == "I;16" else mode)
    data = encoded(image.convert("I;16") if mode == "I;16" else image, form)
    assert check_picture(data, LIMITS) == size[0] * size[1]
    assert open_image(data).size == size


@pytest.mark.parametrize("form", OTHERS)
def test_formats_that_are_not_taken(form):
    assert error(encoded(noise(16, 16), form)).status == 400


def test_huge_header_tiny_file():
    for size in ((16000, 16000), (30000, 30000), (16385, 100), (2**31 - 1, 2**31 - 1), (8001, 8000)):
        data = png(*size)
        assert len(data) < 100
        assert error(data).status == 413
    assert error(png(201, 1)).status == 400
    assert error(png(0, 5)).status == 400
    assert check_picture(png(8000, 8000), LIMITS) == 64_000_000
    bomb = encoded(Image.new("L", (9000, 9000)), "GIF")
    assert error(bomb).status == 413
    head = bytearray(encoded(noise(), "BMP"))
    head[18:26] = struct.pack("<ii", 16000, 16000)
    assert error(bytes(head)).status == 413
    jpeg = bytearray(encoded(noise(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 16000, 16000)
    assert error(bytes(jpeg)).status == 413
    webp = encoded(noise(), "WEBP", lossless=True)
    riff = b"WEBPVP8X" + struct.pack("<IBBBB", 10, 0, 0, 0, 0) + struct.pack("<I", 16382)[:3] * 2 + webp[12:]
    assert error(b"RIFF" + struct.pack("<I", len(riff)) + riff).status in (400, 413)


def test_gif_of_very_many_frames():
    gif = encoded(Image.new("P", (1, 1)), "GIF")
    frame = b",\0\0\0\0\1\0\1\0\0\x02\0"
    assert check_picture(gif[:-1] + frame * 100 + b";", LIMITS) == 1
    for count in (10_000, 1_500_000):  # the latter is 18 MB, the reader gives up on it
        assert error(gif[:-1] + frame * count + b";").status == 400


def test_apng():
    frames = [noise() for _ in range(3)]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    assert check_picture(data, LIMITS) == 54
    assert error(data, max_image_frames=2).status == 400
    assert error(png(4, 4, chunk(b"acTL", struct.pack(">II", 10_000, 0)))).status == 400


def test_animated_webp():
    frames = [Image.new("RGB", (8, 8), (k * 50, 0, 0)) for k in range(4)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert check_picture(data, LIMITS) == 64
    assert error(data, max_image_frames=3).status == 400


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise())[:-12] + chunk(b"abCd") * 1_000_000 + chunk(b"IEND"),
        png(9, 6, *[chunk(b"abCd")] * 1_000_000),
        encoded(noise(), "GIF")[:13] + b"!\xfe" + b"\x01a" * 5_000_000 + b"\0" + encoded(noise(), "GIF")[13:],
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000 + encoded(noise(), "JPEG")[2:],
    ],
    ids=["chunks behind", "chunks before", "comments", "markers"],
)
def test_headers_of_very_many_pieces(data):
    assert len(data) < LIMITS.max_image_bytes
    assert error(data).status == 400


def test_jpeg_of_very_many_scans():
    """Each is decoded over all pixels: 100 bytes cost as much as the picture."""
    data = encoded(Image.new("L", (64, 64)), "JPEG", progressive=True)
    assert check_picture(data, LIMITS) == 64 * 64
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert error(data[:-2] + scan * 200 + data[-2:]).status == 400


def test_text_bombs_in_a_png():
    for name, head in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        data = png(4, 4, chunk(name, head + zlib.compress(bytes(50_000_000))))
        tracemalloc.start()
        try:
            check_picture(data, LIMITS)
        except MediaError as refused:
            assert refused.status == 400
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 10_000_000, "the text was decompressed"


def test_bytes_that_are_a_picture_in_two_formats(monkeypatch):
    """Asked for no format, Pillow may try readers without a signature before the right one, and find another size."""
    webp = encoded(noise(), "WEBP")
    assert check_picture(webp, LIMITS) == 54
    monkeypatch.setitem(Image.OPEN, "ANY", (lambda file, name: Image.new("RGB", (5000, 5000)), None))
    monkeypatch.setattr(Image, "ID", ["ANY", *Image.ID])
    assert open_image(webp).size == (5000, 5000)
    assert error(webp).status == 400


PICTURES = [
    encoded(noise()),
    encoded(noise(), "JPEG"),
    encoded(noise(), "JPEG", progressive=True),
    encoded(noise(), "WEBP"),
    encoded(noise(), "GIF"),
    encoded(noise(), "BMP"),
    encoded(noise(), save_all=True, append_images=[noise()] * 2),
    encoded(noise(mode="P"), "PNG"),
]


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from(PICTURES)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(max_examples=400, deadline=None)
@given(st.one_of(damaged(), st.binary(max_size=100)))
def test_any_bytes(data):
    """Taken and decoded, or refused with a word to the client: by the header, or by the decoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = check_picture(data, MediaLimits(max_image_pixels=10**6))
        except MediaError as refused:
            assert refused.status in (400, 413)
            return
        try:
            image = open_image(data)
        except ValueError:
            return
        assert image.width * image.height == pixels


@pytest.mark.parametrize("data", PICTURES[:1] + PICTURES[3:6])
def test_truncated(data):
    for length in range(len(data) - 5):
        with pytest.raises(ValueError):
            check_picture(data[:length], LIMITS)
            open_image(data[:length])
