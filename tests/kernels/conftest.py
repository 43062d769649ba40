"""What the kernels' tests share: they run once for each instruction set of this machine, without gradients."""

import pytest

from paddle_internvl.kernels import library
from tests.kernels.instruction_sets import taken


def _sets() -> list[str]:
    if library.unavailable_reason():
        return []
    found = []
    for name in ("amx", "avx512", "avx2", "plain"):
        try:
            library.use_isa(name)
        except ValueError:
            continue
        found.append(name)
    library.use_isa("")
    return found


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        sets = _sets() or [pytest.param("none", marks=pytest.mark.skip(reason=library.unavailable_reason()))]
        # AMX differs from AVX512 in products, and in how layers pass rows to them
        if not metafunc.module.__name__.endswith(("test_linear", "test_native_layers")):
            sets = [name for name in sets if name != "amx"]
        metafunc.parametrize("isa", sets, indirect=True)


@pytest.fixture
def isa(request):
    """One instruction set after the other; without kernels the test is skipped, with the reason."""
    with taken(request.param) as name:
        yield name
