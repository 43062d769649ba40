"""The page in a real Chromium, over the bundled model: actions of visitors, and the page after them."""

import asyncio
import re
from pathlib import Path

import pytest

from paddle_internvl.engine.request import RequestFailedError
from tests.serve.running import FakeEngineThread, wait_until
from tests.webdemo.browsing import answers, ask, attach, open_panels, picture, ready, serious
from tests.webdemo.conftest import ASSETS, VISITORS, expect

pytestmark = pytest.mark.browser


def test_upload_ask_and_ask_again(page_of, host):
    page = page_of(host)
    attach(page, "shapes.png")
    expect(page.locator("#seen figcaption")).to_have_text("shapes.png · 448 × 448 · 1 tile · 49 tokens")
    before = page.inner_text("#seen .total")
    page.fill("#box textarea", "Describe the image.")
    expect(page.locator("#seen .total")).not_to_have_text(before)  # the count follows typing
    picture(page, "before-sending")
    page.press("#box textarea", "Enter")
    described = "A red circle in the top left, a blue square in the center and a green triangle in the bottom right."
    expect(answers(page).last).to_have_text(described)
    expect(page.locator("#box textarea")).to_have_value("")
    ask(page, "What shape is red?")
    expect(answers(page).last).to_have_text("circle")
    ready(page)
    page.get_by_role("button", name="Regenerate").click()
    expect(answers(page)).to_have_count(2)
    expect(answers(page).last).to_have_text("circle")
    ready(page)
    page.locator("#chat button[aria-label=Edit]").last.click()
    page.locator("#chat textarea").fill("How many objects are there?")
    page.locator("#chat button[aria-label=Send]").click()
    expect(answers(page).last).to_have_text("3")
    ready(page)
    page.locator("#chat button[aria-label=Edit]").first.click()  # an edited question removes the rounds after it
    page.locator("#chat textarea").first.fill("What color is the object in the center?")
    page.locator("#chat button[aria-label=Send]").first.click()
    expect(answers(page)).to_have_count(1)
    expect(answers(page)).to_have_text("blue")
    ready(page)
    page.locator("#clear").click()
    expect(page.locator("#chat")).to_contain_text("Add pictures or a clip")


def test_two_pictures_and_their_tiles(page_of, host):
    page = page_of(host)
    attach(page, "wide.png", "shapes.png")
    expect(page.locator("#seen figcaption")).to_have_text(
        [re.compile(r"^wide.png · 1344 × 448 · 3 × 1 tiles and a thumbnail · 196 tokens$"), re.compile("^shapes.png")]
    )
    open_panels(page)
    page.locator("#tiles input[type=number]").fill("1")
    page.locator("#tiles input[type=number]").press("Tab")
    expect(page.locator("#seen figcaption").first).to_have_text("wide.png · 1344 × 448 · 1 tile · 49 tokens")
    page.locator("#clear").click()
    expect(page.locator("#seen figcaption")).to_have_count(0)
    page.locator("#tiles input[type=number]").fill("6")
    page.locator("#tiles input[type=number]").press("Tab")
    page.get_by_role("button", name="Which image has more objects?").click()
    expect(answers(page).last).to_have_text("Image-1")
    ready(page)
    picture(page, "two-pictures")


def test_paste_and_drop(page_of, host):
    page = page_of(host)
    for event, holder in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        data = list((ASSETS / "shapes.png").read_bytes())
        page.evaluate(
            """([data, event, holder]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(data)], event + '.png', {type: 'image/png'}));
                const how = {[holder]: transfer, bubbles: true, cancelable: true};
                const made = event === 'paste' ? new ClipboardEvent(event, how) : new DragEvent(event, how);
                document.querySelector('#box textarea').dispatchEvent(made);
            }""",
            [data, event, holder],
        )
        expect(page.locator("#seen")).to_contain_text(f"{event}.png")


def test_video(page_of, host):
    page = page_of(host)
    open_panels(page)
    attach(page, "clip.gif", box="#clip")
    expect(page.locator("#seen .strip figure")).to_have_count(8)
    page.locator("#frames input[type=number]").fill("4")
    page.locator("#frames input[type=number]").press("Tab")
    expect(page.locator("#seen .strip figure")).to_have_count(4)
    expect(page.locator("#seen")).to_contain_text("196 tokens")
    picture(page, "video")
    ask(page, "Which way does the star move?")
    expect(answers(page).last).to_have_text("right")
    ready(page)
    page.locator("#frames input[type=number]").fill("8")
    page.locator("#frames input[type=number]").press("Tab")


