"""Dispatch: which implementation of an operation runs. One table of candidates, and one function that picks.

In: an operation, its first operand, what this machine has. Out: the name of an implementation. The implementations are
in the other modules of `ops`, each beside its reference, the definition to which tests hold it. Importing this does
not touch Paddle.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from paddle_internvl import runtime
from paddle_internvl.kernels import library
from paddle_internvl.runtime import DTYPES

_logger = logging.getLogger(__name__)


class Case(NamedTuple):
    """What an operation is called with.

    Attributes:
        device: 'cpu' or 'gpu'.
        dtype: of the first operand.
        grad: whether gradients are recorded.
        head_dim: E, where heads matter.
        captured: whether a static graph is being captured.
    """

    device: str
    dtype: str
    grad: bool = False
    head_dim: int | None = None
    captured: bool = False


@dataclass(frozen=True)
class Machine:
    """What this machine offers to implementations.

    Attributes:
        capability: compute capability of the CUDA card; (0, 0): no card.
        kernels_missing: why there are no C++ kernels; '': there are.
        flags: Paddle's build flags that are on, of those that candidates name.
    """

    capability: tuple[int, int]
    kernels_missing: str
    flags: frozenset[str]


@dataclass(frozen=True)
class Candidate:
    """One implementation of an operation, and its requirements.

    Attributes:
        name: of the implementation.
        devices: where it runs.
        capability: the lowest compute capability of a CUDA card.
        capabilities: exact list of supported compute capabilities; empty: every one >= `capability`.
        dtypes: of its operands.
        has_grad: whether it has a gradient.
        head_dims: (a, b): E is a multiple of a, at most b; None: any.
        flag: Paddle's build flag that it needs; '': none.
        is_native: whether it is in the C++ library of `kernels`.
    """

    name: str
    devices: tuple[str, ...] = ("cpu", "gpu")
    capability: tuple[int, int] = (0, 0)
    capabilities: tuple[tuple[int, int], ...] = ()
    dtypes: tuple[str, ...] = DTYPES
    has_grad: bool = True
    head_dims: tuple[int, int] | None = None
    flag: str = ""
    is_native: bool = False

    def obstacle(self, case: Case, machine: Machine) -> str:
        """Why it can't run; '' if it can."""
        on_card, version = case.device == "gpu", "{}.{}".format
        if case.device not in self.devices:
            return f"it runs on {' and '.join(self.devices)}, not on {case.device}"
        if on_card and machine.capability < self.capability:
            return f"it needs a card of compute capability {version(*self.capability)}"
        if on_card and self.capabilities and machine.capability not in self.capabilities:
            return f"it needs a card of compute capability {', '.join(version(*c) for c in self.capabilities)}"
        if self.flag and self.flag not in machine.flags:
            return f"this Paddle was built without it ({self.flag} is not set)"
        if case.dtype not in self.dtypes:
            return f"it takes {' and '.join(self.dtypes)}, not {case.dtype}"
        if case.grad and not self.has_grad:
            return "it has no gradient"
        if self.head_dims and case.head_dim:
            factor, highest = self.head_dims
            if case.head_dim % factor or case.head_dim > highest:
                return f"it takes heads of a multiple of {factor}, up to {highest}, not of {case.head_dim}"
        if case.captured and self.is_native:
            return "it can't be captured in a static graph"
        if self.is_native and machine.kernels_missing:
            return f"there are no kernels: {machine.kernels_missing}"
        return ""


