"""Checks of a checkpoint folder by its small files and headers, before Paddle is imported: a wrong folder costs a
fraction of a second, and the error names what the folder is.

In: a path or hub id. Out: the folder of an InternVL chat model, or an error of one line. It reads no weights.
"""

from __future__ import annotations

from pathlib import Path

from convert import CheckpointError
from convert.adapter_folder import adapter_layout
from convert.folder import ADAPTERS, LFS_POINTER, read_config, refuse_adapter, refuse_pickles, require_tokenizer
from paddle_internvl.checkpoints.hub import folder_of

CHAT_MODEL_TYPES = ("internvl_chat", "internvl")  # of config.json: OpenGVLab's layout and transformers' own


def chat_folder(name_or_path: str | Path, weights: bool = True) -> Path:
    """The folder of an InternVL chat model, checked: config.json, model type, and the headers of its weights.

    Args:
        name_or_path: a folder, or a hub id (see `hub.folder_of`).
        weights: False checks config.json alone, which may then be given by its own path, and downloads no weights.
    Returns:
        The folder, or config.json's path.
    Raises:
        CheckpointError: the path is something else; the message names it and the way out.
    """
    folder = folder_of(name_or_path, weights=weights)
    config = _chat_config(folder, weights)
    if weights:
        from convert.adapter_peft import is_unmerged
        from convert.mappings import rules_for
        from convert.safetensors_io import Checkpoint
        from paddle_internvl.checkpoints.merging import base_and_adapter

        base, _ = base_and_adapter(folder)
        refuse_adapter(base)
        tensors = Checkpoint(base).tensors
        rules_for(config if base == folder else read_config(base), () if is_unmerged(tensors) else tensors)
        require_tokenizer(folder)
    return folder


def adapter_folder(path: str | Path) -> Path:
    """The folder of a LoRA adapter, checked: it exists, and holds a config of PEFT or PaddleNLP.

    Raises:
        CheckpointError: the path is something else; the message names it and the way out.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; give the folder of a LoRA adapter")
    if adapter_layout(folder) is None:
        raise CheckpointError(f"{folder} is no LoRA adapter: it has neither {' nor '.join(ADAPTERS)}")
    return folder.resolve()


def _chat_config(folder: Path, weights: bool) -> dict:
    is_file = folder.is_file()
    if is_file and (weights or folder.suffix != ".json"):
        raise CheckpointError(f"{folder} is a file; give the checkpoint's folder, which holds config.json")
    file = folder if is_file else folder / "config.json"
    if not file.is_file():
        refuse_adapter(folder)
        refuse_pickles(folder)
        nested = sorted(folder.glob("*/config.json"))
        hint = f"; did you mean {nested[0].parent}?" if nested else ""
        state = "has no config.json" if any(folder.iterdir()) else "is empty"
        raise CheckpointError(f"{folder} {state}; give the folder of an InternVL checkpoint, or a hub id{hint}")
    with open(file, "rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise CheckpointError(f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")
    config = read_config(folder)
    model_type = config.get("model_type")
    if model_type not in CHAT_MODEL_TYPES:
        raise CheckpointError(
            f"{folder} is no InternVL chat model: its config.json has model_type {model_type!r}; "
            f"supported: {', '.join(CHAT_MODEL_TYPES)}"
        )
    return config


def require_fitting_tokenizer(tokenizer, vocab_size: int, folder: str | Path) -> None:
    """Refuse a tokenizer whose vocabulary, without added tokens, is larger than the model's. An added token without a
    row is an error where it is used.

    Args:
        tokenizer: with its `vocab_size`.
        vocab_size: of the model; larger where the embeddings are padded.
        folder: of both, for the message.
    Raises:
        ValueError: the tokenizer is that of another model.
    """
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{folder} holds files of different models: its tokenizer has {tokenizer.vocab_size} tokens, its weights "
            f"have {vocab_size}; download it again"
        )
