"""A CPU build of Paddle that takes the branches of a CUDA build while programs are built. Nothing is executed.

In: nothing. Out: a context. What is replaced: the questions that Paddle's Python code and `runtime` ask of the machine.
It relies on private names of Paddle 3.3.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import paddle
from paddle.nn.attention import sdpa as backends
from paddle.nn.functional import sdpa
from paddle.nn.quant import quantized_linear

from paddle_internvl import runtime
from paddle_internvl.ops import dispatch
from tests.gpu.kernels import KERNELS
from tests.gpu.placeholders import register

_FLAGS = {"FLAGS_flash_attn_version": 2}  # of those that a CPU build does not have; any other is off


def _get_flags(names):
    known = {}
    for name in [names] if isinstance(names, str) else names:
        try:
            known |= _REAL_FLAGS([name])
        except ValueError:
            known[name] = _FLAGS.get(name, False)
    return known


_REAL_FLAGS = paddle.get_flags
_ANSWERS = {
    "is_compiled_with_cuda": lambda: True,
    "get_flags": _get_flags,
    "get_device": lambda *_: "gpu:0",
}


def _select(parameters) -> str:
    """`select_sdp_for_sdpa` on a card of sm80: its own conditions, without those that ask the card."""
    fits = sdpa.check_head_dim_size_flash(parameters) and sdpa.check_flash_causal_non_square_seqlens(parameters)
    halves = set(parameters.dtype) <= {paddle.float16, paddle.bfloat16} and len(set(parameters.dtype)) == 1
    return "flash_attn" if fits and halves and parameters.scale is None else "math"


@contextmanager
def card(capability: tuple[int, int] = (8, 0)) -> Iterator[None]:
    """Within this context programs are built as for a card of this compute capability."""
    for operation, kernel in KERNELS.items():
        register(operation, *kernel.dtypes)
    machine = dispatch.Machine(capability, "pretending", dispatch.FLAGS)
    holders = [paddle, paddle.device, paddle.base.core, paddle.base.framework]
    real = {name: {id(getattr(h, name)) for h in holders if hasattr(h, name)} for name in _ANSWERS}
    modules = [m for name, m in list(sys.modules.items()) if name.split(".")[0] == "paddle" and hasattr(m, "__dict__")]
    patches = [
        mock.patch.object(module, name, answer)
        for module in modules
        for name, answer in _ANSWERS.items()
        if id(module.__dict__.get(name)) in real[name]
    ]
    patches += [
        mock.patch.object(paddle.base.core, "cudnn_version", lambda: 90100, create=True),
        mock.patch.object(quantized_linear, "_get_arch_info", lambda: 10 * capability[0] + capability[1]),
        mock.patch.object(sdpa, "select_sdp_for_sdpa", _select),
        mock.patch.dict(backends._backend_enabled, dict.fromkeys(backends._backend_enabled, True)),
        mock.patch.object(runtime, "cuda_capability", lambda: capability),
        mock.patch.object(dispatch, "this_machine", lambda: machine),
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
