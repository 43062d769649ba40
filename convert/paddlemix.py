"""PaddleMIX's safetensors: upstream's tensors under upstream's names, but linear weights in Paddle's layout, [in, out].

In: a checkpoint in Paddle's layout. Out: a reader that gives upstream's layout. For Qwen2 and Llama the names are ours
too, and nothing is to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from convert.rules import Join, Rule, Split, Transpose
from convert.safetensors_io import Checkpoint


def has_upstream_names(checkpoint: Checkpoint, rules: Sequence[Rule]) -> bool:
    """Whether a checkpoint in Paddle's layout has names that upstream has and we do not, as fused layers'."""
    upstream, ours = ({name for rule in rules for name in getattr(rule, side)} for side in ("upstream", "ours"))
    return not checkpoint.tensors.keys().isdisjoint(upstream - ours)


def in_upstream_layout(checkpoint: Checkpoint, rules: Sequence[Rule]) -> Callable[[str], np.ndarray]:
    """A reader of a checkpoint's tensors with linear weights as [out, in], as views of the files.

    Args:
        checkpoint: its `tensors` get upstream's shapes.
        rules: of its model.
    Returns:
        Reads a tensor by name, as `Checkpoint.array` does.
    """
    linear = {
        name
        for rule in rules
        if isinstance(rule, (Transpose, Split, Join))
        for name, shape in zip(rule.upstream, rule.shapes)
        if len(shape) == 2 and name in checkpoint.tensors
    }
    for name in linear:
        info = checkpoint.tensors[name]
        checkpoint.tensors[name] = replace(info, shape=info.shape[::-1])

    def read(name: str) -> np.ndarray:
        array = checkpoint.array(name)
        return array.reshape(array.shape[::-1]).T if name in linear else array

    return read
