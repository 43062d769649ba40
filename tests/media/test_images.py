"""Pixels against the definition (PIL bicubic, / 255, normalise), and every kind of file a user may hand over."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_internvl import build_transform, load_image
from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize
from tests.random_checkpoints import ROOT


def picture(width, height, mode="RGB", seed=0):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    return Image.fromarray(levels, mode)


def by_hand(image, size):
    levels = np.asarray(image.convert("RGB").resize((size, size), Image.BICUBIC), np.float64) / 255
    return ((levels - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(448, 448), (300, 500), (1, 1), (1, 900)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_transform_by_hand(size, mode):
    image = picture(*size, mode)
    out = build_transform(448)(image)
    assert isinstance(out, paddle.Tensor) and out.shape == [3, 448, 448]
    np.testing.assert_allclose(out.numpy(), by_hand(image, 448), atol=1e-6)


def test_load_image_by_hand():
    """A 2 x 1 grid: the left half, the right half, then the whole as a thumbnail."""
    image = picture(1000, 480)
    out = load_image(image, max_num=2).numpy()
    assert out.shape == (3, 3, 448, 448)
    resized = image.resize((896, 448), Image.BICUBIC)
    np.testing.assert_allclose(out[0], by_hand(resized.crop((0, 0, 448, 448)), 448), atol=1e-6)
    np.testing.assert_allclose(out[1], by_hand(resized.crop((448, 0, 896, 448)), 448), atol=1e-6)
    np.testing.assert_allclose(out[2], by_hand(image, 448), atol=1e-6)


def test_paths_bytes_files_and_images_are_one(tmp_path):
    image, file = picture(500, 300), tmp_path / "a.png"
    image.save(file)
    expected = load_image(image).numpy()
    with open(file, "rb") as stream:
        for source in (str(file), file, file.read_bytes(), bytearray(file.read_bytes()), stream):
            np.testing.assert_array_equal(load_image(source).numpy(), expected)


WARNED = """
import io, sys
import numpy as np
from PIL import Image
from paddle_internvl.media.images import open_image

levels = np.random.default_rng(0).integers(0, 256, (30, 40, 4), np.uint8)
opaque, turned = Image.fromarray(levels), Image.Exif()
opaque.putalpha(255)
turned[0x0112] = 6
palette = Image.fromarray(levels[..., 0], "L").convert("P")
pictures = [
    (opaque, {}), (opaque.convert("RGB"), {}), (palette, {}), (opaque.convert("RGB"), {"exif": b"Exif\\0\\0broken"}),
    *[(opaque.convert("RGB"), {"exif": turned}), (Image.fromarray(levels), {}), (palette, {"transparency": 0}),
      (Image.fromarray(levels[..., 0].astype(np.uint16) * 200), {})] * 2,
]
for number, (picture, options) in enumerate(pictures):
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    np.testing.assert_array_equal(open_image(file.getvalue()), Image.open(file).convert("RGB"))
    print(number, file=sys.stderr)
"""


def test_surprises_are_warned_of_once(tmp_path):
    """EXIF orientation, transparency and 16 bits; the pixels stay those of Pillow's convert("RGB")."""
    done = subprocess.run([sys.executable, "-c", WARNED], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    warned = [(lines[i - 1], line) for i, line in enumerate(lines) if not line.isdigit()]
    assert [number for number, _ in warned] == ["3", "4", "6"]
    for (_, line), words in zip(warned, ("turned by EXIF orientation", "is transparent", "more than 8 bits a channel")):
        assert words in line


def test_threads_get_the_pixels_of_sequential_calls(tmp_path):
    for seed in range(12):
        picture(400 + 30 * seed, 300, "RGBA", seed).save(tmp_path / f"{seed}.png")
    files = sorted(tmp_path.iterdir())
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda file: load_image(file, max_num=4).numpy(), files))
    for file, pixels in zip(files, together):
        np.testing.assert_array_equal(pixels, load_image(file, max_num=4).numpy())


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_kinds_are_read_as_upstream_reads_them():
    """`Image.open(f).convert("RGB")`: nothing rotated, alpha dropped, first frame, 16-bit levels clipped."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    rotated = open_image(saved(picture(40, 20), "JPEG", exif=exif))
    assert rotated.size == (40, 20)
    rgba = picture(8, 8, "RGBA")
    np.testing.assert_array_equal(np.asarray(open_image(saved(rgba, "PNG"))), np.asarray(rgba)[:, :, :3])
    palette = picture(8, 8).quantize(16)
    np.testing.assert_array_equal(np.asarray(open_image(saved(palette, "PNG"))), np.asarray(palette.convert("RGB")))
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    assert open_image(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == (255, 0, 0)
    deep = Image.fromarray(np.array([[0, 200, 256, 65535]], np.uint16))
    assert np.asarray(open_image(saved(deep, "PNG")))[0, :, 0].tolist() == [0, 200, 255, 255]
    gray = open_image(saved(picture(5, 5, "LA"), "PNG"))
    assert gray.mode == "RGB"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_an_error_that_names_them(tmp_path, kind):
    file = tmp_path / f"broken.{kind.lower()}"
    whole = saved(picture(200, 200), kind)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"broken\.\w+ (can't be decoded|is not a picture)"):
        load_image(file)


def test_invalid_pictures(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text.png is not a picture that Pillow can read"):
        load_image(tmp_path / "text.png")
    with pytest.raises(ValueError, match="3 bytes is not a picture"):
        load_image(b"abc")
    with pytest.raises(FileNotFoundError, match="no such picture: .*/none.png"):
        load_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError, match=f"^{tmp_path} is a folder; give a picture's file"):
        load_image(tmp_path)
    with pytest.raises(TypeError, match="not int"):
        load_image(3)


def test_decompression_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="can't be decoded: Image size"):
        load_image(saved(picture(50, 50), "PNG"))


def test_other_tile_sides():
    assert normalize(picture(10, 10), 56).shape == (3, 56, 56)
    assert load_image(picture(112, 56), input_size=56, max_num=4).shape == [3, 3, 56, 56]
