"""An answer on a terminal: progress until its first token, Markdown while it grows, its speed and boxes at its end.

In: pieces of an answer. Out: text on stdout; progress, thoughts and speed on stderr.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment, Segments
from rich.text import Text

from paddle_internvl.cli.chat.boxes import half_blocks, with_boxes

if TYPE_CHECKING:
    from PIL.Image import Image

    from paddle_internvl.engine.response import Response

_REFRESHES = 10  # a second
_LIVE_LINES = 6  # last lines of an answer, which later text may still change


class AnswerView:
    """Shows one answer; a context manager around the question.

    Args:
        out: console of the answer, on a terminal.
        err: console of everything else.
        status: the model's present work.
        markdown: whether the answer is rendered as Markdown.
        hide_thoughts: show no thoughts.
    """

    def __init__(self, out: Console, err: Console, status: Callable[[], str], markdown: bool, hide_thoughts: bool):
        self._out, self._err, self._hide_thoughts = out, err, hide_thoughts
        self._stream = MarkdownStream(out) if markdown and not out.is_dumb_terminal else _PlainStream(out)
        self._live = Live(
            _Status(status), console=err, transient=True, refresh_per_second=_REFRESHES, redirect_stdout=False,
            redirect_stderr=False,
        )  # fmt: skip
        self._began, self._first, self._last = time.monotonic(), None, None
        self._text, self._thinks = "", False

    def __enter__(self) -> AnswerView:
        self._live.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._live.stop()
        self._end_thoughts()
        self._stream.end(self._text)

    def __call__(self, piece: Response) -> None:
        """Show the new text of a piece."""
        if piece.reasoning and not self._hide_thoughts:
            self._begin()
            self._err.print(Text(piece.reasoning if self._thinks else piece.reasoning.lstrip(), "dim"), end="")
            self._thinks = True
        if piece.text:
            self._begin()
            self._end_thoughts()
            self._text += piece.text
            self._stream.update(self._text)

    def _begin(self) -> None:
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last
            self._live.stop()

    def _end_thoughts(self) -> None:
        if self._thinks:
            self._err.print()
        self._thinks = False

    def show_cost(self, answer: Response) -> None:
        """Show tokens and speed of the whole answer."""
        parts = [f"{answer.generate_token_len} token{'s' * (answer.generate_token_len != 1)}"]
        if self._first is not None:
            parts.append(f"first after {self._first - self._began:.1f} s")
            seconds = self._last - self._first
            if seconds > 0 and answer.generate_token_len > 2:
                parts.append(f"{(answer.generate_token_len - 1) / seconds:.1f} tokens/s")
        if answer.finish_reason == "length":
            parts.append("cut at its limit (/set max_new_tokens N)")
        self._err.print(Text(" · ".join(parts), "dim"))

    def show_boxes(self, picture: Image | None) -> None:
        """Show the boxes of the answer in its picture, where the terminal has colours enough."""
        if picture is None or self._out.color_system not in ("truecolor", "256"):
            return
        drawn = with_boxes(picture, self._text)
        if drawn is not None:
            self._out.print(half_blocks(drawn, self._out.width, self._out.height), end="")


class _Status:
    """The status line, rendered anew at every refresh."""

    def __init__(self, status: Callable[[], str]):
        self._status, self._began = status, time.monotonic()

    def __rich__(self) -> Text:
        waited = time.monotonic() - self._began
        dots = "." * (1 + int(2 * waited) % 3)
        return Text(
            f"{self._status() or 'waiting for the first token'} {dots}", "dim", no_wrap=True, overflow="ellipsis"
        )


class _PlainStream:
    """An answer as it is, without Markdown."""

    def __init__(self, console: Console):
        self._console, self._printed = console, 0

    def update(self, text: str) -> None:
        """Print what is new."""
        self._console.out(text[self._printed :], end="", highlight=False)
        self._console.file.flush()
        self._printed = len(text)

    def end(self, text: str) -> None:
        """End the last line."""
        self.update(text)
        if text:
            self._console.out("")


class MarkdownStream:
    """Markdown of a growing text: its last lines are drawn anew at every refresh, the lines before are printed once, as
    aider does, so that an answer may be longer than the screen.

    Args:
        console: on a terminal.
    """

    def __init__(self, console: Console):
        self._console, self._printed, self._drawn = console, 0, 0.0
        self._live: Live | None = None

    def update(self, text: str, final: bool = False) -> None:
        """Draw a text that begins with the text before."""
        now = time.monotonic()
        if not final and now - self._drawn < 1 / _REFRESHES:
            return
        self._drawn = now
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
                vertical_overflow="crop",
            )  # fmt: skip
            self._live.start()
        lines = self._console.render_lines(markdown(text), pad=False)
        kept = max(self._printed, len(lines) if final else len(lines) - _LIVE_LINES)
        self._live.update(_segments(lines[kept:]), refresh=True)
        if kept > self._printed:
            self._console.print(_segments(lines[self._printed : kept]), end="")
            self._printed = kept

    def end(self, text: str) -> None:
        """Draw the whole text for good."""
        if text.strip():
            self.update(text, final=True)
        if self._live is not None:
            self._live.stop()


def _segments(lines: list[list[Segment]]) -> Segments:
    """Lines without the blanks that fill them up to the terminal's width."""
    segments = []
    for line in lines:
        while line and not line[-1].text.strip() and not (line[-1].style and line[-1].style.bgcolor):
            line = line[:-1]
        segments += [*line[:-1], *(Segment(last.text.rstrip(), last.style) for last in line[-1:]), Segment.line()]
    return Segments(segments)


def markdown(text: str) -> Markdown:
    """Markdown in which the end of a line stays the end of a line, and HTML stays text: an answer may be a page's text
    or a program."""
    from markdown_it import MarkdownIt

    made = Markdown(text)
    made.parsed = MarkdownIt().enable(["strikethrough", "table"]).disable(["html_block", "html_inline"]).parse(text)
    for token in made.parsed:
        for child in token.children or ():
            child.type = "hardbreak" if child.type == "softbreak" else child.type
    return made
