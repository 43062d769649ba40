"""Parser of README and docs/: headings, fenced blocks, tables.

In: Markdown files. Out: plain values.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.random_checkpoints import ROOT

DOCS = ROOT / "docs"
ENGLISH_ONLY = (DOCS / "api.md",)  # made from docstrings
ENGLISH = [ROOT / "README.md", *sorted(page for page in DOCS.glob("*.md") if not page.name.endswith(".zh.md"))]
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n+)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S
)
_COMMENT = re.compile(r"(^|\s+)#(?!!)\s.*$", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file.
        line: of its first line.
        language: of the fence.
        text: its content.
        reason: for skipping it; '' if it runs.
        output: the `text` block that follows it, its expected output; None: no such block.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def chinese(page: Path) -> Path:
    """The Chinese twin of an English page."""
    return ROOT / "README_zh.md" if page.name == "README.md" else page.with_name(f"{page.stem}.zh.md")


def twins() -> list[tuple[Path, Path]]:
    """(English, Chinese) for every page that has both."""
    return [(page, chinese(page)) for page in ENGLISH if page not in ENGLISH_ONLY]


def read(page: Path) -> str:
    """A page's text."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, in order."""
    text, found = read(page), []
    matches = list(_FENCE.finditer(text))
    for match, behind in zip(matches, [*matches[1:], None]):
        output = None
        if behind is not None and behind["language"] == "text" and not text[match.end() : behind.start()].strip():
            output = behind["text"]
        line = text.count("\n", 0, match.start("text"))
        found.append(Block(page, line, match["language"], match["text"], match["reason"] or "", output))
    return found


def without_comments(code: str) -> str:
    """Code or commands without comments."""
    return "\n".join(line.rstrip() for line in _COMMENT.sub("", code).splitlines() if line.strip())


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command line of a shell block."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def prose(page: Path) -> str:
    """A page without its fenced blocks and HTML comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", read(page)), flags=re.S)


def headings(page: Path) -> list[int]:
    """The level of each heading, in order."""
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.M)]


def tables(page: Path) -> list[list[list[str]]]:
    """Tables, each its rows of cells."""
    runs = re.findall(r"(?:^\|.*\|$\n?)+", prose(page), re.M)
    return [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in run.splitlines()] for run in runs]
