"""Parity of every implementation of an operation with its reference implementation, on the current device.

In: a dtype. Out: a `Parity` for each probe, on random values in shapes of published models. An implementation's error
is measured against the reference in float32 on the same rounded inputs, and bounded by the reference's own error in
the dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import paddle

from paddle_internvl.ops import activations, dispatch, norms, rope
from paddle_internvl.ops.attention import attention
from paddle_internvl.ops.quantized_linear import QuantizedLinear

REFERENCE = {operation: candidates[-1].name for operation, candidates in dispatch.CANDIDATES.items()}
SLACK = 1.5  # of the reference's own error: the order of sums differs
_FLOOR = {"float32": 1e-5, "bfloat16": 2**-8, "float16": 2**-11}  # below this no difference counts


@dataclass(frozen=True)
class Probe:
    """One use of an implementation.

    Attributes:
        name: of the probe.
        operation: a key of `dispatch.CANDIDATES`.
        form: name of the implementation.
        run: function of the inputs.
        shapes: of the inputs.
        gradient: compare the inputs' gradients too.
    """

    name: str
    operation: str
    form: str
    run: Callable[..., paddle.Tensor]
    shapes: tuple[tuple[int, ...], ...]
    gradient: bool = False


@dataclass(frozen=True)
class Parity:
    """Result of a probe.

    Attributes:
        name: of the probe.
        operation: of the probe.
        form: of the probe.
        dtype: of the inputs.
        state: 'ok', 'off', 'failed' (an exception) or 'not here'.
        error: of the implementation: relative root mean square of its difference from the reference in float32.
        twin_error: of the reference in `dtype`, likewise.
        note: reason of 'failed' and 'not here'.
    """

    name: str
    operation: str
    form: str
    dtype: str
    state: str
    error: float | None = None
    twin_error: float | None = None
    note: str = ""


def _heads(queries: int, keys: int, heads: int, kv: int, width: int, batch: int = 1):
    return (batch, queries, heads, width), (batch, keys, kv, width), (batch, keys, kv, width)


def _attend(causal: bool, padding=None, lengths=None, window=None) -> Callable:
    """`attention` with `padding` and `lengths` as lists, one number a row."""

    def run(q, k, v):
        mask = None
        if padding is not None:
            mask = paddle.arange(k.shape[1]) >= paddle.to_tensor(padding).unsqueeze(-1)
        valid = None if lengths is None else paddle.to_tensor(lengths)
        out = attention(q, k, v, causal=causal, key_mask=mask, window=window, lengths=valid)
        if padding is None or q.shape[1] == 1:
            return out
        return out * mask[:, :, None, None].astype(out.dtype)  # without rows of padding

    return run


def _rotate(x: paddle.Tensor) -> paddle.Tensor:
    b, length, _, width = x.shape
    positions = paddle.arange(b * length).reshape([b, length]) * 7
    cos, sin = (table.astype(x.dtype) for table in rope.Rope(head_dim=width, theta=1e6).tables(positions))
    return rope.apply(x, cos, sin)


def _quantized(bits: int, group_size: int) -> Callable:
    """A quantized linear layer [K, 256], equal in every call."""

    def run(x):
        k, n = x.shape[-1], 256
        draw = np.random.default_rng(bits)
        limit = {8: 127, 4: 7}[bits]
        scales = (n,) if group_size == -1 else (k // group_size, n)
        layer = QuantizedLinear(k, n, bits, group_size, bias=False)
        integers = draw.integers(-limit, limit + 1, (k, n)).astype(np.int8)
        steps = (draw.uniform(0.5, 1.5, scales) / limit).astype(np.float16).astype(np.float32)
        layer.set_weight(integers, steps, x.place, str(x.dtype).removeprefix("paddle."))
        return layer(x)

    return run


def _rms(x, weight):
    return norms.rms_norm(x, weight, 1e-6)


def _added_rms(x, y, weight):
    return paddle.concat(norms.add_rms_norm(x, y, weight, 1e-6), axis=-1)


_FULL, _CAUSAL = _attend(causal=False), _attend(causal=True)
_PADDED, _LENGTHS = partial(_attend, causal=True), _attend(causal=True, lengths=[64, 17, 1])
_VIT, _VIT_6B = _heads(1025, 1025, 16, 16, 64, batch=2), _heads(1025, 1025, 25, 25, 128)
PROBES = (
    Probe("vision 300M", "attention", "flash", _FULL, _VIT),
    Probe("vision 6B", "attention", "flash", _FULL, _VIT_6B),
    Probe("vision 300M, gradient", "attention", "flash", _FULL, _heads(257, 257, 16, 16, 64), True),
    Probe("prefill 1B", "attention", "flash", _CAUSAL, _heads(777, 777, 14, 2, 64)),
    Probe("prefill 8B", "attention", "flash", _CAUSAL, _heads(512, 512, 32, 8, 128)),
    Probe("prefill 4B (96)", "attention", "flash", _CAUSAL, _heads(300, 300, 32, 32, 96)),
    Probe("prefill, gradient", "attention", "flash", _CAUSAL, _heads(257, 257, 14, 2, 64), True),
    Probe("prefill, padded", "attention", "flash", _PADDED(padding=[0, 37]), _heads(129, 129, 8, 2, 64, 2)),
    Probe("prefill 8B, padded", "attention", "flash", _PADDED(padding=[5, 0]), _heads(97, 97, 16, 8, 128, 2)),
    Probe("prefill, window", "attention", "flash", _attend(causal=True, window=47), _heads(300, 300, 8, 8, 96)),
    Probe("prefill after 333", "attention", "flash", _CAUSAL, _heads(64, 397, 16, 8, 128)),
    Probe("decode", "attention", "flash", _CAUSAL, _heads(1, 1000, 14, 2, 64, 3)),
    Probe("decode, padded", "attention", "flash", _PADDED(padding=[0, 9]), _heads(1, 100, 16, 8, 128, 2)),
    Probe("decode, lengths", "attention", "flash", _LENGTHS, _heads(1, 64, 14, 2, 64, 3)),
    Probe("decode, window", "attention", "flash", _attend(causal=True, window=31), _heads(1, 100, 8, 8, 96)),
    Probe("896", "rms_norm", "fused", _rms, ((3, 77, 896), (896,))),
    Probe("3200", "rms_norm", "fused", _rms, ((2, 1025, 3200), (3200,))),
    Probe("with the sum", "rms_norm", "fused", _added_rms, ((3, 77, 4096), (3, 77, 4096), (4096,))),
    Probe("gradient", "rms_norm", "paddle", _rms, ((3, 77, 896), (896,)), True),
    Probe("prefill", "rope", "fused", _rotate, ((2, 77, 14, 64),)),
    Probe("decode", "rope", "fused", _rotate, ((5, 1, 8, 128),)),
    Probe("gradient", "rope", "fused", _rotate, ((2, 33, 8, 96),), True),
    Probe("prefill", "swiglu", "fused", activations.swiglu, ((2, 77, 4864), (2, 77, 4864))),
    Probe("gradient", "swiglu", "fused", activations.swiglu, ((1, 33, 896), (1, 33, 896)), True),
    *(
        Probe(
            f"{bits} bits, groups of {group}, {rows} rows",
            "weight_only_linear",
            "kernel",
            _quantized(bits, group),
            shapes,
        )
        for bits in (8, 4)
        for group in (-1, 64, 128)
        for rows, shapes in ((1, ((1, 896),)), (65, ((65, 896),)))
    ),
)


def _values(probe: Probe, dtype: str) -> list[paddle.Tensor]:
    draw = np.random.default_rng(0)
    return [paddle.to_tensor(draw.normal(size=shape).astype(np.float32)).astype(dtype) for shape in probe.shapes]


def _outcome(probe: Probe, values: list[paddle.Tensor], implementations: dict[str, str]) -> list[np.ndarray]:
    """The output, with a gradient probe also the gradients of its weighted sum."""
    if not probe.gradient:
        with paddle.no_grad(), dispatch.force(**implementations):
            return [probe.run(*values).astype("float32").numpy()]
    values = [value.detach() for value in values]
    for value in values:
        value.stop_gradient = False
    with dispatch.force(**implementations):
        out = probe.run(*values)
    weights = paddle.to_tensor(np.random.default_rng(1).normal(size=out.shape).astype(np.float32))
    (out * weights.astype(out.dtype)).sum().backward()
    return [out.astype("float32").numpy(), *(value.grad.astype("float32").numpy() for value in values)]


def relative_error(values: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """The largest relative root mean square of several differences; inf if a value is not finite."""
    if not all(np.isfinite(value).all() for value in values):
        return float("inf")
    return max(float(np.sqrt(np.mean((f - e) ** 2) / max(np.mean(e**2), 1e-30))) for f, e in zip(values, exact))


def measure(probe: Probe, dtype: str) -> Parity:
    """Run one probe on the current device."""
    fields = probe.name, probe.operation, probe.form, dtype
    values = _values(probe, dtype)
    (candidate,) = (c for c in dispatch.CANDIDATES[probe.operation] if c.name == probe.form)
    device = "gpu" if dispatch.on_card(values[0]) else "cpu"
    case = dispatch.Case(device, dtype, probe.gradient, probe.shapes[0][-1])
    obstacle = candidate.obstacle(case, dispatch.this_machine())
    if obstacle:
        return Parity(*fields, "not here", note=obstacle)
    try:
        outputs = _outcome(probe, values, {probe.operation: probe.form})
    except Exception as error:  # any exception of a kernel belongs into the report
        return Parity(*fields, "failed", note=" ".join(str(error).split())[-500:])
    exact = _outcome(probe, [value.astype("float32") for value in values], REFERENCE)
    error = relative_error(outputs, exact)
    twin_error = relative_error(_outcome(probe, values, REFERENCE), exact)
    state = "ok" if error <= SLACK * twin_error + _FLOOR[dtype] else "off"
    return Parity(*fields, state, error, twin_error)


def measure_all(dtype: str) -> Iterator[Parity]:
    """Run every probe on the current device."""
    for probe in PROBES:
        yield measure(probe, dtype)
