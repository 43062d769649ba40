"""Every example of the page in both languages: its table is that of the scenes, its answer that of the table."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from demo.tiny import assets
from paddle_internvl.webdemo.examples import FILE, chat_examples, load
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.session import SessionState
from paddle_internvl.webdemo.texts import LANGUAGES
from tests.webdemo.conftest import ASSETS

ROWS = json.loads((ASSETS / FILE).read_text(encoding="utf-8"))
GREEDY = ("You are InternVL-tiny.", 0, 1, 1, 64, 6, False, True)  # of `GenerationOptions`


def test_the_table_is_that_of_the_scenes(tmp_path):
    assets.make(tmp_path)
    assert (tmp_path / FILE).read_bytes() == (ASSETS / FILE).read_bytes()
    assert [example["display_text"] for example in chat_examples(load(tmp_path), "zh")] == [
        row["zh"]["label"] for row in ROWS
    ]
    (tmp_path / "clip.gif").unlink()
    assert len(load(tmp_path)) == len(ROWS) - 1 and load(None) == load(tmp_path / "nowhere") == []


def overlap(one: list, other: list) -> float:
    """Intersection over union of two boxes."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    shared = max(0, width) * max(0, height)
    return shared / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("index", range(len(ROWS)), ids=[row["en"]["label"] for row in ROWS])
def test_answers(host, index, language):
    handlers, state = Handlers(host, load(ASSETS)), SessionState()

    async def click():
        async for _ in handlers.example(SimpleNamespace(index=index), 8, language, *GREEDY, state):
            pass

    asyncio.run(click())
    (round_,), row = state.rounds, ROWS[index]
    assert round_.question == row[language]["question"] and round_.ending == "stop", round_.error
    if "box" in row:
        corners = json.loads("[[" + round_.answer.partition("[[")[2].partition("]]")[0] + "]]")
        assert overlap(corners[0], row["box"]) >= 0.5 and round_.drawn
    else:
        assert round_.answer == row[language]["answer"]
    assert round_.timing.tokens > 1 and round_.timing.per_second > 0
