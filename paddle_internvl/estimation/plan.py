"""The plan of a run, which is what an estimate is made of: batch, context, tiles, cards, dtype and device."""

from __future__ import annotations

from dataclasses import dataclass

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Plan:
    """Plan of a run: the workload, and the form and devices of the model.

    Args:
        batch: requests that are answered at once.
        context: tokens of the prompt and the answer of each request.
        tiles: tiles of the pictures of each request.
        tp: tensor-parallel degree, in cards.
        bits: bits of the decoder layers' linear weights, 8 or 4; None: as the config declares.
        quantize_head: whether the output head has them too.
        int8_activations: whether the vision tower's linear weights are int8, on a CPU.
        dtype: 'bfloat16', 'float16' or 'float32'.
        device: 'gpu', or 'cpu', which computes in float32.
        kernels: on a CPU, whether the C++ operators are there, which take bfloat16 weights as they are stored.
    Raises:
        ValueError: a number out of its range, or another dtype.
    """

    batch: int = 1
    context: int = 8192
    tiles: int = 13
    tp: int = 1
    bits: int | None = None
    quantize_head: bool = False
    int8_activations: bool = False
    dtype: str = "bfloat16"
    device: str = "gpu"
    kernels: bool = True

    def __post_init__(self):
        for name in ("batch", "context", "tp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0")
        if self.tiles < 0:
            raise ValueError(f"tiles={self.tiles} is below 0")
        if self.quantize_head and not self.bits:
            raise ValueError("quantize_head needs bits")
        if self.quantize_head and self.tp > 1:
            raise ValueError("quantize_head needs tp=1: a shard of the head is held as floats")
        if self.int8_activations and not self.native:
            raise ValueError("int8_activations needs device='cpu' with kernels")
        if self.dtype not in _BYTES:
            raise ValueError(f"dtype={self.dtype!r} is not supported; use one of {', '.join(_BYTES)}")

    @property
    def native(self) -> bool:
        """Whether the C++ operators compute."""
        return self.device == "cpu" and self.kernels

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in activations and in the KV cache."""
        return 4 if self.device == "cpu" else _BYTES[self.dtype]

    @property
    def matrix_bytes(self) -> int:
        """Bytes of a number of a matrix as it is stored."""
        return 2 if self.native and self.dtype == "bfloat16" else self.compute_bytes
