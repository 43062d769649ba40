"""Parts of the time to first token: they add up, and are not counted outside of a measurement."""

import os
import threading
import time

import pytest

from paddle_internvl import timing


@pytest.fixture
def clock(monkeypatch):
    """Clock that advances only by calls."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_a_part_within_another_is_taken_off_it(clock):
    with timing.measured() as measured:
        clock(1)
        with timing.part("load"):
            clock(2)
            with timing.part("kernels"):
                clock(4)
            clock(8)
        with timing.part("load"):
            clock(16)
    assert measured.parts == {"load": 26, "kernels": 4} and measured.start == 100


def test_a_part_that_fails_ends(clock):
    with timing.measured() as measured:
        with pytest.raises(KeyError), timing.part("load"):
            clock(1)
            raise KeyError
        clock(2)
    assert measured.parts == {"load": 1}


def test_nothing_is_noted_outside_or_in_other_threads(clock):
    def elsewhere():
        with timing.part("load"):
            clock(1)

    elsewhere()
    with timing.measured() as measured:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    elsewhere()
    assert measured.parts == {}


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_the_age_of_the_process():
    first = timing.process_seconds()
    time.sleep(0.05)
    assert 0 < first < timing.process_seconds() < 24 * 3600
