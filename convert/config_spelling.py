"""Spellings of config.json by other tools (transformers 4.56 and later, PEFT, ms-swift), read as upstream's.

In: a config.json's dict. Out: the dict in upstream's spelling; a config of upstream's stays as it is.
"""

from __future__ import annotations

from convert import CheckpointError
from convert.sizes import FAMILIES

_PARTS = ("llm_config", "text_config", "vision_config")
# Of the families' config classes (transformers 4.55; upstream's InternLM2Config), for fields that a file leaves out.
_FAMILY_DEFAULTS = {
    "internlm2": {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 2048, "bias": True},
    "qwen2": {
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "use_sliding_window": False,
    },
    "qwen3": {
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "use_sliding_window": False,
    },
    "qwen3_moe": {
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "use_sliding_window": False,
        "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": False,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "output_router_logits": False, "router_aux_loss_coef": 0.001,
    },
    "llama": {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 2048},
    "phi3": {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096},
}  # fmt: skip
_BY_MODEL_TYPE = {family.model_type: name for name, family in FAMILIES.items()}


def upstream_spelling(config: dict) -> dict:
    """A config with upstream's names for dtype, rope and the language model's architecture, and its family's defaults.

    Args:
        config: a config.json of a whole model or of a language model; it is not changed.
    Raises:
        CheckpointError: a rope that upstream's fields can't express.
    """
    config = {**config, **{name: upstream_spelling(config[name]) for name in _PARTS if config.get(name)}}
    if "dtype" in config:
        dtype = config.pop("dtype")
        config.setdefault("torch_dtype", dtype)
    if config.get("model_type") in _BY_MODEL_TYPE and (config.get("architectures") or [None])[0] not in FAMILIES:
        config["architectures"] = [_BY_MODEL_TYPE[config["model_type"]]]
    return {**_FAMILY_DEFAULTS.get(config.get("model_type"), {}), **_with_rope(config)}


def _with_rope(config: dict) -> dict:
    """`rope_parameters` as rope_theta and rope_scaling, `rope_type` as type, and the type 'default' as None."""
    parameters = config.pop("rope_parameters", None)
    if parameters:
        if any(isinstance(value, dict) for value in parameters.values()):
            raise CheckpointError("rope_parameters of several kinds of layers are not supported")
        parameters = dict(parameters)
        if parameters.pop("partial_rotary_factor", 1.0) != 1.0:
            raise CheckpointError("rope_parameters.partial_rotary_factor is not supported, only 1.0")
        for name in ("rope_theta", "original_max_position_embeddings"):  # upstream's are fields of the config
            if name in parameters:
                config[name] = parameters.pop(name)
        config["rope_scaling"] = parameters
    scaling = config.get("rope_scaling")
    if isinstance(scaling, dict) and "rope_type" in scaling:
        rope_type, scaling = scaling["rope_type"], {k: v for k, v in scaling.items() if k != "rope_type"}
        config["rope_scaling"] = scaling = {"type": rope_type, **scaling}
    if isinstance(scaling, dict) and scaling.get("type") == "default":
        config["rope_scaling"] = None
    return config
