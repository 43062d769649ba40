"""Access log and error messages: one printable line, without content of requests."""

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.prompt.messages import Media
from paddle_internvl.serve.accesslog import describe_media, error_trace, new_record, one_line
from paddle_internvl.serve.errors import ApiError


@given(st.text(st.characters(exclude_categories=())))
def test_row_27_any_text_becomes_one_printable_line(text):
    for line in (one_line(text, 60), ApiError("invalid", text).message):
        assert len(line.splitlines()) <= 1 and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)
        line.encode()
    assert len(one_line(text, 60)) <= 60
    record = new_record(text)
    assert record.id == text or record.id.startswith("req-")


def test_row_27_an_error_is_logged_by_its_place():
    try:
        try:
            raise KeyError("a private question")
        except KeyError as inner:
            raise ValueError("another one") from inner
    except ValueError as error:
        trace = error_trace(error)
    assert trace.startswith("ValueError at test_accesslog.py:") and "; from KeyError at test_accesslog.py:" in trace
    assert "private" not in trace and "another" not in trace and "/" not in trace


def test_row_27_media_are_sizes():
    frames = [Image.new("RGB", (64, 48))] * 3
    media = [Media("video", frames, {"private": 1}), Media("image", b"?")]
    assert describe_media(media) == ["<video 3 frames 64x48>", "<image ?x? 1kB>"]
