"""The tables: one row per tensor, one file per part of the model.

In: a config.json as a dict. Out: the rules of the whole checkpoint. Shapes are upstream's, in the alphabet
C vision width, D decoder width, H heads, K kv heads, E head dim, I width of the MLP, V vocabulary,
X experts.
"""

from __future__ import annotations

from collections.abc import Collection

from convert import CheckpointError
from convert.mappings import hf_native, internlm2, language, llama, phi3, projector, quantized_tables, vision
from convert.quant_config import declared_quantization
from convert.refused_members import refuse_flash
from convert.rules import Rule
from convert.unused_fields import unused_fields


def _internvl_chat(config: dict) -> list[Rule]:
    unused_fields(config)
    llm = language.rules(config.get("llm_config") or {})
    return [*vision.rules(config["vision_config"]), *projector.rules(config), *llm]


_CHECKPOINTS = {  # config.json's model_type -> the table of the whole checkpoint
    "internvl_chat": _internvl_chat,
    "intern_vit_6b": lambda config: vision.rules(config, prefix=""),  # a vision tower alone, of either size
    "internlm2": lambda config: internlm2.rules(config, prefix=""),  # language models alone
    "qwen2": lambda config: llama.rules(config, prefix=""),
    "qwen3_moe": lambda config: llama.rules(config, prefix=""),
    "qwen3": lambda config: llama.rules(config, prefix=""),
    "llama": lambda config: llama.rules(config, prefix=""),
    "phi3": lambda config: phi3.rules(config, prefix=""),
    "internvl": hf_native.rules,  # transformers' own layout
}


def rules_for(config: dict, names: Collection[str] = ()) -> list[Rule]:
    """Every rule of a checkpoint: an InternVL, or one of its parts that are published alone.

    Args:
        config: config.json.
        names: of the checkpoint's tensors, which distinguish the two generations of transformers' layout.
    Raises:
        CheckpointError: config.json is of another model, of a language model without a table, or of a Flash.
    """
    if any(".lora_A." in name for name in names):
        raise CheckpointError(
            "the checkpoint holds unmerged LoRA weights; merge them into the model first "
            "(paddle-internvl merge-lora CKPT OUT)"
        )
    refuse_flash(config, names)
    model_type = config.get("model_type")
    if model_type not in _CHECKPOINTS:
        raise CheckpointError(f"config.json has model_type {model_type!r}; supported: {', '.join(_CHECKPOINTS)}")
    try:
        if model_type == "internvl" and any(name.startswith("model.vision_tower.") for name in names):
            return hf_native.newer_rules(config)
        table = _CHECKPOINTS[model_type](config)
        quantization = declared_quantization(config)
        return quantized_tables.rules(table, quantization) if quantization else table
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the field {error.args[0]!r}") from None


def paddle_config(config: dict) -> dict:
    """The config.json of the Paddle folder: upstream's spelling, into which transformers' own is translated."""
    return hf_native.upstream_config(config) if config.get("model_type") == "internvl" else config
