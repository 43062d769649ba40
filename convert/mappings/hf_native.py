"""The layout of transformers' own InternVL (`-hf` folders): q, k and v apart in the vision tower too, other names.

In: a native config.json (model_type `internvl`) or one of upstream's. Out: the rules between native names and ours, and
each config in the other's spelling. The language model keeps the rows of Llama, Qwen2, Qwen3 or Phi-3; an InternLM2
is a Llama here, as it is once its fused weight is taken apart.
Source: transformers `modeling_internvl.py` and `configuration_internvl.py` (4.55).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from convert import CheckpointError
from convert.layouts import stacked
from convert.mappings import language, projector, vision
from convert.rules import Rule, join
from convert.sizes import FAMILIES, architecture_of, decoder_sizes, tile_sizes

_NAMES = {  # upstream's name -> native name, without `.weight` and `.bias`
    "vision_model.embeddings.class_embedding": "vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": "vision_tower.embeddings.position_embeddings",
    "vision_model.embeddings.patch_embedding": "vision_tower.embeddings.patch_embeddings.projection",
    "mlp1.0": "multi_modal_projector.layer_norm",
    "mlp1.1": "multi_modal_projector.linear_1",
    "mlp1.3": "multi_modal_projector.linear_2",
}
_NAME = re.compile(r"(?:vision_model\.encoder\.layers\.(\d+)\.)?(.+?)(\.weight|\.bias|)")
_LAYER_NAMES = {  # the same within a layer of the vision tower
    "attn.q_proj": "attention.q_proj",
    "attn.k_proj": "attention.k_proj",
    "attn.v_proj": "attention.v_proj",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "attn.proj": "attention.projection_layer",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
}
# Folders on the hub and what transformers 4 saves have the names above; its modules, and newer files, have these.
_NEWER_PREFIXES = {
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}
_TEXT = {family.model_type: name for name, family in FAMILIES.items() if family.model_type != "internlm2"}
_REFUSED_TEXT = {"gpt_oss": "GptOssForCausalLM"}  # of published members; `architecture_of` names the way out
_ONLY = {"vision_feature_select_strategy": "default", "projector_hidden_act": "gelu"}  # field -> its supported value
_ONLY_VISION = {"use_mean_pooling": True, "use_absolute_position_embeddings": True, "use_mask_token": False}
_SAME_VISION = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "norm_type",
    "hidden_act", "layer_norm_eps",
)  # fmt: skip


def rules(config: dict) -> list[Rule]:
    """Rules between a native checkpoint and ours, from its native config."""
    chat = upstream_config(config)
    ours = [*vision.rules(chat["vision_config"]), *projector.rules(chat)]
    return [*(_renamed(_with_qkv_apart(rule), _native_name) for rule in ours), *language.rules(chat["llm_config"])]


def newer_rules(config: dict) -> list[Rule]:
    """The same for a folder with the newer names."""
    return [_renamed(rule, _newer_name) for rule in rules(config)]


def _with_qkv_apart(rule: Rule) -> Rule:
    (ours,) = rule.ours[:1] or ("",)
    if ".attn.qkv." not in ours:
        return rule
    third = rule.shapes[0][0] // 3
    shape = (third, *rule.shapes[0][1:])
    parts = [ours.replace(".attn.qkv.", f".attn.{letter}_proj.") for letter in "qkv"]
    return join(parts, ours, shape, stacked(third, third, third))


def _renamed(rule: Rule, rename: Callable[[str], str]) -> Rule:
    return replace(rule, upstream=tuple(map(rename, rule.upstream)))


def _native_name(name: str) -> str:
    """The native name of a tensor of the vision tower or the projector."""
    layer, stem, kind = _NAME.fullmatch(name).groups()
    return (_NAMES[stem] if layer is None else f"vision_tower.encoder.layer.{layer}.{_LAYER_NAMES[stem]}") + kind


def _newer_name(name: str) -> str:
    prefix = next(prefix for prefix in _NEWER_PREFIXES if name.startswith(prefix))
    return _NEWER_PREFIXES[prefix] + name.removeprefix(prefix)


def upstream_config(config: dict) -> dict:
    """A native config in upstream's spelling. Its prompts have no system message unless one is given.

    Raises:
        CheckpointError: a language model or setting that is not supported, named.
    """
    v, text = config["vision_config"], dict(config["text_config"])
    kind = text.pop("model_type", "qwen2")
    if kind in _REFUSED_TEXT:
        architecture_of({"architectures": [_REFUSED_TEXT[kind]]})
    if kind not in _TEXT:
        raise CheckpointError(f"text_config.model_type is {kind!r}; supported: {', '.join(_TEXT)}")
    for part, fields, supported in (("", config, _ONLY), ("vision_config.", v, _ONLY_VISION)):
        for name, value in supported.items():
            if fields.get(name, value) != value:
                raise CheckpointError(f"{part}{name}={fields[name]!r} is not supported, only {value!r}")
    layer = config.get("vision_feature_layer", -1)
    if not isinstance(layer, int):
        raise CheckpointError(f"vision_feature_layer={layer!r} is not supported, only one layer")
    side, patch = _side(v.get("image_size", 448)), _side(v.get("patch_size", 14))
    tokens = {"image_token_id": config["image_token_id"]} if "image_token_id" in config else {}
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": "internvl2_5",
        "system_message": "",
        **tokens,
        "select_layer": layer,
        "downsample_ratio": config.get("downsample_ratio", 0.5),
        "ps_version": "v2",
        "force_image_size": side,
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "torch_dtype": config.get("torch_dtype", config.get("dtype", "bfloat16")),
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            **{name: v[name] for name in _SAME_VISION if name in v},
            "image_size": side,
            "patch_size": patch,
            "qkv_bias": v.get("attention_bias", False),
            "qk_normalization": v.get("use_qk_norm", False),
            "initializer_factor": v.get("layer_scale_init_value", 0.1),
        },
        "llm_config": {**text, "model_type": kind, "architectures": [_TEXT[kind]]},
    }


def _side(value) -> int:
    sides = value if isinstance(value, list) else [value, value]
    if sides[0] != sides[1]:
        raise CheckpointError(f"vision_config: tiles and patches must be square, not {sides[0]} x {sides[1]}")
    return sides[0]


def native_config(chat: dict, image_token_id: int | None) -> dict:
    """A config of upstream's in native spelling.

    Args:
        image_token_id: id of `<IMG_CONTEXT>` in the folder's tokenizer; None takes what the config knows of it.
    Raises:
        CheckpointError: a setting that transformers' InternVL does not know.
    """
    if chat.get("ps_version", "v1") != "v2":
        raise CheckpointError("ps_version 'v1' can't be expressed in transformers' layout")
    v, tile = chat["vision_config"], tile_sizes(chat)
    side = tile.side
    if side != v["image_size"]:
        raise CheckpointError(
            f"force_image_size {side} differs from image_size {v['image_size']}; transformers has one"
        )
    scaling = chat["llm_config"].get("rope_scaling") or {}
    if "short_factor" in scaling and scaling["type"] == "yarn":
        raise CheckpointError("Phi-3's rope_scaling of type 'yarn' can't be expressed in transformers' layout")
    text = dict(_as_llama(chat["llm_config"]))
    if decoder_sizes(text).qk_norm != FAMILIES[architecture_of(text)].qk_norm:
        raise CheckpointError(f"{architecture_of(text)} has no q and k norms in transformers' layout")
    kind = FAMILIES[architecture_of(text)].model_type
    image_token_id = chat.get("image_token_id") if image_token_id is None else image_token_id
    tokens = {} if image_token_id is None else {"image_token_id": image_token_id}
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        **tokens,
        "image_seq_length": tile.tokens,
        "downsample_ratio": chat.get("downsample_ratio", 0.5),
        "projector_hidden_act": "gelu",
        "vision_feature_layer": chat.get("select_layer", -1),
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "torch_dtype": chat.get("torch_dtype", "bfloat16"),
        "vision_config": {
            "architectures": ["InternVLVisionModel"],
            "model_type": "internvl_vision",
            **{name: v[name] for name in _SAME_VISION if name in v},
            "image_size": [side, side],
            "patch_size": [v["patch_size"]] * 2,
            "attention_bias": v.get("qkv_bias", False),
            "use_qk_norm": v.get("qk_normalization", True),
            "layer_scale_init_value": v.get("initializer_factor", 0.1),
            "use_mean_pooling": True,
        },
        "text_config": {**text, "model_type": kind, "tie_word_embeddings": False},
    }


def _as_llama(llm: dict) -> dict:
    """An InternLM2's config as the Llama it is; others as they are."""
    if architecture_of(llm) != "InternLM2ForCausalLM":
        return llm
    kept = {name: value for name, value in llm.items() if name not in ("bias", "auto_map", "attn_implementation")}
    scaling = llm.get("rope_scaling")
    return {
        **kept,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": llm.get("bias", False),
        "rope_scaling": scaling and {"rope_type": scaling["type"], "factor": scaling["factor"]},
    }
