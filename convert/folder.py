"""What stands beside the weights in a checkpoint folder: config.json and the tokenizer's own account of its tokens.

In: a folder. Out: dicts and ids. Knows no tensor.
"""

from __future__ import annotations

import json
from pathlib import Path

from convert import CheckpointError
from convert.config_spelling import upstream_spelling

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
LFS_POINTER = b"version https://git-lfs"  # begins what Git leaves in place of a file that git-lfs has not fetched
_ADAPTERS = ("adapter_config.json", "lora_config.json")  # of PEFT and of PaddleNLP
BESIDE_WEIGHTS = (  # files other than config.json that belong to a checkpoint
    "generation_config.json", "preprocessor_config.json", "special_tokens_map.json", "tokenizer_config.json",
    "added_tokens.json", "tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt",
)  # fmt: skip


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
    adapter = next((name for name in _ADAPTERS if (folder / name).is_file()), None)
    if adapter and not any((folder / name).is_file() for name in (SINGLE_FILE, INDEX_FILE)):
        raise CheckpointError(
            f"{folder} is a LoRA adapter ({adapter}), not a whole model; merge it into its base model first "
            "(PEFT: model.merge_and_unload())"
        )


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
