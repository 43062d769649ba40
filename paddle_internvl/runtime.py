"""Device, dtype and the forms of hot operations: one function and one decision each.

In: what the user asked for and what the machine has. Out: a device name, a dtype name, the name of a form.
Knows nothing about models, checkpoints or files. Importing it touches neither Paddle nor the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import os
import sys
import warnings
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")
_THREADS = "OMP_NUM_THREADS"
_GLIBC_MMAP_THRESHOLD, _GLIBC_TRIM_THRESHOLD = -3, -1


def cpu_cores() -> int:
    """Cores this process may use (its affinity mask where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads_set_by_user() -> bool:
    """Whether the process was started with OMP_NUM_THREADS. Paddle writes the variable itself while it is imported,
    so once that has happened only the environment the process began with tells the two apart."""
    if "paddle" not in sys.modules:
        return _THREADS in os.environ
    initial = Path("/proc/self/environ")
    return initial.exists() and f"{_THREADS}=".encode() in initial.read_bytes()


def set_cpu_threads() -> None:
    """Let Paddle use every core. Left alone it uses one thread; a user's OMP_NUM_THREADS is respected."""
    if _threads_set_by_user():
        return
    cores = cpu_cores()
    os.environ[_THREADS] = str(cores)
    if "paddle" in sys.modules:
        sys.modules["paddle"].base.core.set_num_threads(cores)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks instead of returning them to the system.

    Activations of some MiB are otherwise mapped and unmapped at every operation, and the page faults cost as much
    as the arithmetic: GELU and softmax run 2-3 times faster with this (measured with F.gelu on [16, 257, 768])."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_GLIBC_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_GLIBC_TRIM_THRESHOLD, (1 << 31) - 1)


def import_paddle_quietly(log_level: str = "ERROR") -> None:
    """Import Paddle and PaddleNLP without the notices they print on the way, for command lines. An error in the
    import is raised as it is."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from paddlenlp.utils.log import logger
    logger.set_level(log_level)


def cuda_capability() -> tuple[int, int] | None:
    """(major, minor) of the current CUDA card, or None when Paddle has no usable one."""
    import paddle

    if not paddle.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0:
        return None
    return paddle.device.cuda.get_device_capability()


def choose_device(device: str | None = None) -> str:
    """'gpu' where Paddle can use a card, else 'cpu'; an explicit request is kept or is an error.

    Raises:
        ValueError: the device asked for is not one of this machine.
    """
    available = "gpu" if cuda_capability() else "cpu"
    if device is None:
        return available
    kind = device.split(":")[0].replace("cuda", "gpu")
    if kind not in ("cpu", "gpu"):
        raise ValueError(f"device={device!r} is not known; use 'cpu', 'gpu' or 'gpu:<index>'")
    if kind == "gpu" and available == "cpu":
        raise ValueError(
            f"device={device!r} asked for, but this Paddle sees no CUDA card; "
            "use device='cpu' or install paddlepaddle-gpu (see `paddle-internvl doctor`)"
        )
    return device.replace("cuda", "gpu")


def choose_dtype(requested: str | None, device: str) -> tuple[str, str]:
    """The dtype weights are held and computed in.

    Args:
        requested: 'bfloat16', 'float16', 'float32', or None / 'auto' for the best one.
        device: what `choose_device` returned.
    Returns:
        (dtype, reason): the reason is one clause for the log.
    Raises:
        ValueError: a dtype that is not one of `DTYPES`, or that this card can't compute in.
    """
    if requested in (None, "auto"):
        requested = None
    elif requested not in DTYPES:
        raise ValueError(f"dtype={requested!r} is not supported; use one of {', '.join(DTYPES)}")
    if device.startswith("cpu"):
        return "float32", "Paddle's CPU kernels for matrix products are float32 only"
    has_bfloat16 = (cuda_capability() or (0, 0)) >= (8, 0)
    if requested == "bfloat16" and not has_bfloat16:
        raise ValueError("dtype='bfloat16' needs a card of compute capability 8.0 or newer; use dtype='float16'")
    if requested:
        return requested, "as asked for"
    return ("bfloat16", "the checkpoints' own dtype") if has_bfloat16 else ("float16", "this card has no bfloat16")


@dataclass(frozen=True)
class Form:
    """One way to compute an operation, and what it needs.

    Args:
        name: what `models` calls it. devices: where its kernels are. capability: the least a CUDA card must have.
        dtypes: of its operands. trains: whether it has a gradient. head_dims: (a, b): E is a multiple of a, at most b.
        flag: what Paddle must have been built with, by the name of its flag.
    """

    name: str
    devices: tuple[str, ...] = ("cpu", "gpu")
    capability: tuple[int, int] = (0, 0)
    dtypes: tuple[str, ...] = DTYPES
    trains: bool = True
    head_dims: tuple[int, int] | None = None
    flag: str = ""

    def lacks(self, device: str, dtype: str, grad: bool, head_dim: int | None) -> str:
        """What keeps it from being taken; '' if nothing does."""
        if device not in self.devices:
            return f"it runs on {' and '.join(self.devices)}, not on {device}"
        if device == "gpu" and (cuda_capability() or (0, 0)) < self.capability:
            return "it needs a card of compute capability {}.{}".format(*self.capability)
        if self.flag and not _built_with(self.flag):
            return f"this Paddle was built without it ({self.flag} is not set)"
        if dtype not in self.dtypes:
            return f"it takes {' and '.join(self.dtypes)}, not {dtype}"
        if grad and not self.trains:
            return "it has no gradient"
        if self.head_dims and head_dim and (head_dim % self.head_dims[0] or head_dim > self.head_dims[1]):
            return "it takes heads of a multiple of {}, up to {}".format(*self.head_dims) + f", not of {head_dim}"
        return ""


_HALVES = ("bfloat16", "float16")
FORMS: dict[str, tuple[Form, ...]] = {  # best first; the last is the definition, which runs everywhere
    "attention": (
        # FlashAttention 2; head dims: Paddle's own check_head_dim_size_flash
        Form("flash", ("gpu",), (8, 0), _HALVES, head_dims=(8, 256), flag="FLAGS_flash_attn_available"),
        Form("chunked", ("cpu",)),
        Form("plain"),
    ),
    "rms_norm": (
        Form("fused", trains=False),  # takes the residual sum with it
        Form("differentiable", ("gpu",)),
        Form("plain"),
    ),
    "rope": (Form("fused", ("gpu",)), Form("plain")),
    "swiglu": (Form("fused"), Form("plain")),
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
    """Whether a tensor lies on a CUDA card. A graph that is captured has no places yet: it is for the current device."""
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

    grad = paddle.is_grad_enabled() if paddle.in_dynamic_mode() else not x.stop_gradient
    about = "gpu" if on_card(x) else "cpu", str(x.dtype).removeprefix("paddle."), grad, head_dim
    return _form(operation, (_forced.get() or {}).get(operation), *about)


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an operation failed for want of memory; Paddle says so only in words."""
    text = str(error)
    return isinstance(error, MemoryError) or "ResourceExhausted" in text or "out of memory" in text.lower()


def release_memory() -> None:
    """Give back memory that is held but not used: garbage, and on CUDA what Paddle's allocator keeps."""
    gc.collect()
    if cuda_capability():
        import paddle

        paddle.device.cuda.empty_cache()


def free_memory(device: str) -> int:
    """Bytes that are free on a device."""
    if device.startswith("cpu"):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import paddle

    card = paddle.device.cuda.get_device_properties()
    return card.total_memory - paddle.device.cuda.memory_reserved()
