"""Make PaddleNLP's Auto classes know this package: the border to PaddleNLP, and the only place that reaches into it.

`register` runs as soon as PaddleNLP is there, possibly in the middle of an import of this package. So it only hangs
itself into the Auto classes; what they shall know is imported when they are first used.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib import import_module
from pathlib import Path

import paddlenlp.transformers
import wrapt
from paddlenlp.generation import TextIteratorStreamer
from paddlenlp.transformers import AutoConfig, AutoTokenizer
from paddlenlp.transformers.auto.modeling import _BaseAutoModelClass

from paddle_internvl.checkpoints import hub
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT

_MODELS = {  # config.json's architectures[0] -> our class
    "InternVLChatModel": "InternVLChatModel",
    "InternVLForConditionalGeneration": "InternVLChatModel",
    "InternVisionModel": "InternVisionModel",
    "InternLM2ForCausalLM": "InternLM2ForCausalLM",
}
_CONFIGS = ("InternVLChatConfig", "InternVLConfig", "InternVisionConfig", "InternLM2Config")
_MODEL_TYPES = ("internvl_chat", "internvl", "internlm2")  # whose tokenizers are ours
_PUBLISHER = "OpenGVLab"


def _with_our_configs(wrapped, _instance, args, kwargs):
    """AutoConfig has a `register`."""
    for name in _CONFIGS:
        config = getattr(import_module("paddle_internvl.configuration"), name)
        AutoConfig.register(config.model_type, config, exist_ok=True)
    folder = _our_folder(args, kwargs)
    return wrapped(*args, **kwargs) if folder is None else wrapped(*_at(folder, args), **_here(kwargs))


def _our_tokenizer(wrapped, _instance, args, kwargs):
    """AutoTokenizer has a `register`, but prefers PaddleNLP's own classes of the same names, whose ids differ from
    Hugging Face's. So folders of ours are answered here."""
    from paddle_internvl.tokenizers import tokenizer_class

    folder = _our_folder(args, kwargs)
    if folder is None:
        return wrapped(*args, **kwargs)
    config = _read_json(folder / "tokenizer_config.json")
    if "tokenizer_class" not in config:
        raise ValueError(f"{folder} has no tokenizer_config.json with a tokenizer_class")
    return tokenizer_class(config["tokenizer_class"], folder).from_pretrained(*_at(folder, args), **_here(kwargs))


def _our_model(wrapped, _instance, args, kwargs):
    """AutoModel would look for a hub id in PaddleNLP's own places: it is given the folder."""
    if _our_folder(args, kwargs) is None:
        return wrapped(*args, **kwargs)
    folder = hub.folder_of(_name(args, kwargs), **_hub_arguments(kwargs))
    return wrapped(*_at(folder, args), **_here(kwargs))


def _our_folder(args, kwargs) -> Path | None:
    """The folder of a checkpoint or tokenizer of InternVL's, its small files fetched if a hub id is named; None for
    others. Its files say what it is: config.json's model_type, or a tokenizer that knows `<IMG_CONTEXT>`.

    An id is looked up through `hub` if the call or the environment names a hub, or if it is OpenGVLab's; PaddleNLP's
    own models are left to PaddleNLP."""
    name, where = _name(args, kwargs), _hub_arguments(kwargs)
    folder = Path(name)
    if not folder.is_dir():
        named = any(where.get(key) for key in ("hub", "from_hf_hub", "from_aistudio")) or os.environ.get(hub.VARIABLE)
        if not hub.is_id(str(name)) or not (named or str(name).startswith(f"{_PUBLISHER}/")):
            return None
        folder = hub.folder_of(name, **where, weights=False)
    if _read_json(folder / "config.json").get("model_type") in _MODEL_TYPES:
        return folder
    added = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    return folder if any(token.get("content") == IMG_CONTEXT for token in added.values()) else None


def _name(args, kwargs):
    return args[0] if args else kwargs["pretrained_model_name_or_path"]


def _at(folder: Path, args) -> tuple:
    return str(folder), *args[1:]


def _here(kwargs) -> dict:
    """What is left to be said when the folder is there."""
    return {key: value for key, value in kwargs.items() if key not in (*hub.ARGUMENTS, "pretrained_model_name_or_path")}


def _hub_arguments(kwargs) -> dict:
    return {key: value for key, value in kwargs.items() if key in hub.ARGUMENTS}


def _read_json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _our_model_class(wrapped, _instance, args, kwargs):
    """AutoModel has no `register`: the method that looks a class up by config.json answers for our architectures."""

    def architectures(_path, config_file, config=None) -> list[str]:
        if config is None:
            config = json.loads(Path(config_file).read_text(encoding="utf-8"))
        return (config.get("architectures") if hasattr(config, "get") else None) or []

    for name in architectures(*args, **kwargs):
        if name in _MODELS:
            return getattr(import_module("paddle_internvl.modeling"), _MODELS[name])
    return wrapped(*args, **kwargs)


@cache
def register() -> None:
    """Hang this package into PaddleNLP's Auto classes; a second call changes nothing."""
    if not hasattr(paddlenlp.transformers, "TextIteratorStreamer"):  # where the model cards import it from
        paddlenlp.transformers.TextIteratorStreamer = TextIteratorStreamer
    wrapt.wrap_function_wrapper(AutoConfig, "from_pretrained", _with_our_configs)
    wrapt.wrap_function_wrapper(AutoTokenizer, "from_pretrained", _our_tokenizer)
    wrapt.wrap_function_wrapper(_BaseAutoModelClass, "_from_pretrained", _our_model)
    wrapt.wrap_function_wrapper(_BaseAutoModelClass, "_get_model_class_from_config", _our_model_class)
