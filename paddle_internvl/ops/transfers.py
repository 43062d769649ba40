"""Asynchronous copies between host and device: neither side waits for the other. On a CPU a copy is done at once.

On a card Paddle's `to_tensor` and `numpy()` copy on CUDA's default stream, which waits for every launched kernel and
delays every later one (Paddle's GpuMemcpySync; Paddle's own stream is one that the default stream waits for: InitStream
in paddle/phi/backends/gpu/gpu_resources.cc). Copies between page-locked memory and a card on Paddle's stream do not:
`_copy_to(place, False)`, which also keeps its source alive until the copy is done
(IncreaseTensorReferenceCountUntilCopyComplete in paddle/fluid/pybind/eager_method.cc). Read in Paddle's source, not run
on a card.
"""

from __future__ import annotations

import numpy as np
import paddle

from paddle_internvl.ops import devices


def overlaps() -> bool:
    """Whether the host runs ahead of the current device, so that a step is launched before the last one is read."""
    return paddle.get_device().startswith("gpu")


def upload(array: np.ndarray, device: str | None = None) -> paddle.Tensor:
    """Copy an array to a device without waiting; None: the current device."""
    current = paddle.get_device()
    device = device or current
    if device == current == "cpu" and paddle.in_dynamic_mode() and array.dtype != np.uint16:  # Paddle's bfloat16
        tensor = paddle.empty(array.shape, array.dtype.name)  # `to_tensor` leaks a list at every call (Paddle 3.3.1)
        tensor.get_tensor().set(array, paddle.CPUPlace())
        return tensor
    if device == "cpu" or not paddle.in_dynamic_mode():
        return paddle.to_tensor(array)
    return paddle.to_tensor(array, place=paddle.CUDAPinnedPlace())._copy_to(devices.place_of(device), False)


class HostCopy:
    """Asynchronous copy of tensors to the host; `wait` must be called, since the copy writes memory until then.

    Args:
        tensors: on one device.
    """

    def __init__(self, *tensors: paddle.Tensor):
        self._copies, self._done = tensors, None
        if any(tensor.place.is_gpu_place() for tensor in tensors):
            self._copies = [tensor._copy_to(paddle.CUDAPinnedPlace(), False) for tensor in tensors]
            self._done = paddle.device.Event()
            self._done.record()

    def wait(self) -> list[np.ndarray]:
        """Wait for the copy and return the arrays."""
        if self._done is not None:
            self._done.synchronize()
        return [copy.numpy() for copy in self._copies]
