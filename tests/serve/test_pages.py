"""The pages of the server: static files with safe headers, no key where keys are set, their scripts in Chromium."""

import html
import re

import pytest

from paddle_internvl.serve.pages import FILES
from tests.chromium import chromium_browser, expect

KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def chromium():
    with chromium_browser() as browser:
        yield browser


def test_pages_hold_nothing_of_the_server(serve):
    """The same bytes with and without keys, though every other route needs one."""
    open_, closed = serve(), serve(api_keys=("secret",), served_model_name="name-of-mine")
    for path, file in FILES.items():
        response = closed.get(path)
        assert response.status_code == 200 and response.content == open_.get(path).content == file.read_bytes(), path
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert b"name-of-mine" not in response.content
        if file.suffix == ".html":  # nothing inline, nothing of other hosts
            assert not re.search(rb"<script(?! src)|<style|style=|\son\w+=|src=.?(https?:)?//", response.content)
    for path in ("/openapi.json", "/v1/models", "/metrics", "/static/", "/static/pages.py", "/static/../pages.py"):
        assert closed.get(path).status_code == 401, path
        assert closed.get(path, headers=KEY).status_code == (404 if "static" in path else 200), path


def test_pages_can_be_left_out(serve):
    server = serve(disable_pages=True, api_keys=("secret",))
    assert [server.get(path).status_code for path in FILES] == [401] * len(FILES)
    assert [server.get(path, headers=KEY).status_code for path in FILES] == [404] * len(FILES)


def test_models_have_facts(serve, tiny):
    (model,) = serve().get("/v1/models").json()["data"]
    assert model["parameters"] == sum(weight.size for weight in tiny.parameters())
    assert (model["dtype"], model["quantization"], model["device"]) == ("float32", None, "cpu")


@pytest.mark.browser
def test_pages_in_a_browser(serve, chromium, picture_url):
    server = serve({"hold": 3}, api_keys=("secret",))
    page, faults = chromium.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Security Policy" in message.text else None)
    ours = (server.url, "data:")
    page.on("request", lambda request: None if request.url.startswith(ours) else faults.append(request.url))
    page.goto(server.url)
    expect(page.locator("#token")).to_be_visible()
    assert page.inner_text("#id") == "–"
    page.fill("#token", "wrong")
    page.press("#token", "Enter")
    expect(page.locator("#problem")).to_contain_text("401")
    page.fill("#token", "secret")
    page.press("#token", "Enter")
    expect(page.locator("#id")).to_have_text("tiny")
    expect(page.locator("#parameters")).to_have_text("3,708,480")
    expect(page.locator("#speed")).to_have_text("0.0")  # two readings of the load
    expect(page.locator("#token")).to_be_hidden()
    namespace = {"print": lambda text: namespace.__setitem__("answer", text)}
    snippet = page.inner_text("#openai").replace("https://example.com/picture.jpg", picture_url)
    server.engine.go.set()
    exec(snippet.replace('"KEY"', '"secret"'), namespace)
    assert namespace["answer"] == server.engine.text
    page.goto(f"{server.url}/docs")
    page.fill("#token", "secret")
    page.press("#token", "Enter")
    expect(page.locator(".opblock-summary")).to_have_count(13)
    page.locator(".opblock-summary-path", has_text="/version").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    page.close()
    assert not faults and html.unescape(snippet) == snippet
