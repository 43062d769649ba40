"""Numbers on their way between the host and the device, without either waiting for the other.

In: arrays, or tensors. Out: tensors on a device, or arrays once they are there. On a CPU both are at once.

On a card Paddle's `to_tensor` and `numpy()` copy on CUDA's default stream, which waits for everything launched before
and holds up everything after (Paddle's GpuMemcpySync; its own stream is one that the default stream waits for:
InitStream in paddle/phi/backends/gpu/gpu_resources.cc). Copies between page-locked memory and a card on Paddle's stream
do not: `_copy_to(place, False)`, which also keeps what it copies until it is done
(IncreaseTensorReferenceCountUntilCopyComplete in paddle/fluid/pybind/eager_method.cc). Read there, not run on a card.
"""

from __future__ import annotations

import numpy as np
import paddle

from paddle_internvl.ops import devices


def overlaps() -> bool:
    """Whether the host can go on while the current device computes: so it is worth launching the next step before the
    tokens of this one are read."""
    return paddle.get_device().startswith("gpu")


def upload(array: np.ndarray, device: str | None = None) -> paddle.Tensor:
    """An array's copy on a device; None: the current one."""
    device = device or paddle.get_device()
    if device == "cpu" or not paddle.in_dynamic_mode():
        return paddle.to_tensor(array)
    return paddle.to_tensor(array, place=paddle.CUDAPinnedPlace())._copy_to(devices.place_of(device), False)


class HostCopy:
    """Tensors being copied to the host. It must be waited for: its memory is written until then.

    Args:
        tensors: of one device.
    """

    def __init__(self, *tensors: paddle.Tensor):
        self._copies, self._done = tensors, None
        if any(tensor.place.is_gpu_place() for tensor in tensors):
            self._copies = [tensor._copy_to(paddle.CUDAPinnedPlace(), False) for tensor in tensors]
            self._done = paddle.device.Event()
            self._done.record()

    def wait(self) -> list[np.ndarray]:
        """The values, once they are there."""
        if self._done is not None:
            self._done.synchronize()
        return [copy.numpy() for copy in self._copies]
