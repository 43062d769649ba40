"""Weight decay: the parameters that a rule decays."""

from __future__ import annotations

from paddle import nn

from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.ops.norms import LayerNorm, RMSNorm

DECAY_RULES = ("all", "hf")


def decayed_parameters(model: InternVLNetwork, decay_rule: str = "all") -> set[str]:
    """Names of the trainable parameters that weight decay applies to.

    Args:
        model: a network.
        decay_rule: 'all': every parameter, as with upstream's DeepSpeed configs. 'hf': the groups of transformers
            4.37.2, which leave out biases and the weights of LayerNorm and of Llama's RMSNorm, but not of other
            RMSNorms.
    Returns:
        Names as in `named_parameters`.
    Raises:
        ValueError: an unknown rule.
    Source: transformers 4.37.2 `trainer.py`, `Trainer.get_decay_parameter_names`.
    """
    if decay_rule not in DECAY_RULES:
        raise ValueError(f"decay_rule={decay_rule!r}; supported: {', '.join(DECAY_RULES)}")
    names = {name for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    if decay_rule == "all":
        return names
    llama = model.config.llm_config.architectures[0] == "LlamaForCausalLM"
    norms = {
        name
        for name, layer in model.named_sublayers()
        if isinstance(layer, (LayerNorm, nn.LayerNorm))
        or (llama and isinstance(layer, RMSNorm) and name.startswith("language_model."))
    }
    return {name for name in names if "bias" not in name and name.rpartition(".")[0] not in norms}
