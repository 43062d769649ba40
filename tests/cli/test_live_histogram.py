"""Live histograms of `bench serve`: bins and counts as numpy's, on a terminal alone."""

import io
import random
import re
import sys

import numpy as np
import pytest

from paddle_internvl import progress
from paddle_internvl.bench.load import Outcome
from paddle_internvl.cli.live_histogram import LiveHistogram, bins, histogram


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """What was written, without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


def use_screen(monkeypatch, term: str = "xterm-256color") -> Screen:
    """A terminal in the place of stderr; no fixture, because pytest sets stderr anew between a fixture and its test."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", Screen())
    return sys.stderr


def outcomes(count: int) -> list[Outcome]:
    draw = random.Random(0)
    made = []
    for _ in range(count):
        first = draw.lognormvariate(-2, 1)
        made.append(Outcome("text", 0.0, chunks=[first, first + 0.5], ended=first + 0.5))
    return made


def test_bins_are_numpy_s():
    values = [0.0004, 0.001, 0.003, 0.02, 0.0201, 4.0, 30000.0]
    found = bins(values)
    assert sum(count for _, count in found) == len(values)
    assert found[:2] == [(0.001, 2), (0.002, 0)] and found[-1] == (np.inf, 1)  # an edge belongs to its own bin
    edges = [0.0, *(edge for edge, _ in found)]
    shifted = np.nextafter(edges, np.inf)  # numpy's bins have their lower edge, ours the upper one
    assert np.histogram(values, shifted)[0].tolist()[1:] == [count for _, count in found][1:]


def rows(text: str) -> list[tuple[str, int]]:
    return [(edge, int(count)) for edge, count in re.findall(r"≤ ([\d.e+]+ m?s|inf s) +[█▉▊▋▌▍▎▏ ]* +(\d+)", text)]


def test_a_table_has_a_row_for_each_bin():
    from rich.console import Console

    values = [0.15, 0.18, 0.19, 0.7]
    screen = io.StringIO()
    Console(file=screen, width=60).print(histogram("time", values))
    assert rows(screen.getvalue()) == [("200 ms", 3), ("500 ms", 0), ("1 s", 1)]
    assert "p50 185 ms · p95 623 ms" in screen.getvalue()


def test_it_grows_on_a_terminal_and_goes(monkeypatch):
    screen = use_screen(monkeypatch)
    made = outcomes(30)
    with LiveHistogram(40) as live:
        for outcome in made:
            live.add(outcome)
        live.add(Outcome("text", 0.0, status="429"))
        live._live.refresh()
        drawn = screen.text().rpartition("time to first token")
        assert "31 of 40 ended" in screen.text() and "1 errors" in screen.text()
        assert max(map(len, drawn[2].splitlines())) <= 80
        both = sum(count for _, count in rows(drawn[2]))
        assert both == 2 * 30  # both measures of the 30 answers; a failure is in neither
    assert "\x1b[2K" in screen.getvalue().rpartition("p95")[2]  # erased


@pytest.mark.parametrize("term", ["dumb", "xterm-color"])
def test_a_terminal_that_redraws_no_line_has_the_bar(monkeypatch, term):
    screen = use_screen(monkeypatch, term)
    with LiveHistogram(2) as live:
        for outcome in outcomes(2):
            live.add(outcome)
    assert "answered: 100%" in screen.text() and "errors=0" in screen.text() and "first token" not in screen.text()


def test_pipes_and_quiet_have_nothing(monkeypatch, capsys):
    with LiveHistogram(2) as live:
        live.add(outcomes(1)[0])
    assert capsys.readouterr() == ("", "")
    screen = use_screen(monkeypatch)
    progress.be_quiet()
    try:
        with LiveHistogram(2) as live:
            live.add(outcomes(1)[0])
    finally:
        progress.be_quiet(False)
    assert screen.getvalue() == ""
