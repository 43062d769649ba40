"""Pixels against the definition (PIL bicubic, / 255, normalise), and every kind of file a user may hand over."""

import io

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_internvl import build_transform, load_image
from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize


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
    with pytest.raises(TypeError, match="not int"):
        load_image(3)


def test_decompression_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="can't be decoded: Image size"):
        load_image(saved(picture(50, 50), "PNG"))


def test_other_tile_sides():
    assert normalize(picture(10, 10), 56).shape == (3, 56, 56)
    assert load_image(picture(112, 56), input_size=56, max_num=4).shape == [3, 3, 56, 56]
