"""Fingerprint of a checkpoint folder: whether two runs had the same model, without reading all of its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

_MODEL_FILES = (".safetensors", ".json", ".model", ".txt", ".pdparams")
_PIECES, _PIECE_BYTES = 64, 4096  # of a file


def fingerprint(folder: Path) -> str:
    """Digest of names and sizes of a folder's files, and of pieces of each, evenly spaced."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in _MODEL_FILES):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with open(file, "rb") as stream:
            for i in range(_PIECES):
                stream.seek(size * i // _PIECES)
                digest.update(stream.read(_PIECE_BYTES))
    return digest.hexdigest()[:16]
