"""Copies between host and device: equal numbers on a CPU; on a fake card, only `wait` waits."""

import gc

import numpy as np
import paddle
import pytest

from paddle_internvl.ops import transfers


def test_a_round_trip():
    array = np.array([[1, -2], [3, 4]])
    (copied,) = transfers.HostCopy(transfers.upload(array)).wait()
    np.testing.assert_array_equal(copied, array)
    assert copied.dtype == np.int64 and not transfers.overlaps()
    ids, flags = transfers.HostCopy(paddle.to_tensor([7, 8]), paddle.to_tensor([True, False])).wait()
    assert ids.tolist() == [7, 8] and flags.tolist() == [True, False]


class CardTensor:
    """A fake tensor on a card."""

    def __init__(self, events: list, value):
        self.events, self.value, self.place = events, value, self

    def is_gpu_place(self) -> bool:
        return True

    def _copy_to(self, place, blocking: bool):
        self.events.append(("copy", place, blocking))
        return self

    def numpy(self):
        self.events.append("numpy")
        return self.value


def test_a_copy_from_a_card_is_asynchronous(monkeypatch):
    events = []

    class Event:
        def record(self):
            events.append("record")

        def synchronize(self):
            events.append("synchronize")

    monkeypatch.setattr(paddle.device, "Event", Event)
    monkeypatch.setattr(paddle, "CUDAPinnedPlace", lambda: "pinned")
    copy = transfers.HostCopy(CardTensor(events, 1), CardTensor(events, 2))
    assert events == [("copy", "pinned", False), ("copy", "pinned", False), "record"]
    assert copy.wait() == [1, 2] and events[3:] == ["synchronize", "numpy", "numpy"]


def test_an_upload_to_a_card_goes_through_page_locked_memory(monkeypatch):
    events = []
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:1")
    monkeypatch.setattr(paddle, "CUDAPinnedPlace", lambda: "pinned")
    monkeypatch.setattr(paddle, "CUDAPlace", lambda index: f"card {index}")
    monkeypatch.setattr(paddle, "to_tensor", lambda array, place: events.append(place) or CardTensor(events, array))
    assert transfers.upload(np.array([5])).value == [5] and transfers.overlaps()
    assert events == ["pinned", ("copy", "card 1", False)]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.bool_, np.uint8])
def test_an_upload_is_a_copy(dtype):
    for array in (np.arange(12).reshape(3, 4).astype(dtype)[:, ::2], np.ones((), dtype), np.ones((0, 3), dtype)):
        array.flags.writeable = False
        (copied,) = transfers.HostCopy(transfers.upload(array)).wait()
        assert copied.dtype == array.dtype and copied.shape == array.shape and (copied == array).all()


def test_an_upload_leaks_nothing():
    """`paddle.to_tensor` leaks a list at every call, which a server makes for every token."""
    array = np.arange(4)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        transfers.upload(array)
    gc.collect()
    assert len(gc.get_objects()) < before + 100
