"""Tables whose rows appear as they are known: order on a terminal, and the whole table elsewhere."""

import io
import re
import sys

import pytest

from paddle_internvl.cli import doctor
from paddle_internvl.cli.live_table import LiveTable
from paddle_internvl.cli.main import main

COLUMNS = (("stage", 8), ("shape", 6), ("what", 1.0))


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """What was written, without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


def use_screen(monkeypatch) -> Screen:
    """A terminal in the place of stdout; no fixture, because pytest sets stdout anew between a fixture and its test."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", Screen())
    return sys.stdout


def test_a_row_is_on_the_terminal_before_the_next_is_known(monkeypatch):
    screen = use_screen(monkeypatch)
    with LiveTable(COLUMNS) as table:
        table.status("loading")
        assert re.search(r"stage +shape +what", screen.text()) and "vit" not in screen.text()
        table.add_row("vit", "2 x 3", "equal")
        assert re.search(r"vit {7}2 x 3 {3}equal", screen.text())  # below its headers
        table.add_row("dec", "4", "a long text that " * 6)
    lines = [line for line in screen.text().splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80 and sum(line.count("long") for line in lines) == 6  # folded, not cut


def test_elsewhere_the_table_comes_at_the_end(capsys):
    with LiveTable(COLUMNS) as table:
        table.status("loading")
        table.add_row("vit", "2 x 3", "equal")
        assert capsys.readouterr().out == ""
    assert capsys.readouterr().out.splitlines() == [" stage  shape  what", " vit    2 x 3  equal"]


def test_a_hidden_table_and_one_that_ends_in_an_error_show_nothing(capsys):
    with LiveTable(COLUMNS, hidden=True) as table:
        table.add_row("vit", "2", "equal")
    with pytest.raises(ValueError), LiveTable(COLUMNS) as table:
        table.add_row("vit", "2", "equal")
        raise ValueError
    assert capsys.readouterr().out == ""


def test_doctor_shows_a_finding_before_the_next_check(monkeypatch):
    seen, screen = [], use_screen(monkeypatch)

    def optional():
        seen.append(screen.text())
        return [doctor.Finding("ray", doctor.NOTE, "not installed", "pip install ray")]

    monkeypatch.setattr(doctor, "_optional", optional)
    assert main(["doctor"]) == 0
    assert "CPU kernels" in seen[0] and "pip install ray" not in seen[0]
    assert re.search(r"note +ray +not installed +pip install ray", screen.text())


def test_verify_shows_a_stage_before_the_next_is_computed(hf_folders, monkeypatch):
    """Rows on the terminal as each stage of the second folder is compared, in the order of the table elsewhere."""
    from paddle_internvl.verification import stages

    known, compare, screen = [], stages.compare_stage, use_screen(monkeypatch)

    def compare_stage(name, *arguments):
        known.append((name, screen.text()))
        return compare(name, *arguments)

    monkeypatch.setattr(stages, "compare_stage", compare_stage)
    folder = str(hf_folders["dynamic_gqa"])
    assert main(["verify", folder, folder, "--max-new-tokens", "2"]) == 0
    names = [name for name, _ in known][: len(known) // 2]  # each is compared again for the verdict
    assert names[0] == "tiles" and "vit.block.1" in names and names[-2:] == ["logits", "tokens"]
    for before, (name, text) in zip(names, known[1 : len(names)]):
        assert re.search(rf"{re.escape(before)} +\d", text) and not re.search(rf"{re.escape(name)} +\d", text), name
    assert re.search(r"tokens +1 x 2 +equal +equal", screen.text()) and "stages are within" in screen.text()
