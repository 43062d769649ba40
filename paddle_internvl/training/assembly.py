"""The checkpoint that a run begins with: a model as it is, another tile side, or a model assembled of parts.

In: a recipe's arguments, by upstream's names. Out: a folder, that of the model or OUTPUT/initial.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import paddle

from convert.folder import read_config, token_id
from convert.mappings import paddle_config
from paddle_internvl.parallel.gloo_groups import wait_for_ranks
from paddle_internvl.prompt.special_tokens import ADDED

INITIAL = "initial"  # folder in OUTPUT
_NOTE = "assembly.json"  # in that folder: the arguments that it was made by
_CONFIG_FIELDS = {  # argument -> field of config.json
    "conv_style": "template", "dynamic_image_size": "dynamic_image_size", "use_thumbnail": "use_thumbnail",
    "min_dynamic_patch": "min_dynamic_patch", "max_dynamic_patch": "max_dynamic_patch",
    "vision_select_layer": "select_layer", "ps_version": "ps_version", "down_sample_ratio": "downsample_ratio",
}  # fmt: skip


@dataclass(frozen=True)
class AssemblyArguments:
    """The parts of the model and its sizes.

    Attributes:
        model_name_or_path: checkpoint folder or hub id; None: a model is given, or assembled of parts.
        vision_path: folder or hub id that the vision tower is taken from.
        llm_path: folder or hub id that the language model is taken from.
        mlp_path: where the projector is taken from, see `assemble`; None: the model's, or a new one beside parts.
        force_image_size: tile side in pixels; None: the tower's.
        vision_select_layer: of the vision tower; None: the model's, or the last beside parts.
        down_sample_ratio: of the pixel shuffle; None: the model's, or 0.5 beside parts.
        ps_version: of the pixel shuffle; None: the model's, or 'v2' beside parts.
    """

    model_name_or_path: str | None = None
    vision_path: str | None = None
    llm_path: str | None = None
    mlp_path: str | None = None
    force_image_size: int | None = None
    vision_select_layer: int | None = None
    down_sample_ratio: float | None = None
    ps_version: str | None = None

    def __post_init__(self):
        parts = [name for name in ("vision_path", "llm_path") if getattr(self, name) is not None]
        if self.model_name_or_path is not None and parts:
            raise ValueError(f"model_name_or_path and {parts[0]} exclude each other")
        if len(parts) == 1:
            other = "llm_path" if parts[0] == "vision_path" else "vision_path"
            raise ValueError(f"{parts[0]} needs {other}: the model is assembled of both")

    @property
    def has_parts(self) -> bool:
        """Whether the model is assembled of a vision tower and a language model."""
        return self.vision_path is not None


def config_fields(arguments: AssemblyArguments, data: Mapping) -> dict:
    """Fields of config.json that a recipe's arguments set.

    Args:
        arguments: of the assembly.
        data: fields of `DataArguments` that are given.
    """
    values = {**asdict(arguments), **data}
    return {field: values[name] for name, field in _CONFIG_FIELDS.items() if values.get(name) is not None}


def initial_checkpoint(arguments: AssemblyArguments, data: Mapping, output_dir: str, seed: int) -> str:
    """Folder or hub id of the model that a run begins with; OUTPUT/initial is written where it must be made.

    A folder that an earlier run with the same arguments has written is taken as it is. With several ranks the first
    one writes.

    Args:
        arguments: of the assembly.
        data: fields of `DataArguments` that are given.
        output_dir: OUTPUT.
        seed: of a new projector.
    Raises:
        ValueError: no model, or a field with a value that is not supported.
        CheckpointError (ValueError): parts that are missing or do not fit each other.
    """
    if not arguments.has_parts:
        if arguments.model_name_or_path is None:
            raise ValueError("model_name_or_path is needed: a folder or hub id; or vision_path and llm_path")
        if not _changes(arguments):
            return arguments.model_name_or_path
    elif "conv_style" not in data:
        raise ValueError("conv_style is needed: the conversation template of a model that is assembled of parts")
    folder = Path(output_dir) / INITIAL
    if paddle.distributed.get_rank() == 0:
        _make(folder, arguments, config_fields(arguments, data), seed)
    wait_for_ranks()
    return str(folder)


def _changes(arguments: AssemblyArguments) -> bool:
    """Whether a whole model's weights or tokens change before the run."""
    from paddle_internvl.checkpoints.hub import folder_of
    from paddle_internvl.checkpoints.merging import base_and_adapter

    folder, _ = base_and_adapter(folder_of(arguments.model_name_or_path))
    side = paddle_config(read_config(folder))["vision_config"].get("image_size", 224)
    resized = arguments.force_image_size not in (None, side)
    return resized or arguments.mlp_path is not None or any(token_id(folder, token) is None for token in ADDED)


def _make(folder: Path, arguments: AssemblyArguments, fields: dict, seed: int) -> None:
    from paddle_internvl.checkpoints.assembling import assemble, resize

    note = json.dumps({**asdict(arguments), "fields": fields, "seed": seed}, indent=2, sort_keys=True) + "\n"
    if (folder / _NOTE).is_file() and (folder / _NOTE).read_text(encoding="utf-8") == note:
        return
    if (folder / _NOTE).is_file():  # of a run with other arguments
        shutil.rmtree(folder)
    options = {"force_image_size": arguments.force_image_size, "notes": {_NOTE: note}}
    if arguments.has_parts:
        assemble(folder, arguments.vision_path, arguments.llm_path, arguments.mlp_path, seed=seed, **options, **fields)
    else:
        resize(folder, arguments.model_name_or_path, arguments.mlp_path, **options, **fields)
