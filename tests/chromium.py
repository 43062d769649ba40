"""A Chromium for tests of pages, and Playwright's `expect` with patience."""

import os
import shutil
from contextlib import contextmanager

import pytest

PATIENCE = 180_000  # milliseconds that a page is waited for at most; a busy machine is slow


def expect(*arguments):
    """Playwright's `expect`, which waits."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(*arguments)


@contextmanager
def chromium_browser():
    """A browser, or the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        path = shutil.which("chromium") or started.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
