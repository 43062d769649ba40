"""Settings of the golden runs of MPO (`tests/goldens/training/mpo`), shared with the script that writes them."""

from __future__ import annotations

RUNS = {  # name: family, template, pairs of a batch
    "internlm2_batch2": ("internlm2", "internvl2_5", 2),
    "qwen2_batch1": ("qwen2", "Hermes-2", 1),
    "qwen2_batch2": ("qwen2", "Hermes-2", 2),
}
DATA = {"max_seq_length": 512, "max_dynamic_patch": 4, "use_thumbnail": True}
ARGUMENTS = {  # of upstream's DPOConfig
    "beta": 0.1, "loss_type": "sigmoid,bco_pair", "rpo_alpha": 1.0, "max_steps": 6, "learning_rate": 1e-3,
    "lr_scheduler_type": "constant", "weight_decay": 0.05, "max_grad_norm": 1.0,
}  # fmt: skip
