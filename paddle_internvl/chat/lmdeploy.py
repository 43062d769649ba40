"""LMDeploy's configuration classes, so that its users rename an import and nothing else.

In: arguments of `TurbomindEngineConfig`, `PytorchEngineConfig` and `ChatTemplateConfig`. Out: an `EngineConfig`, or the
system message of a pipeline. An argument that changes answers and is not supported is an error; an argument that only
places memory or schedules work, and has no counterpart here, is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.prompt.templates import Conversation

_ENGINE_NAMES = {field.name for field in fields(EngineConfig)}
_ALIASES = {"max_prefill_token_num": "prefill_chunk", "device_type": "device"}
_NO_GROUPS = "a pipeline runs in one process; use `paddle-internvl serve --tp N`, or device_map of from_pretrained"
# Arguments that are not supported -> the values that ask for nothing, besides None, and the way out.
_UNSUPPORTED = {
    **dict.fromkeys(("tp", "dp", "cp", "ep", "nnodes"), ((1,), _NO_GROUPS)),
    "model_format": (("hf", "awq"), "the folder's config.json states its format; AWQ is the one of 4 bits"),
    "quant_policy": ((0,), "the KV cache is not quantized; load_in_8bit=True quantizes weights"),
    "rope_scaling_factor": ((0.0,), "set llm_config.rope_scaling in config.json"),
    "use_logn_attn": ((False,), "leave it out"),
    "empty_init": ((False,), "weights are always loaded"),
    "language_model_only": ((False,), "leave it out"),
    "disable_vision_encoder": ((False,), "leave it out"),
    "enable_return_routed_experts": ((False,), "leave it out"),
    "logprobs_mode": (("raw_logprobs",), "log-probabilities are those before the sampling settings"),
    "hf_overrides": (({},), "change config.json"),
    "custom_module_map": (({},), "leave it out"),
    "adapters": (({},), "give one adapter: EngineConfig(adapter=folder)"),
    "revision": ((), "give revision=... to pipeline"),
    "download_dir": ((), "give cache_dir=... to pipeline"),
}
# Arguments of memory, scheduling and processes: answers don't depend on them.
_IGNORED = {
    "async_", "attn_cp_size", "attn_dp_size", "attn_tp_size", "block_size", "cache_block_seq_len", "cache_chunk_size",
    "cache_checkpoint_interval", "cache_generation", "cache_prompt", "cache_prompt_boundary_skip", "communicator",
    "cudagraph_capture_batch_sizes", "device_num", "devices", "dist_init_addr", "distributed_executor_backend",
    "dp_rank", "eager_mode", "enable_eplb", "enable_metrics", "enable_microbatch", "enable_mp_engine",
    "kernel_block_size", "max_prefill_iters", "mlp_dp_size", "mlp_tp_size", "moe_tp_size", "mp_engine_backend",
    "node_rank", "num_cpu_blocks", "num_gpu_blocks", "num_tokens_per_iter", "outer_dp_size", "prefill_interval",
    "thread_safe",
}  # fmt: skip
# LMDeploy's names of chat templates -> names of templates in config.json
_TEMPLATES = {
    "internvl-internlm2": "internlm2-chat",
    "internvl2-internlm2": "internlm2-chat",
    "internvl-zh-hermes2": "Hermes-2",
    "internvl-phi3": "phi3-chat",
    "internvl2-phi3": "phi3-chat",
    "internvl2_5": "internvl2_5",
}


class TurbomindEngineConfig(EngineConfig):
    """An `EngineConfig` from the arguments of LMDeploy's `TurbomindEngineConfig` or `PytorchEngineConfig`.

    Args:
        arguments: fields of `EngineConfig`, which has LMDeploy's names where the meaning is the same; besides,
            `max_prefill_token_num` is its `prefill_chunk` and `device_type` its `device`. None is the default.
    Raises:
        ValueError: an argument that changes answers and is not supported; names it and the way out.
        TypeError: an argument that LMDeploy does not have.
    """

    def __init__(self, **arguments):
        settings = {}
        for name, value in arguments.items():
            name = _ALIASES.get(name, name)
            if name in _ENGINE_NAMES:
                settings |= {} if value is None else {name: "gpu" if value == "cuda" else value}
            elif name in _UNSUPPORTED:
                accepted, way_out = _UNSUPPORTED[name]
                if value is not None and value not in accepted:
                    raise ValueError(f"{name}={value!r} is not supported; {way_out}")
            elif name not in _IGNORED:
                raise TypeError(f"neither EngineConfig nor LMDeploy has an argument {name!r}")
        super().__init__(**settings)


class PytorchEngineConfig(TurbomindEngineConfig):
    """`TurbomindEngineConfig` under LMDeploy's other name."""


def require_template(name: str, template: Conversation) -> None:
    """Refuse a chat template that is not the checkpoint's.

    Args:
        name: LMDeploy's or config.json's name of a template.
        template: the checkpoint's.
    Raises:
        ValueError: another template.
    """
    if _TEMPLATES.get(name, name) != template.name:
        names = ", ".join(repr(alias) for alias, ours in _TEMPLATES.items() if ours == template.name)
        raise ValueError(
            f"chat template {name!r} is not the checkpoint's, {template.name!r}; use {names or repr(template.name)} or "
            "leave it out"
        )


@dataclass
class ChatTemplateConfig:
    """LMDeploy's `ChatTemplateConfig`: the template's name, and the system message.

    Args:
        model_name: LMDeploy's or config.json's name of the checkpoint's template.
        meta_instruction: system message; None: the checkpoint's.
        model_path: ignored.
        capability: only 'chat' is supported.
        system, eosys, user, eoh, assistant, eoa, separator, tool, eotool, stop_words: pieces of a template of the
            user's; not supported, because the checkpoint was trained with the template of its config.json.
    """

    model_name: str
    model_path: str | None = None
    system: str | None = None
    meta_instruction: str | None = None
    eosys: str | None = None
    user: str | None = None
    eoh: str | None = None
    assistant: str | None = None
    eoa: str | None = None
    tool: str | None = None
    eotool: str | None = None
    separator: str | None = None
    capability: str | None = None
    stop_words: list[str] | None = None

    def system_message(self, template: Conversation) -> str | None:
        """The system message of a pipeline.

        Args:
            template: the checkpoint's.
        Returns:
            The text; None: the checkpoint's.
        Raises:
            ValueError: the configuration asks for another template.
        """
        require_template(self.model_name, template)
        supported = {"model_name", "model_path", "meta_instruction", "capability"}
        changed = [name for name, value in vars(self).items() if value is not None and name not in supported]
        if changed:
            raise ValueError(f"ChatTemplateConfig: {changed[0]} is not supported: the checkpoint has its own template")
        if self.capability not in (None, "chat"):
            raise ValueError(f"ChatTemplateConfig: capability={self.capability!r} is not supported; use 'chat'")
        return self.meta_instruction
