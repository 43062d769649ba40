"""Weight decay: the parameters that a rule decays."""

from __future__ import annotations

import re

from paddle import nn

from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.ops.norms import LayerNorm, RMSNorm

DECAY_RULES = ("all", "hf")
_QWEN3 = ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM")
_NOT_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(^|\.)norm(\.|$)|_norm(\.|$)")  # in names, for Qwen3


def decayed_parameters(model: InternVLNetwork, decay_rule: str = "all") -> set[str]:
    """Names of the trainable parameters that weight decay applies to.

    Args:
        model: a network.
        decay_rule: 'all': every parameter, as with upstream's DeepSpeed configs. 'hf': the groups of the transformers
            that upstream trains with. Version 4.37.2 leaves out biases and the weights of LayerNorm and of Llama's
            RMSNorm, but not of other RMSNorms. Version 4.55, for Qwen3, leaves out biases, the weights of LayerNorm,
            and norms by their names: q_norm and k_norm, but not norm1 and norm2 of InternViT-6B.
    Returns:
        Names as in `named_parameters`.
    Raises:
        ValueError: an unknown rule.
    Source: transformers 4.37.2 and 4.55 `trainer.py`, `Trainer.get_decay_parameter_names`.
    """
    if decay_rule not in DECAY_RULES:
        raise ValueError(f"decay_rule={decay_rule!r}; supported: {', '.join(DECAY_RULES)}")
    names = {name for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    if decay_rule == "all":
        return names
    architecture = model.config.llm_config.architectures[0]
    llama, qwen3 = architecture == "LlamaForCausalLM", architecture in _QWEN3
    norms = {
        name
        for name, layer in model.named_sublayers()
        if isinstance(layer, (LayerNorm, nn.LayerNorm))
        or (llama and isinstance(layer, RMSNorm) and name.startswith("language_model."))
    }
    not_decayed = _NOT_DECAYED if qwen3 else re.compile("bias")
    return {name for name in names if not not_decayed.search(name) and name.rpartition(".")[0] not in norms}
