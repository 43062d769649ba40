"""Tensors on one of several devices: where one lies, how it gets elsewhere, where operations run.

In: device names, 'cpu' or 'gpu:<index>'. Paddle runs an operation on the device that is current, not where its inputs
lie; so whoever computes on another card makes that one current, and brings every input there.
"""

from __future__ import annotations

import contextlib

import paddle


def on(device: str | None):
    """A context in which `device` is the current one; None: nothing changes."""
    return contextlib.nullcontext() if device is None else paddle.device.device_guard(device)


def device_of(tensor: paddle.Tensor) -> str:
    """The name of the device that a tensor lies on."""
    place = tensor.place
    return f"gpu:{place.gpu_device_id()}" if place.is_gpu_place() else "cpu"


def moved(value, device: str):
    """A value on `device`: a tensor is copied if it lies elsewhere, what has a method `at` (a cache) answers by itself,
    anything else is left as it is."""
    if isinstance(value, paddle.Tensor):
        return value if device_of(value) == device else value._copy_to(place_of(device), True)
    return value.at(device) if hasattr(value, "at") else value


def place_of(device: str):
    """Paddle's place of a device name."""
    return paddle.CPUPlace() if device == "cpu" else paddle.CUDAPlace(int(device.partition(":")[2] or 0))
