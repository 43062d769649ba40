"""Decode steps of a slice of InternVL3.5-30B-A3B beside reading its active weights: python -m tests.benchmarks.experts

Four decoder layers of the published width with random weights, 128 experts, top 8. The bytes of a step are those of the
attention, of the router and of the chosen experts, scales included; the bandwidth is that of `bench.machine.peaks`,
measured between the steps; of both the best of several tries counts. Times are CPU time of one thread, which others'
work lengthens less; --wall takes the clock's, of all threads.
"""

from __future__ import annotations

import argparse
import ctypes
import time

import numpy as np
import paddle

import paddle_internvl  # noqa: F401
from paddle_internvl import runtime
from paddle_internvl.kernels import library, structs

D, HEADS, KV_HEADS, E, EXPERTS, TOP, FEATURES = 2048, 32, 4, 128, 128, 8, 768
BITS = {"bfloat16": 0, "int8": 8, "int4": 4}
_GROUP = {8: -1, 4: 64}
_PAST, _STEPS, _ROUNDS = 300, 8, 20


class Weights:
    """Random weights of a kind; they are kept here, and their bytes counted.

    Args:
        kind: a key of `BITS`.
    """

    def __init__(self, kind: str):
        self.bits, self.kept = BITS[kind], []
        self._random = np.random.default_rng(0).integers(0x30, 0x40, 1 << 22, np.uint8)  # small numbers of every kind

    def dense(self, inputs: int, outputs: int, count: int = 1, bits: int | None = None):
        """Struct of linear layers [count, K, N], and the bytes of one of them."""
        bits = self.bits if bits is None else bits
        rows, dtype = {0: (inputs, "bfloat16"), 8: (inputs, "int8"), 4: (inputs // 2, "uint8")}[bits]
        size = rows * outputs * (1 if bits else 2)
        numbers = np.resize(self._random, count * size).view(np.int8 if bits == 8 else np.uint8 if bits else np.uint16)
        weight = paddle.to_tensor(numbers).view(dtype).reshape([count * rows, outputs])
        self.kept.append(weight)
        if not bits:
            return structs.dense(weight, inputs, outputs, count=count), size
        groups = 1 if bits == 8 else inputs // _GROUP[4]
        scales = paddle.full([count, groups, outputs], 0.001)
        self.kept.append(scales)
        struct = structs.dense(weight, inputs, outputs, bits, scales, group=_GROUP[bits], count=count)
        return struct, size + 4 * groups * outputs

    def layer(self):
        """Struct of a sparse layer, and the bytes that a token reads."""
        q, k, v, o = (self.dense(*shape) for shape in (
            (D, HEADS * E), (D, KV_HEADS * E), (D, KV_HEADS * E), (HEADS * E, D)))  # fmt: skip
        gate_up, down = self.dense(D, 2 * FEATURES, EXPERTS), self.dense(FEATURES, D, EXPERTS)
        router = structs.dense(self.keep(paddle.randn([D, EXPERTS])), D, EXPERTS)
        sparse = structs.SparseMLP(router, gate_up[0], down[0], EXPERTS, TOP, 1)
        ones = [self.keep(paddle.ones([n])).data_ptr() for n in (D, D, E, E)]
        none = structs.Dense()
        struct = structs.DecoderLayer(
            q[0], k[0], v[0], o[0], none, none, none, sparse, *ones, D, HEADS, KV_HEADS, E, 0, 0, 1e-6, 1e-6
        )
        active = sum(size for _, size in (q, k, v, o)) + 4 * D * EXPERTS + TOP * (gate_up[1] + down[1])
        return struct, active

    def keep(self, tensor: paddle.Tensor) -> paddle.Tensor:
        """The tensor, which lives as long as the weights."""
        self.kept.append(tensor)
        return tensor


def measure(kind: str, layers: int, clock) -> None:
    """Print a line: milliseconds of a step, those of reading, and their ratio."""
    weights, functions = Weights(kind), library.functions()
    made = [weights.layer() for _ in range(layers)]
    array, active = (structs.DecoderLayer * layers)(*(each for each, _ in made)), sum(size for _, size in made)
    keys, values = ([paddle.randn([1, _PAST + 1, KV_HEADS, E]) for _ in made] for _ in range(2))
    cache = structs.KVView(keys, values, paddle.full([1], _PAST + 1, "int64"), KV_HEADS)
    turn, tokens = paddle.randn([1, 1, 1, E]), [paddle.randn([1, 1, D]) for _ in range(_STEPS)]
    out, layout = paddle.empty([1, 1, D]), cache.layout()

    def steps() -> None:
        for x in tokens:
            call = structs.DecoderCall(
                x.data_ptr(), out.data_ptr(), turn.data_ptr(), turn.data_ptr(), layout, layout,
                cache.totals.data_ptr(), None, 0, 1, 1, 0,
            )  # fmt: skip
            structs.run_decoder_layers(array, call, keys, values)

    steps()
    taken, bandwidth = [], []
    for _ in range(_ROUNDS):
        bandwidth.append(functions.internvl_reading())
        start = clock()
        steps()
        taken.append((clock() - start) / _STEPS)
        bandwidth.append(functions.internvl_reading())
    took, reading = min(taken), active / max(bandwidth)
    print(
        f"{kind:9s} {active / 1e6:6.1f} MB active: {1e3 * took:7.2f} ms a step, reading {1e3 * reading:7.2f} ms at "
        f"{active / reading / 1e9:5.1f} GB/s: {took / reading:.2f}", flush=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wall", action="store_true", help="the clock's time, all threads; on a machine of one's own")
    parser.add_argument("--kinds", nargs="+", choices=BITS, default=list(BITS))
    parser.add_argument("--layers", type=int, default=4)
    arguments = parser.parse_args()
    if library.unavailable_reason():
        raise SystemExit(f"there are no kernels: {library.unavailable_reason()}")
    functions = library.functions()
    functions.internvl_reading.restype = ctypes.c_double
    functions.internvl_set_threads(runtime.cpu_threads() if arguments.wall else 1)
    clock = time.perf_counter if arguments.wall else time.thread_time
    print(f"{library.isa()}, {functions.internvl_threads()} threads, {arguments.layers} layers")
    for kind in arguments.kinds:
        measure(kind, arguments.layers, clock)


if __name__ == "__main__":
    main()
