"""Special tokens added to a tokenizer's files, as transformers writes them.

In: a folder with a tokenizer. Out: its files with the new tokens, as text or as paths of unchanged files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddlenlp.transformers import AddedToken

from convert.folder import files_beside, read_json, require_tokenizer
from paddle_internvl.tokenizers import tokenizer_class

_FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer's files after tokens were added.

    Attributes:
        files: files of the folder by name, as paths to copy from or as text.
        new: the tokens that the tokenizer did not have, in the order of their ids.
        size: number of ids, new ones included.
    """

    files: dict[str, Path | str]
    new: tuple[str, ...]
    size: int


def add_special_tokens(folder: Path, tokens: Sequence[str]) -> TokenizerFiles:
    """The tokenizer's files of a folder with special tokens added; tokens that it has keep their ids.

    Args:
        folder: of a checkpoint or of a language model alone.
        tokens: to be added.
    Raises:
        ValueError: no tokenizer, or one of a kind that is not supported.
    Source: upstream `internvl_chat_finetune.py`, `main`: `tokenizer.add_tokens(token_list, special_tokens=True)`.
    """
    tokenizer = tokenizer_class(require_tokenizer(folder), folder).from_pretrained(str(folder))
    present = tokenizer.get_vocab()
    new = tuple(token for token in tokens if token not in present)
    files: dict[str, Path | str] = {**files_beside(folder)}
    if new:
        flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
        tokenizer.add_tokens([AddedToken(token, **flags) for token in new], special_tokens=True)
        rows = {
            index: {flag: getattr(token, flag) for flag in _FLAGS}
            for index, token in sorted(tokenizer.added_tokens_decoder.items())
        }
        files |= _with_rows(folder, rows, new)
    return TokenizerFiles(files, new, max(tokenizer.get_vocab().values()) + 1)


def _with_rows(folder: Path, rows: dict[int, dict], new: tuple[str, ...]) -> dict[str, str]:
    """The files that list added tokens, with all of them."""
    ids = {row["content"]: index for index, row in rows.items()}
    texts = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"):
        if not (folder / name).is_file():
            continue
        content = read_json(folder / name)
        if name == "added_tokens.json":
            content |= {token: ids[token] for token in new}
        elif name == "tokenizer.json":
            added = content.setdefault("added_tokens", [])
            added += [{"id": ids[token], **rows[ids[token]]} for token in new]
        else:
            content["additional_special_tokens"] = [*content.get("additional_special_tokens", []), *new]
        if name == "tokenizer_config.json":
            content["added_tokens_decoder"] = {str(index): row for index, row in rows.items()}
        texts[name] = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return texts
