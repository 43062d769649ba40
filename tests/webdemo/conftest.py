"""The bundled model, and engines that answer with it or say what a test wants."""

import os
import shutil
import socket

import pytest

from tests.random_checkpoints import ROOT

CHECKPOINT = ROOT / "demo/checkpoints/internvl-tiny"
ASSETS = ROOT / "demo/assets"
PATIENCE = 180_000  # milliseconds that the page is waited for at most; a busy machine is slow


def expect(*what):
    """Playwright's `expect`, which waits."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(*what)


@pytest.fixture(scope="session")
def tiny():
    """The bundled model."""
    from paddlenlp.transformers import AutoModel

    return AutoModel.from_pretrained(str(CHECKPOINT))


@pytest.fixture(scope="session")
def host(tiny):
    """The bundled model behind its engine, for all tests together as for all visitors."""
    from paddle_internvl.engine.engine_thread import EngineThread
    from paddle_internvl.engine.settings import EngineConfig, engine_of
    from paddle_internvl.webdemo.engine_host import EngineHost

    host = EngineHost(lambda: EngineThread(engine_of(tiny, tiny.tokenizer, EngineConfig(cache_tokens=16384))))
    yield host
    host.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def opened():
    """A function from a host to the address of its page, which is closed when the test ends."""
    pytest.importorskip("gradio")
    from paddle_internvl.webdemo.launching import launch, prepare

    demos = []

    def open_page(host, together=16) -> str:
        demos.append(prepare(host, together))
        return launch(demos[-1], host, "127.0.0.1", free_port(), wait=False).rstrip("/")

    open_page.demos = demos
    yield open_page
    for demo in demos:
        demo.close(verbose=False)


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        path = shutil.which("chromium") or started.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, opened):
    """(host, questions answered at once, how the browser is) -> a page just opened; a script in it that fails or calls
    elsewhere fails the test."""
    contexts, faults = [], []

    def go(host, together=16, **how):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 860}, "locale": "en-US", **how}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        address = opened(host, together)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.append(request.url) if is_elsewhere(request.url, address) else None)
        page.goto(address)
        expect(page.locator("#seen .total")).to_be_visible()  # the model is there, and has counted an empty question
        return page

    yield go
    for context in contexts:
        context.close()
    assert not faults


def is_elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))
