"""The data filter by Ray's actors, one of which is killed: the output is that of one process."""

import importlib.util
import random

import psutil
import pytest

from paddle_internvl.curation.filter import FilterSettings, run_filter
from paddle_internvl.curation.filter_sources import FilterSource
from tests.curation.planted import corpus

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def kill_an_actor() -> bool:
    """Kill -9 one of the actors below this process."""
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:  # it has ended
            continue
        if "_Actor" in title:
            process.kill()
            return True
    return False


def test_a_filter_by_workers_of_which_one_dies(tmp_path):
    file = tmp_path / "made.jsonl"
    rows = [line for seed in range(12) for _, line in corpus(random.Random(seed), pictures=False)]
    file.write_text("".join(f"{line}\n" for line in rows), encoding="utf-8")
    source, killed = FilterSource("made", file, tmp_path), []

    def on_progress(lines: int) -> None:
        if lines and not killed:
            killed.append(kill_an_actor())

    run_filter([source], tmp_path / "one", FilterSettings())
    run_filter([source], tmp_path / "two", FilterSettings(workers=2), on_progress=on_progress)
    assert killed == [True]
    for name in ("kept.jsonl", "dropped.jsonl", "flagged.jsonl", "report.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
