"""The soak test in short: without the warm-up and the slow attacks."""

import logging
from functools import partial

import anyio
import pytest

from tests.serve.conftest import CHECKPOINT
from tests.soak.running import soak


@pytest.fixture
def quiet_httpx():
    """No log line of httpx for each request."""
    logger = logging.getLogger("httpx")
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


def test_no_leaks_after_twenty_requests(tiny, quiet_httpx):
    shares, options = {"leaving": 0.4, "malicious": 0.2}, {"distinct": 10, "warm_up": False, "growth": 1.25}
    report = anyio.run(partial(soak, tiny, CHECKPOINT, 20, seed=1, shares=shares, **options))
    assert not report["faults"]
    assert report["sent"] == {"honest": 8, "leaving": 8, "malicious": 4}
    assert report["metrics"]["finished"] >= report["sent"]["honest"] - report["kinds"]["counted"]
    assert sum(report["left"].values()) == 8 and report["metrics"]["cancelled"] >= 1
