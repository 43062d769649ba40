"""Errors of a question in Chinese: those that the code raises today, none of their words left in English."""

import re

import anyio
import pytest
from PIL import Image

from paddle_internvl.engine.request import RequestFailedError, require_characters, require_room
from paddle_internvl.webdemo.error_texts import error_text
from paddle_internvl.webdemo.streaming_session import GenerationOptions
from paddle_internvl.webdemo.uploads import LIMITS, Attachment, Receiver
from tests.webdemo.conftest import ASSETS

_KEPT = re.compile(r"\w+\.(png|gif)|\w+=|token|JPEG|PNG|Web[PM]|GIF|BMP|MOV|AVI|Matroska")  # the same in Chinese


def raised(call, *arguments) -> str:
    with pytest.raises(Exception) as error:
        call(*arguments)
    return str(error.value)


@pytest.fixture
def messages(tmp_path) -> list[str]:
    """Errors of uploads, of prompts, of settings and of the engine."""
    receiver = Receiver(448)
    broken, cut, wide, text = (tmp_path / name for name in ("broken.png", "cut.png", "wide.png", "text.gif"))
    broken.write_bytes(b"no picture")
    cut.write_bytes((ASSETS / "sign.png").read_bytes()[:300])
    Image.new("1", (20000, 4)).save(wide)
    text.write_bytes(b"no clip")
    many = [Attachment("image", "a.png", b"", ((9000, 9000),), ())] * (LIMITS.max_images + 1)
    options = ("", 0, 1, 1, 64, 6)
    return [
        *(raised(anyio.run, receiver.picture, str(file)) for file in (broken, cut, wide, tmp_path / "gone.png")),
        raised(anyio.run, receiver.clip, str(text), 8),
        raised(anyio.run, receiver.clip, str(text), 99),
        raised(receiver.check_together, many),
        raised(receiver.check_together, many[:1]),
        raised(require_characters, 10**6, 2048),
        raised(require_room, 3000, [], 2048),
        raised(GenerationOptions(*options[:1], -1, *options[2:]).config),
        raised(GenerationOptions(*options[:5], 99).config),
        raised(GenerationOptions(*options[:1], "x", *options[2:]).config),
        str(RequestFailedError.without_memory()),
        str(RequestFailedError.caused_by(KeyError("x"))),
    ]


def test_chinese(messages):
    for message in messages:
        translated = error_text(message, "zh")
        assert error_text(message, "en") == message
        words = re.findall(r"[A-Za-z]{3,}", _KEPT.sub("", translated))
        assert re.search("[\u4e00-\u9fff]", translated) and not words, (message, translated)
    assert error_text("something new", "zh") == "something new"