def test_boxes(page_of, host):
    page = page_of(host)
    attach(page, "shapes.png")
    ask(page, "Please provide the bounding box coordinate of the region this sentence describes: <ref>red circle</ref>")
    expect(answers(page).first).to_contain_text(re.compile(r"red circle\[\[\d+, \d+, \d+, \d+\]\]"))
    expect(page.get_by_alt_text("Boxes of the answer")).to_be_visible()
    expect(page.locator("#chat [data-testid=user]").last).to_contain_text("ref>red circle")  # shown, not obeyed
    ready(page)
    picture(page, "boxes")


def test_stop_and_go_on(page_of, fake):
    host = fake(hold=4)
    page = page_of(host, VISITORS)
    ask(page, "hello")
    expect(answers(page).first).to_contain_text("a")  # streamed: the engine holds the rest
    expect(page.locator("#stop")).to_be_enabled()
    page.locator("#stop").click()
    expect(page.locator("#chat")).to_contain_text("(stopped)")
    ready(page)
    wait_until(lambda: host.engine.cancelled == 1)
    picture(page, "stopped")
    host.engine.go.set()
    ask(page, "go on")
    expect(answers(page).last).to_have_text("a red circle and a blue square")


def test_leaving_stops_the_answer(visit, fake):
    class Slow(FakeEngineThread):
        async def pieces(self, answers, prompt):
            async for piece in super().pieces(answers, prompt):
                await asyncio.sleep(0.1)
                yield piece

    host = fake(Slow, text="a red circle and " * 60)
    page = visit(host, VISITORS)
    ask(page, "hello")
    expect(answers(page).first).to_contain_text("a")
    page.close()
    wait_until(lambda: host.engine.cancelled == 1)


def test_two_visitors_at_once_and_a_third_waits(page_of, visit, fake):
    host = fake(hold=4)
    # Browsers of their own: one opens six connections to a server at most, and three pages may need more.
    second, third = (visit(host, VISITORS, user_agent=name) for name in ("second", "third"))
    first = page_of(host, VISITORS)
    for page, question in ((first, "one"), (second, "two")):
        ask(page, question)
        expect(answers(page).first).to_contain_text("a")
    wait_until(lambda: host.engine.running == 2)
    ask(third, "three")
    expect(third.locator("#chat")).to_contain_text(re.compile(r"queue: \d"))
    picture(third, "waiting")
    assert host.engine.running == 2 and answers(third).count() == 0
    host.engine.go.set()
    for page, question in ((first, "one"), (second, "two"), (third, "three")):
        expect(answers(page)).to_have_text(["a red circle and a blue square"])
        expect(page.locator("#chat [data-testid=user]")).to_have_text([question])


def test_errors_are_shown(page_of, fake, tmp_path):
    page = page_of(fake(fail=2, error=RequestFailedError("out of memory: 12 tiles <b>at once</b>", True)), VISITORS)
    ask(page, "hello")
    expect(page.locator("#chat .problem")).to_have_text("Error: out of memory: 12 tiles <b>at once</b>")
    (tmp_path / "broken.png").write_bytes((ASSETS / "sign.png").read_bytes()[:300])
    page.set_input_files("#box input[type=file]", tmp_path / "broken.png")
    expect(page.locator("#seen .problem")).to_contain_text("broken.png: the picture is broken")
    ask(page, "What is it?")
    expect(page.locator("#chat .problem").last).to_contain_text("broken.png: the picture is broken")
    expect(page.locator("#box textarea")).to_have_value("What is it?")  # kept
    expect(page.locator("#box .thumbnail-item")).to_have_count(0)  # the broken picture is not
    picture(page, "errors")
    page.locator("#clear").click()
    expect(page.locator("#chat .problem")).to_have_count(0)
    expect(page.locator("#box textarea")).to_have_value("")  # which would else empty what is typed next
    page.fill("#box textarea", "long " * 30_000)
    expect(page.locator("#seen .problem")).to_contain_text("shorten the text")


def test_markdown_latex_and_no_html(page_of, fake):
    page = page_of(fake(), VISITORS)
    page.evaluate("window.hit = 0")
    ask(page, "**bold** $x^2$ \\(y\\) <img src=x onerror='window.hit=1'> <b id=evil>b</b>")
    asked = page.locator("#chat [data-testid=user]")
    expect(asked.locator("strong")).to_have_text("bold")
    expect(asked.locator(".katex")).to_have_count(2)
    expect(asked).to_contain_text("onerror='window.hit=1'")
    assert page.evaluate("window.hit") == 0 and not page.query_selector("#evil") and not asked.locator("img").count()


