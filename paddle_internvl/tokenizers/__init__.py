"""Tokenizers, one file per kind: text in, ids out, equal to Hugging Face's slow tokenizers id by id."""

from importlib import import_module
from pathlib import Path

_KINDS = {  # tokenizer_config.json's tokenizer_class, without "Fast" -> module and class
    "InternLM2Tokenizer": ("internlm2", "InternLM2Tokenizer"),
    "InternLM3Tokenizer": ("internlm3", "InternLM3Tokenizer"),
    "Qwen2Tokenizer": ("byte_level_bpe", "Qwen2Tokenizer"),
    "LlamaTokenizer": ("llama", "LlamaTokenizer"),
    "PreTrainedTokenizer": ("byte_level_bpe", "TokenizerJson"),
    "TokenizersBackend": ("byte_level_bpe", "TokenizerJson"),  # transformers 5
}


def tokenizer_class(name: str, folder: Path | None = None):
    """The class for a `tokenizer_class`; where its vocabulary file is not in `folder`, the one for tokenizer.json.

    Raises:
        ValueError: no such kind; names those there are.
    """
    kind = name.removesuffix("Fast")
    if kind not in _KINDS:
        raise ValueError(f"tokenizer_class={name!r} is not supported; supported: {', '.join(_KINDS)}")
    module, attribute = _KINDS[kind]
    found = getattr(import_module(f"{__name__}.{module}"), attribute)
    needed = found.resource_files_names.values()
    if (
        folder is not None
        and (folder / "tokenizer.json").is_file()
        and not all((folder / file).is_file() for file in needed)
    ):
        return tokenizer_class("PreTrainedTokenizerFast")
    return found
