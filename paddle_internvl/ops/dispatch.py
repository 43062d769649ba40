"""Which form of a hot operation runs: one table, and one function that chooses.

In: an operation, its first operand, what the machine has. Out: the name of a form. The forms themselves are in
`models`, each beside the plain one, its definition, to which tests hold it. Importing this does not touch Paddle.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache

from paddle_internvl import runtime
from paddle_internvl.kernels import library
from paddle_internvl.runtime import DTYPES


@dataclass(frozen=True)
class Form:
    """One way to compute an operation, and what it needs.

    Args:
        name: what `models` calls it. devices: where its kernels are. capability: the least a CUDA card must have.
        cards: the capabilities that its kernels were written for, where it is not all from one on.
        dtypes: of its operands. trains: whether it has a gradient. head_dims: (a, b): E is a multiple of a, at most b.
        flag: what Paddle must have been built with, by the name of its flag. native: it is in `kernels`' library.
    """

    name: str
    devices: tuple[str, ...] = ("cpu", "gpu")
    capability: tuple[int, int] = (0, 0)
    cards: tuple[tuple[int, int], ...] = ()
    dtypes: tuple[str, ...] = DTYPES
    trains: bool = True
    head_dims: tuple[int, int] | None = None
    flag: str = ""
    native: bool = False

    def lacks(self, device: str, dtype: str, grad: bool, head_dim: int | None, captured: bool = False) -> str:
        """What keeps it from being taken; '' if nothing does. captured: within a static graph."""
        if device not in self.devices:
            return f"it runs on {' and '.join(self.devices)}, not on {device}"
        if device == "gpu" and (runtime.cuda_capability() or (0, 0)) < self.capability:
            return "it needs a card of compute capability {}.{}".format(*self.capability)
        if device == "gpu" and self.cards and runtime.cuda_capability() not in self.cards:
            return "it needs a card of compute capability " + ", ".join("{}.{}".format(*card) for card in self.cards)
        if self.flag and not _built_with(self.flag):
            return f"this Paddle was built without it ({self.flag} is not set)"
        if dtype not in self.dtypes:
            return f"it takes {' and '.join(self.dtypes)}, not {dtype}"
        if grad and not self.trains:
            return "it has no gradient"
        if self.head_dims and head_dim and (head_dim % self.head_dims[0] or head_dim > self.head_dims[1]):
            return "it takes heads of a multiple of {}, up to {}".format(*self.head_dims) + f", not of {head_dim}"
        if captured and self.native:
            return "it can't be captured in a static graph"
        reason = self.native and library.unavailable_reason()
        return f"there are no kernels: {reason}" if reason else ""


_HALVES = ("bfloat16", "float16")
_NATIVE = Form("native", ("cpu",), dtypes=("float32",), trains=False, native=True)
FORMS: dict[str, tuple[Form, ...]] = {  # best first; the last is the definition, which runs everywhere
    "attention": (
        # FlashAttention 2; head dims: Paddle's own check_head_dim_size_flash
        Form("flash", ("gpu",), (8, 0), (), _HALVES, head_dims=(8, 256), flag="FLAGS_flash_attn_available"),
        replace(_NATIVE, head_dims=(1, 256)),
        Form("heads", ("cpu",), dtypes=("float32",), trains=False),
        Form("chunked", ("cpu",)),
        Form("plain"),
    ),
    # whole layers in one call; 'modules' is their forward, operation by operation
    "decoder_layer": (replace(_NATIVE, head_dims=(2, 256)), Form("modules")),
    "vision_layer": (replace(_NATIVE, head_dims=(1, 256)), Form("modules")),
    "rms_norm": (
        _NATIVE,  # these two take the residual sum with them
        Form("fused", trains=False),
        Form("differentiable", ("gpu",)),
        Form("plain"),
    ),
    "layer_norm": (_NATIVE, Form("plain")),
    "rope": (Form("fused", ("gpu",)), _NATIVE, Form("plain")),
    "swiglu": (_NATIVE, Form("fused"), Form("plain")),
    "gelu": (_NATIVE, Form("plain")),
    # weights may be float32 or bfloat16; those of few bits are `weight_only`'s
    "linear": (_NATIVE, Form("plain")),
    # sm70 has the kernel too, with another packing than the one that `convert` writes
    "weight_only": (
        Form("kernel", ("gpu",), (7, 5), ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0)), _HALVES),
        _NATIVE,
        Form("plain"),
    ),
}
_forced: ContextVar[dict[str, str] | None] = ContextVar("forms", default=None)


@contextlib.contextmanager
def use_forms(**names: str):
    """Within this context operations take the forms named, `use_forms(attention="plain")`; a form that can't be taken
    is an error where it would be.

    Raises:
        ValueError: an operation or a form that there is not.
    """
    for operation, name in names.items():
        known = [form.name for form in FORMS.get(operation, ())]
        if name not in known:
            raise ValueError(f"{operation} form {name!r} is not known; use one of {', '.join(known or FORMS)}")
    token = _forced.set({**(_forced.get() or {}), **names})
    try:
        yield
    finally:
        _forced.reset(token)


def on_card(x) -> bool:
    """Whether a tensor lies on a CUDA card. A graph being captured has no places yet: it is for the current device."""
    import paddle

    return x.place.is_gpu_place() if paddle.in_dynamic_mode() else paddle.get_device().startswith("gpu")


def choose_form(operation: str, x, head_dim: int | None = None) -> str:
    """The form of an operation on a tensor: the one that `use_forms` names, else the best that can be taken.

    Args:
        operation: a key of `FORMS`. x: its first operand. head_dim: E, where heads matter.
    Raises:
        ValueError: the form named can't be taken; says why.
    """
    import paddle

    captured = not paddle.in_dynamic_mode()
    grad = not x.stop_gradient if captured else paddle.is_grad_enabled()
    return form_for(operation, on_card(x), str(x.dtype).removeprefix("paddle."), grad, head_dim, captured)


def refuse(operation: str, name: str, reason: str) -> None:
    """Note that a form which could be taken can't be for these operands, so that the next one is.

    Raises:
        ValueError: it is the one that `use_forms` names.
    """
    if (_forced.get() or {}).get(operation) == name:
        raise ValueError(f"{operation} form {name!r} can't be taken: {reason}")


def form_for(
    operation: str, card: bool, dtype: str, grad: bool = False, head_dim: int | None = None, captured: bool = False
) -> str:
    """As `choose_form`, for tensors to come: on a CUDA card or not, of a dtype, with a gradient or not."""
    wanted = (_forced.get() or {}).get(operation)
    return _form(operation, wanted, "gpu" if card else "cpu", dtype, grad, head_dim, captured)


@cache
def _form(operation: str, wanted: str | None, *about) -> str:
    lacking = {form.name: form.lacks(*about) for form in FORMS[operation]}
    if wanted is None:
        return next(name for name, reason in lacking.items() if not reason)
    if lacking[wanted]:
        raise ValueError(f"{operation} form {wanted!r} can't be taken: {lacking[wanted]}")
    return wanted


def choose_attention(device: str, dtype: str = "bfloat16") -> str:
    """Name of the form of attention for a device and a dtype ('chunked', 'flash' or 'plain'), for logs."""
    about = device.split(":")[0], "float32" if device.startswith("cpu") else dtype, False, None
    return next(form.name for form in FORMS["attention"] if not form.lacks(*about))


def _built_with(flag: str) -> bool:
    """Whether Paddle has a flag and it is on. It has no public call for flags of kernels that were not built."""
    import paddle

    flags = paddle.framework._global_flags()
    return flag in flags and bool(flags[flag])
