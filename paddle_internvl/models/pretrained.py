"""Base class of the networks: a model's two lives, plain or prepared for inference.

A plain network has ordinary parameters in one dtype, can be trained and wrapped, and caches nothing. After
`checkpoints.preparation.prepare_for_inference` its weights are fixed, and what was derived from them (C structs, cached
visual tokens, KV prefixes) is relied on: such a network refuses to be trained or moved, and a changed weight is an
error.
"""

from __future__ import annotations

import ctypes

import paddle
from paddle import nn
from paddlenlp.transformers import PretrainedModel


class WeightsChangedError(RuntimeError):
    """A weight of a model that is prepared for inference has changed."""


class InternVLPretrainedModel(PretrainedModel):
    """Base class of the networks.

    Attributes:
        weights_snapshot: of a model prepared for inference, the weights as they were then; None: the model is plain.
    """

    weights_snapshot: WeightsSnapshot | None = None

    @property
    def is_prepared(self) -> bool:
        """Whether the model is prepared for inference."""
        return self.weights_snapshot is not None

    def train(self, mode: bool = True):
        """Set training mode, or evaluation mode.

        Raises:
            ValueError: training mode of a model that is prepared for inference.
        """
        if not mode:
            return self.eval()
        self._require_plain("trained")
        super().train()
        return self

    def eval(self):
        """Set evaluation mode."""
        super().eval()
        return self

    def to(self, device=None, dtype=None, blocking=None):
        """Move or cast the parameters, as `paddle.nn.Layer.to`.

        Raises:
            ValueError: a model that is prepared for inference, unless its parameters are there already.
        """
        parameter = next(iter(self.parameters()))
        kind = None if device is None else str(device).replace("Place(", "").rstrip(")").partition(":")[0]
        if self.is_prepared and dtype is None and kind == ("gpu" if parameter.place.is_gpu_place() else "cpu"):
            return self
        self._require_plain("moved or cast")
        return super().to(device=device, dtype=dtype, blocking=blocking)

    def set_state_dict(self, state_dict, *args, **kwargs):
        """Set the parameters, as `paddle.nn.Layer.set_state_dict`.

        Raises:
            ValueError: a model that is prepared for inference.
        """
        self._require_plain("filled anew")
        return super().set_state_dict(state_dict, *args, **kwargs)

    def require_unchanged_weights(self) -> None:
        """Check that the weights of a prepared model are those it was prepared with.

        Raises:
            WeightsChangedError: a parameter, buffer or layer was replaced, moved or written.
        """
        if self.weights_snapshot is not None:
            self.weights_snapshot.check()

    def _require_plain(self, action: str) -> None:
        if self.is_prepared:
            raise ValueError(
                f"the model is prepared for inference and can't be {action}; "
                "load it with from_pretrained(..., trainable=True)"
            )


class WeightsSnapshot:
    """Identity, address and content of every layer, parameter and buffer of a network.

    Content is compared by Paddle's version counter and, since `set_value` writes in place without counting, by a few
    bytes of every tensor on a CPU.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Layer):
        self._holders = [
            holder
            for layer in network.sublayers(include_self=True)
            for holder in (layer._sub_layers, layer._parameters, layer._buffers)
            if holder
        ]
        self._members = self._current_members()
        self._tensors = [member for member in self._members if isinstance(member, paddle.Tensor)]
        self._probes = [_middle(tensor) for tensor in self._tensors if tensor.place.is_cpu_place()]
        self._states = self._current_states()

    def check(self) -> None:
        """Compare with the network as it is now.

        Raises:
            WeightsChangedError: they differ.
        """
        members = self._current_members()
        same = len(members) == len(self._members) and all(a is b for a, b in zip(members, self._members))
        if not same or self._current_states() != self._states:
            raise WeightsChangedError(
                "a weight or layer of a model prepared for inference has changed; "
                "change models loaded with trainable=True, and call prepare_for_inference(model) afterwards"
            )

    def _current_members(self) -> list:
        return [member for holder in self._holders for member in holder.values()]

    def _current_states(self) -> list:
        states: list = [(tensor.data_ptr(), tensor._inplace_version()) for tensor in self._tensors]
        if any(state[0] != before[0] for state, before in zip(states, getattr(self, "_states", states))):
            return states  # moved: the probed addresses may be gone
        return [*states, *(ctypes.string_at(*probe) for probe in self._probes)]


def _middle(tensor: paddle.Tensor, count: int = 16) -> tuple[int, int]:
    """Address and number of some bytes in the middle of a tensor."""
    size = tensor.numel().item() * tensor.element_size()
    return tensor.data_ptr() + size // 2, min(count, size - size // 2)
