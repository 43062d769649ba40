"""Token counts before sending are those of `chat.messages.count_tokens`, which reads the pixels."""

import asyncio

import pytest

from paddle_internvl.chat.messages import count_tokens
from paddle_internvl.webdemo.costs import prompt_cost
from paddle_internvl.webdemo.session import Round, SessionState
from paddle_internvl.webdemo.uploads import Receiver
from tests.webdemo.conftest import ASSETS


@pytest.fixture(scope="module")
def media():
    receiver = Receiver(448)
    names = ("shapes.png", "wide.png", "two.png")
    pictures = {name: asyncio.run(receiver.picture(str(ASSETS / name))) for name in names}
    return pictures | {"clip.gif": asyncio.run(receiver.clip(str(ASSETS / "clip.gif"), 4))}


@pytest.mark.parametrize("max_num", [1, 6, 12])
@pytest.mark.parametrize("system", ["", "You are a tester. <IMG_CONTEXT>"])
@pytest.mark.parametrize("earlier", [(), ("shapes.png",), ("two.png", "clip.gif")])
@pytest.mark.parametrize("new", [(), ("wide.png",), ("wide.png", "shapes.png"), ("clip.gif",)])
def test_equals_count(tiny, media, earlier, new, system, max_num):
    state = SessionState([Round("What is it?", tuple(media[name] for name in earlier), "A <b>star</b>.", "stop")])
    attachments = [media[name] for name in new]
    spent = prompt_cost(tiny, tiny.tokenizer, state, "And now, 现在呢？", attachments, system=system, max_num=max_num)
    messages = state.messages("And now, 现在呢？", attachments)
    counted = count_tokens(tiny, tiny.tokenizer, messages, system=system, max_num=max_num)
    assert (spent.total, spent.visual) == (counted.total, counted.visual)
    tiles = [grid.tiles for grids in spent.grids for grid in grids]
    assert len(spent.grids) == len(new)
    assert tiles == [picture.tiles for picture in counted.pictures][len(counted.pictures) - len(tiles) :]
