"""The tiny model's config.json, in upstream's spelling: InternViT, projector and InternLM2, 3.7 million parameters."""

from __future__ import annotations

from demo.tiny import scenes
from demo.tiny import tokenizer as tiny_tokenizer

MAX_TILES = 6
CONFIG = {
    "architectures": ["InternVLChatModel"],
    "auto_map": {
        "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
        "AutoModel": "modeling_internvl_chat.InternVLChatModel",
        "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
    },
    "model_type": "internvl_chat",
    "template": tiny_tokenizer.TEMPLATE,
    "system_message": tiny_tokenizer.SYSTEM_MESSAGE,
    "select_layer": -1,
    "downsample_ratio": 0.5,
    "ps_version": "v2",
    "force_image_size": scenes.SIDE,
    "dynamic_image_size": True,
    "use_thumbnail": True,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": MAX_TILES,
    "pad2square": False,
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "torch_dtype": "bfloat16",
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": scenes.SIDE,
        "patch_size": 32,
        "num_channels": 3,
        "norm_type": "layer_norm",
        "qkv_bias": True,
        "qk_normalization": False,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "drop_path_rate": 0.0,
        "torch_dtype": "bfloat16",
    },
    "llm_config": {
        "architectures": ["InternLM2ForCausalLM"],
        "model_type": "internlm2",
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "bias": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "max_position_embeddings": 8192,
        "vocab_size": tiny_tokenizer.VOCABULARY + 9,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
}
GRID = scenes.SIDE // CONFIG["vision_config"]["patch_size"]  # patches along a side of a tile
