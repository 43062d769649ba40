"""Renew the expected outputs of README and docs/, in both languages, for example after the bundled checkpoint changed.

    python -m tests.docs.renew [PAGE ...]

In: the pages. Out: their `text` blocks hold what the block before prints now; each change is printed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docs.pages import chinese, read
from tests.docs.test_blocks import PAGES, lines, outputs


def changes(page: Path) -> dict[str, str]:
    """Old and new output of every block of a page whose output is another than expected."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        return {
            block.output: "\n".join(lines(printed)) + "\n"
            for block, printed in outputs(page, Path(folder), patch)
            if block.output is not None and lines(printed) != lines(block.output)
        }


def main(names: list[str]) -> None:
    pages = [page for page in PAGES if not names or page.name in names]
    for page in pages:
        for old, new in changes(page).items():
            print(f"{page.name}:\n- {old.strip()}\n+ {new.strip()}", flush=True)
            for file in (page, chinese(page)):
                file.write_text(read(file).replace(f"```text\n{old}```", f"```text\n{new}```"), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
