"""Small random models of the families that have goldens of training (`tests/goldens/training/families`).

numpy only: the script that writes the goldens makes the same checkpoints.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.random_checkpoints import TOKENIZER_FILES, random_checkpoint, tiny_config

GOLDENS = Path(__file__).parents[1] / "goldens/training"
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


class Family(NamedTuple):
    """A row of the table.

    Attributes:
        config: of configs/tiny, whose widths and depths are made smaller.
        template: conversation template.
        tokenizer: folder of goldens/training/tokenizers.
        llm: fields of `llm_config`.
    """

    config: str
    template: str
    tokenizer: str
    llm: dict


# transformers 4.37.2's eager attention of Qwen2 heeds the window although `use_sliding_window` is false.
_QWEN2 = {"num_key_value_heads": 1, "tie_word_embeddings": False, "sliding_window": 32768}
_BALANCED = {"moe_intermediate_size": 24, "output_router_logits": True, "router_aux_loss_coef": 0.05}
FAMILIES = {
    "qwen2": Family("qwen2", "Hermes-2", "qwen2", _QWEN2),
    "llama": Family("llama", "internlm2-chat", "llama3", {"num_key_value_heads": 1}),
    # Samples are longer than its `original_max_position_embeddings`: the long factors.
    "phi3": Family("phi3_su", "phi3-chat", "phi3", {"num_key_value_heads": 2}),
}
LATER = {  # trained by InternVL3.5's code: goldens of their own (make_qwen3_training_goldens.py)
    "qwen3": Family("qwen3", "internvl2_5", "qwen2", {"num_key_value_heads": 1, "head_dim": 24}),
    "qwen3_moe": Family("qwen3_moe", "internvl2_5", "qwen2", _BALANCED),
}
_STEPS = {
    "max_steps": 12, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_grad_norm": 1.0,
}  # fmt: skip
_FULL = {**_STEPS, "learning_rate": 1e-3, "weight_decay": 0.05, "warmup_ratio": 0.03}
RUNS = {  # settings of each run; cosine, samples in order
    "full": _FULL,  # frozen tower, HF's decay groups
    "full_one_group": _FULL,  # decay of everything
    "mlp": {**_STEPS, "learning_rate": 2e-3, "weight_decay": 0.01, "warmup_ratio": 0.2},
    "lora": {
        **_STEPS, "learning_rate": 2e-3, "weight_decay": 0.05, "warmup_ratio": 0.1, "lora": {"r": 4, "alpha": 8},
    },
}  # fmt: skip


def family_config(name: str) -> dict:
    """config.json of a family's model."""
    family = {**FAMILIES, **LATER}[name]
    config = {**tiny_config(family.config), "template": family.template, "max_dynamic_patch": 4}
    config["vision_config"].update(_SIZES)
    added = json.loads((GOLDENS / "tokenizers" / family.tokenizer / "tokenizer_config.json").read_text())
    vocab_size = max(map(int, added["added_tokens_decoder"])) + 1
    config["llm_config"].update({**_SIZES, **family.llm, "vocab_size": vocab_size})
    return config


def family_checkpoint(folder: Path, name: str) -> Path:
    """Write a family's model in upstream's layout, with the tokenizer of its template."""
    random_checkpoint(folder, family_config(name))
    for file in TOKENIZER_FILES:
        (folder / file).unlink()
    shutil.copytree(GOLDENS / "tokenizers" / {**FAMILIES, **LATER}[name].tokenizer, folder, dirs_exist_ok=True)
    return folder
