"""The bundled model behind its engine or a fake one, and pages over both in a browser."""

import json
import os
import re
import socket
from dataclasses import dataclass

import pytest

from tests.chromium import PATIENCE, chromium_browser, expect
from tests.random_checkpoints import ROOT
from tests.serve.running import FakeEngineThread

CHECKPOINT = ROOT / "demo/checkpoints/internvl-tiny"
ASSETS = ROOT / "demo/assets"
VISITORS = 2  # that are answered at once by the page of the fake engine


@pytest.fixture(scope="session")
def tiny():
    """The bundled model."""
    from paddlenlp.transformers import AutoModel

    return AutoModel.from_pretrained(str(CHECKPOINT))


@pytest.fixture(scope="session")
def host(tiny):
    """The bundled model behind its engine, for all tests together as for all visitors."""
    from paddle_internvl.engine.config import EngineConfig
    from paddle_internvl.engine.engine_thread import EngineThread
    from paddle_internvl.engine.factory import engine_of
    from paddle_internvl.webdemo.engine_host import EngineHost

    config = EngineConfig(cache_tokens=16384)
    host = EngineHost(lambda _adapter: EngineThread(engine_of(tiny, tiny.tokenizer, config)))
    yield host
    host.close()


def free_port() -> int:
    """A free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@dataclass
class OpenPage:
    """A launched page: its address, Gradio's blocks, and the folder of its uploads and examples."""

    url: str
    demo: object
    folder: str


@pytest.fixture(scope="session")
def pages():
    """A function from a host and a concurrency to its launched page, one for all tests."""
    pytest.importorskip("gradio")
    from paddle_internvl.webdemo.launching import launch, prepare

    pages = {}

    def page_of(host, concurrency=16) -> OpenPage:
        if (host, concurrency) not in pages:
            demo = prepare(host, concurrency)
            url = launch(demo, host, "127.0.0.1", free_port(), wait=False).rstrip("/")
            pages[host, concurrency] = OpenPage(url, demo, os.environ["GRADIO_TEMP_DIR"])
        return pages[host, concurrency]

    yield page_of
    for page in pages.values():
        page.demo.close(verbose=False)


@pytest.fixture
def opened(pages, monkeypatch):
    """`pages`, for whose page Gradio then takes uploads."""

    def open_page(host, concurrency=16) -> OpenPage:
        page = pages(host, concurrency)
        monkeypatch.setenv("GRADIO_TEMP_DIR", page.folder)
        return page

    return open_page


class FakeHost:
    """An `EngineHost` whose fake engine each test replaces, so that tests share a page."""

    engine, name, adapters = None, "tiny", ()

    def __init__(self):
        from paddle_internvl.webdemo.engine_answers import EngineAnswers

        self.answers = EngineAnswers(self)

    def engine_of(self, adapter: str):
        return self.engine


@pytest.fixture(scope="session")
def _fake_host():
    return FakeHost()


@pytest.fixture
def fake(_fake_host, tiny):
    """A function from the arguments of a `FakeEngineThread` to the host of a new one."""

    def start(kind=FakeEngineThread, **options) -> FakeHost:
        _fake_host.engine = kind(tiny, tiny.tokenizer, **options)
        return _fake_host

    return start


@pytest.fixture(scope="module")
def chromium():
    with chromium_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def contexts(chromium):
    """A function from options to their browser context, which keeps the page's scripts between tests."""
    contexts = {}

    def context_of(**options):
        options = {"viewport": {"width": 1280, "height": 860}, "locale": "en-US", **options}
        key = json.dumps(options)
        if key not in contexts:
            contexts[key] = chromium.new_context(**options)
        return contexts[key]

    return context_of


@pytest.fixture(scope="module")
def browser_pages(contexts):
    """The pages that a module's tests have open."""
    return BrowserPages(contexts)


class BrowserPages:
    """Pages in a browser.

    Attributes:
        faults: errors of their scripts, and requests to elsewhere.
        kept: host -> its page that the module's tests share.
    """

    def __init__(self, contexts):
        self._contexts, self.faults, self.kept = contexts, [], {}

    def open(self, address: str, ready: str, script: str = "", **options):
        """A page just opened, when the element `ready` is there.

        Args:
            script: runs before those of the page.
            options: of the browser context.
        """
        page = self._contexts(**options).new_page()
        page.add_init_script(script)
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: None if _GRADIOS in str(error) else self.faults.append(str(error)))
        root = address.partition("?")[0].rstrip("/")
        page.on("request", lambda request: None if is_own(request.url, root) else self.faults.append(request.url))
        page.goto(address)
        expect(page.locator(ready)).to_be_visible()
        expect(page).to_have_title(re.compile("InternVL"))  # Gradio's script sets it, maybe after it has drawn `ready`
        return page

    def require_no_faults(self) -> None:
        """Fail with the faults since the last call: one fault fails one test."""
        faults, self.faults = self.faults, []
        assert not faults, faults


def is_own(url: str, address: str) -> bool:
    """Whether a request stays in the page or goes to its server."""
    return url.startswith((address, "data:", "blob:"))


_GRADIOS = "No element provided to render"  # KaTeX's, where Gradio renders formulas of a message just cleared
_READY = "#seen .total"  # it is there when the model is loaded and has counted an empty question


@pytest.fixture
def visit(browser_pages, opened):
    """(host, concurrency, options of the browser) -> a page just opened."""
    visited = []

    def go(host, concurrency=16, **options):
        visited.append(browser_pages.open(opened(host, concurrency).url, _READY, **options))
        return visited[-1]

    yield go
    for page in visited:
        page.close()
    browser_pages.require_no_faults()


@pytest.fixture
def page_of(browser_pages, opened):
    """(host, concurrency) -> its page, which the module's tests share: cleared.

    A test that changes settings or the language changes them back.
    """

    def go(host, concurrency=16):
        url = opened(host, concurrency).url
        if host not in browser_pages.kept:
            browser_pages.kept[host] = browser_pages.open(url, _READY)
            return browser_pages.kept[host]
        page = browser_pages.kept[host]
        page.bring_to_front()
        page.fill("#box textarea", "until it is cleared")
        page.locator("#clear").click()
        for traces in ("#chat .message", "#seen figcaption", "#seen .problem"):
            expect(page.locator(traces)).to_have_count(0)
        expect(page.locator("#box textarea")).to_have_value("")
        expect(page.locator("#stop")).to_be_disabled()
        return page

    yield go
    browser_pages.require_no_faults()
