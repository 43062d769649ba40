"""Ray clusters: unreachable ones, and the resources of each process."""

import socket
import sys
from types import SimpleNamespace

import pytest

from paddle_internvl.scale import cluster


def machine(alive=True, **resources):
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "processes", "device", "claimed"),
    [
        ([machine(CPU=8)], 2, None, {"num_cpus": 4}),
        ([machine(CPU=8)], 3, "cpu", {"num_cpus": 2}),
        ([machine(CPU=2)], 5, None, {"num_cpus": 1}),
        ([machine(CPU=8), machine(CPU=4)], 3, None, {"num_cpus": 2}),  # two of them on the smaller machine
        ([machine(CPU=8), machine(alive=False, CPU=1), machine(memory=1)], 2, None, {"num_cpus": 4}),
        ([machine(CPU=8, GPU=1), machine(CPU=8, GPU=1)], 2, None, {"num_cpus": 1, "num_gpus": 1}),
        ([machine(CPU=8, GPU=2)], 4, "cpu", {"num_cpus": 2}),
    ],
)
def test_shares(nodes, processes, device, claimed):
    ray = SimpleNamespace(nodes=lambda: nodes)
    assert cluster.resources_per_process(ray, processes, device) == claimed


@pytest.mark.parametrize(
    ("nodes", "device", "message"),
    [
        ([machine(CPU=8, GPU=1)], None, "2 processes need a card each, but the cluster has 1"),
        ([machine(CPU=8)], "gpu", "2 processes need a card each, but the cluster has 0"),
        ([machine(CPU=8, GPU=2)], "gpu:1", "device='gpu:1' names one card"),
        ([machine(memory=1)], None, "no machine with free cores"),
    ],
)
def test_invalid_resources(nodes, device, message):
    with pytest.raises(ValueError, match=message):
        cluster.resources_per_process(SimpleNamespace(nodes=lambda: nodes), 2, device)


def test_a_slow_start_is_tried_again(monkeypatch):
    outcomes = [Exception("The current node timed out during startup. This ..."), None]

    def init(address, **options):
        if error := outcomes.pop(0):
            raise error

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with cluster.joined(None, 1) as joined:
        assert joined is ray and not outcomes
    outcomes += [Exception("no room")]
    with pytest.raises(Exception, match="no room"), cluster.joined(None, 1):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_no_cluster_is_an_error_at_once(scheme):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"{scheme}127.0.0.1:{port}"
    with pytest.raises(ValueError, match=f"no Ray cluster at {address}: .*refused"), cluster.joined(address, 1):
        pass


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "The actor died:\n  File x, line 3\n    y()\nValueError: no such checkpoint\n\n",
            "ValueError: no such checkpoint",
        ),
        ("a.b.RayError: x\nsee the log of the worker", "a.b.RayError: x"),
        ("one\ntwo\n", "two"),
        ("", ""),
        ("x" * 10**6, "x" * 200),
    ],
)
def test_the_line_of_an_error(message, line):
    assert cluster.error_line(message) == line
