"""The page of a manual review, in a real Chromium and by plain requests."""

import json

import httpx
import pytest

from tests.webdemo.browsing import picture
from tests.webdemo.conftest import ASSETS, expect, free_port
from tests.webdemo.test_accessibility import serious

pytest.importorskip("gradio")
# Holds what the server sends on the stream of events, until `release` is called.
SLOW_STREAM = """
    const fetch = window.fetch.bind(window);
    let held = Promise.resolve();
    Object.assign(window, {joins: 0, closings: 0, hold: () => { held = new Promise(go => { window.release = go; }); }});
    window.fetch = async (...request) => {
        const address = request[0].url ?? String(request[0]), response = await fetch(...request);
        if (address.includes('/queue/join')) window.joins += 1;
        if (!address.includes('/queue/data')) return response;
        const reader = response.body.getReader(), decoder = new TextDecoder();
        return new Response(new ReadableStream({async start(controller) {
            let last = Promise.resolve();
            for (let part = await reader.read(); !part.done; part = await reader.read()) {
                const {value} = part, before = last;
                last = Promise.all([before, held]).then(() => controller.enqueue(value));
                window.closings += decoder.decode(value).includes('close_stream');
            }
            last.then(() => controller.close());
        }}), response);
    };
"""
HTML = "<ref>b ${window.hit = 1} {{value}} <img src=x onerror='window.hit = 1'>"
ITEMS = (
    {"image": "shapes.png", "conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": HTML}]},
    {"image": ["none.png", "sign.png"], "question": "Two?", "chosen": "x", "rejected": "y"},
    {"video": "clip.gif", "question": "Three?", "answer": "right"},
    {"question": "Four?", "answer": "z"},
)
REASON = {"rule": "broken_markup", "action": "flag", "score": 2.0, "detail": "<ref> is not closed"}


@pytest.fixture(scope="module")
def flagged(tmp_path_factory):
    file = tmp_path_factory.mktemp("review") / "flagged.jsonl"
    rows = ({"dataset": "data", "line": n, "reasons": [REASON], "item": item} for n, item in enumerate(ITEMS, 1))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def url(flagged):
    from paddle_internvl.curation.review import ReviewQueue
    from paddle_internvl.webdemo.launching import launch, temporary_folder
    from paddle_internvl.webdemo.review_page import build_review

    temporary_folder()
    queue = ReviewQueue(flagged, root=ASSETS)
    page = build_review(queue)
    yield launch(page, queue, "127.0.0.1", free_port(), wait=False, uploads=False).rstrip("/")
    page.close(verbose=False)
    queue.close()


def test_no_file_is_served_and_none_is_taken(url, flagged):
    with httpx.Client(trust_env=False) as http:
        for file in (flagged, ASSETS / "shapes.png", ASSETS / "clip.gif"):
            for route in ("/gradio_api/file=", "/file=", "/static/", "/"):
                assert http.get(f"{url}{route}{file}").status_code >= 400
        assert http.post(f"{url}/gradio_api/upload", files={"files": ("a.png", b"a")}).status_code == 413
        assert http.get(url, headers={"Host": "example.com"}).status_code == 403
        assert http.get(f"{url}/gradio_api/info").json()["named_endpoints"] == {}


@pytest.mark.browser
def test_a_review_by_keys_of_two_reviewers(url, flagged, browser_pages):
    def shows(page, line: int) -> None:
        expect(page.locator("#sample h2")).to_have_text(f"data, line {line}")

    ann = browser_pages.open(f"{url}/?reviewer=ann", "#sample h2")
    shows(ann, 1)
    expect(ann.locator("#sample tr").last).to_have_text("broken_markup2.0<ref> is not closed")
    expect(ann.locator("#sample figcaption")).to_have_text("shapes.png · 448 × 448")
    expect(ann.locator("#sample dd")).to_have_text(["One?", HTML])
    assert ann.evaluate("window.hit === undefined && document.querySelector('#sample img').naturalWidth") == 448
    assert not serious(ann)
    picture(ann, "review")
    faint = "<p style='color: #eeeeee; background: #ffffff'>faint</p>"
    ann.evaluate("html => document.querySelector('.gradio-container').insertAdjacentHTML('beforeend', html)", faint)
    assert [each[1] for each in serious(ann)] == ["color-contrast"]  # axe finds what is there
    ann.keyboard.press("a")
    shows(ann, 2)
    expect(ann.locator("#sample .problem")).to_contain_text("no such picture")
    expect(ann.locator("#sample figcaption")).to_have_count(1)
    ann.keyboard.press("n")
    shows(ann, 3)
    expect(ann.locator("#sample .strip figure")).to_have_count(8)
    ann.keyboard.press("r")
    shows(ann, 4)
    expect(ann.locator("#progress")).to_contain_text("2 of 4 decided: 1 accepted, 1 rejected")

    bob = browser_pages.open(url, "#progress p", script=SLOW_STREAM)
    expect(bob.locator("#sample")).to_have_text("Write your name to begin.")
    bob.locator("#reviewer :is(input, textarea)").click()
    bob.keyboard.type("barun")  # letters here, not decisions
    bob.keyboard.press("Enter")
    shows(bob, 2)  # ann is shown 4
    bob.get_by_text("中文", exact=True).click()
    expect(bob.locator("#reject")).to_have_text("拒绝 (R)")
    expect(bob.locator("#sample h2")).to_have_text("data，第 2 行")
    bob.locator("#reject").click()
    expect(bob.locator("#sample h2")).to_have_text("data，第 4 行")  # which no one has decided

    ann.keyboard.press("u")
    shows(ann, 3)
    ann.reload()
    shows(ann, 3)  # the page's address has the name; bob is shown 4
    ann.keyboard.press("a")
    shows(ann, 4)
    ann.keyboard.press("a")
    expect(ann.locator("#sample")).to_have_text("All samples are decided.")
    lines = [json.loads(line) for line in flagged.with_name("flagged.decisions.jsonl").read_text().splitlines()]
    assert [(line["sample"].split(":")[1], line["decision"], line["reviewer"]) for line in lines] == [
        ("1", "accept", "ann"),
        ("3", "reject", "ann"),
        ("2", "reject", "barun"),
        ("3", "undo", "ann"),
        ("3", "accept", "ann"),
        ("4", "accept", "ann"),
    ]
    check_that_no_event_is_lost(bob)
    for page in (ann, bob):
        page.close()
    browser_pages.require_no_faults()


def check_that_no_event_is_lost(page) -> None:
    """An event that is joined when the server has closed the stream, and the page has not read so yet, is answered."""
    closings, joins = page.evaluate("window.hold(), [window.closings, window.joins]")
    page.keyboard.press("n")
    page.wait_for_function("closings => window.closings > closings", arg=closings)
    page.get_by_text("English", exact=True).click()
    page.wait_for_function("joins => window.joins > joins", arg=joins + 1)
    page.evaluate("window.release()")
    expect(page.locator("#reject")).to_have_text("Reject (R)")
