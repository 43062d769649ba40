"""The class users hold: the network with loading, saving, generation and chat.

In and out: what the model cards show. The work is done in `loading`, `generation` and `chat`; this file only joins
them, so that none of those layers has to know the ones above it.
"""

from __future__ import annotations

from collections.abc import Iterator

import paddle

from paddle_internvl import chat, loading
from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.generation.config import generation_config as read_generation_config
from paddle_internvl.generation.generate import generate_ids
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.prompt.templates import Conversation, get_conv_template

_HUB_ARGUMENTS = ("cache_dir", "from_hf_hub", "from_aistudio", "subfolder", "force_download")
# Arguments of the model cards that need nothing done here: loading is always lean, and no remote code is run.
_ACCEPTED = ("low_cpu_mem_usage", "trust_remote_code", "use_safetensors", "_from_auto", "convert_from_torch")


class InternVLChatModel(InternVLNetwork):
    """InternVL: see the model cards.

    Attributes:
        template: name of the conversation template. conv_template: the template (`.sep` ends a turn).
        system_message: of every prompt; assign another, or "" for none.
        vision_model, mlp1, language_model, num_image_token, img_context_token_id: see `InternVLNetwork`.
    """

    def __init__(self, config: InternVLChatConfig):
        super().__init__(config)
        self.template: str = config.template
        self.conv_template: Conversation = get_conv_template(config.template)
        self.system_message: str = config.get("system_message", self.conv_template.system_message)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *, config=None, dtype=None, torch_dtype=None, device=None,
                        device_map=None, load_in_8bit=False, use_flash_attn=True, **kwargs):  # fmt: skip
        """Load a folder (converted or raw Hugging Face) or a hub id, strictly, in evaluation mode.

        Args:
            dtype (or torch_dtype): 'bfloat16', 'float16', 'float32' or Paddle's; on a CPU always float32.
            device: 'cpu' or 'gpu'; None takes a card where there is one. device_map: None, 'auto' or one device.
            use_flash_attn: False keeps plain attention on CUDA. load_in_8bit: not supported yet.
            low_cpu_mem_usage, trust_remote_code: accepted; always and never so, respectively.
            Others: fields of the config, or PaddleNLP's `cache_dir`, `from_hf_hub`, `from_aistudio`, `subfolder`.
        Raises:
            ValueError (CheckpointError): weights that do not fit, unknown arguments, or what is not supported.
        """
        if load_in_8bit:
            raise ValueError("load_in_8bit=True is not supported yet; load without it")
        for name in _ACCEPTED:
            kwargs.pop(name, None)
        hub = {name: kwargs.pop(name) for name in _HUB_ARGUMENTS if name in kwargs}
        model = loading.load(
            cls,
            pretrained_model_name_or_path,
            dtype=torch_dtype if dtype is None else dtype,
            device=_one_device(device, device_map),
            config=config,
            hub=hub,
            **kwargs,
        )
        model.use_flash_attention(bool(use_flash_attn))
        return model

    def save_pretrained(self, save_directory, max_shard_size: int = 5_000_000_000, **_paddlenlp) -> None:
        """Write config, weights and tokenizer files so that `from_pretrained` gives the same model back bit for bit."""
        loading.save(self, save_directory, max_shard_size)

    @paddle.no_grad()
    def generate(
        self,
        pixel_values=None,
        input_ids=None,
        attention_mask=None,
        visual_features=None,
        generation_config=None,
        streamer=None,
        **settings,
    ):
        """New token ids for prompts.

        Args:
            pixel_values: [T, 3, S, S] or None. input_ids: int64 [B, L]. attention_mask: [B, L], padding on the left.
            visual_features: [T, N, D] in place of pixel_values. generation_config: a dict, ours or PaddleNLP's.
            streamer: has put(ids) and end(), for one prompt. settings: fields of `GenerationConfig`.
        Returns:
            int64 [B, made]: only what is new; rows that ended early are filled with the pad token. With
            log_probs=True the pair of it and float32 [B, made].
        Raises:
            ValueError: `<IMG_CONTEXT>` tokens and visual tokens differ in number, or a setting is not supported.
        Source: upstream `modeling_internvl_chat.py`, `generate`.
        """
        llm = self.config.llm_config
        config = read_generation_config(generation_config, **settings)
        if not config.eos_token_id:
            config = read_generation_config(config, eos_token_id=self.end_token_ids or llm.eos_token_id)
        try:
            if visual_features is None and pixel_values is not None:
                visual_features = self.extract_feature(pixel_values)
            embeds = self.embed(input_ids, visual_features)
            if streamer is not None:
                streamer.put(input_ids.numpy())
            ids, log_probs = generate_ids(
                self.language_model, embeds, attention_mask, config, llm.pad_token_id or 0,
                on_step=lambda step: streamer and streamer.put(step.ids),
            )  # fmt: skip
        finally:
            if streamer is not None:
                streamer.end()
        ids = paddle.to_tensor(ids)
        return ids if log_probs is None else (ids, paddle.to_tensor(log_probs))

    def chat(self, tokenizer, pixel_values, question, generation_config, *args, **kwargs):
        """See `paddle_internvl.chat.chat`."""
        return chat.chat(self, tokenizer, pixel_values, question, generation_config, *args, **kwargs)

    def chat_stream(self, tokenizer, pixel_values, question, generation_config=None, *args, **kwargs) -> Iterator[str]:
        """See `paddle_internvl.chat.chat_stream`."""
        return chat.chat_stream(self, tokenizer, pixel_values, question, generation_config, *args, **kwargs)

    def batch_chat(self, tokenizer, pixel_values, questions, generation_config, *args, **kwargs) -> list[str]:
        """See `paddle_internvl.chat.batch_chat`."""
        return chat.batch_chat(self, tokenizer, pixel_values, questions, generation_config, *args, **kwargs)

    def cuda(self, *_args):
        """Move the model to the current CUDA card, as in the cards' `.eval().cuda()`."""
        return self.to(device="gpu")


def _one_device(device, device_map) -> str | None:
    """The device that both arguments mean.

    Raises:
        ValueError: a map over several devices.
    """
    if device_map in (None, "auto"):
        return device
    places = set(device_map.values()) if isinstance(device_map, dict) else {device_map}
    if len(places) > 1:
        raise ValueError(f"device_map over {len(places)} devices is not supported yet; use one device")
    (place,) = places
    return f"gpu:{place}" if isinstance(place, int) else str(place)
