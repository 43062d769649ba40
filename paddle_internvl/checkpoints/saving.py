"""`save_pretrained`: a model as the tensors and files of a checkpoint, which `convert.checkpoint_writer` writes.

In: a network. Out: a folder that loads back bit for bit: config.json, safetensors in Paddle's layout with the true
dtypes in their headers, and the tokenizer files of the folder that the model came from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import paddle
from paddlenlp.transformers import PretrainedModel

from convert.checkpoint_writer import write_checkpoint
from convert.dtypes import FLOATS, carrier, cast
from convert.folder import files_beside
from convert.mappings import rules_for
from convert.safetensors_io import MAX_SHARD_SIZE, parse_size
from convert.shard_writer import NewTensor
from convert.streaming import PADDLE_LAYOUT
from paddle_internvl.ops.quantized_linear import QuantizedLinear

_ROWS = 4096  # of the vocabulary that are compared at a time


def save(
    model: PretrainedModel,
    folder: str | os.PathLike,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    state_dict: Mapping[str, paddle.Tensor] | None = None,
    is_main_process: bool = True,
    save_function: Callable | None = None,
    merge_tensor_parallel: bool = False,
    variant: str | None = None,
    safe_serialization: bool = True,
) -> None:
    """Write a model as a checkpoint folder. The arguments are those of PaddleNLP's `save_pretrained`.

    Args:
        model: a network; its config is not changed.
        folder: made if it does not exist; a checkpoint in it is replaced when the new one is whole and on disk.
        max_shard_size: bytes of tensors per file, or text as '5GB'.
        state_dict: weights to write in place of the model's parameters, with the same names and shapes.
        is_main_process: False: another process writes, and this call does nothing.
        save_function: accepted and not called: the files are safetensors.
        merge_tensor_parallel: accepted: the weights of a model that can be saved are whole.
        variant: only None is supported.
        safe_serialization: only True is supported.
    Raises:
        ValueError: an argument or state_dict that is not supported.
        CheckpointError: no space left, or another process writes to the folder; the old checkpoint is as it was.
    """
    if variant is not None:
        raise ValueError(f"variant={variant!r} is not supported: the weight files have one name each")
    if not safe_serialization:
        raise ValueError("safe_serialization=False is not supported: only safetensors are written")
    if not is_main_process:
        return
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; name a folder")
    quantized = {name: layer for name, layer in model.named_sublayers() if isinstance(layer, QuantizedLinear)}
    if any(".encoder.layers." in f".{name}" for name in quantized):
        raise ValueError(
            "int8_activations=True holds the vision tower in int8, which no folder has; "
            "load the model without it to save it"
        )
    weights = dict(model.named_parameters())
    if state_dict is not None:
        if quantized:
            raise ValueError("state_dict can't be given for a model with quantised weights; save the model without it")
        _require_same_weights(state_dict, weights)
        weights = {name: paddle.to_tensor(state_dict[name]) for name in weights}
    dtype = _dtype(weights)
    config_text = _config_text(model, weights, dtype)
    weights = _in_converters_order(weights, json.loads(config_text))
    tensors = [_float_tensor(name, weight, FLOATS[dtype]) for name, weight in weights.items()]
    for name, layer in quantized.items():
        tensors += _quantized_tensors(name, layer)
    files = {"config.json": config_text, **_files_beside(model, folder)}
    size = parse_size(max_shard_size)
    write_checkpoint(folder, tensors, PADDLE_LAYOUT, files, replace=True, max_shard_size=size)


def _in_converters_order(weights: Mapping[str, paddle.Tensor], config: dict) -> dict[str, paddle.Tensor]:
    """The weights in the order in which `hf2pd` writes them; those it does not name come last."""
    order = {name: place for place, name in enumerate(name for rule in rules_for(config) for name in rule.ours)}
    return dict(sorted(weights.items(), key=lambda item: order.get(item[0], len(order))))


def _require_same_weights(state_dict: Mapping, weights: Mapping) -> None:
    missing, unknown = sorted(weights.keys() - set(state_dict)), sorted(set(state_dict) - weights.keys())
    if missing or unknown:
        problem = f"lacks {missing[0]}" if missing else f"has the unknown {unknown[0]}"
        raise ValueError(f"state_dict {problem} ({len(missing)} missing, {len(unknown)} unknown)")
    for name, weight in weights.items():
        have, need = list(state_dict[name].shape), list(weight.shape)
        if have != need:
            raise ValueError(f"state_dict: {name} has shape {have}, the model {need}")


def _dtype(weights: Mapping[str, paddle.Tensor]) -> str:
    """The checkpoint's dtype: 'bfloat16' if any weight has it (on a CPU others are float32), else the first's."""
    dtypes = [_name_of(weight) for weight in weights.values()]
    return "bfloat16" if "bfloat16" in dtypes else dtypes[0]


def _name_of(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).removeprefix("paddle.")


def _float_tensor(name: str, weight: paddle.Tensor, dtype: str) -> NewTensor:
    """A float parameter in its dtype; in BF16 where the checkpoint's dtype is that and float32 values lose nothing."""
    stored = FLOATS[_name_of(weight)]
    narrow = (stored, dtype) == ("F32", "BF16") and _exact_dtype(weight.numpy()) == "BF16"
    target = dtype if narrow else stored

    def fill(out: np.ndarray, first: int, last: int) -> None:
        out[:] = cast(_carried(weight[first:last]), stored, target)

    return NewTensor(name, target, tuple(weight.shape), fill)


