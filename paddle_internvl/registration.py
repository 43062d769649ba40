"""Make PaddleNLP's Auto classes know this package: the border to PaddleNLP, and the only place that reaches into it.

`register` runs as soon as PaddleNLP is there, possibly in the middle of an import of this package. So it only hangs
itself into the Auto classes; what they shall know is imported when they are first used.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from pathlib import Path

import paddlenlp.transformers
import wrapt
from paddlenlp.generation import TextIteratorStreamer
from paddlenlp.transformers import AutoConfig, AutoTokenizer
from paddlenlp.transformers.auto.modeling import _BaseAutoModelClass

_MODELS = {"InternVLChatModel": "paddle_internvl.modeling"}  # config.json's architectures[0] -> its module


@cache
def _register_classes() -> None:
    """Configs and tokenizers, by PaddleNLP's own `register`."""
    from paddle_internvl.configuration import InternVLChatConfig
    from paddle_internvl.tokenizers.internlm2 import InternLM2Tokenizer

    AutoConfig.register(InternVLChatConfig.model_type, InternVLChatConfig, exist_ok=True)
    AutoTokenizer.register(InternVLChatConfig, slow_tokenizer_class=InternLM2Tokenizer, exist_ok=True)


def _with_our_classes(wrapped, _instance, args, kwargs):
    _register_classes()
    return wrapped(*args, **kwargs)


def _our_model_class(wrapped, _instance, args, kwargs):
    """AutoModel has no `register`: the method that looks a class up by config.json answers for our architectures."""

    def architectures(_path, config_file, config=None) -> list[str]:
        if config is None:
            config = json.loads(Path(config_file).read_text(encoding="utf-8"))
        return (config.get("architectures") if hasattr(config, "get") else None) or []

    for name in architectures(*args, **kwargs):
        if name in _MODELS:
            return getattr(import_module(_MODELS[name]), name)
    return wrapped(*args, **kwargs)


@cache
def register() -> None:
    """Hang this package into PaddleNLP's Auto classes; a second call changes nothing."""
    if not hasattr(paddlenlp.transformers, "TextIteratorStreamer"):  # where the model cards import it from
        paddlenlp.transformers.TextIteratorStreamer = TextIteratorStreamer
    wrapt.wrap_function_wrapper(AutoConfig, "from_pretrained", _with_our_classes)
    wrapt.wrap_function_wrapper(AutoTokenizer, "from_pretrained", _with_our_classes)
    wrapt.wrap_function_wrapper(_BaseAutoModelClass, "_get_model_class_from_config", _our_model_class)
