"""What stands beside the weights in a checkpoint folder: config.json and the tokenizer's own account of its tokens.

In: a folder. Out: dicts and ids. Knows no tensor.
"""

from __future__ import annotations

import json
from pathlib import Path

from convert import CheckpointError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
LFS_POINTER = b"version https://git-lfs"  # begins what Git leaves in place of a file that git-lfs has not fetched
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
    """config.json of a checkpoint folder, or of the path of a .json file."""
    file = folder if folder.suffix == ".json" else folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; give a checkpoint folder with its config.json")
    return read_json(file)


def token_id(folder: Path, token: str) -> int | None:
    """Id of an added token by the folder's tokenizer files; None where they do not know it."""
    for name in ("tokenizer_config.json", "added_tokens.json"):
        file = folder / name
        if not file.is_file():
            continue
        content = read_json(file)
        decoder = content.get("added_tokens_decoder", {})
        ids = {row["content"]: int(i) for i, row in decoder.items()} or content
        if isinstance(ids.get(token), int):
            return ids[token]
    return None


def end_token_ids(folder: Path) -> tuple[int, ...]:
    """`eos_token_id` of the folder's generation_config.json; () where there is none."""
    file = folder / "generation_config.json"
    ends = read_json(file).get("eos_token_id") if file.is_file() else None
    return (ends,) if isinstance(ends, int) else tuple(ends or ())
