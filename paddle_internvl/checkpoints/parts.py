"""Parts of a model in checkpoint folders: the vision tower, the projector and the language model, alone or in a whole.

In: a folder or hub id. Out: a `Part`, whose tensors have the names that they have in a whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert import CheckpointError
from convert.folder import read_config
from convert.mappings import paddle_config, projector
from convert.quant_config import declared_quantization
from convert.rules import Rule
from convert.safetensors_io import Checkpoint
from convert.sizes import FAMILIES
from paddle_internvl.checkpoints.hub import folder_of
from paddle_internvl.checkpoints.merging import adapted_view, base_and_adapter
from paddle_internvl.checkpoints.view import CheckpointView

_MODEL_TYPES = {  # part -> its field in a whole config.json, and model_type of folders that hold it alone
    "vision_model": ("vision_config", ("intern_vit_6b",)),
    "language_model": ("llm_config", tuple(family.model_type for family in FAMILIES.values())),
}


@dataclass(frozen=True)
class Part:
    """One part of a model.

    Attributes:
        folder: of its checkpoint.
        config: the part's own config.json, in upstream's spelling; of the projector the whole model's.
        names: name in a whole model -> name in the view.
        view: tensors of the checkpoint.
    """

    folder: Path
    config: dict
    names: dict[str, str]
    view: CheckpointView

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, in Paddle's layout."""
        return self.view.outputs[self.names[name]].shape

    def dtype(self, name: str) -> str:
        """Dtype of a tensor, as in safetensors files."""
        return self.view.dtype(self.names[name])

    def array(self, name: str) -> np.ndarray:
        """A tensor as carried bytes of its dtype."""
        return self.view.array(self.names[name])


def open_part(name_or_path: str | Path, part: str) -> Part:
    """The vision tower or the language model of a checkpoint; LoRA adapters of a run's folder are merged.

    Args:
        name_or_path: folder or hub id of a whole model, or of the part alone.
        part: 'vision_model' or 'language_model'.
    Raises:
        CheckpointError: a checkpoint without the part, or with quantized weights.
    """
    folder, adapter = base_and_adapter(folder_of(name_or_path))
    config = paddle_config(read_config(folder))
    field, alone = _MODEL_TYPES[part]
    whole = field in config
    if not whole and config.get("model_type") not in alone:
        raise CheckpointError(
            f"{folder} holds no {part}: its config.json has model_type {config.get('model_type')!r}; give an InternVL "
            f"folder, or one of {', '.join(alone)}"
        )
    if declared_quantization(config):
        raise CheckpointError(f"{folder} has quantized weights; give the float original")
    view = adapted_view(Checkpoint(folder), read_config(folder), adapter)
    prefix = f"{part}."
    names = {(name if whole else prefix + name): name for name in view.outputs if not whole or name.startswith(prefix)}
    return Part(folder, config[field] if whole else config, names, view)


def open_projector(path: str | Path, config: dict) -> Part:
    """The projector of a checkpoint, or of a safetensors file that holds `mlp1` alone.

    Args:
        path: folder or hub id of a whole model, or a .safetensors file.
        config: of the model that the projector is for.
    Raises:
        CheckpointError: no projector, or one of other widths.
    """
    file = Path(path)
    if file.is_file():
        checkpoint = Checkpoint.of_file(file)
        checkpoint.tensors = {f"mlp1.{name.removeprefix('mlp1.')}": info for name, info in checkpoint.tensors.items()}
        view = CheckpointView(checkpoint, config, rules=projector.rules(config))
    else:
        folder, adapter = base_and_adapter(folder_of(path))
        view = adapted_view(Checkpoint(folder), read_config(folder), adapter)
    part = Part(view.checkpoint.folder, config, {n: n for n in view.outputs if n.startswith("mlp1.")}, view)
    _require_shapes(part, projector.rules(config))
    return part


def _require_shapes(part: Part, rules: Sequence[Rule]) -> None:
    for rule in rules:
        for name, shape in zip(rule.ours, rule.our_shapes()):
            if name not in part.names:
                raise CheckpointError(f"{part.folder} holds no {name}")
            if part.shape(name) != shape:
                raise CheckpointError(
                    f"{part.folder}: {name} has shape {list(part.shape(name))}, these parts need {list(shape)}; leave "
                    "mlp_path out for a new projector"
                )
