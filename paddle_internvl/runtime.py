"""Device, dtype, threads and memory: one function and one decision each.

In: what the user asked for and what the machine has. Out: a device name, a dtype name.
Knows nothing about models, checkpoints or files. Importing it touches neither Paddle nor the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import logging
import os
import sys
import warnings
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


def cpu_threads() -> int:
    """Threads that CPU operations use: OMP_NUM_THREADS of the user, else one for each core."""
    wanted = os.environ.get(_THREADS, "") if _threads_set_by_user() else ""
    return int(wanted) if wanted.isdigit() and int(wanted) else cpu_cores()


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks instead of returning them to the system.

    Activations of some MiB are otherwise mapped and unmapped at every operation, and the page faults cost as much
    as the arithmetic: GELU and softmax run 2-3 times faster with this (measured with F.gelu on [16, 257, 768])."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_GLIBC_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_GLIBC_TRIM_THRESHOLD, (1 << 31) - 1)


def let_mkl_use_avx2() -> None:
    """Tell the MKL that Paddle brings to take its AVX2 code on processors that are not Intel's. Of itself it takes
    code for very old ones there: products run at a fifth of their speed (measured on an AMD EPYC with two cores,
    [1025, 1024] x [1024, 3072]: 37 and 189 GFLOP/s). A user's own setting is respected. It is read at the first
    product, so a process that has had one stays as it is."""
    about = Path("/proc/cpuinfo")
    if not about.exists():
        return
    processor = about.read_text().partition("\n\n")[0]
    if "GenuineIntel" not in processor and {"avx2", "fma"} <= set(processor.split()):
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def import_paddle_quietly() -> None:
    """Import Paddle and PaddleNLP without the notices they print on the way, for command lines. PaddleNLP's log takes
    the level of ours where one is set, else 'ERROR'. An error in the import is raised as it is."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from paddlenlp.utils.log import logger
    level = logging.getLogger("paddle_internvl").level
    logger.set_level(logging.getLevelName(level) if level else "ERROR")
    if level:
        logger.handler.setStream(sys.stderr)  # it was made while stderr led nowhere
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        logger.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))


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
