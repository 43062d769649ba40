"""State of AdamW by the parameters' names: float32 weights, moments and powers of beta, as safetensors.

Paddle names optimizer tensors by counters of the process, so that its own `state_dict` fits the same process alone.
In: an optimizer and the names of its parameters. Out: a file, which any process and any number of ranks can read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import paddle
from safetensors import safe_open

from convert.shard_writer import NewTensor, ShardWriter

_WEIGHT = "weight"  # the float32 master weight where there is one, else the parameter


def write_state(file: Path, adamw: paddle.optimizer.AdamW, names: Mapping[str, str]) -> None:
    """Write the state of an optimizer's parameters to a file, which is on disk when the function returns.

    Args:
        file: of safetensors; tensors `<parameter>/weight`, `<parameter>/moment1`, ...
        adamw: the optimizer.
        names: name of a parameter in the network, by its `Tensor.name`.
    """
    tensors = []
    for parameter in adamw._parameter_list:
        name, weight = names[parameter.name], _weight(adamw, parameter)
        tensors.append(_new_tensor(f"{name}/{_WEIGHT}", weight))
        for kind, by_parameter in adamw._accumulators.items():
            if weight.name in by_parameter:
                tensors.append(_new_tensor(f"{name}/{kind}", by_parameter[weight.name]))
    with ShardWriter({"format": "np"}) as writer:
        writer.write(file, tensors, lambda _written: None)


def _weight(adamw: paddle.optimizer.AdamW, parameter: paddle.Tensor) -> paddle.Tensor:
    return adamw._master_weights.get(parameter.name, parameter)


def _new_tensor(name: str, tensor: paddle.Tensor) -> NewTensor:
    def fill(out: np.ndarray, first: int, last: int) -> None:
        out[:] = tensor.detach()[first:last].astype("float32").numpy().view(np.uint32)

    return NewTensor(name, "F32", tuple(tensor.shape), fill)


class SavedState:
    """State of an optimizer in files that `write_state` has written, a context manager.

    Args:
        files: of all ranks that wrote.
    Attributes:
        parameters: names of the parameters.
    """

    def __init__(self, files: Sequence[Path]):
        self._stack = ExitStack()
        self._readers = {}
        for file in files:
            reader = self._stack.enter_context(safe_open(file, framework="np"))
            self._readers.update(dict.fromkeys(reader.keys(), reader))
        self.parameters = {key.rpartition("/")[0] for key in self._readers}

    def __enter__(self) -> SavedState:
        return self

    def __exit__(self, *_error) -> None:
        self._stack.close()

    def load_parameters(self, parameters: Mapping[str, paddle.Tensor]) -> None:
        """Fill trainable parameters.

        Raises:
            ValueError: other parameters are trained than those of the files.
        """
        different = sorted(self.parameters ^ parameters.keys())
        if different:
            raise ValueError(f"the checkpoint and the run differ in what is trained, e.g. in {different[0]}")
        for name, parameter in parameters.items():
            parameter.set_value(self._tensor(f"{name}/{_WEIGHT}").astype(parameter.dtype))

    def load_optimizer(self, adamw: paddle.optimizer.AdamW, names: Mapping[str, str]) -> None:
        """Fill the state of the parameters that an optimizer has on this rank."""
        kinds: dict[str, list[str]] = {}
        for key in self._readers:
            name, _, kind = key.rpartition("/")
            kinds.setdefault(name, []).append(kind)
        updated = [p for p in adamw._parameter_list if len(kinds[names[p.name]]) > 1]
        adamw._create_accumulators(paddle.static.default_main_program().global_block(), updated)
        for parameter in updated:
            name, weight = names[parameter.name], _weight(adamw, parameter)
            if weight is not parameter:
                weight.set_value(self._tensor(f"{name}/{_WEIGHT}"))
            for kind in kinds[name]:
                if kind != _WEIGHT:
                    adamw._accumulators[kind][weight.name].set_value(self._tensor(f"{name}/{kind}"))

    def _tensor(self, key: str) -> paddle.Tensor:
        return paddle.to_tensor(self._readers[key].get_tensor(key))
