"""Fields of a config.json that InternVL3's files carry from other models.

In: a whole config.json in upstream's spelling. Out: the names of its fields without effect, or an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from convert import CheckpointError

_EXPERTS = (
    "num_experts", "num_routed_experts", "num_shared_experts", "moe_intermediate_size",
    "shared_expert_intermediate_size", "capacity_factor", "eval_capacity_factor", "laux_allreduce", "moe_coeff_ratio",
    "moe_output_scale", "noisy_gate_policy", "shared_expert", "use_residual", "use_rts", "use_weighted_residual",
    "ep_size",
)  # fmt: skip
_UNUSED = {  # part of the config -> fields without effect
    "": ("image_fold", "system_message"),
    "vision_config": ("use_moe", *_EXPERTS),
    "llm_config": ("moe_config",),
}
_ONLY = {"image_fold": (None,), "use_moe": (None, False), "moe_config": (None,)}  # field -> its supported values


def unused_fields(config: Mapping) -> list[str]:
    """Fields of a config that have no effect: left-overs of other models, and a null system message.

    Args:
        config: a config.json in upstream's spelling.
    Raises:
        CheckpointError: one of them has a value that changes the network.
    """
    found = []
    for part, names in _UNUSED.items():
        fields, prefix = (config.get(part) or {}, f"{part}.") if part else (config, "")
        for name in names:
            if name not in fields:
                continue
            if name in _ONLY and fields[name] not in _ONLY[name]:
                raise CheckpointError(f"{prefix}{name}={fields[name]!r} is not supported, only {_ONLY[name][-1]!r}")
            if name != "system_message" or fields[name] is None:
                found.append(prefix + name)
    return found
