"""Limits of the control group (container) that this process runs in: memory and processor quota, cgroup v1 and v2.

In: /proc/self/cgroup and /sys/fs/cgroup. Out: bytes and cores, None where nothing is limited or the system has no
control groups. Groups are nested: the tightest limit on the way up counts.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")  # another one in tests

_MEMORY_FILES = (  # limit, usage, the entry of memory.stat that counts page cache which is given up first
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory() -> int | None:
    """Bytes that the process's control groups still allow, page cache that can be given up counted as free."""
    available = []
    for folder in _folders("memory"):
        for limit_file, usage_file, reclaimable in _MEMORY_FILES:
            limit, usage = _words(folder / limit_file), _words(folder / usage_file)
            if limit and usage and limit[0] != "max":
                stat = _words(folder / "memory.stat")
                cache = int(stat[stat.index(reclaimable) + 1]) if reclaimable in stat else 0
                available.append(max(0, int(limit[0]) - int(usage[0]) + cache))
    return min(available, default=None)


def cpu_quota() -> float | None:
    """Cores that the process's control groups allow, by quota and period of the CFS scheduler."""
    quotas = []
    for folder in _folders("cpu"):
        for quota, period in (
            (_words(folder / "cpu.max") or ["max", "1"]),
            (_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us") or ["-1", "1"]),
        ):
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _folders(controller: str) -> Iterator[Path]:
    """The process's control group of a controller, and the groups above it."""
    mount = ROOT / "sys/fs/cgroup"
    for line in _lines(ROOT / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # v2: one hierarchy for all controllers
            top = mount
        elif controller in controllers.split(","):
            top = mount / controller
        else:
            continue
        group = top / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder == top or top in folder.parents)


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()
