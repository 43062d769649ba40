"""Every text is there in both languages, with the same gaps; a browser gets the language it asks for."""

import string

import pytest

from paddle_internvl.webdemo.texts import _TEXTS, LANGUAGES, preferred_language, text


def gaps(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


@pytest.mark.parametrize("name", _TEXTS)
def test_both_languages_have_the_same_gaps(name):
    english, chinese = _TEXTS[name]
    assert english and chinese and gaps(english) == gaps(chinese)
    assert english.isascii() or "×" in english or "·" in english or "…" in english


def test_text_fills_gaps():
    assert text("frame", "en", number=3) == "Frame 3"
    assert text("frame", "zh", number=3) == "第 3 帧"
    with pytest.raises(KeyError):
        text("nonsense", "en")
    with pytest.raises(ValueError):
        text("frame", "fr", number=3)


@pytest.mark.parametrize(
    "accepted, language",
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("fr,ZH-tw;q=0.5", "zh"),
        ("en-GB", "en"),
        ("fr", "en"),
        ("", "en"),
        (None, "en"),
    ],
)
def test_preferred(accepted, language):
    assert preferred_language(accepted) == language and language in LANGUAGES
