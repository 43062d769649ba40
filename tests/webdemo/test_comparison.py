"""The comparison: one question under two settings, each answer in its column with tokens and speed."""

import asyncio
import re

import pytest

from paddle_internvl.webdemo.comparison import ComparisonHandlers, ComparisonState
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.server_host import ServerHost
from tests.serve.running import FakeEngineThread, running, wait_until
from tests.webdemo.browsing import attach, picture, serious
from tests.webdemo.conftest import ASSETS, VISITORS, expect

# the values of a side, in the order of `SETTINGS`
A, B = ["", "Be brief.", 0, 1, 1, 20, 6, False], ["", "", 0.7, 0.8, 1.2, 5, 1, False]


def compare(host, files=(), state=None, steps=None, question="hello", clip=None, frames=8):
    """The last columns, the state, and how many answers were asked for when each update came."""
    state, shown = state or ComparisonState(), []

    async def ask():
        box = {"text": question, "files": [str(file) for file in files]}
        updates = ComparisonHandlers(Handlers(host)).ask(box, clip, frames, "en", *A, *B, state)
        async for *chats, _stop in updates:
            shown.append(chats)
            if len(shown) == steps:
                break
        await updates.aclose()

    asyncio.run(ask())
    return shown[-1], state


def fake_host(tiny, **options):
    return EngineHost(lambda _adapter: FakeEngineThread(tiny, tiny.tokenizer, **options))


def test_each_side_has_its_settings(tiny):
    host = fake_host(tiny)
    (a, b), state = compare(host, [ASSETS / "wide.png"])
    (first, config_a), (second, config_b) = host.engine.asked
    assert [len(prompt.pictures[0]) for prompt in (first, second)] == [4, 1]  # tiles
    assert "Be brief." in tiny.tokenizer.decode(first.ids) and "Be brief." not in tiny.tokenizer.decode(second.ids)
    assert (config_a.max_new_tokens, config_a.temperature) == (20, 0)
    assert (config_b.max_new_tokens, config_b.temperature, config_b.top_p, config_b.repetition_penalty) == (
        5,
        0.7,
        0.8,
        1.2,
    )
    assert a[0]["content"] == "a red circle and a blue square" and state.rounds[1].ending == "length"
    assert "5 tokens" in str(b[1]["content"].value) and not state.busy
    compare(host, state=state)  # the question before is no part of the prompt
    assert "wide" not in str(host.engine.asked[2][0].ids) and not host.engine.asked[2][0].pictures


def test_a_clip_is_asked_about_under_both(tiny):
    host = fake_host(tiny)
    _, state = compare(host, clip=str(ASSETS / "clip.gif"), frames=4)
    assert [[len(tiles) for tiles in prompt.pictures] for prompt, _ in host.engine.asked] == [[1] * 4] * 2
    assert [each.attachments[0].name for each in state.rounds] == ["clip.gif"] * 2
    _, state = compare(host, clip=str(ASSETS / "wide.png"), frames=99)
    assert [each.error for each in state.rounds] == ["99 frames are asked for; 1 to 32 are taken"] * 2


def test_one_side_answers_after_the_other(tiny):
    class Alone(FakeEngineThread):
        async def pieces(self, answers, prompt):
            assert self.running == 1 and self.finished == len(self.asked) - 1
            async for piece in super().pieces(answers, prompt):
                yield piece

    host = EngineHost(lambda _adapter: Alone(tiny, tiny.tokenizer))
    _, state = compare(host)
    assert [each.error for each in state.rounds] == [None, None] and host.engine.finished == 2


def test_leaving_stops_both(tiny):
    host = fake_host(tiny, hold=3)
    _, state = compare(host, steps=2)
    assert host.engine.cancelled == 1 and len(host.engine.asked) == 1
    assert [each.ending for each in state.rounds] == ["stopped", "stopped"] and not state.busy


