"""Code blocks of README and docs/: Python and commands run, and print the `text` block that follows them.

A page's blocks run in order, in this process, in a folder of their own that has `demo` and `configs`. The Chinese
pages hold the same blocks (test_pages.py). `<!-- not run: why -->` before a block skips it.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.pages import ENGLISH, Block, blocks, commands
from tests.random_checkpoints import ROOT

PORT = 23333  # of the pages; the server that a page starts here is on a free one
RUN = ("python", "bash")
PAGES = [page for page in ENGLISH if any(block.language in RUN and not block.reason for block in blocks(page))]


class Page:
    """State of one page's blocks: their names, and a server if a block starts one."""

    def __init__(self, stack: contextlib.ExitStack, monkeypatch):
        self.stack, self.port = stack, PORT
        self.module = ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", self.module)  # dataclasses look their module up

    def run(self, block: Block) -> str:
        """Run a block; returns its output."""
        text = block.text.replace(str(PORT), str(self.port))
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            if block.language == "python":
                exec(compile("\n" * block.line + text, str(block.page), "exec"), self.module.__dict__)
            else:
                for words in commands(text):
                    assert self.command(words) == 0, f"{block}: {' '.join(words)}"
        return output.getvalue()

    def command(self, words: list[str]) -> int:
        """Run a command line here; returns its exit code."""
        from convert.cli import main as convert
        from paddle_internvl.cli.main import main

        if words[:2] == ["paddle-internvl", "serve"]:
            return self.serve(*words[2:])
        run = main if words[0] == "paddle-internvl" else convert
        rest = words[1:] if run is main else words[3:]
        assert run is main or words[:3] == ["python", "-m", "convert"], f"{words} can't be run here; mark the block"
        try:
            return run(rest)
        except SystemExit as ending:  # --help
            return ending.code or 0

    def serve(self, checkpoint: str) -> int:
        """`serve CKPT` in a thread, on a free port."""
        from paddle_internvl.serve.server import load_engine, model_name
        from paddle_internvl.serve.settings import Settings
        from tests.serve.running import running

        engine = load_engine(checkpoint, Settings())
        engine.start()
        self.stack.callback(engine.close)
        served = self.stack.enter_context(running(engine, served_model_name=model_name(checkpoint)))
        self.port = served.port
        return 0


def outputs(page: Path, folder: Path, monkeypatch) -> Iterator[tuple[Block, str]]:
    """Run a page's blocks, in order, in a folder; yields each with what it prints."""
    for name in ("demo", "configs"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setenv("COLUMNS", "120")
    with contextlib.ExitStack() as stack:
        state = Page(stack, monkeypatch)
        for block in blocks(page):
            if block.language in RUN and not block.reason:
                yield block, state.run(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch):
    threads = set(threading.enumerate())
    with contextlib.closing(outputs(page, tmp_path, monkeypatch)) as run:
        for block, output in run:
            if block.output is not None:
                assert lines(output) == lines(block.output), str(block)
    left = [thread.name for thread in threading.enumerate() if thread not in threads and not thread.daemon]
    assert not left, f"{page} leaves threads behind: {left}"


def lines(text: str) -> list[str]:
    """Lines of an output, without white space at their ends."""
    return [line.rstrip() for line in text.strip().splitlines()]


def test_skipped_blocks_have_a_reason():
    skipped = [block for page in ENGLISH for block in blocks(page) if block.reason]
    assert skipped and all(len(block.reason) > 8 for block in skipped)
