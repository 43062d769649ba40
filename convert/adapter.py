"""LoRA adapters: pairs of matrices for our linear layers, made of upstream's layers and made into them.

In: matrices under upstream's names (PEFT's layout) and the targets of a model. Out: an `Adapter` under our names, and
back; `adapter_folder` reads and writes the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from convert import CheckpointError
from convert.mappings.lora import LoraTarget
from convert.rules import Rule


@dataclass(frozen=True)
class LoraPair:
    """The adapter of one linear layer: scale x A B is added to its weight [in, out].

    Attributes:
        a: float32 [in, r].
        b: float32 [r, out].
        scale: alpha / r.
    """

    a: np.ndarray
    b: np.ndarray
    scale: float

    def delta(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Rows and columns of the sum added to the weight, float32."""
        return (self.a[rows] @ self.b[:, columns]) * np.float32(self.scale)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        pairs: by the name of our linear layer, without `.weight`.
        base: folder or hub id of the model that it belongs to; '' if its folder does not name it.
        weights: whole weights in place of the model's (PEFT's `modules_to_save`), by our name: float32, Paddle's
            layout.
    """

    pairs: Mapping[str, LoraPair]
    base: str = ""
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)


def pairs_from_upstream(
    matrices: Mapping[str, Mapping[str, np.ndarray]], scales: Mapping[str, float], targets: Sequence[LoraTarget]
) -> dict[str, LoraPair]:
    """Pairs of our layers from those of upstream's.

    Args:
        matrices: name of upstream's layer -> {'lora_A': float32 [r, in], 'lora_B': float32 [out, r]}.
        scales: name of upstream's layer -> alpha / r.
        targets: of the model.
    Raises:
        CheckpointError: a layer that the model does not have, or matrices that do not fit it.
    """
    by_name = {target.upstream: target for target in targets}
    require_layers(matrices, by_name)
    pairs = {}
    for name, pair in matrices.items():
        target, rank = by_name[name], pair["lora_A"].shape[0]
        rules = target.rules(rank)
        shapes = {"lora_A": rules[0].shapes[0], "lora_B": rules[1].shapes[0]}
        for kind, shape in shapes.items():
            if pair[kind].shape != shape:
                raise CheckpointError(f"{name}.{kind} has shape {list(pair[kind].shape)}, the model {list(shape)}")
        b = _made(rules[1].forward(), {rules[1].upstream[0]: pair["lora_B"]})
        a = np.ascontiguousarray(pair["lora_A"].T)
        pairs |= {ours: LoraPair(a, b[f"{ours}.lora_B"], scales[name]) for ours in target.ours}
    return pairs


def pairs_to_upstream(
    pairs: Mapping[str, LoraPair], targets: Sequence[LoraTarget]
) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Pairs of upstream's layers from those of ours.

    Layers of ours that upstream has as one, but whose A or scales differ, become one pair whose rank is the sum of
    theirs: their A side by side, each B in rows of its own.

    Args:
        pairs: by the name of our layer.
        targets: of the model.
    Returns:
        Name of upstream's layer -> (A [r, in], B [out, r], scale).
    Raises:
        CheckpointError: a layer that the model does not have.
    """
    require_layers(pairs, {name for target in targets for name in target.ours})
    found = {}
    for target in targets:
        present = [pairs[name] for name in target.ours if name in pairs]
        if not present:
            continue
        first = present[0]
        shared = all(np.array_equal(pair.a, first.a) and pair.scale == first.scale for pair in present)
        blocks = [first] if shared else present
        rank = sum(pair.a.shape[1] for pair in blocks)
        rule_a, rule_b = target.rules(rank)
        arrays, start = {rule_a.ours[0]: np.concatenate([pair.a for pair in blocks], axis=1)}, 0
        for name, shape in zip(target.ours, rule_b.our_shapes()):
            arrays[f"{name}.lora_B"] = np.zeros(shape, np.float32)
            if name in pairs:
                pair = pairs[name]
                rows = slice(0, rank) if shared else slice(start, start + pair.a.shape[1])
                arrays[f"{name}.lora_B"][rows] = pair.b * np.float32(pair.scale / first.scale)
                start = rows.stop
        made = _made([*rule_a.backward(), *rule_b.backward()], arrays)
        found[target.upstream] = (*made.values(), first.scale)
    return found


def weights_from_upstream(tensors: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Whole weights of ours from those of upstream's.

    Args:
        tensors: float32, by upstream's name.
        rules: of the model.
    Raises:
        CheckpointError: a tensor that the model does not have, or one of another shape.
    """
    by_name = {name: rule for rule in rules for name in rule.upstream}
    weights = {}
    for name, tensor in tensors.items():
        rule = by_name.get(name)
        if rule is None:
            raise CheckpointError(f"the adapter's tensor {name} is neither a LoRA matrix nor a weight of the model")
        if tensor.shape != rule.shapes[0]:
            raise CheckpointError(
                f"the adapter's {name} has shape {list(tensor.shape)}, the model {list(rule.shapes[0])}; was the "
                "vocabulary resized? then give the resized base model"
            )
        weights |= _made(rule.forward(), tensors)
    return weights


def weights_to_upstream(weights: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Whole weights of upstream's from those of ours.

    Raises:
        CheckpointError: a part of a weight that upstream has as one.
    """
    made = {}
    for rule in rules:
        present = [name for name in rule.ours if name in weights]
        if present and len(present) < len(rule.ours):
            raise CheckpointError(f"{rule.upstream[0]} is one weight, and only {', '.join(present)} of it was trained")
        if present:
            made |= _made(rule.backward(), weights)
    return made


def with_whole_targets(adapter: Adapter, targets: Sequence[LoraTarget]) -> Adapter:
    """An adapter with zero pairs for layers of ours that upstream has as one with an adapted layer, so that merged
    weights which a conversion joins have one dtype."""
    pairs = dict(adapter.pairs)
    for target in targets:
        first = next((pairs[name] for name in target.ours if name in pairs), None)
        for name, shape in zip(target.ours, target.weight.our_shapes()) if first else ():
            pairs.setdefault(name, LoraPair(first.a, np.zeros((first.a.shape[1], shape[1]), np.float32), first.scale))
    return replace(adapter, pairs=pairs)


def require_layers(names: Iterable[str], model_layers: Iterable[str]) -> None:
    """Check that a model has all layers of an adapter.

    Raises:
        CheckpointError: layers without a place are counted, the first is named.
    """
    unknown = sorted(set(names) - set(model_layers))
    if unknown:
        raise CheckpointError(
            f"the adapter has {len(unknown)} layers that the model has not: {', '.join(unknown[:3])}; "
            "is it an adapter of another model?"
        )


def _made(outputs, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    made = {}
    for output in outputs:
        made[output.name] = np.empty(output.shape, np.float32)
        output.fill(arrays.__getitem__, made[output.name], 0, output.shape[0])
    return made
