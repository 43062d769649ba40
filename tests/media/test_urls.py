"""Downloads of the caller's own URLs: data URLs, and http from a server on this machine."""

import base64
import io
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.media import urls
from paddle_internvl.media.images import open_image
from paddle_internvl.media.urls import download, is_url
from paddle_internvl.media.video import open_source

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8))


def encoded(form="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, form, **options)
    return buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/slow"):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"X: " if self.path == "/slow-head" else b"\r\n"))
            while not self.server.closing.wait(0.01):
                self.wfile.write(b"x")
            return
        if self.path != "/a.png":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(encoded())

    def log_message(self, *_):
        """Silence."""


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler))
    server.closing = Event()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_http(server, monkeypatch):
    np.testing.assert_array_equal(np.asarray(open_image(f"{server}/a.png")), np.asarray(PICTURE))
    with pytest.raises(ValueError, match=f"cannot fetch {server}/b.png: 404"):
        open_image(f"{server}/b.png")
    monkeypatch.setattr(urls, "_MAX_BYTES", 50)
    with pytest.raises(ValueError, match="holds more than 50 bytes"):
        open_image(f"{server}/a.png")
    with pytest.raises(ValueError, match="cannot fetch http://127.0.0.1:1/"):
        download("http://127.0.0.1:1/")


@pytest.mark.parametrize("path", ["/slow", "/slow-head"])
def test_a_download_has_a_time_limit_in_all(server, monkeypatch, path):
    """Not only between two packets: a server that drips."""
    monkeypatch.setattr(urls, "_TOTAL_TIMEOUT", 0.2)
    with pytest.raises(ValueError, match=f"cannot fetch {server}{path}: it takes longer than 0.2 seconds"):
        download(f"{server}{path}")


def test_data_urls():
    url = "data:image/png;base64," + base64.b64encode(encoded()).decode()
    np.testing.assert_array_equal(np.asarray(open_image(url)), np.asarray(PICTURE))
    assert download("data:;base64,%2B%2f8%3D") == b"\xfb\xff"
    for invalid in ("data:image/png;base64", "data:,text"):
        with pytest.raises(ValueError, match=f"^{invalid}: not a data URL of the form"):
            download(invalid)
    with pytest.raises(ValueError, match="holds no valid base64"):
        download("data:image/png;base64,a*b")
    long = "data:image/png;base64," + "A" * 501
    with pytest.raises(ValueError) as caught:
        open_image(long)
    assert "(523 characters)" in str(caught.value) and len(str(caught.value)) < 200


def test_a_clip_behind_a_url():
    frames = [PICTURE.rotate(90 * k, expand=False) for k in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    with open_source("data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()) as clip:
        assert clip.frames == 3


def test_paths_are_no_urls():
    assert not any(is_url(path) for path in ("a.png", "/data:x", "httpfolder/a.png", b"http://x"))
    assert is_url("HTTPS://x/y")
