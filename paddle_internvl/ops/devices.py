"""Device placement of tensors: the device of a tensor, a copy on another device, the current device.

Device names are 'cpu' and 'gpu:<index>'. Paddle runs an operation on the current device, not on the device of its
inputs; so a layer on another card must make that card current and copy every input to it.
"""

from __future__ import annotations

import contextlib

import paddle


def on(device: str | None):
    """Context in which `device` is the current device; None: the current device stays."""
    return contextlib.nullcontext() if device is None else paddle.device.device_guard(device)


def device_of(tensor: paddle.Tensor) -> str:
    """Name of a tensor's device."""
    place = tensor.place
    return f"gpu:{place.gpu_device_id()}" if place.is_gpu_place() else "cpu"


def to_device(value, device: str):
    """Copy a value to a device.

    Args:
        value: a tensor (copied only if it is on another device), a `KVCache` (its `on_device` is called), or anything
            else, which is returned unchanged.
        device: name of the device.
    """
    if isinstance(value, paddle.Tensor):
        return value if device_of(value) == device else value._copy_to(place_of(device), True)
    return value.on_device(device) if hasattr(value, "on_device") else value


def place_of(device: str):
    """Paddle's place of a device name."""
    return paddle.CPUPlace() if device == "cpu" else paddle.CUDAPlace(int(device.partition(":")[2] or 0))
