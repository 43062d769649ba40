"""State of AdamW by the parameters' names: float32 weights, moments and powers of beta, as safetensors.

A rank writes the whole state of its parameters, or of the flat slices that it has of them (`ParameterShards`); the
slices of all files, in order of rank, are the whole.

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
from paddle_internvl.parallel.parameter_shards import ParameterShards

_WEIGHT = "weight"  # the float32 master weight where there is one, else the parameter


def write_state(
    file: Path, adamw: paddle.optimizer.AdamW, names: Mapping[str, str], shards: ParameterShards | None = None
) -> None:
    """Write the state of an optimizer's parameters to a file, which is on disk when the function returns.

    Args:
        file: of safetensors; tensors `<parameter>/weight`, `<parameter>/moment1`, ...
        adamw: the optimizer.
        names: name of a parameter in the network, by its `Tensor.name`.
        shards: of the parameters; None: they are whole.
    """
    tensors = []
    for parameter in adamw._parameter_list:
        name, weight = names[parameter.name], _weight(adamw, parameter)
        state = {_WEIGHT: weight}
        for kind, by_parameter in adamw._accumulators.items():
            if weight.name in by_parameter:
                state[kind] = by_parameter[weight.name]
        if shards is not None:
            start, stop = shards.bounds(parameter)
            state = {kind: value[: stop - start] for kind, value in state.items() if stop > start}
            if start > 0:  # the powers of beta are in the file of the first slice
                state = {kind: value for kind, value in state.items() if not kind.startswith("beta")}
        tensors += [_new_tensor(f"{name}/{kind}", value) for kind, value in state.items()]
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
        self._readers: dict[str, list] = {}
        for file in files:
            reader = self._stack.enter_context(safe_open(file, framework="np"))
            for key in list(reader.keys()):
                self._readers.setdefault(key, []).append(reader)
        self.parameters = {key.rpartition("/")[0] for key in self._readers}

    def __enter__(self) -> SavedState:
        return self

    def __exit__(self, *_error) -> None:
        self._stack.close()

    def load_parameters(self, parameters: Mapping[str, paddle.Tensor], shards: ParameterShards | None = None) -> None:
        """Fill trainable parameters by name, or their shards.

        Raises:
            ValueError: other parameters are trained than those of the files.
        """
        different = sorted(self.parameters ^ parameters.keys())
        if different:
            raise ValueError(f"the checkpoint and the run differ in what is trained, e.g. in {different[0]}")
        for name, parameter in parameters.items():
            value = self._tensor(f"{name}/{_WEIGHT}", parameter, shards and shards.bounds(parameter))
            parameter.set_value(value.astype(parameter.dtype))

    def load_optimizer(
        self, adamw: paddle.optimizer.AdamW, names: Mapping[str, str], shards: ParameterShards | None = None
    ) -> None:
        """Fill the state of the parameters, or of their shards, that an optimizer has on this rank."""
        kinds: dict[str, list[str]] = {}
        for key in self._readers:
            name, _, kind = key.rpartition("/")
            kinds.setdefault(name, []).append(kind)
        updated = [p for p in adamw._parameter_list if len(kinds[names[p.name]]) > 1]
        adamw._create_accumulators(paddle.static.default_main_program().global_block(), updated)
        for parameter in updated:
            name, weight = names[parameter.name], _weight(adamw, parameter)
            bounds = shards and shards.bounds(parameter)
            if weight is not parameter:
                weight.set_value(self._tensor(f"{name}/{_WEIGHT}", weight, bounds))
            for kind in kinds[name]:
                if kind != _WEIGHT:
                    state = adamw._accumulators[kind][weight.name]
                    state.set_value(self._tensor(f"{name}/{kind}", state, None if kind.startswith("beta") else bounds))

    def _tensor(self, key: str, like: paddle.Tensor, bounds: tuple[int, int] | None) -> paddle.Tensor:
        """A tensor of the files, or its flat slice, padded with zeros, in the shape of another tensor."""
        parts = [reader.get_tensor(key).reshape(-1) for reader in self._readers[key]]
        flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if bounds is not None:
            flat = np.pad(flat[slice(*bounds)], (0, like.shape[0] - (bounds[1] - bounds[0])))
        return paddle.to_tensor(flat.reshape(like.shape))
