"""CUDA kernels that are not there: a CPU build of Paddle is told of them, so that it builds the programs of a card.

In: an operation and dtypes. Out: nothing; Paddle's registry has a placeholder under the backend "GPU", which ends the
process if it is ever run. The door is `PD_RegisterPhiKernel`, which plug-ins of custom devices use (Paddle's
phi/capi/include/c_kernel_registry.h). Registrations stay as long as the process: use one of its own.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import paddle

# C_DataType of paddle/phi/backends/device_ext.h
_TYPES = ("undefined", "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16",
          "float32", "float64", "bfloat16")  # fmt: skip
_ALL_LAYOUTS = 0
_ARGUMENTS = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda key, kernel: None)
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda context: os.abort())
_done: set[tuple[str, str]] = set()


def register(operation: str, *dtypes: str) -> None:
    """Let Paddle believe that it has CUDA kernels of an operation for these dtypes."""
    library = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs/libphi_core.so"))
    library.PD_RegisterPhiKernel.restype = None
    nothing = (ctypes.c_size_t(0), None)
    for dtype in dtypes:
        if (operation, dtype) in _done:
            continue
        _done.add((operation, dtype))
        key = operation.encode(), b"GPU", ctypes.c_int(_TYPES.index(dtype)), ctypes.c_int(_ALL_LAYOUTS)
        pointer = ctypes.cast(_KERNEL, ctypes.c_void_p)
        library.PD_RegisterPhiKernel(*key, *nothing, *nothing, *nothing, _ARGUMENTS, _KERNEL, pointer)
