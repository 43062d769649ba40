"""Configs of the traced networks: those of configs/tiny with two layers, the fewest that differ as first and last."""

from __future__ import annotations

from tests.random_checkpoints import tiny_config

LAYERS = 2


def traced_config(case: str) -> dict:
    """A config of configs/tiny whose tower and decoder run at most two layers."""
    config = tiny_config(case)
    skipped = -1 - config["select_layer"]  # last layers of the tower that do not run
    for part, layers in (("vision_config", LAYERS + skipped), ("llm_config", LAYERS)):
        config[part]["num_hidden_layers"] = min(config[part]["num_hidden_layers"], layers)
    return config
