"""Data URLs hold the picture; captions can't break out of their HTML."""

import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from paddle_internvl.webdemo.pictures import data_url, figure, figures, small


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
