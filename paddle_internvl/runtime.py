"""Device, dtype, threads and free memory: one function and one decision each.

In: what the user requested and what the machine has. Out: a device name, a dtype name, numbers.
It deals with no models, checkpoints or files. Importing it touches neither Paddle nor the device.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path

from paddle_internvl import cgroup

DTYPES = ("float32", "bfloat16", "float16")
_THREADS = "OMP_NUM_THREADS"
_OUT_OF_MEMORY = (
    "resourceexhausted", "out of memory", "cannot allocate memory", "bad_alloc", "can't start new thread",
    "failed to map segment",
)  # fmt: skip


def cpu_cores() -> int:
    """CPU cores this process may use, by its affinity mask and its container's quota (rounded down, at least 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup.cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def _threads_set_by_user() -> bool:
    """Whether the process was started with OMP_NUM_THREADS. Paddle writes the variable itself while it is imported:
    from then on only the environment that the process began with holds the user's own."""
    if "paddle" not in sys.modules:
        return _THREADS in os.environ
    initial = Path("/proc/self/environ")
    return initial.exists() and f"{_THREADS}=".encode() in initial.read_bytes()


def set_cpu_threads() -> None:
    """Set OMP_NUM_THREADS, and Paddle's threads, to the number of cores. Paddle's own default is one thread; a user's
    OMP_NUM_THREADS is respected."""
    if _threads_set_by_user():
        return
    cores = cpu_cores()
    os.environ[_THREADS] = str(cores)
    if "paddle" in sys.modules:
        sys.modules["paddle"].base.core.set_num_threads(cores)


def cpu_threads() -> int:
    """CPU threads of one operation: OMP_NUM_THREADS of the user, else one for each core."""
    requested = os.environ.get(_THREADS, "") if _threads_set_by_user() else ""
    return int(requested) if requested.isdigit() and int(requested) else cpu_cores()


def cuda_capability() -> tuple[int, int] | None:
    """(major, minor) of the current CUDA card, or None when Paddle has no usable one."""
    import paddle

    if not paddle.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0:
        return None
    return paddle.device.cuda.get_device_capability()


def choose_device(device: str | None = None) -> str:
    """The device: 'gpu' where Paddle can use a card, else 'cpu'; an explicit request is kept or is an error.

    Raises:
        ValueError: this machine does not have the requested device.
    """
    available = "gpu" if cuda_capability() else "cpu"
    if device is None:
        return available
    kind = device.split(":")[0].replace("cuda", "gpu")
    if kind not in ("cpu", "gpu"):
        raise ValueError(f"device={device!r} is not supported; use 'cpu', 'gpu' or 'gpu:<index>'")
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
        return requested, "as requested"
    return ("bfloat16", "the checkpoints' own dtype") if has_bfloat16 else ("float16", "this card has no bfloat16")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means out of memory; Paddle and `threading` have no class for it, only words."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return any(words in text for words in _OUT_OF_MEMORY)


def release_memory() -> None:
    """Release memory that is held but not used: garbage, the C library's free lists (pictures are allocated in blocks
    that glibc keeps), and on CUDA the cache of Paddle's allocator."""
    gc.collect()
    with suppress(AttributeError, OSError):  # other C libraries have no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    if cuda_capability():
        import paddle

        paddle.device.cuda.empty_cache()


def free_memory(device: str) -> int:
    """Free memory of a device in bytes. On a CPU: what processes can still take without swapping (MemAvailable, page
    cache counted as free), within the limits of the container."""
    if device.startswith("cpu"):
        available = _available_memory()
        limited = cgroup.available_memory()
        return available if limited is None else min(available, limited)
    import paddle

    card = paddle.device.cuda.get_device_properties()
    return card.total_memory - paddle.device.cuda.memory_reserved()


def _available_memory() -> int:
    meminfo = cgroup.ROOT / "proc/meminfo"
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # free pages alone: systems without MemAvailable
