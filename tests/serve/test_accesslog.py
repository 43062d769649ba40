"""What goes into lines of log and messages of errors: one line, harmless, and no quotes."""

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.serve.accesslog import media_words, new_record, one_line, where
from paddle_internvl.serve.errors import ApiError


@given(st.text(st.characters(exclude_categories=())))
def test_row_27_any_text_becomes_one_printable_line(text):
    for line in (one_line(text, 60), ApiError("invalid", text).message):
        assert len(line.splitlines()) <= 1 and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)
        line.encode()
    assert len(one_line(text, 60)) <= 60
    record = new_record(text)
    assert record.id == text or record.id.startswith("req-")


def test_row_27_an_error_is_told_by_its_place():
    try:
        try:
            raise KeyError("a private question")
        except KeyError as inner:
            raise ValueError("another one") from inner
    except ValueError as error:
        told = where(error)
    assert told.startswith("ValueError at test_accesslog.py:") and "; from KeyError at test_accesslog.py:" in told
    assert "private" not in told and "another" not in told and "/" not in told


def test_row_27_media_are_sizes():
    frames = [Image.new("RGB", (64, 48))] * 3
    parts = [{"type": "text", "text": "private"}, {"type": "video", "video": frames}, {"type": "image", "image": b"?"}]
    words = media_words([{"role": "user", "content": parts}, {"role": "user", "content": "private"}])
    assert words == ["<video 3 frames 64x48>", "<image ?x? 1kB>"]
