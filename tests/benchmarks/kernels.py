"""How fast the C++ matrix products are, beside what the machine can do: python -m tests.benchmarks.kernels

The shapes are InternVL2_5-1B's. FLOP/s stand beside a loop of fused multiply-adds in registers, bytes per second beside
plain reading, both in C++ and measured between the products, in the same minutes: a machine that others use too gives
neither figure twice. Times are CPU time of the threads, which others' work lengthens less; --wall takes the clock's.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import paddle

import paddle_internvl  # noqa: F401
from paddle_internvl import runtime
from paddle_internvl.kernels import library, operators

MANY = [  # what, rows, inputs, outputs, activation
    ("vision qkv", 1025, 1024, 3072, 0),
    ("vision proj", 1025, 1024, 1024, 0),
    ("vision fc1, gelu", 1025, 1024, 4096, 1),
    ("vision fc2", 1025, 4096, 1024, 0),
    ("q", 300, 896, 896, 0),
    ("gate and up", 300, 896, 4864, 2),
    ("down", 300, 4864, 896, 0),
    ("q", 1844, 896, 896, 0),
    ("gate and up", 1844, 896, 4864, 2),
    ("down", 1844, 4864, 896, 0),
]
ONE = [("q", 1, 896, 896, 0), ("k", 1, 896, 128, 0), ("gate and up", 1, 896, 4864, 2), ("down", 1, 4864, 896, 0),
       ("head", 1, 896, 151674, 0)]  # fmt: skip
KINDS = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}  # bytes of a number
_COLD = 300_000_000  # bytes of copies of a weight that are gone through, so that none is in a cache


def weight(kind: str, inputs: int, outputs: int, file: Path, copy: int):
    """A weight as loading leaves it, mapped from a file; its scales and group size."""
    group = 64 if kind == "int4" else -1
    rows = inputs // 2 if kind == "int4" else inputs
    dtype = {"int4": "uint8"}.get(kind, kind)
    held = operators.mapped_file(file, copy * int(KINDS[kind] * inputs * outputs), [rows, outputs], dtype)
    if kind in ("float32", "bfloat16"):
        return held, None, group
    return held, paddle.full([inputs // group if group > 0 else 1, outputs], 0.01), group


def seconds(run, clock, tries: int) -> float:
    """The median of some runs."""
    taken = []
    for _ in range(tries):
        began = clock()
        run()
        taken.append(clock() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wall", action="store_true", help="the clock's time, every thread; on a machine of one's own")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--tries", type=int, default=5)
    arguments = parser.parse_args()
    if library.unavailable_reason():
        raise SystemExit(f"there are no kernels: {library.unavailable_reason()}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "numbers"
        with open(file, "wb") as stream:
            for _ in range(2 * _COLD >> 20):  # bytes that are plain numbers in every kind
                stream.write(np.random.default_rng(0).integers(0x30, 0x40, 1 << 20, np.uint8).data)
        measure(arguments, file)


def measure(arguments: argparse.Namespace, file: Path) -> None:
    """Every shape with every kind of weight, a line each."""
    functions = library.functions()
    functions.internvl_flops.restype = functions.internvl_reading.restype = ctypes.c_double
    threads = runtime.cpu_threads() if arguments.wall else 1
    functions.internvl_set_threads(threads)
    clock = time.perf_counter if arguments.wall else time.thread_time
    print(f"{library.isa()}, {threads} threads, {'wall clock' if arguments.wall else 'CPU time'}")
    rng = np.random.default_rng(0)
    for what, rows, inputs, outputs, activation in MANY + ONE:
        x = paddle.to_tensor(rng.normal(size=(rows, inputs)).astype(np.float32))
        for kind in arguments.kinds:
            one = KINDS[kind] * inputs * outputs * (2 if activation == 2 else 1)
            copies = max(1, int(_COLD / one)) if rows == 1 else 1
            each = 1 + (activation == 2)
            held = [[weight(kind, inputs, outputs, file, i * each + j) for j in range(each)] for i in range(copies)]

            def run(held=held, x=x, activation=activation):
                for (w, scales, group), *up in held:
                    more = (None, None, None) if not up else (up[0][0], up[0][1], None)
                    library.run("internvl_linear", x, w, scales, None, None, None, None, *more, group, activation, 0, 0)

            run()
            limit, taken = [], []
            for _ in range(arguments.tries):
                limit.append((functions.internvl_flops if rows > 1 else functions.internvl_reading)() / 1e9)
                taken.append(seconds(run, clock, 1) / copies)
            limit, taken = statistics.median(limit), statistics.median(taken)
            rate = (2.0 * rows * inputs * outputs * (2 if activation == 2 else 1) if rows > 1 else one) / taken / 1e9
            unit = "GF/s" if rows > 1 else "GB/s"
            shape = f"{what:18s} {rows:5d} x {inputs:5d} x {outputs:6d} {kind:9s}"
            print(f"{shape} {taken * 1e3:8.3f} ms {rate:6.1f} {unit} of {limit:6.1f}: {100 * rate / limit:4.0f} %")


if __name__ == "__main__":
    main()
