"""Rows 4 and 7: data URLs to the letter, files only below the folder that is allowed."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.sources import decode_data_url, read_file_url

BODY = bytes(range(256))
TEXT = base64.b64encode(BODY).decode()
NOT_BASE64 = [TEXT[:-1], TEXT + "A", "é", "A===", "AA\nAA", " AAAA", "A", "AA-_", "AA%2B", "=AAA", "AAAA====", "AA AA"]
NOT_BASE64 += ["AAA=AAAA", "AAAA=", "AA==AA==", "AAAA==", "===="]


def status(work, *given):
    with pytest.raises(MediaError) as caught:
        work(*given)
    return caught.value.status


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        ("data:image/png;base64,", "image"),
        ("DATA:IMAGE/JPEG;Base64,", "image"),
        ("data:;base64,", "image"),
        ("data:application/octet-stream;base64,", "video"),
        ("data:image/png;charset=utf-8;name=a.png;base64,", "image"),
        ("data:video/mp4;base64,", "video"),
        ("data:image/gif;base64,", "video"),
    ],
)
def test_data_urls(start, kind):
    assert decode_data_url(start + TEXT, kind, 256) == BODY


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:", "image"),
        ("data:image/png;base64", "image"),
        ("data:image/png," + TEXT, "image"),
        ("data:text/html;base64," + TEXT, "image"),
        ("data:video/mp4;base64," + TEXT, "image"),
        ("data:image/jpeg;base64," + TEXT, "video"),
        ("data:imagex/png;base64," + TEXT, "image"),
        ("data:" + "x" * 2000 + ";base64," + TEXT, "image"),
        *[(f"data:image/png;base64,{text}", "image") for text in NOT_BASE64],
    ],
)
def test_data_urls_refused(url, kind):
    assert status(decode_data_url, url, kind, 1000) == 400


def test_data_url_is_measured_before_it_is_decoded():
    garbage = "data:image/png;base64," + "!" * 1000  # no base64 at all: had it been decoded, the status were 400
    assert status(decode_data_url, garbage, "image", 100) == 413
    for size in range(250, 260):
        url = "data:image/png;base64," + base64.b64encode(bytes(size)).decode()
        assert decode_data_url(url, "image", size) == bytes(size)
        assert status(decode_data_url, url, "image", size - 1) == 413


@given(st.text(max_size=60), st.sampled_from(["data:", "data:image/png;base64,", "data:;", ""]))
def test_any_data_url(rest, start):
    try:
        decode_data_url(start + rest, "image", 50)
    except MediaError as error:
        assert error.status in (400, 413)


@pytest.fixture
def folder(tmp_path):
    """allowed/ with files, links out of it and a pipe; secret beside it."""
    allowed = tmp_path / "allowed"
    (allowed / "sub").mkdir(parents=True)
    (tmp_path / "allowed-not").mkdir()
    for file in ("allowed/a.png", "allowed/sub/b ü.png", "secret", "allowed-not/c.png"):
        (tmp_path / file).write_bytes(BODY)
    (allowed / "inside").symlink_to(allowed / "a.png")
    (allowed / "outside").symlink_to(tmp_path / "secret")
    (allowed / "up").symlink_to(tmp_path)
    (allowed / "loop").symlink_to(allowed / "loop")
    os.mkfifo(allowed / "pipe")
    return allowed


def test_files(folder):
    for url in (
        f"file://{folder}/a.png",
        f"FILE://localhost{folder}/inside",
        f"file:{folder}/sub/../a.png",
        f"file://{folder}/sub/b%20%C3%BC.png",
        f"file://{folder}/up/allowed/a.png",
    ):
        assert read_file_url(url, folder, 256) == BODY
    assert status(read_file_url, f"file://{folder}/a.png", folder, 255) == 413


def test_files_refused(folder):
    said = set()
    for url in (
        f"file://{folder}/../secret",
        f"file://{folder}/%2e%2e/secret",
        f"file://{folder}/outside",
        f"file://{folder}/up/secret",
        f"file://{folder}-not/c.png",
        f"file://{folder}/loop",
        f"file://{folder}/pipe",
        f"file://{folder}/sub",
        f"file://{folder}",
        f"file://{folder}/missing.png",
        f"file://{folder}/a.png%00",
        f"file://{folder}/%ff",
        f"file://{folder}/" + "x" * 5000,
        f"file://elsewhere{folder}/a.png",
        f"file://[{folder}/a.png",
        "file:///etc/passwd",
        "file:///etc/no-such-file",
        "file:///proc/self/environ",
        "file:///dev/zero",
        "file://",
        "file:a.png",
        "file:../a.png",
    ):
        with pytest.raises(MediaError) as caught:
            read_file_url(url, folder, 1000)
        said.add((caught.value.status, str(caught.value)))
    assert len(said) == 1  # so that no error tells which files there are
    assert status(read_file_url, f"file://{folder}/a.png", None, 1000) == 400


def test_link_put_there_after_the_check(folder, monkeypatch):
    import paddle_internvl.media.sources as sources

    really = sources.os.open

    def swapped(path, flags):
        (folder / "a.png").unlink()
        (folder / "a.png").symlink_to(folder.parent / "secret")
        return really(path, flags)

    monkeypatch.setattr(sources.os, "open", swapped)
    assert status(read_file_url, f"file://{folder}/a.png", folder, 1000) == 400


@given(st.text(max_size=40))
def test_any_file_url(tmp_path_factory, rest):
    allowed = tmp_path_factory.getbasetemp()
    with pytest.raises(MediaError):
        read_file_url("file:" + rest, allowed, 10)
