"""Qwen2 and Qwen2.5: Llama's table, with biases on q, k and v."""

from __future__ import annotations

from convert.mappings import llama
from convert.rules import Rule

PREFIX = "language_model."


def rules(config: dict, prefix: str = PREFIX) -> list[Rule]:
    """Rules of the language model from its `llm_config`."""
    return llama.rules_with_biases(config, prefix, ("q_proj", "k_proj", "v_proj"))
