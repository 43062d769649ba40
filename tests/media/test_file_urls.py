"""Row 7: file:// URLs give files below the allowed folder only."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_internvl.media import file_urls
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.file_urls import read_file_url

BODY = bytes(range(256))


def status(*arguments):
    with pytest.raises(MediaError) as caught:
        read_file_url(*arguments)
    return caught.value.status


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
    assert status(f"file://{folder}/a.png", folder, 255) == 413


def test_files_refused(folder):
    errors = set()
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
        errors.add((caught.value.status, str(caught.value)))
    assert len(errors) == 1  # the same error whether a file exists or not
    assert status(f"file://{folder}/a.png", None, 1000) == 400


def test_link_that_replaces_the_file_after_the_check(folder, monkeypatch):
    open_file = os.open

    def swapped(path, flags):
        (folder / "a.png").unlink()
        (folder / "a.png").symlink_to(folder.parent / "secret")
        return open_file(path, flags)

    monkeypatch.setattr(file_urls.os, "open", swapped)
    assert status(f"file://{folder}/a.png", folder, 1000) == 400


@given(st.text(max_size=40))
def test_any_file_url(tmp_path_factory, rest):
    allowed = tmp_path_factory.getbasetemp()
    with pytest.raises(MediaError):
        read_file_url("file:" + rest, allowed, 10)
