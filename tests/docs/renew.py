"""Renew the expected outputs of README and docs/, in both languages, for example after the bundled checkpoint changed.

    python -m tests.docs.renew [PAGE ...]

In: the pages. Out: their `text` blocks hold what the block before prints now; each change is printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docs.pages import blocks, chinese, read
from tests.docs.test_blocks import PAGES, RUN, Page, lines
from tests.random_checkpoints import ROOT


def outputs(page: Path) -> dict[str, str]:
    """Old and new output of every block of a page whose output is another than expected."""
    changed = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        contextlib.ExitStack() as stack,
    ):
        for name in ("demo", "configs"):
            Path(folder, name).symlink_to(ROOT / name)
        patch.chdir(folder)
        patch.setattr(sys, "stdin", io.StringIO())
        patch.setenv("COLUMNS", "120")
        state = Page(stack, patch)
        for block in blocks(page):
            if block.language in RUN and not block.reason:
                printed = state.run(block)
                if block.output is not None and lines(printed) != lines(block.output):
                    changed[block.output] = "\n".join(lines(printed)) + "\n"
    return changed


def main(names: list[str]) -> None:
    pages = [page for page in PAGES if not names or page.name in names]
    for page in pages:
        for old, new in outputs(page).items():
            print(f"{page.name}:\n- {old.strip()}\n+ {new.strip()}", flush=True)
            for file in (page, chinese(page)):
                file.write_text(read(file).replace(f"```text\n{old}```", f"```text\n{new}```"), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
