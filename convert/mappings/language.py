"""The table of each language model, by the `architectures[0]` of its config."""

from __future__ import annotations

from convert.mappings import internlm2, llama, phi3
from convert.rules import Rule
from convert.sizes import architecture_of

_TABLES = {
    "InternLM2ForCausalLM": internlm2.rules,
    "Qwen2ForCausalLM": llama.rules,
    "Qwen3ForCausalLM": llama.rules,
    "Qwen3MoeForCausalLM": llama.rules,
    "LlamaForCausalLM": llama.rules,
    "Phi3ForCausalLM": phi3.rules,
}


def rules(llm: dict) -> list[Rule]:
    """Rules of the language model from its `llm_config`.

    Raises:
        CheckpointError: an architecture that is not supported.
    """
    return _TABLES[architecture_of(llm)](llm)
