"""Results of generators in threads: all of them, within the limit, with their errors."""

import threading

import pytest

from paddle_internvl.evaluation.interleaving import interleaved


def test_all_results_come_and_no_more_than_the_limit_run():
    running, peak, lock = 0, 0, threading.Lock()

    def generator(number):
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        yield from ((number, i) for i in range(number))
        with lock:
            running -= 1

    results = list(interleaved(map(generator, range(20)), 3))
    assert sorted(results) == [(number, i) for number in range(20) for i in range(number)] and peak <= 3
    assert [i for number, i in results if number == 19] == list(range(19))  # a generator's own order stays


def test_an_error_ends_all():
    began = []

    def generator(number):
        began.append(number)
        yield number
        if number == 2:
            raise KeyError(number)
        yield from range(100)

    with pytest.raises(KeyError, match="2"):
        list(interleaved(map(generator, range(1000)), 2))
    assert len(began) < 1000


def test_closing_ends_the_generators():
    results = interleaved(iter([iter(int, 1), iter(int, 1)]), 2)  # both are endless
    assert next(results) == 0
    results.close()
