"""Grid lines stand where tiles are cut; data URLs hold the picture; captions can't break out of their HTML."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.preprocess.grid import TileGrid
from paddle_internvl.preprocess.tiles import cut
from paddle_internvl.webdemo.pictures import data_url, figure, figures, small, with_grid


@pytest.mark.parametrize("columns, rows", [(1, 1), (3, 1), (1, 2), (4, 3)])
def test_lines_are_where_tiles_are_cut(columns, rows):
    gray = Image.new("RGB", (240, 180), (128, 128, 128))
    drawn = np.asarray(with_grid(gray, TileGrid(columns, rows, False))).astype(int)
    # cut the drawn picture as the model's is cut: lines lie on the tiles' rims only
    for tile in cut(with_grid(gray, TileGrid(columns, rows, False)), TileGrid(columns, rows, False), 120):
        inner = np.asarray(tile).astype(int)[10:-10, 10:-10]
        assert abs(inner - 128).max() <= 2
    changed = (drawn != 128).any(axis=2)
    assert changed[90 if rows % 2 else 80].any() == (columns > 1)
    assert np.asarray(gray).min() == 128, "the picture itself is drawn on"


@pytest.mark.parametrize("size, expected", [((1344, 448), (320, 107)), ((3, 16384), (1, 320)), ((10, 8), (10, 8))])
def test_small(size, expected):
    assert small(Image.new("RGB", size)).size == expected


def test_data_url_holds_the_picture():
    head, _, data = data_url(Image.new("RGB", (20, 10), "red")).partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/jpeg;base64" and image.size == (20, 10) and image.getpixel((5, 5))[0] > 240


def test_captions_are_text():
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append((tag, dict(attributes)))

        def handle_data(self, data):
            seen.append(data)

    name = "\"><script>alert('1')</script>.png"
    Reader().feed(figures([figure("data:x", name, name)]))
    assert [each[0] for each in seen if isinstance(each, tuple)] == ["div", "figure", "img", "figcaption"]
    assert seen[2][1] == {"src": "data:x", "alt": name} and name in seen
    assert figures([]) == ""