def test_languages(page_of, host):
    page = page_of(host)
    attach(page, "shapes.png")
    expect(page.locator("#seen figcaption")).to_contain_text("1 tile ")
    page.get_by_text("中文", exact=True).click()
    expect(page.locator("#again")).to_have_text("重新生成")
    expect(page.locator("#seen figcaption")).to_contain_text("1 个图块")
    expect(page.locator("#box textarea")).to_have_attribute("placeholder", re.compile("输入问题"))
    expect(page.get_by_role("button", name="设置")).to_be_visible()
    ask(page, "蓝色的正方形在哪里？")
    expect(answers(page).last).to_have_text("中间")
    ready(page)
    picture(page, "chinese")
    # Gradio's tabs measured themselves for good after a change of their labels, on a core of the visitor's.
    measured = page.evaluate(
        """async () => {
            const measure = Element.prototype.getBoundingClientRect;
            let calls = 0;
            Element.prototype.getBoundingClientRect = function () { calls++; return measure.call(this); };
            for (let frame = 0; frame < 10; frame++) await new Promise(requestAnimationFrame);
            Element.prototype.getBoundingClientRect = measure;
            return calls;
        }"""
    )
    assert measured < 100
    page.get_by_text("English", exact=True).click()
    expect(page.locator("#again")).to_have_text("Regenerate")


def test_phone(visit, host):
    page = visit(host, viewport={"width": 360, "height": 740}, locale="zh-CN", has_touch=True, is_mobile=True)
    open_panels(page)
    expect(page.locator("#again")).to_have_text("重新生成")  # as the browser asks
    attach(page, "wide.png", "shapes.png")
    expect(page.locator("#seen figcaption")).to_have_count(2)
    ask(page, "哪张图片的物体更多？")
    expect(answers(page).last).not_to_be_empty()
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "it scrolls sideways"
    for control in ("#box textarea", "#stop", "#again", "#clear", "#language", "#clip"):
        edges = page.locator(control).bounding_box()
        assert edges["x"] >= 0 and edges["x"] + edges["width"] <= 360 and edges["width"] > 40, control
    picture(page, "phone")


def test_thoughts_are_folded(page_of, fake):
    page = page_of(fake(text="<think>two shapes</think>\na circle"), VISITORS)
    open_panels(page)
    before = page.inner_text("#seen .total")
    page.locator("#thinking input").check()
    expect(page.locator("#system textarea")).to_be_disabled()
    expect(page.locator("#seen .total")).not_to_have_text(before)
    ask(page, "Why?")
    ready(page)
    picture(page, "thoughts")
    expect(answers(page)).to_have_count(2)
    thoughts, answer = answers(page).all()
    expect(thoughts).to_have_text("Thoughts")
    expect(answer).to_have_text("a circle")
    thoughts.get_by_role("button", name="Thoughts").press("Enter")
    expect(thoughts).to_contain_text("two shapes")
    thoughts.locator(".arrow").click()
    expect(thoughts).not_to_contain_text("two shapes")
    assert not serious(page, ["#chat"])
    page.locator("#thinking input").uncheck()
    expect(page.locator("#system textarea")).to_be_enabled()


@pytest.mark.parametrize("width, height", [(1280, 800), (390, 844)])
def test_buttons_are_on_the_screen(visit, host, width, height):
    """With a picture attached, at the top of the page."""
    page = visit(host, viewport={"width": width, "height": height})
    attach(page, "shapes.png")
    expect(page.locator("#seen figcaption")).to_have_count(1)
    expect(page.locator("#strip")).to_contain_text("float32 · cpu")
    assert page.evaluate("window.scrollY") == 0
    for control in ("#stop", "#again", "#clear"):
        edges = page.locator(control).bounding_box()
        assert edges["y"] + edges["height"] <= height, control
    frame, typed = (page.locator("#box textarea").evaluate(script) for script in (
        "e => e.getBoundingClientRect().left",
        "e => e.getBoundingClientRect().left + parseFloat(getComputedStyle(e).paddingLeft)",
    ))  # fmt: skip
    assert typed - frame >= 6, "the focus frame touches the text"


def test_saved_conversations(page_of, host):
    page = page_of(host)
    page.get_by_role("button", name="Where is the green triangle?").click()
    expect(answers(page)).to_have_text(["bottom right"])
    ready(page)
    for button, kind in (("#save_json", "json"), ("#save_markdown", "md")):
        with page.expect_download() as download:
            page.locator(button).click()
        assert download.value.suggested_filename == f"conversation.{kind}"
        content = Path(download.value.path()).read_text(encoding="utf-8")
        assert "bottom right" in content and "data:image/" in content
