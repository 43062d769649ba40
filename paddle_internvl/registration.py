"""PaddleNLP's Auto classes load InternVL: the border file that patches them, and the only one that reaches into them.

`register` runs as soon as PaddleNLP is imported, possibly in the middle of an import of this package. So it only wraps
four methods; the classes that they return are imported when the methods are called.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import cache, partial, wraps
from importlib import import_module
from pathlib import Path

import paddlenlp.transformers
from paddlenlp.generation import TextIteratorStreamer
from paddlenlp.transformers import AutoConfig, AutoTokenizer
from paddlenlp.transformers.auto.modeling import _BaseAutoModelClass
from paddlenlp.utils.log import logger

from convert.folder import read_json, refuse_adapter, require_tokenizer, token_id
from paddle_internvl import startup
from paddle_internvl.checkpoints import hub
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT

_MODELS = {  # an architecture of config.json -> our class
    "InternVLChatModel": "InternVLChatModel",
    "InternVLForConditionalGeneration": "InternVLChatModel",
    "InternVisionModel": "InternVisionModel",
    "InternLM2ForCausalLM": "InternLM2ForCausalLM",
    # model_type, where other tools saved `architectures` as null, left it out or wrote their wrapper's name
    "internvl_chat": "InternVLChatModel",
    "internvl": "InternVLChatModel",
    "intern_vit_6b": "InternVisionModel",
    "internlm2": "InternLM2ForCausalLM",
}
_CONFIGS = ("InternVLChatConfig", "InternVLConfig", "InternVisionConfig", "InternLM2Config")
_MODEL_TYPES = ("internvl_chat", "internvl", "internlm2")  # whose tokenizers are ours
_PUBLISHER = "OpenGVLab"


@cache
def register() -> None:
    """Patch PaddleNLP's Auto classes so that they load InternVL; a second call changes nothing."""
    if not hasattr(paddlenlp.transformers, "TextIteratorStreamer"):  # where the model cards import it from
        paddlenlp.transformers.TextIteratorStreamer = TextIteratorStreamer
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):  # PaddleNLP's log has colours in files and pipes too
        logger.handler.setFormatter(logging.Formatter(startup.LOG_FORMAT))
    _wrap(AutoConfig, "from_pretrained", _load_config)
    _wrap(AutoTokenizer, "from_pretrained", _load_tokenizer)
    _wrap(_BaseAutoModelClass, "_from_pretrained", _load_model)
    _wrap(_BaseAutoModelClass, "_get_model_class_from_config", _model_class)


def _wrap(owner: type, name: str, ours) -> None:
    """Replace a class method by `ours`, which is given PaddleNLP's own, bound to the class, before the arguments."""
    theirs = owner.__dict__[name].__func__

    @wraps(theirs)
    def method(cls, *args, **kwargs):
        return ours(partial(theirs, cls), *args, **kwargs)

    setattr(owner, name, classmethod(method))


def _load_config(theirs, pretrained_model_name_or_path, *args, **kwargs):
    """`AutoConfig.from_pretrained`: our configs by AutoConfig's own `register`, hub ids by our `hub`."""
    for name in _CONFIGS:
        config = getattr(import_module("paddle_internvl.configuration"), name)
        AutoConfig.register(config.model_type, config, exist_ok=True)
    folder = _internvl_folder(pretrained_model_name_or_path, kwargs)
    if folder is None:
        return theirs(pretrained_model_name_or_path, *args, **kwargs)
    return theirs(str(folder), *args, **_without_hub_options(kwargs))


def _load_tokenizer(theirs, pretrained_model_name_or_path, *args, **kwargs):
    """`AutoTokenizer.from_pretrained`: our tokenizers for InternVL's folders. AutoTokenizer has a `register`, but
    prefers PaddleNLP's own classes of the same names, whose ids differ from Hugging Face's."""
    from paddle_internvl.tokenizers import tokenizer_class

    folder = _internvl_folder(pretrained_model_name_or_path, kwargs)
    if folder is None:
        return theirs(pretrained_model_name_or_path, *args, **kwargs)
    tokenizer = tokenizer_class(require_tokenizer(folder), folder)
    return tokenizer.from_pretrained(str(folder), *args, **_without_hub_options(kwargs))


def _load_model(theirs, pretrained_model_name_or_path, *args, **kwargs):
    """`AutoModel….from_pretrained`: a hub id becomes its folder, which PaddleNLP would look for in its own hubs."""
    if _internvl_folder(pretrained_model_name_or_path, kwargs) is None:
        return theirs(pretrained_model_name_or_path, *args, **kwargs)
    folder = hub.folder_of(pretrained_model_name_or_path, **_hub_options(kwargs))
    return theirs(str(folder), *args, **_without_hub_options(kwargs))


def _model_class(theirs, pretrained_model_name_or_path, config_file_path, config=None):
    """The model class of a config.json: ours for our architectures. AutoModel has no `register`."""
    fields = config
    if config is None:
        fields = _read_json(Path(config_file_path))
    names = (*(fields.get("architectures") or ()), fields.get("model_type")) if hasattr(fields, "get") else ()
    for name in names:
        if name in _MODELS:
            return getattr(import_module("paddle_internvl.modeling"), _MODELS[name])
    return theirs(pretrained_model_name_or_path, config_file_path, config)


def _internvl_folder(name_or_path: str | os.PathLike, options: dict) -> Path | None:
    """The folder of an InternVL checkpoint or tokenizer, its small files fetched if a hub id is given; None for other
    models. Its files decide: config.json's model_type, or a tokenizer with the added token `<IMG_CONTEXT>`.

    An id is fetched by `hub` if the call or the environment names a hub, or if it is OpenGVLab's; PaddleNLP's own
    models are left to PaddleNLP.
    """
    folder, name, hub_options = Path(name_or_path), str(name_or_path), _hub_options(options)
    if folder.is_dir() and not (folder / "config.json").is_file():
        refuse_adapter(folder)
    if not folder.is_dir():
        names_hub = any(hub_options.get(key) for key in ("hub", "from_hf_hub", "from_aistudio"))
        ours = names_hub or os.environ.get(hub.VARIABLE) or name.startswith(f"{_PUBLISHER}/")
        if not (hub.is_id(name) and ours):
            return None
        folder = hub.folder_of(name_or_path, **hub_options, weights=False)
    if _read_json(folder / "config.json").get("model_type") in _MODEL_TYPES:
        return folder
    return folder if token_id(folder, IMG_CONTEXT) is not None else None


def _hub_options(options: dict) -> dict:
    return {key: value for key, value in options.items() if key in hub.ARGUMENTS}


def _without_hub_options(options: dict) -> dict:
    return {key: value for key, value in options.items() if key not in hub.ARGUMENTS}


def _read_json(file: Path) -> dict:
    return read_json(file) if file.is_file() else {}
