"""The configs, read from upstream's own config.json and written back in upstream's spelling.

In: the dict of a config.json, whatever else stands in it. Out: `InternVLChatConfig` with its `vision_config`
(`InternVisionConfig`) and `llm_config` (`DecoderConfig`). They know nothing of weights, files or devices.

A released config.json nests whole dumps of transformers configs. Fields that nothing here reads are kept and
written back; a field whose value is not supported is an error that names it.
"""

from paddle_internvl.configuration.chat import InternVLChatConfig, InternVLConfig
from paddle_internvl.configuration.decoder import DecoderConfig, InternLM2Config
from paddle_internvl.configuration.vision import InternVisionConfig

__all__ = ["DecoderConfig", "InternLM2Config", "InternVLChatConfig", "InternVLConfig", "InternVisionConfig"]
