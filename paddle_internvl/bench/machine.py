"""The machine of a benchmark: its description, its measured peaks, and the processor time that others took. Linux only.

In: /proc and the C++ library's loops. Out: a dict for the report, FLOP/s, bytes/s, shares and bytes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from paddle_internvl import runtime, startup

_ISAS = ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "fma")
_PACKAGES = (
    "paddlepaddle",
    "paddlepaddle-gpu",
    "paddlenlp",
    "torch",
    "transformers",
    "openvino",
    "llama_cpp_python",
    "numpy",
    "pillow",
)
_DOTS = ("int8", "bfloat16", "AMX bfloat16", "AMX int8")  # kinds of csrc/limits_dots.cc
_IDLE = (3, 4)  # fields of a processor's line in /proc/stat: idle, iowait
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_REST_SECONDS = 0.2  # a processor's clock varies: the best of several tries, apart from each other


def describe() -> dict:
    """Processor, cores, instruction sets, memory, system and versions."""
    return {
        "processor": processor(),
        "cores": runtime.cpu_cores(),
        "instruction sets": instruction_sets(_ISAS),
        "memory": memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(_PACKAGES),
    }


def processor() -> str:
    """Model name of the processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets(names: Iterable[str]) -> list[str]:
    """Those of some instruction sets, named as in /proc/cpuinfo, that the processor has."""
    flags = set(_cpuinfo("(?:flags|Features)").split())
    return [name for name in names if name in flags]


def memory() -> int:
    """Bytes of memory, free or not."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    return {name: version for name in distributions if (version := _version(name))}


def _cpuinfo(field: str) -> str:
    """The first value of a field of /proc/cpuinfo; '' if there is none."""
    file = Path("/proc/cpuinfo")
    match = re.search(rf"^{field}\s*: (.*)$", file.read_text(), re.M) if file.exists() else None
    return match[1] if match else ""


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def peaks(repeats: int = 8) -> dict[str, int]:
    """Peak FLOP/s and bytes/s of this machine, measured by loops of the C++ library (csrc/limits*).

    Args:
        repeats: of each loop, of which the best counts.
    Returns:
        'flops': float32 multiply-adds in registers, two operations each. 'bandwidth': memory that is read, more of it
        than any cache holds. 'int8' (VNNI), 'bfloat16' (avx512_bf16), 'AMX bfloat16' and 'AMX int8': dot products, if
        the machine has the instruction. All on all threads; 'flops of a thread' and 'bandwidth of a thread' on one.
        Empty where the library can't be built: no other loop here reaches the peaks.
    """
    from paddle_internvl.kernels import library

    runtime.set_cpu_threads()
    startup.import_paddle()
    if library.unavailable_reason():
        return {}
    functions = library.functions()
    loops = {"flops": functions.internvl_flops, "bandwidth": functions.internvl_reading}
    dots = {name: partial(functions.internvl_dots, kind) for kind, name in enumerate(_DOTS)}
    for function in (functions.internvl_flops, functions.internvl_reading, functions.internvl_dots):
        function.restype = ctypes.c_double
    measured, threads = {}, functions.internvl_threads()
    try:
        for suffix, count, measuring in (("", threads, {**loops, **dots}), (" of a thread", 1, loops)):
            functions.internvl_set_threads(count)
            for name, loop in measuring.items():
                measured[name + suffix] = max(_after_rest(loop) for _ in range(repeats))
    finally:
        functions.internvl_set_threads(threads)
    return {name: round(peak) for name, peak in measured.items() if peak}


def higher(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """The higher of two measurements of each peak: a processor's clock depends on its neighbours."""
    return {name: max(first.get(name, 0), second.get(name, 0)) for name in {**first, **second}}


def _after_rest(loop) -> float:
    time.sleep(_REST_SECONDS)
    return loop()


class CpuLoad:
    """Use of the processors since this object was made."""

    def __init__(self):
        self._start = _ticks(), cpu_seconds()

    def foreign_share(self) -> float:
        """Share of all processors' time that neither this process, its ended children, nor idleness took, 0 to 1."""
        (busy_before, all_before), seconds_before = self._start
        busy, all_ticks = _ticks()
        if all_ticks == all_before:
            return 0.0  # shorter than a tick
        ours = cpu_seconds() - seconds_before
        return max(0.0, (busy - busy_before) * _TICK - ours) / ((all_ticks - all_before) * _TICK)


def cpu_seconds() -> float:
    """Processor time of this process and of the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _ticks() -> tuple[int, int]:
    """Busy ticks and all ticks of all processors. Guests are counted within user time already."""
    with open("/proc/stat") as file:
        return busy_and_all([int(word) for word in file.readline().split()[1:9]])


def busy_and_all(fields: Sequence[int]) -> tuple[int, int]:
    """Busy ticks and all ticks of the fields user, nice, system, idle, iowait, irq, softirq, steal."""
    return sum(fields) - sum(fields[i] for i in _IDLE), sum(fields)


def resident() -> tuple[int, int]:
    """Bytes of this process's resident memory: now, and the peak since `reset_peak`."""
    return status_bytes("VmRSS"), status_bytes("VmHWM")


def mapped() -> int:
    """Resident bytes of this process that a file backs: libraries, and memory-mapped weights."""
    return status_bytes("RssFile")


def status_bytes(field: str, pid: int | str = "self") -> int:
    """A field of /proc/PID/status in bytes; 0: the process has ended.

    Args:
        field: e.g. 'RssAnon', resident memory that no file backs.
        pid: of the process.
    """
    try:
        match = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def reset_peak() -> None:
    """Reset the peak of resident memory to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
