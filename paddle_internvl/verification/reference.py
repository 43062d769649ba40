"""Stages of a checkpoint computed by transformers' InternVL on torch: a reference that is not ours.

In: a checkpoint folder, and the pixel tiles and prompt of our stages. Out: stages under our names. torch is imported
within the function. Needs disk for two copies of the weights, which are converted to transformers' layout first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from convert.folder import read_config
from convert.safetensors_io import Checkpoint
from convert.streaming import convert, is_paddle_layout
from paddle_internvl.verification.stages import Stages


def capture_reference_stages(folder: Path, ours: Stages) -> Stages:
    """All stages that transformers' model computes, in float32 on the CPU.

    Args:
        folder: checkpoint of any layout that `convert` reads.
        ours: our stages, for 'pixel_values', 'prompt' and the number of 'tokens'.
    Returns:
        Stage -> array.
    Raises:
        ImportError: torch or transformers is missing.
        ValueError (CheckpointError): transformers' InternVL can't express this model.
    """
    try:
        import torch
        from transformers import InternVLForConditionalGeneration
    except ImportError as error:
        raise ImportError(f"--torch needs torch and transformers ({error}): pip install torch transformers") from None

    with tempfile.TemporaryDirectory() as scratch:
        native = native_folder(folder, Path(scratch))
        model = InternVLForConditionalGeneration.from_pretrained(native, torch_dtype=torch.float32).eval()
    stages: Stages = {}
    for name, module in _outputs(model).items():
        module.register_forward_hook(lambda _, inputs, output, name=name: stages.__setitem__(name, _array(output)))
    for name, module in _inputs(model).items():
        module.register_forward_pre_hook(lambda _, inputs, name=name: stages.__setitem__(name, _array(inputs)))
    ids = torch.from_numpy(ours["prompt"])
    pixels = torch.from_numpy(ours["pixel_values"])
    with torch.no_grad():
        model(input_ids=ids, pixel_values=pixels)
        prefill = dict(stages)  # generate overwrites them
        length = ours["tokens"].shape[1]
        generated = model.generate(
            input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), do_sample=False,
            min_new_tokens=length, max_new_tokens=length, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    return {**prefill, "tokens": generated[:, ids.shape[1] :].numpy()}


def native_folder(folder: Path, scratch: Path) -> Path:
    """The folder in transformers' layout: itself, or a copy in `scratch`."""
    if read_config(folder).get("model_type") == "internvl":
        return folder
    if not is_paddle_layout(Checkpoint(folder)):
        convert(folder, scratch / "paddle", to_paddle=True)
        folder = scratch / "paddle"
    convert(folder, scratch / "native", to_paddle=False, layout="transformers")
    return scratch / "native"


def _outputs(model) -> dict:
    """Our stages that are a torch module's output."""
    vision, decoder = model.model.vision_tower, model.model.language_model
    return {
        "vit.embed": vision.embeddings,
        **{f"vit.block.{i}": layer for i, layer in enumerate(vision.encoder.layer)},
        "projector": model.model.multi_modal_projector,
        **{f"dec.block.{i}": layer for i, layer in enumerate(decoder.layers)},
        "dec.norm": decoder.norm,
        "logits": model.lm_head,
    }


def _inputs(model) -> dict:
    """Our stages that are a torch module's input."""
    return {"shuffle": model.model.multi_modal_projector, "embeds": model.model.language_model.layers[0]}


def _array(value) -> np.ndarray:
    return (value[0] if isinstance(value, tuple) else value).numpy()