_HALVES = ("bfloat16", "float16")
_NATIVE = Candidate("native", ("cpu",), dtypes=("float32",), has_grad=False, is_native=True)
CANDIDATES: dict[str, tuple[Candidate, ...]] = {  # best first; the last is the reference, which runs everywhere
    "attention": (
        # FlashAttention 2; head dims: Paddle's own check_head_dim_size_flash
        Candidate("flash", ("gpu",), (8, 0), (), _HALVES, head_dims=(8, 256), flag="FLAGS_flash_attn_available"),
        replace(_NATIVE, head_dims=(1, 256), has_grad=True),
        Candidate("blockwise", ("cpu",)),
        Candidate("reference"),
    ),
    # all of a layer, or of all layers, in one call; 'modules' is their forward, operation by operation
    "layers": (replace(_NATIVE, head_dims=(2, 256)), Candidate("modules")),
    "rms_norm": (
        replace(_NATIVE, has_grad=True),  # these two take the residual sum with them
        Candidate("fused", has_grad=False),
        Candidate("paddle", ("gpu",)),
        Candidate("reference"),
    ),
    "layer_norm": (_NATIVE, Candidate("reference")),
    # 'static': no shape depends on a value, as a CUDA graph needs it, but many tokens are grouped there too
    "experts": (_NATIVE, Candidate("grouped", ("cpu",)), Candidate("static")),
    "rope": (Candidate("fused", ("gpu",)), replace(_NATIVE, has_grad=True), Candidate("reference")),
    "swiglu": (_NATIVE, Candidate("fused"), Candidate("reference")),
    "gelu": (_NATIVE, Candidate("reference")),
    # float32 or bfloat16 weights under float32 activations
    "linear": (_NATIVE, Candidate("reference")),
    # sm70 has the kernel too, with another packing than the one that `convert` writes
    "weight_only_linear": (
        Candidate("kernel", ("gpu",), (7, 5), ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0)), _HALVES),
        _NATIVE,
        Candidate("reference"),
    ),
}
FLAGS = frozenset(candidate.flag for row in CANDIDATES.values() for candidate in row if candidate.flag)
_NONE: Mapping[str, str] = MappingProxyType({})
_forced: ContextVar[Mapping[str, str]] = ContextVar("forced implementations", default=_NONE)


def choose(operation: str, x, head_dim: int | None = None) -> str:
    """The implementation of an operation for a tensor: the forced one, else the best that can run.

    Args:
        operation: a key of `CANDIDATES`.
        x: the first operand.
        head_dim: E, where heads matter.
    Raises:
        ValueError: the implementation that `force` names can't run; the message gives the reason.
    """
    import paddle

    captured = not paddle.in_dynamic_mode()
    grad = not x.stop_gradient if captured else paddle.is_grad_enabled()
    device = "gpu" if on_card(x) else "cpu"
    return choose_for(operation, Case(device, str(x.dtype).removeprefix("paddle."), grad, head_dim, captured))


def choose_for(operation: str, case: Case) -> str:
    """As `choose`, for a call to come."""
    return _pick(operation, case, this_machine(), _forced.get().get(operation))


@cache
def _pick(operation: str, case: Case, machine: Machine, forced: str | None) -> str:
    obstacles = {candidate.name: candidate.obstacle(case, machine) for candidate in CANDIDATES[operation]}
    if forced is None:
        return next(name for name, obstacle in obstacles.items() if not obstacle)
    if obstacles[forced]:
        raise ValueError(f"implementation {forced!r} of {operation} can't run: {obstacles[forced]}")
    return forced


@contextlib.contextmanager
def force(**implementations: str) -> Iterator[None]:
    """Within this context operations run the named implementations, as in `force(attention="reference")`; where one
    can't run, the operation raises.

    Raises:
        ValueError: an unknown operation or implementation.
    """
    for operation, name in implementations.items():
        names = [candidate.name for candidate in CANDIDATES.get(operation, ())]
        if name not in names:
            raise ValueError(f"{operation} has no implementation {name!r}; use one of {', '.join(names or CANDIDATES)}")
    token = _forced.set({**_forced.get(), **implementations})
    try:
        yield
    finally:
        _forced.reset(token)


def on_card(x) -> bool:
    """Whether a tensor lies on a CUDA card. A graph being captured has no places yet: it is for the current device."""
    import paddle

    return x.place.is_gpu_place() if paddle.in_dynamic_mode() else paddle.get_device().startswith("gpu")


@cache
def this_machine() -> Machine:
    """The machine that the process runs on."""
    import paddle

    kernels_missing = library.unavailable_reason()
    if kernels_missing and kernels_missing != library.SWITCHED_OFF:
        _logger.warning("no CPU kernels, Paddle's slower operators run instead: %s", kernels_missing)
    flags = paddle.framework._global_flags()  # Paddle has no public call for flags of kernels that were not built
    return Machine(
        runtime.cuda_capability() or (0, 0),
        kernels_missing,
        frozenset(flag for flag in FLAGS if flag in flags and flags[flag]),
    )
