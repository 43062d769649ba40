"""Description, measured peaks and foreign load of the machine."""

import mmap
import os

import numpy as np
import pytest

from paddle_internvl.bench import machine
from paddle_internvl.kernels import library


def test_busy_ticks():
    """user, nice, system, idle, iowait, irq, softirq, steal: idle and iowait are not busy; stolen time is."""
    assert machine.busy_and_all([10, 20, 30, 400, 50, 6, 7, 8]) == (81, 531)


def test_foreign_share(monkeypatch):
    ticks = iter([(100, 1000), (180, 1100)])
    seconds = iter([1.0, 1.3])
    monkeypatch.setattr(machine, "_ticks", lambda: next(ticks))
    monkeypatch.setattr(machine, "cpu_seconds", lambda: next(seconds))
    monkeypatch.setattr(machine, "_TICK", 0.01)
    load = machine.CpuLoad()
    # 0.8 busy seconds of 1.0, 0.3 of them ours
    assert load.foreign_share() == pytest.approx(0.5)


def test_a_foreign_share_is_never_negative(monkeypatch):
    ticks, seconds = iter([(0, 0), (10, 100), (5, 5), (5, 5)]), iter([0.0, 5.0, 5.0])
    monkeypatch.setattr(machine, "_ticks", lambda: next(ticks))
    monkeypatch.setattr(machine, "cpu_seconds", lambda: next(seconds))
    assert machine.CpuLoad().foreign_share() == 0.0  # a tick is coarse: our own time may seem more than all
    assert machine.CpuLoad().foreign_share() == 0.0  # within one tick


def test_the_peak_of_memory_can_be_reset():
    memory = mmap.mmap(-1, 64 << 20)  # returned to the system at once, unlike an allocator's memory
    np.frombuffer(memory, np.uint8)[:] = 1
    high = machine.resident()[1]
    memory.close()
    machine.reset_peak()
    now, peak = machine.resident()
    assert peak < high - (48 << 20) and peak >= now - (4 << 20)


def test_description():
    described = machine.describe()
    assert described["cores"] == len(os.sched_getaffinity(0)) and described["versions"]["paddlenlp"]
    assert described["memory"] > 1 << 30 and described["processor"]


def test_mapped_files_are_counted_apart(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(32 << 20))
    before, whole = machine.mapped(), machine.resident()[0]
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        bytes(memory)
        assert machine.mapped() - before > 30 << 20 and machine.resident()[0] - whole > 30 << 20


def test_peaks(monkeypatch):
    """More than one operation a cycle and one byte a cycle, less than 100 times that: units and counts are right."""
    monkeypatch.setattr(machine, "_REST_SECONDS", 0)
    peaks = machine.peaks(repeats=1)
    dots = {"avx512_vnni": "int8", "avx512_bf16": "bfloat16", "amx_bf16": "AMX bfloat16", "amx_int8": "AMX int8"}
    sets = machine.describe()["instruction sets"]
    always = {"flops", "bandwidth", "flops of a thread", "bandwidth of a thread"}
    assert always <= peaks.keys() <= always | {dots[name] for name in dots if name in sets}
    assert all(1e8 < peak < 1e15 for peak in peaks.values())
    monkeypatch.setattr(library, "unavailable_reason", lambda: "no compiler")
    assert machine.peaks() == {}


def test_the_higher_of_two_peaks():
    assert machine.higher({"flops": 2.0, "int8": 5.0}, {"flops": 3.0, "int8": 4.0}) == {"flops": 3.0, "int8": 5.0}
