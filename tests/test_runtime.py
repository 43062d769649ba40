"""Cores and free memory of this process: affinity, MemAvailable, and the limits of its container (cgroup v1 and v2)."""

import os

import pytest

from paddle_internvl import cgroup, runtime

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Write files of a made-up machine: path -> text."""

    def write(files: dict[str, str]) -> None:
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    write({"proc/meminfo": f"MemTotal: 99 kB\nMemFree: 1 kB\nMemAvailable: {12 * GIB >> 10} kB\n"})
    return write


V1 = {"proc/self/cgroup": "5:memory:/docker/one\n4:cpu,cpuacct:/docker/one\n1:name=systemd:/docker\n"}
V1_MEMORY, V1_CPU = "sys/fs/cgroup/memory/docker/one", "sys/fs/cgroup/cpu/docker"
V2 = {"proc/self/cgroup": "0::/user/one\n"}
V2_GROUP = "sys/fs/cgroup/user"


def test_free_memory_is_what_is_available_without_a_container(machine):
    assert runtime.free_memory("cpu") == 12 * GIB and cgroup.cpu_quota() is None


@pytest.mark.parametrize(
    "files",
    [
        {
            **V1,
            f"{V1_MEMORY}/memory.limit_in_bytes": str(8 * GIB),
            f"{V1_MEMORY}/memory.usage_in_bytes": str(5 * GIB),
            f"{V1_MEMORY}/memory.stat": f"cache 7\ntotal_inactive_file {GIB}\n",
        },
        {
            **V2,
            f"{V2_GROUP}/one/memory.max": "max",
            f"{V2_GROUP}/one/memory.current": "1",
            f"{V2_GROUP}/memory.max": str(8 * GIB),  # the limit of the group above
            f"{V2_GROUP}/memory.current": str(5 * GIB),
            f"{V2_GROUP}/memory.stat": f"anon 7\ninactive_file {GIB}\n",
        },
    ],
    ids=["v1", "v2"],
)
def test_free_memory_is_within_the_container_s_limit(machine, files):
    machine(files)
    assert runtime.free_memory("cpu") == 4 * GIB  # limit - usage + page cache that can be given up
    machine({"proc/meminfo": f"MemAvailable: {GIB >> 10} kB\n"})
    assert runtime.free_memory("cpu") == GIB  # the machine has less than the limit


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({**V1, f"{V1_CPU}/cpu.cfs_quota_us": "-1", f"{V1_CPU}/cpu.cfs_period_us": "100000"}, None),
        ({**V1, f"{V1_CPU}/cpu.cfs_quota_us": "150000", f"{V1_CPU}/cpu.cfs_period_us": "100000"}, 1.5),
        ({**V2, f"{V2_GROUP}/one/cpu.max": "max 100000", f"{V2_GROUP}/cpu.max": "50000 100000"}, 0.5),
    ],
)
def test_cores_are_within_the_container_s_quota(machine, files, quota):
    machine(files)
    assert cgroup.cpu_quota() == quota
    cores = len(os.sched_getaffinity(0))
    assert runtime.cpu_cores() == (cores if quota is None else 1)


def test_this_machine_has_memory_and_cores():
    assert 0 < runtime.free_memory("cpu") < 1 << 50 and runtime.cpu_cores() >= 1
