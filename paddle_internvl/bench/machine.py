"""The machine a benchmark runs on: its name, what it does at most, and who else was using it.

In: /proc. Out: a dict for the report, measured peaks, and the share of the processors that others took. Linux only.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np

from paddle_internvl import runtime, startup

_ISAS = ("amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "fma")
_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "torch", "transformers", "numpy", "pillow")
_IDLE = (3, 4)  # fields of a processor's line in /proc/stat: idle, iowait
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_SIDE, _MEGABYTES, _REPEATS = 3072, 1024, 12


def describe() -> dict:
    """Processor, cores, instruction sets, memory, system and versions."""
    info = Path("/proc/cpuinfo").read_text()
    flags = set(re.search(r"^flags\s*: (.*)$", info, re.M)[1].split()) if "flags" in info else set()
    model = re.search(r"^model name\s*: (.*)$", info, re.M)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": runtime.cpu_cores(),
        "instruction sets": [isa for isa in _ISAS if isa in flags],
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def peak_flops() -> float:
    """Floating point operations a second of the best float32 product on all cores, by numpy's library or Paddle's."""
    runtime.set_cpu_threads()
    startup.import_paddle()
    import paddle

    array = np.ones((_SIDE, _SIDE), np.float32)
    tensor = paddle.to_tensor(array, place="cpu")
    return 2.0 * _SIDE**3 / min(_best(lambda: array @ array), _best(lambda: paddle.matmul(tensor, tensor)))


def peak_bandwidth() -> float:
    """Bytes of memory a second that all cores together read at best, one part of an array each."""
    cores = runtime.cpu_cores()
    parts = np.array_split(np.ones(_MEGABYTES << 18, np.float32), 8 * cores)
    with ThreadPoolExecutor(cores) as pool:
        return (_MEGABYTES << 20) / _best(lambda: list(pool.map(_read, parts)))


def _read(part: np.ndarray) -> float:
    return float(np.dot(part, part))  # each number is loaded once from memory, and once more from the cache


def _best(run) -> float:
    times = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


class Load:
    """Who uses the processors, from when it is made on."""

    def __init__(self):
        self._begun = _ticks(), own_seconds()

    def foreign(self) -> float:
        """Share of all processors' time that neither this process, its ended children, nor idleness took, 0 to 1."""
        (busy, whole), mine = self._begun
        now_busy, now_whole = _ticks()
        if now_whole == whole:
            return 0.0  # shorter than a tick: nothing can be said
        own = own_seconds() - mine
        return max(0.0, (now_busy - busy) * _TICK - own) / ((now_whole - whole) * _TICK)


def own_seconds() -> float:
    """Processor time of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _ticks() -> tuple[int, int]:
    """Ticks of all processors that were not idle, and all. Guests are counted within user time already."""
    with open("/proc/stat") as file:
        return busy_of([int(word) for word in file.readline().split()[1:9]])


def busy_of(fields: Sequence[int]) -> tuple[int, int]:
    """(busy, whole) of the fields user, nice, system, idle, iowait, irq, softirq, steal."""
    whole = sum(fields)
    return whole - sum(fields[i] for i in _IDLE), whole


def resident() -> tuple[int, int]:
    """Bytes of this process's memory: now, and at most since `forget_peak`."""
    return _of_status("VmRSS"), _of_status("VmHWM")


def mapped() -> int:
    """Bytes of files that are in this process's memory as parts of it: libraries, and weights that are mapped."""
    return _of_status("RssFile")


def _of_status(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def forget_peak() -> None:
    """Let the peak of memory begin anew."""
    Path("/proc/self/clear_refs").write_text("5")
