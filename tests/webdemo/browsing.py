"""Actions of visitors on the page, and locators of its parts.

Screenshots go to the folder that PADDLE_INTERNVL_SCREENSHOTS names, else to build/screenshots.
"""

import os
from pathlib import Path

import pytest

from tests.random_checkpoints import ROOT
from tests.webdemo.conftest import ASSETS, expect

SCREENSHOTS = Path(os.environ.get("PADDLE_INTERNVL_SCREENSHOTS", ROOT / "build/screenshots"))


def picture(page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def attach(page, *names: str, box: str = "#box") -> None:
    files = page.locator(f"{box} input[type=file]")
    files.evaluate("input => { input.value = '' }")  # as Gradio's button does: the same files may come again
    files.set_input_files([ASSETS / name for name in names])


def ask(page, question: str) -> None:
    page.fill("#box textarea", question)
    page.press("#box textarea", "Enter")


def answers(page):
    """The answers, without the lines of their tokens and seconds."""
    return page.locator("#chat [data-testid=bot]:not(:has(.timing))")


def open_panels(page) -> None:
    """Open the panels of the clip and of the settings."""
    for panel in ("#video_panel", "#settings_panel"):
        if not page.locator(f"{panel} :is(#clip, #temperature)").is_visible():
            page.locator(f"{panel} > button").click()
    expect(page.locator("#temperature")).to_be_visible()
    expect(page.locator("#clip")).to_be_visible()


def ready(page) -> None:
    """Wait until no answer is generated."""
    expect(page.locator("#stop")).to_be_disabled()


def serious(page, parts: list[str] | None = None) -> list[tuple]:
    """What axe finds in the page as it stands, or in parts of it, that keeps somebody from using it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    return [
        (violation["impact"], violation["id"], node["html"][:160], [check["message"] for check in node["any"]])
        for violation in axe.Axe().run(page, parts).response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