def test_errors_are_in_both_columns_or_in_their_own(tiny, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    columns, state = compare(fake_host(tiny), [tmp_path / "broken.png"])
    assert all("broken.png: the picture is broken" in column[0]["content"].value for column in columns)
    host = fake_host(tiny)
    settings = [*A[:6], 0, False], [*B]  # 0 tiles

    async def ask():
        async for shown in ComparisonHandlers(Handlers(host)).ask(
            {"text": "hello"}, None, 8, "en", *settings[0], *settings[1], state
        ):
            last = shown
        return last

    a, b, _ = asyncio.run(ask())
    assert "max_num" in a[0]["content"].value and b[0]["content"].startswith("a red circle")


def test_each_side_has_its_adapter(tiny):
    host = EngineHost(
        lambda adapter: FakeEngineThread(tiny, tiny.tokenizer, text=adapter or "plain"), "tiny", ("charts",)
    )
    state = ComparisonState()

    async def ask(a, b):
        settings = [a, *A[1:], b, *A[1:]]
        async for _ in ComparisonHandlers(Handlers(host)).ask({"text": "hi"}, None, 8, "en", *settings, state):
            pass
        return [each.answer or each.error for each in state.rounds]

    assert asyncio.run(ask("", "charts")) == ["plain", "charts"]
    assert asyncio.run(ask("other", "")) == ["there is no adapter 'other'", "plain"]


def test_a_server_answers_both(tiny):
    """`demo --url`: tiles, limit and previews as with a checkpoint."""
    engine = FakeEngineThread(tiny, tiny.tokenizer)
    with running(engine) as served:
        remote = ServerHost(served.url)
        _, state = compare(remote, [ASSETS / "wide.png"])
        box = {"text": "hello", "files": [str(ASSETS / "wide.png")]}
        shown = asyncio.run(ComparisonHandlers(Handlers(remote)).preview(box, None, 8, "en", *A, *B, state))
        remote.close()
    assert [len(prompt.pictures[0]) for prompt, _ in engine.asked] == [4, 1]
    assert [each.ending for each in state.rounds] == ["stop", "length"] and state.rounds[1].timing.tokens == 5
    assert "3 × 1 tiles and a thumbnail" in shown[0] and "1 tile ·" in shown[1]


@pytest.mark.browser
def test_a_comparison_in_the_browser(page_of, host):
    page = page_of(host)
    page.get_by_text("Comparison", exact=True).click()
    expect(page.locator("#box")).not_to_be_visible()
    page.locator("#b_tiles input[type=number]").fill("1")
    page.locator("#b_tiles input[type=number]").press("Tab")
    page.locator("#b_temperature input[type=number]").fill("0")
    page.locator("#b_temperature input[type=number]").press("Tab")
    attach(page, "wide.png", box="#question")
    expect(page.locator("#a_preview figcaption")).to_contain_text("3 × 1 tiles and a thumbnail · 196 tokens")
    expect(page.locator("#b_preview figcaption")).to_contain_text("1 tile · 49 tokens")
    page.fill("#question textarea", "Read the text.")
    page.press("#question textarea", "Enter")
    for side in "ab":
        expect(page.locator(f"#{side}_chat .timing")).to_have_text(re.compile(r"^\d+ tokens · first after [\d.]+ s"))
        expect(page.locator(f"#{side}_chat [data-testid=bot]").first).not_to_be_empty()
    expect(page.locator("#a_chat [data-testid=bot]").first).to_contain_text("STOP")
    expect(page.locator("#question textarea")).to_have_value("Read the text.")  # to be asked again
    expect(page.locator("#stop_both")).to_be_disabled()
    assert not serious(page, ["#header", "#comparison"])
    page.get_by_text("中文", exact=True).click()
    expect(page.locator("#view")).to_contain_text("对比")
    expect(page.locator("#a_chat .timing")).to_contain_text("个 token")
    expect(page.locator("#b_preview figcaption")).to_contain_text("1 个图块")
    picture(page, "comparison")
    page.locator("#question .delete-button").click()
    page.locator("#compared_video_panel button").first.click()
    attach(page, "clip.gif", box="#compared_clip")
    page.fill("#question textarea", "蓝色的正方形向哪个方向移动？")
    expect(page.locator("#b_preview")).to_contain_text("clip.gif")
    page.press("#question textarea", "Enter")
    for side in "ab":
        expect(page.locator(f"#{side}_chat [data-testid=bot]").first).to_contain_text("向右")
    assert not serious(page, ["#comparison"])
    page.get_by_text("English", exact=True).click()
    page.get_by_text("Conversation", exact=True).click()
    expect(page.locator("#box")).to_be_visible()
    expect(page.locator("#chat [data-testid=bot]")).to_have_count(0)


@pytest.mark.browser
def test_stop_of_a_comparison(visit, fake):
    host = fake(hold=4)
    page = visit(host, VISITORS, viewport={"width": 360, "height": 740}, locale="zh-CN", has_touch=True, is_mobile=True)
    page.get_by_text("对比", exact=True).click()
    page.fill("#question textarea", "你好")
    page.press("#question textarea", "Enter")
    expect(page.locator("#a_chat [data-testid=bot]").first).to_contain_text("a")
    page.locator("#stop_both").click()
    for side in "ab":
        expect(page.locator(f"#{side}_chat")).to_contain_text("(已停止)")
    expect(page.locator("#stop_both")).to_be_disabled()
    wait_until(lambda: host.engine.cancelled == 1)
    assert len(host.engine.asked) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "it scrolls sideways"
    for control in ("#question textarea", "#stop_both", "#view", "#a_chat", "#b_settings"):
        edges = page.locator(control).bounding_box()
        assert edges["x"] >= 0 and edges["x"] + edges["width"] <= 360 and edges["width"] > 40, control
