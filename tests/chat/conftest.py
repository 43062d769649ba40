"""Families of these tests: a mixture of experts has the prompts of its dense sister."""

import pytest

from tests.families import CHATTING


@pytest.fixture(params=CHATTING)
def case(request):
    return request.param
