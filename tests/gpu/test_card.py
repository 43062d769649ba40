"""What only a card can show: every form's kernel beside its plain twin, and the bundled checkpoint's answers.

Skipped where Paddle sees no card. The same, with speeds, as a file: `paddle-internvl doctor --gpu`.
"""

import paddle
import pytest

from paddle_internvl import runtime
from paddle_internvl.verification.card import answers
from paddle_internvl.verification.probes import PROBES, measure
from tests.random_checkpoints import ROOT, TOKENIZER

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(runtime.cuda_capability() is None, reason="Paddle sees no CUDA card"),
]


@pytest.fixture(scope="module")
def dtype():
    paddle.set_device("gpu")
    yield runtime.choose_dtype(None, "gpu")[0]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: f"{probe.operation}: {probe.name}")
def test_a_form_is_as_near_as_its_twin(probe, dtype):
    parity = measure(probe, dtype)
    if parity.state == "not here":
        pytest.skip(parity.note)
    assert parity.state == "ok", parity


def test_answers_are_those_of_a_cpu(dtype):
    document = answers(TOKENIZER, ROOT / "demo/assets/shapes.png", dtype, "gpu")
    assert document["card"] == document["cpu"] == document["batch"]
