"""Families of these tests: the rest differ in weights and layers, which a schedule doesn't look at."""

import pytest

from tests.families import SCHEDULED


@pytest.fixture(params=SCHEDULED)
def case(request):
    return request.param
