"""Attention of an answer over its pictures: from the engine of this process alone, for the answer as it was asked."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from paddle_internvl.chat.visual_attention import visual_attention
from paddle_internvl.webdemo.attention import draw_overlays, overlays_html
from paddle_internvl.webdemo.display import messages, round_of
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.server_host import ServerHost
from paddle_internvl.webdemo.session import Round, SessionState
from tests.serve.running import FakeEngineThread, running
from tests.webdemo.browsing import ask as ask_page
from tests.webdemo.browsing import attach, picture, ready
from tests.webdemo.conftest import expect
from tests.webdemo.test_streaming_session import OPTIONS, ask, attached


@pytest.fixture(scope="module")
def answered(host):
    """A conversation of two rounds about a picture of several tiles and a clip."""
    state = SessionState()

    async def talk():
        await ask(host, state, Round("Read the text.", await attached(["wide.png"])))
        await ask(
            host,
            state,
            Round("Which way does the star move?", await attached(["clip.gif"])),
            replace(OPTIONS, max_num=1),
        )

    asyncio.run(talk())
    return state


@pytest.mark.parametrize("number", [0, 1])
def test_maps_are_those_of_the_answer_as_asked(host, tiny, answered, number):
    """With the tiles of its own question, and without what came later."""
    round_, earlier = answered.rounds[number], SessionState(answered.rounds[:number])
    maps = asyncio.run(host.answers.attention(answered, round_))
    ends = tiny.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert round_.ending == "stop" and round_.token_ids[-1] == ends
    expected = visual_attention(
        tiny, tiny.tokenizer, earlier.messages(round_.question, round_.attachments), round_.token_ids[:-1],
        system=OPTIONS.system, max_num=(6, 1)[number],
    ).maps()  # fmt: skip
    assert [each.grid.tiles for each in maps] == ([4] if number == 0 else [1, 1, 1, 1, 1])
    for ours, theirs in zip(maps, expected):
        np.testing.assert_allclose(ours.tiles, theirs.tiles, atol=1e-6)


def test_overlays_have_shares_in_both_languages(host, answered):
    round_ = answered.rounds[1]
    maps = asyncio.run(host.answers.attention(answered, round_))
    overlays = draw_overlays(answered.attachments(), maps)
    assert [len(each.urls) for each in overlays] == [1, 4] and overlays[0].thumbnail is None  # 1 tile
    shares = [maps[0].share, sum(each.share for each in maps[1:])]
    for language, words in (("en", "of the answer's attention"), ("zh", "占回答注意力的")):
        shown = overlays_html(overlays, language)
        assert all(f"{100 * share:.1f} %" in shown for share in shares) and words in shown.replace("&#x27;", "'")
        assert shown.count("<img") == 5
    (wide,) = draw_overlays(
        answered.rounds[0].attachments, asyncio.run(host.answers.attention(answered, answered.rounds[0]))
    )
    assert wide.thumbnail is not None


def test_the_handler_shows_the_last_answer_s(host, answered):
    state = SessionState(list(answered.rounds))
    before = len(messages(state.rounds, "en"))
    shown = asyncio.run(Handlers(host).attention("en", state))
    assert len(shown) == before + 1 and "clip.gif: " in shown[-2]["content"].value
    assert round_of(state.rounds, before) == 1
    state.rounds[1].reset_answer()
    assert not state.rounds[1].overlays


@pytest.fixture
def notices(monkeypatch):
    shown = []
    monkeypatch.setattr("paddle_internvl.webdemo.handlers.gr.Info", lambda text, **_: shown.append(text))
    return shown


def test_refusals_are_notices(host, notices):
    handlers = Handlers(host)
    assert asyncio.run(handlers.attention("en", SessionState())) == []
    asyncio.run(handlers.attention("en", SessionState([Round("hi", (), "ho", "stop")])))
    asyncio.run(handlers.attention("zh", SessionState([Round("hi", (), "ho", "stop")], busy=True)))
    assert notices == ["There is no question yet.", "The conversation has no picture.", "正在生成回答，请先停止。"]


def test_a_server_has_none(tiny, notices):
    with running(FakeEngineThread(tiny, tiny.tokenizer)) as served:
        remote = ServerHost(served.url)
        for language in ("en", "zh"):
            asyncio.run(Handlers(remote).attention(language, SessionState([Round("hi", (), "ho", "stop")])))
        remote.close()
    assert (
        notices[0] == "Attention needs the model in this process; this page asks a server." and "本进程" in notices[1]
    )


@pytest.mark.browser
def test_the_button(page_of, host):
    page = page_of(host)
    attach(page, "wide.png")
    expect(page.locator("#seen figcaption")).to_have_count(1)
    ask_page(page, "Read the text.")
    expect(page.locator("#chat .timing")).to_be_visible()
    ready(page)
    page.locator("#attention").click()
    expect(page.locator("#chat .bot figcaption")).to_have_count(2)  # the picture, and its thumbnail
    expect(page.locator("#chat .bot figcaption").first).to_contain_text("of the answer's attention")
    picture(page, "attention")
    page.get_by_text("中文", exact=True).click()
    expect(page.locator("#attention")).to_have_text("注意力")
    expect(page.locator("#chat .bot figcaption").first).to_contain_text("占回答注意力的")
    page.get_by_text("English", exact=True).click()
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator("#chat .bot figcaption")).to_have_count(0)
    ready(page)
