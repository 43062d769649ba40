"""Accessibility of the page: contrast, names of controls, keyboard, languages."""

import json
import re

import pytest

from paddle_internvl.webdemo.accessible_names import NAMES
from paddle_internvl.webdemo.texts import text
from tests.serve.running import wait_until
from tests.webdemo.browsing import answers, ask, attach, open_panels, picture, ready, serious
from tests.webdemo.conftest import VISITORS, expect

pytestmark = pytest.mark.browser
NARROW = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize(
    "options",
    [
        {"locale": "en-US"},
        {"locale": "zh-CN", **NARROW},
        {"locale": "en-US", "color_scheme": "dark"},
    ],
    ids=["english", "chinese-narrow", "dark"],
)
def test_axe_finds_nothing(visit, host, options):
    page = visit(host, **options)
    found = serious(page, ["#header", "#chat"])  # the examples
    open_panels(page)
    attach(page, "clip.gif", box="#clip")
    expect(page.locator("#seen .strip figure")).to_have_count(8)
    attach(page, "wide.png", "shapes.png")
    expect(page.locator("#seen figcaption")).to_have_count(10)
    found += serious(page)
    ask(page, "Read the text. $x^2$ `code` [link](http://127.0.0.1)")
    expect(answers(page).last).not_to_be_empty()
    ready(page)
    found += serious(page, ["#chat"])
    assert not found, json.dumps(found, indent=1)


def test_every_control_has_its_name(visit, host):
    """In the language of the page, though the browser speaks a third one; every row of the table names something."""
    page = visit(host, locale="fr-FR")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    check_names(page, "en")
    page.locator("#clear").click()
    page.get_by_text("中文", exact=True).click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    check_names(page, "zh")
    assert "Déposer" not in page.locator("body").inner_text()


def check_names(page, language: str) -> None:
    """Bring every control of the table into the page, and compare its name."""
    missing = {row[:2] for row in NAMES}
    wrong = []

    def look() -> None:
        values = page.evaluate(
            "rows => rows.map(([row, name]) => [...document.querySelectorAll(row)].map(e => e.getAttribute(name)))",
            [row[:2] for row in NAMES],
        )
        for (selector, attribute, name), each in zip(NAMES, values):
            if each:
                missing.discard((selector, attribute))
            wrong.extend((selector, attribute, one) for one in each if one != text(name, language))

    open_panels(page)
    if not page.locator("#compared_frames").count():  # of the other view, where no mouse comes now
        page.locator("#compared_video_panel > button").evaluate("button => button.click()")
    expect(page.locator("#compared_frames input").first).to_have_attribute("aria-label", text("frames", language))
    page.press("#box textarea", "Enter")
    expect(page.locator(".toast-title")).to_have_attribute("data-words", text("notice", language))
    expect(page.locator(".toast-close")).to_have_attribute("aria-label", text("close", language))
    look()
    page.locator(".toast-close").evaluate_all("buttons => buttons.forEach(button => button.click())")  # or it has gone
    attach(page, "shapes.png")
    expect(page.locator("#box .thumbnail-wrapper")).to_have_attribute("aria-label", text("picture", language))
    expect(page.locator("#seen figcaption")).to_have_count(1)
    expect(page.locator("#tiles input").first).to_have_attribute("aria-label", text("tiles", language))
    look()
    ask(page, "Please provide the bounding box coordinate of the region this sentence describes: <ref>red circle</ref>")
    expect(page.locator("#chat .component [data-testid=bot]").first).to_have_attribute(
        "aria-label", text("answer", language)
    )
    ready(page)
    look()
    page.get_by_role("button", name=text("edit", language)).click()
    expect(page.locator("#chat .edit-textarea")).to_have_attribute("aria-label", text("box", language))
    expect(page.get_by_role("button", name=text("cancel", language))).to_be_visible()
    look()
    page.get_by_role("button", name=text("cancel", language)).click()
    attach(page, "clip.gif", box="#clip")
    expect(page.locator("#clip .icon-button")).to_have_attribute("aria-label", text("remove", language))
    look()
    assert not wrong and not missing


def test_keyboard_alone(page_of, host):
    """Everything is reached by the Tab key."""
    page = page_of(host)
    open_panels(page)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[id]:not([id=\"\"])')?.id ?? ''"))
        reached.add(page.evaluate("document.activeElement.closest('#box, #language, #clip, #frames')?.id ?? ''"))
    assert {"again", "clear", "box", "language", "clip", "frames"} <= reached


def tab_to(page, selector: str) -> None:
    """Press Tab until something has the focus, and see that this is shown."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", f"{selector} has the focus, and looks as before"
            return
    pytest.fail(f"the Tab key does not come to {selector}")


def test_a_conversation_by_keyboard(visit, fake):
    host = fake(hold=4)
    page = visit(host, VISITORS)
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "#box textarea")
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(answers(page).first).to_contain_text("a")
    expect(page.locator("#stop")).to_be_enabled()
    tab_to(page, "#stop")
    page.keyboard.press("Enter")
    expect(page.locator("#chat")).to_contain_text("(stopped)")
    ready(page)
    wait_until(lambda: host.engine.cancelled == 1)
    expect(page.locator("#box textarea")).to_be_focused()  # not lost with the button
    host.engine.go.set()
    page.keyboard.type("go on")
    page.keyboard.press("Enter")
    expect(answers(page).last).to_have_text("a red circle and a blue square")
    ready(page)
    picture(page, "keyboard")


def test_an_example_by_keyboard(page_of, host):
    page = page_of(host)
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "#chat button.example")
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_text([re.compile("^A red circle in the top left")])
    expect(page.locator("#box textarea")).to_be_focused()  # not lost with the button
    ready(page)
