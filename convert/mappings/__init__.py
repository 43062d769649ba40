"""The tables: one row per tensor, one file per part of the model.

In: a config.json as a dict. Out: the rules of the whole checkpoint. Shapes are upstream's, in the alphabet
C vision width, D decoder width, H heads, K kv heads, E head dim, I width of the MLP, V vocabulary.
"""

from __future__ import annotations

from convert import CheckpointError
from convert.mappings import internlm2, llama, phi3, projector, qwen2, vision
from convert.rules import Rule

_LANGUAGE = {
    "InternLM2ForCausalLM": internlm2.rules,
    "Qwen2ForCausalLM": qwen2.rules,
    "LlamaForCausalLM": llama.rules,
    "Phi3ForCausalLM": phi3.rules,
}


def rules_for(config: dict) -> list[Rule]:
    """Every rule of an InternVL checkpoint.

    Raises:
        CheckpointError: config.json is of another model, or of a language model without a table.
    """
    if config.get("model_type") != "internvl_chat":
        raise CheckpointError(f"config.json has model_type {config.get('model_type')!r}; supported: 'internvl_chat'")
    llm = config.get("llm_config") or {}
    architecture = (llm.get("architectures") or [None])[0]
    if architecture not in _LANGUAGE:
        raise CheckpointError(f"llm_config.architectures is {architecture!r}; supported: {', '.join(_LANGUAGE)}")
    try:
        return [
            *vision.rules(config["vision_config"]),
            *projector.rules(config),
            *_LANGUAGE[architecture](llm),
        ]
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the field {error.args[0]!r}") from None
