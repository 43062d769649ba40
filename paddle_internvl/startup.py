"""Start-up of our own processes: the lean, quiet import of Paddle and PaddleNLP, and settings of the whole process.

In: nothing. Out: a process in which Paddle is imported. The command line, server, web demo and workers call
`import_paddle` before their heavy work; the library never does, because a user's process is the user's.
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
from collections.abc import Iterator
from pathlib import Path

from paddle_internvl import paddlenlp_import

_GLIBC_MMAP_THRESHOLD, _GLIBC_TRIM_THRESHOLD = -3, -1  # parameters of mallopt
TRAINING_BLOCK = 128 << 20  # bytes: larger freed blocks of training are gradients, whose places would stay unused
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def import_paddle() -> None:
    """Import Paddle and PaddleNLP for a process of ours: lean, without the notices they print, with glibc and MKL set
    up for inference on a CPU. An error in the import is raised as it is.

    PaddleNLP's log takes the level of the logger 'paddle_internvl' where one is set, else 'ERROR'.
    """
    keep_freed_memory()
    _let_mkl_use_avx2()
    with _no_garbage_collection(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        paddlenlp_import.import_lean()
        from paddlenlp.utils.log import logger
    level = logging.getLogger("paddle_internvl").level
    logger.set_level(logging.getLevelName(level) if level else "ERROR")
    if level:
        logger.handler.stream = sys.stderr  # its first one led nowhere; setStream flushes it, closed or not


def log_to_stderr(name: str, level: int | str) -> None:
    """Write the log of a logger to stderr from a level on; PaddleNLP's follows ours (`import_paddle`).

    Args:
        name: of the logger.
        level: one of logging's, or its name.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Garbage collection switched off within: an import makes a million objects that all stay, and looking through
    them again and again took a quarter of its time. Afterwards no collection looks at them any more."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def keep_freed_memory(largest: int = 1 << 30) -> None:
    """Set glibc's malloc (mallopt) to keep freed blocks instead of returning them to the system.

    Activations of some MiB are otherwise mapped and unmapped at every operation, and the page faults cost as much
    as the arithmetic: GELU and softmax run 2-3 times faster with this (measured with F.gelu on [16, 257, 768]).

    Args:
        largest: bytes of the largest block that is kept.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_GLIBC_MMAP_THRESHOLD, largest)
            libc.mallopt(_GLIBC_TRIM_THRESHOLD, (1 << 31) - 1)


def _let_mkl_use_avx2() -> None:
    """Set MKL_DEBUG_CPU_TYPE so that the MKL that Paddle brings takes its AVX2 code on processors other than Intel's.
    Of itself it takes code for very old ones there: products run at a fifth of their speed (measured on an AMD EPYC
    with two cores, [1025, 1024] x [1024, 3072]: 37 and 189 GFLOP/s). A user's own setting is respected. MKL reads the
    variable at its first product."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return
    processor = cpuinfo.read_text().partition("\n\n")[0]
    if "GenuineIntel" not in processor and {"avx2", "fma"} <= set(processor.split()):
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
