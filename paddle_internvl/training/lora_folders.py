"""LoRA adapters of a model in training: save them alone, and load them to be trained further.

A model for inference merges an adapter while loading: `from_pretrained(base, adapter=folder)`.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import paddle

from convert.adapter import Adapter, LoraPair
from convert.adapter_folder import read_adapter, write_adapter
from convert.folder import files_beside, read_config
from paddle_internvl.checkpoints.merging import PROMPT_FIELDS
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.training.lora import adapt, config_dict, freeze_base, lora_layers, targets_of


def save_adapter(
    model: InternVLNetwork, folder: str | os.PathLike, layout: str = "peft", base: str | None = None
) -> None:
    """Save the LoRA adapters of a model, and other weights that are trained, as float32.

    config.json and the tokenizer's files go along, so that `chat FOLDER` and `from_pretrained(FOLDER)` find the base
    model and merge the adapter into it.

    Args:
        model: with adapters.
        folder: made if it does not exist.
        layout: 'peft' (upstream's layers, safetensors) or 'paddlenlp' (our layers, a pickle of arrays; adapters alone).
        base: folder or hub id of the base model, which the adapter's config names; None: the folder that the model was
            loaded from.
    Raises:
        ValueError: a model without adapters, an unknown layout, or one that can't hold what is trained.
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no LoRA adapters to save; add_lora(model) adds them")
    pairs = {
        name: LoraPair(layer.lora_A.astype("float32").numpy(), layer.lora_B.astype("float32").numpy(), layer.scale)
        for name, layer in layers.items()
    }
    source = getattr(model, "checkpoint_folder", None)
    base = base or ("" if source is None else str(Path(source).resolve()))
    weights = {
        name: parameter.astype("float32").numpy()
        for name, parameter in model.named_parameters()
        if not parameter.stop_gradient and not name.endswith((".lora_A", ".lora_B"))
    }
    write_adapter(Path(folder), Adapter(pairs, base, weights), config_dict(model), layout)
    if source is None:
        return
    config = read_config(source) | {name: getattr(model.config, name) for name in PROMPT_FIELDS}
    (Path(folder) / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, file in files_beside(source).items():
        shutil.copyfile(file, Path(folder) / name)


def load_adapter(model: InternVLNetwork, folder: str | os.PathLike, lora_dropout: float = 0.0) -> InternVLNetwork:
    """Add the LoRA adapters of a folder to a model, in place, to be trained further; everything else is frozen.

    Args:
        model: loaded with `trainable=True`, without adapters.
        folder: of PEFT's or PaddleNLP's layout.
        lora_dropout: dropout of the adapters' inputs.
    Returns:
        The model.
    Raises:
        CheckpointError (ValueError): an adapter that is not supported or does not fit the model.
        ValueError: a model that is prepared for inference or has adapters.
    """
    adapter = read_adapter(Path(folder), config_dict(model))
    freeze_base(model)
    parameters = dict(model.named_parameters())
    for name, weight in adapter.weights.items():
        parameters[name].set_value(paddle.to_tensor(weight).astype(parameters[name].dtype))
    for target in targets_of(model):
        names = [name for name in target.ours if name in adapter.pairs]
        pairs = [adapter.pairs[name] for name in names]
        shared = all(pair.a.shape == pairs[0].a.shape and (pair.a == pairs[0].a).all() for pair in pairs)
        for group in [names] if shared and names else [[name] for name in names]:
            _adapt(model, group, adapter, lora_dropout)
    return model


def _adapt(model: InternVLNetwork, names: list[str], adapter: Adapter, lora_dropout: float) -> None:
    """Add the adapters of layers that share their A."""
    first = adapter.pairs[names[0]]
    rank = first.a.shape[1]
    adapt(model, names, rank, first.scale * rank, lora_dropout)
    layers = lora_layers(model)
    dtype = layers[names[0]].lora_A.dtype
    layers[names[0]].lora_A.set_value(paddle.to_tensor(first.a).astype(dtype))
    for name in names:
        layers[name].lora_B.set_value(paddle.to_tensor(adapter.pairs[name].b).astype(dtype))
