"""Instruction sets of the kernels, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import paddle
import pytest

from paddle_internvl.kernels import library


@contextmanager
def taken(name: str) -> Iterator[str]:
    """Within this context kernels of an instruction set run, without gradients; a machine without it skips the test."""
    try:
        library.use_isa(name)
    except ValueError as error:
        pytest.skip(str(error))
    with paddle.no_grad():
        yield name
    library.use_isa("")