def _carried(weight: paddle.Tensor) -> np.ndarray:
    """The bytes of a float tensor as unsigned integers (see `convert.dtypes`)."""
    stored = weight.detach()
    if _name_of(weight) == "bfloat16":  # numpy has no such type
        return stored.view("int16").numpy().view(np.uint16)
    return stored.numpy().view(carrier(FLOATS[_name_of(weight)]))


def _quantized_tensors(name: str, layer: QuantizedLinear) -> list[NewTensor]:
    """The tensors of a quantised weight: Paddle's packed integers and scales; AWQ's as float32."""
    if layer.is_awq:
        shape = (layer.inputs, layer.outputs)
        return [NewTensor.at_once(f"{name}.weight", "F32", shape, lambda: layer.dequantized().numpy().view(np.uint32))]
    packed, scales = layer.packed()
    dtype = _exact_dtype(scales)
    carried = cast(scales.view(np.uint32), "F32", dtype)
    return [
        NewTensor.at_once(f"{name}.quant_weight", "I8", packed.shape, lambda: packed.view(np.uint8)),
        NewTensor.at_once(f"{name}.quant_scale", dtype, scales.shape, lambda: carried),
    ]


def _exact_dtype(values: np.ndarray) -> str:
    """The smallest float dtype that holds float32 values exactly."""
    bits = values.view(np.uint32)
    for dtype in ("BF16", "F16"):
        if np.abs(values).max(initial=0) < 65504 and np.array_equal(cast(cast(bits, "F32", dtype), dtype, "F32"), bits):
            return dtype
    return "F32"


def _config_text(model: PretrainedModel, weights: Mapping[str, paddle.Tensor], dtype: str) -> str:
    """config.json with the dtype of the weights; `tie_word_embeddings` only where head and embedding are equal."""
    fields = {**model.config.to_diff_dict(saving_file=True), "torch_dtype": dtype}
    llm = fields.get("llm_config", fields)
    if llm.get("tie_word_embeddings") and not _is_tied(weights):
        llm["tie_word_embeddings"] = False
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def _is_tied(weights: Mapping[str, paddle.Tensor]) -> bool:
    """Whether the head [D, V] is the transposed embedding [V, D], value by value."""
    embedding = next(weight for name, weight in weights.items() if name.endswith("model.embed_tokens.weight"))
    head = next((weight for name, weight in weights.items() if name.endswith("lm_head.weight")), None)
    if head is None:  # it is quantized
        return False
    rows = (slice(first, first + _ROWS) for first in range(0, embedding.shape[0], _ROWS))
    return all(np.array_equal(_carried(embedding[at]), _carried(head[:, at]).T) for at in rows)


def _files_beside(model: PretrainedModel, folder: Path) -> dict[str, Path]:
    """Tokenizer and generation files of the folder that the model came from."""
    source = getattr(model, "checkpoint_folder", None)
    if source is None or source.resolve() == folder.resolve():
        return {}
    return files_beside(source)
