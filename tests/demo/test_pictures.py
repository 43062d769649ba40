"""Pictures of the documentation: each is shown by a page, and the recorded session asks no other host for a font."""

import re

from demo.scripts import pictures
from tests.docs.pages import ENGLISH, chinese, read


def test_a_page_in_both_languages_shows_each_picture():
    for page in (ENGLISH, [chinese(page) for page in ENGLISH if page.name != "api.md"]):
        text = "".join(map(read, page))
        for file in pictures.PICTURES.iterdir():
            assert f"pictures/{file.name})" in text, file.name


def test_recorded_session(tmp_path, monkeypatch):
    """Commands, what they print, Chinese at its own width."""
    monkeypatch.setattr(pictures, "SESSION", ('chat demo/checkpoints/tiny --question "在哪里？"', "estimate"))
    monkeypatch.setattr(pictures, "output_of", lambda command, folder: f"<answer> of {command.split()[0]}\n")
    pictures.draw_terminal(tmp_path, tmp_path / "terminal.svg")
    svg = (tmp_path / "terminal.svg").read_text(encoding="utf-8")
    texts = re.findall(r"<text ([^>]*)>([^<]*)</text>", svg)
    assert "&lt;answer&gt;&#160;of&#160;chat" in [text for _, text in texts]
    ((attributes, _),) = [(attributes, text) for attributes, text in texts if "在哪里" in text]
    assert "textLength" not in attributes and "demo/checkpoints" not in svg
    assert not re.search(r"url\(.?http|@font-face", svg)
