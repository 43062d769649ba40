"""What stands beside the weights in a checkpoint folder: config.json and the tokenizer's own account of its tokens.

In: a folder. Out: dicts and ids.
"""

from __future__ import annotations

import json
from pathlib import Path

from convert import CheckpointError
from convert.config_spelling import upstream_spelling

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
LFS_POINTER = b"version https://git-lfs"  # begins what Git leaves in place of a file that git-lfs has not fetched
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pdparams")  # endings of weight files that are not read
ADAPTERS = ("adapter_config.json", "lora_config.json")  # of PEFT and of PaddleNLP
VOCABULARIES = ("tokenizer.model", "tokenizer.json", "vocab.json")  # a folder has one of these files, or several
BESIDE_WEIGHTS = (  # files other than config.json that belong to a checkpoint
    "generation_config.json", "preprocessor_config.json", "special_tokens_map.json", "tokenizer_config.json",
    "added_tokens.json", "merges.txt", *VOCABULARIES,
)  # fmt: skip


def files_beside(folder: Path) -> dict[str, Path]:
    """The files of `BESIDE_WEIGHTS` that a folder has, by name."""
    return {name: folder / name for name in BESIDE_WEIGHTS if (folder / name).is_file()}


def read_json(file: Path) -> dict:
    """A JSON file's content.

    Raises:
        CheckpointError: the file is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))  # other tools write a byte order mark
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from None


def read_config(folder: Path) -> dict:
    """config.json of a checkpoint folder, or of the path of a .json file, in upstream's spelling."""
    file = folder if folder.suffix == ".json" else folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; give a checkpoint folder with its config.json")
    config = read_json(file)
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds no JSON object; give a checkpoint folder with its config.json")
    return upstream_spelling(config)


def refuse_adapter(folder: Path) -> None:
    """Refuse a LoRA adapter's folder, which holds no weights of a whole model.

    Raises:
        CheckpointError: names the adapter's file and the way out.
    """
    adapter = next((name for name in ADAPTERS if (folder / name).is_file()), None)
    if adapter and not any((folder / name).is_file() for name in (SINGLE_FILE, INDEX_FILE)):
        raise CheckpointError(
            f"{folder} is a LoRA adapter ({adapter}), not a whole model; merge it into its base model first "
            f"(paddle-internvl merge-lora {folder} OUT --base CKPT), or give it beside that model (--adapter {folder})"
        )


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds its weights as pickles.

    Raises:
        CheckpointError: names the first of them and the way out.
    """
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if any(name.endswith(".pdparams") for name in pickles):
        raise CheckpointError(
            f"{folder} holds weights of PaddleMIX or PaddleNLP ({pickles[0]}), a pickle that can run code when read; "
            "take OpenGVLab's own safetensors of this model: paddle-internvl download OpenGVLab/NAME"
        )
    if pickles:
        raise CheckpointError(
            f"{folder} holds weights as a pickle ({pickles[0]}), which can run code when read; "
            "save them as safetensors first (safetensors.torch.save_file)"
        )


def require_tokenizer(folder: Path) -> str:
    """The `tokenizer_class` of a folder.

    Raises:
        CheckpointError: the folder has no tokenizer's files.
    """
    file = folder / "tokenizer_config.json"
    tokenizer_class = read_json(file).get("tokenizer_class") if file.is_file() else None
    if tokenizer_class is None:
        raise CheckpointError(
            f"{folder} has no tokenizer_config.json with a tokenizer_class; copy the tokenizer's files of its base "
            "model"
        )
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise CheckpointError(
            f"{folder} has no vocabulary ({', '.join(VOCABULARIES)}); copy the tokenizer's files of its base model"
        )
    return tokenizer_class


def token_id(folder: Path, token: str) -> int | None:
    """Id of an added token by the folder's tokenizer files; None where they do not know it."""
    for name in ("tokenizer_config.json", "added_tokens.json", "tokenizer.json"):
        file = folder / name
        if not file.is_file():
            continue
        content = read_json(file)
        listed = content.get("added_tokens_decoder", {}).items()
        listed = listed or [(row["id"], row) for row in content.get("added_tokens", ())]  # of tokenizer.json
        ids = {row["content"]: int(i) for i, row in listed} or content
        if isinstance(ids.get(token), int):
            return ids[token]
    return None


def end_token_ids(folder: Path) -> tuple[int, ...]:
    """`eos_token_id` of the folder's generation_config.json; () where there is none."""
    file = folder / "generation_config.json"
    ends = read_json(file).get("eos_token_id") if file.is_file() else None
    return (ends,) if isinstance(ends, int) else tuple(ends or ())
