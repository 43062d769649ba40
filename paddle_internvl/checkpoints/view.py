"""A checkpoint's tensors under our names, whichever layout its files have; whole or cut to what a rank holds; with a
LoRA adapter merged.

In: a checkpoint and its config.json. Out: arrays of carried bytes (see `convert.dtypes`); no more is read of the files
than they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from convert import CheckpointError
from convert.adapter import Adapter
from convert.dtypes import SIZES, carrier, cast, is_float
from convert.mappings import rules_for
from convert.outputs import Copy, Output
from convert.paddlemix import has_upstream_names, in_upstream_layout
from convert.quant_config import declared_quantization
from convert.rules import Rule, plan
from convert.safetensors_io import Checkpoint, TensorInfo
from convert.streaming import is_paddle_layout
from paddle_internvl.parallel.shards import ShardSpec

_PIECE = 1 << 22  # elements that are cast at a time


class CheckpointView:
    """See the module.

    Args:
        checkpoint: the files.
        config: config.json.
        adapter: a LoRA adapter; the weights that it is merged into are float32; None: none.
        rules: of tensors in upstream's layout; None: those of config.json.
    Attributes:
        outputs: name -> how the tensor is made.
    Raises:
        CheckpointError: tensors that do not fit config.json, or an adapter of layers without float weights.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: dict,
        adapter: Adapter | None = None,
        rules: Sequence[Rule] | None = None,
    ):
        self._rules: dict[str, str] = {}
        self._read: Callable[[str], np.ndarray] = checkpoint.array
        in_paddle_layout = is_paddle_layout(checkpoint)
        if not in_paddle_layout or not declared_quantization(config):
            rules = rules_for(config, checkpoint.tensors) if rules is None else rules
            if in_paddle_layout and has_upstream_names(checkpoint, rules):
                self._read, in_paddle_layout = in_upstream_layout(checkpoint, rules), False
        if in_paddle_layout:
            outputs = [_whole(name, info.shape) for name, info in checkpoint.tensors.items()]
        else:
            planned = plan(rules, checkpoint.tensors, to_paddle=True)
            outputs = [output for _, output in planned]
            self._rules = {output.name: rule.kind for rule, output in planned}
        self.outputs = {output.name: output for output in [*outputs, *_tied_head(outputs)]}
        self.checkpoint = checkpoint
        adapter = Adapter({}) if adapter is None else adapter
        self._pairs = {f"{name}.weight": pair for name, pair in adapter.pairs.items()}
        self._replaced = adapter.weights
        lost = sorted({*self._pairs, *self._replaced} - self.outputs.keys())
        if lost:
            raise CheckpointError(f"{checkpoint.folder} has no {lost[0]} that the LoRA adapter could be merged into")

    def rule(self, name: str) -> str:
        """Name of the conversion rule that makes a tensor; '-' where the files have it as it is."""
        return self._rules.get(name, "-")

    def is_merged(self, name: str) -> bool:
        """Whether a LoRA adapter is merged into a tensor, or brings the tensor itself."""
        return name in self._pairs or name in self._replaced

    def dtype(self, name: str) -> str:
        """The dtype in the files; F32 with a LoRA adapter merged."""
        return "F32" if self.is_merged(name) else self._file_dtype(name)

    def _file_dtype(self, name: str) -> str:
        return self.checkpoint.tensors[self.outputs[name].copies[0].source].dtype

    def array(self, name: str, dtype: str | None = None, cut: ShardSpec | None = None) -> np.ndarray:
        """A tensor, or a cut of it, in memory of its own.

        Args:
            dtype: to cast it to, piece by piece; None: that of `dtype`.
        Raises:
            CheckpointError: integers that are to be cast.
        """
        output, source = self.outputs[name], self._file_dtype(name)
        dtype = dtype or self.dtype(name)
        if dtype != source and not is_float(source):
            raise CheckpointError(f"{name} is {source} in {self.checkpoint.folder}; only float weights can be loaded")
        first, last, columns = 0, output.shape[0], slice(None)
        if cut is None:
            memory = filled = np.empty(output.shape, carrier(dtype))
        else:
            shape = (*output.shape[: cut.axis], cut.length, *output.shape[cut.axis + 1 :])
            memory = filled = np.zeros(shape, carrier(dtype))
            if cut.axis == 0:
                first, last = cut.start, cut.stop
            else:
                columns = slice(cut.start, cut.stop)
                output, filled = _columns(output, cut.start, cut.stop), memory[:, : cut.stop - cut.start]
        rows = max(1, _PIECE * filled.shape[0] // max(filled.size, 1))
        for low in range(first, last, rows):
            high = min(low + rows, last)
            here = filled[low - first : high - first]
            piece = here if source == dtype else np.empty(here.shape, carrier(source))
            output.fill(self._read, piece, low, high)
            if self.is_merged(name):
                merged = np.ascontiguousarray(self._merged(name, piece, slice(low, high), columns))
                here[:] = cast(merged.view(np.uint32), "F32", dtype)
            elif piece is not here:
                here[:] = cast(piece, source, dtype)
        for source in output.sources(first, last):
            self.checkpoint.give_back(source)
        return memory

    def _merged(self, name: str, piece: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Rows and columns of a tensor with the adapter, float32, from the piece of the files."""
        if name in self._replaced:
            return self._replaced[name][rows][..., columns]
        return cast(piece, self._file_dtype(name), "F32").view(np.float32) + self._pairs[name].delta(rows, columns)

    def in_file(self, name: str) -> TensorInfo | None:
        """Where the tensor lies in a file just as it is, at a place that its numbers can be read at; else None."""
        output, info = self.outputs[name], self.checkpoint.tensors.get(name)
        if (
            self.is_merged(name)
            or info is None
            or output != _whole(name, info.shape)
            or info.offset % SIZES[info.dtype]
            or not info.nbytes
        ):
            return None
        return info

    def floats(self, name: str) -> np.ndarray:
        """A float tensor as float32."""
        return self.array(name, "F32").view(np.float32)


def _whole(name: str, shape: tuple[int, ...]) -> Output:
    return Output(name, shape, (Copy(name, 0, shape[0], 0),))


def _tied_head(outputs: list[Output]) -> list[Output]:
    """The head from the embedding, where a checkpoint has no head of its own."""
    made = {output.name: output for output in outputs}
    tied = []
    for name, embedding in made.items():
        prefix, found, _ = name.partition("model.embed_tokens.weight")
        if found and not {prefix + "lm_head.weight", prefix + "lm_head.quant_weight"} & made.keys():
            head, shape = prefix + "lm_head.weight", embedding.shape[::-1]
            tied.append(replace(embedding, name=head, shape=shape, transposed=True, feature_axis=1))
    return tied


def _columns(output: Output, start: int, stop: int) -> Output:
    """Columns of a tensor of two axes."""
    shape = (output.shape[0], stop - start)
    if output.feature_axis == 0:  # one source, taken as it is
        (copy,) = output.copies
        return replace(output, shape=shape, copies=(Copy(copy.source, start, stop - start, 0),), feature_axis=1)
    copies = []
    for copy in output.copies:
        low, high = max(start, copy.target), min(stop, copy.target + copy.length)
        if low < high:
            copies.append(Copy(copy.source, copy.start + low - copy.target, high - low, low - start))
    return replace(output, shape=shape, copies=tuple(copies))
