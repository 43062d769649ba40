"""The loaded library: whether there is one, and its operators.

In: operators' names and inputs. Out: tensors. `csrc/operators_*.cc` says what each operator takes.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

from paddle_internvl import runtime, timing
from paddle_internvl.kernels import building

_SWITCH = "PADDLE_INTERNVL_KERNELS"
SWITCHED_OFF = f"switched off by {_SWITCH}=off"


def unavailable_reason() -> str:
    """Why there are no kernels here, in one line; '' where there are. The first call builds and loads them."""
    return SWITCHED_OFF if os.environ.get(_SWITCH) == "off" else _loaded()[1]


def functions() -> ctypes.CDLL:
    """The library's plain C functions (see `csrc/plain_c.cc`); calls let other Python threads run.

    Raises:
        building.BuildError: there are no kernels here.
    """
    library, reason = _loaded()
    if library is None:
        raise building.BuildError(reason)
    return library


def isa() -> str:
    """The instruction set of float32 arithmetic in use: 'amx', 'avx512', 'avx2' or 'plain'."""
    return functions().internvl_isa().decode()


def bfloat16_isa() -> str:
    """The instruction set with bfloat16 arithmetic in use: 'amx' or 'avx512_bf16'; '' where there is none."""
    return "" if unavailable_reason() else functions().internvl_bfloat16_isa().decode()


def int8_isa() -> str:
    """The instructions of products with int8 activations: 'amx', 'avx512_vnni', 'avx_vnni' or 'plain'."""
    return functions().internvl_int8_isa().decode()


def use_isa(name: str) -> None:
    """Take another instruction set from now on; '' for the machine's best. For tests.

    Raises:
        ValueError: it is not known, or not of this machine.
    """
    if functions().internvl_use_isa(name.encode()):
        raise ValueError(f"the instruction set {name!r} is not known or can't run on this machine")


def run(operator: str, *inputs):
    """Run an operator of the library.

    Args:
        operator: its name. inputs: tensors (None for those left out), then numbers.
    Returns:
        A tensor, or a list of them.
    """
    import paddle

    outputs = paddle._C_ops._run_custom_op(operator, *inputs)
    return outputs[0] if len(outputs) == 1 else outputs


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    import paddle

    try:
        with timing.part("kernels"):
            path = building.library()
    except building.BuildError as error:
        return None, str(error)
    try:
        paddle.base.core.load_op_meta_info_and_register_op(str(path))
        library = ctypes.CDLL(str(path))
    except (OSError, RuntimeError) as error:
        return None, f"{path} can't be loaded: {str(error).strip().splitlines()[0]}"
    library.internvl_isa.restype = library.internvl_bfloat16_isa.restype = library.internvl_int8_isa.restype = (
        ctypes.c_char_p
    )
    if not library.internvl_isa():
        return None, library.internvl_error().decode()
    library.internvl_set_threads(runtime.cpu_threads())
    return library, ""
