"""The tool itself: what it must catch, it catches, and it leaves the process's Paddle as it was."""

import json
import os
import subprocess
import sys

import pytest

from tests.gpu.graph import Graph, Operation
from tests.random_checkpoints import ROOT


def python(*arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def found():
    return json.loads(python("-m", "tests.gpu.planted"))


def test_a_sound_layer_has_no_fault(found):
    assert found["sound"]["faults"] == [] and found["sound"]["casts"] == []
    assert found["sound"]["outputs"] == ["bfloat16"] and found["sound"]["count"]["linear_v2"] == 1


@pytest.mark.parametrize(
    ("layer", "operation", "where"),
    [
        ("wide weight", "linear_v2 of bfloat16, float32, float32", "tests/gpu/planted.py forward"),
        ("wide product", "linear_v2 of float32, float32, float32", "tests/gpu/planted.py forward"),
        ("wide value", "flash_attn of bfloat16, bfloat16, float32", "paddle_internvl/ops/attention.py _flash"),
        ("wide tables", "fused_rotary_position_embedding of mixed bfloat16", "paddle_internvl/ops/rope.py fused_rope"),
    ],
)
def test_planted_faults_are_caught(found, layer, operation, where):
    (fault,) = found[layer]["faults"]
    assert fault.startswith(operation) and fault.endswith(where)


def test_a_float32_factor_shows_in_casts_and_outputs(found):
    assert found["wide factor"]["outputs"] == ["float32"]
    assert found["wide factor"]["casts"] == [["bfloat16", "float32", "tests/gpu/planted.py forward", 1]]


def test_casts_are_found_where_they_are(found):
    assert sorted(found["wide product"]["casts"]) == [
        ["bfloat16", "float32", "tests/gpu/planted.py forward", 1],
        ["float32", "bfloat16", "tests/gpu/planted.py forward", 1],
    ]


def test_an_operation_that_the_table_does_not_have_can_not_be_built(found):
    assert "Check data type error for op: silu, input: x, x.dtype: bfloat16" in found["unknown"]["error"]


def test_everything_is_put_back():
    code = """
import paddle
from paddle_internvl import runtime
from paddle_internvl.ops import dispatch
from tests.gpu.pretending import card
before = paddle.is_compiled_with_cuda, paddle.get_device, paddle.get_flags, runtime.cuda_capability
try:
    with card((9, 0)):
        assert paddle.is_compiled_with_cuda() and dispatch.this_machine().capability == (9, 0)
        raise KeyError
except KeyError:
    pass
assert before == (paddle.is_compiled_with_cuda, paddle.get_device, paddle.get_flags, runtime.cuda_capability)
assert float(paddle.nn.functional.linear(paddle.ones([1, 2]), paddle.ones([2, 1]))) == 2.0
print("put back")
"""
    assert python("-c", code) == "put back"


def test_gradients_may_take_their_statistics():
    graph = Graph.__new__(Graph)
    half = ("bfloat16",) * 5
    graph.operations = [
        Operation("flash_attn_grad", (*half, "float32", "int64"), half[:3], "?"),
        Operation("flash_attn_grad", (*half, "float32", "float32"), half[:3], "?"),
        Operation("matmul_grad", ("bfloat16", "bfloat16", "float32"), half[:2], "?"),
    ]
    assert [fault.split(" of ")[0] for fault in graph.faults("bfloat16")] == ["flash_attn_grad", "matmul_grad"]
