"""The projector `mlp1`: LayerNorm, Linear, GELU (no weights), Linear."""

from __future__ import annotations

from convert.rules import Rule, keep, linear
from convert.sizes import tile_sizes


def rules(config: dict) -> list[Rule]:
    """Rules of the projector from the top-level config."""
    d = config["llm_config"]["hidden_size"]
    shuffled = config["vision_config"]["hidden_size"] * tile_sizes(config).merge ** 2
    return [
        keep("mlp1.0.weight", "mlp1.0.weight", (shuffled,)),
        keep("mlp1.0.bias", "mlp1.0.bias", (shuffled,)),
        linear("mlp1.1.weight", "mlp1.1.weight", (d, shuffled)),
        keep("mlp1.1.bias", "mlp1.1.bias", (d,)),
        linear("mlp1.3.weight", "mlp1.3.weight", (d, d)),
        keep("mlp1.3.bias", "mlp1.3.bias", (d,)),
    ]
