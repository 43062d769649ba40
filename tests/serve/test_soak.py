"""The soak test's short form: its server, clients and looks at what is left, without the warm-up and the length."""

import logging
from functools import partial

import anyio
import pytest

from tests.serve.conftest import CHECKPOINT
from tests.soak.running import soak


@pytest.fixture
def quiet_httpx():
    """Without a line for each of hundreds of requests."""
    logger = logging.getLogger("httpx")
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


def test_sixty_requests_leave_nothing_behind(tiny, quiet_httpx):
    shares, how = {"leaving": 0.2, "malicious": 0.2}, {"distinct": 9, "warm_up": False, "growth": 1.25}
    report = anyio.run(partial(soak, tiny, CHECKPOINT, 60, seed=1, shares=shares, **how))
    assert not report["faults"]
    assert report["sent"] == {"honest": 36, "leaving": 12, "malicious": 12} and len(report["kinds"]) == 9
    assert report["metrics"]["finished"] >= report["sent"]["honest"] - report["kinds"]["counted"]
    assert sum(report["left"].values()) == 12 and report["metrics"]["cancelled"] >= 1
