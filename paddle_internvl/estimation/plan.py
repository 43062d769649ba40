"""What is to be run, on what: the question of an estimate. It knows no model."""

from __future__ import annotations

from dataclasses import dataclass

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Plan:
    """What is to be run, on what.

    Args:
        batch: answers at once. context: tokens of prompt and answer of each. tiles: of each prompt's pictures.
        tp: cards that share the model. bits: of the decoder blocks' linear weights; None: as the config says.
        dtype: 'bfloat16', 'float16' or 'float32'. device: 'gpu' or 'cpu', which computes in float32.
        kernels: on a CPU, whether there are C++ operators: then bfloat16 weights stay so.
    """

    batch: int = 1
    context: int = 8192
    tiles: int = 13
    tp: int = 1
    bits: int | None = None
    dtype: str = "bfloat16"
    device: str = "gpu"
    kernels: bool = True

    def __post_init__(self):
        for name in ("batch", "context", "tp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0")
        if self.tiles < 0:
            raise ValueError(f"tiles={self.tiles} is below 0")
        if self.dtype not in _BYTES:
            raise ValueError(f"dtype={self.dtype!r} is not supported; use one of {', '.join(_BYTES)}")

    @property
    def size(self) -> int:
        """Bytes of a number that is computed with."""
        return 4 if self.device == "cpu" else _BYTES[self.dtype]

    @property
    def held(self) -> int:
        """Bytes of a number of a matrix."""
        return 2 if self.native and self.dtype == "bfloat16" else self.size

    @property
    def native(self) -> bool:
        """Whether the C++ operators do the work."""
        return self.device == "cpu" and self.kernels
