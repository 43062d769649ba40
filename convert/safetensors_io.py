"""Folders of safetensors: headers, lazily mapped tensors, shards and their index. Every dtype is opaque bytes.

In: a folder. Out: named arrays that map the files, and header bytes for files to be written.
Format: https://github.com/huggingface/safetensors#format (8 bytes little-endian header size, JSON header, data).
"""

from __future__ import annotations

import json
import mmap
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeVar

import numpy as np

from convert import CheckpointError
from convert.dtypes import SIZES, carrier
from convert.folder import INDEX_FILE, LFS_POINTER, SINGLE_FILE, read_json, refuse_adapter, refuse_pickles

MAX_SHARD_SIZE = 5 * 10**9  # bytes of tensors in a file, where the caller names no other size
_MAX_HEADER = 100 << 20
_FILE_NAME = re.compile(r"[^/\\\0]+\.safetensors")  # in the folder itself
_UNITS = {"": 1, "B": 1} | {f"{letter}{kind}": base**power for kind, base in (("B", 1000), ("IB", 1024))
                            for power, letter in enumerate("KMGT", start=1)}  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: where its bytes lie and what they are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int  # of its first byte in the file

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * SIZES[self.dtype]


def read_header(file: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors and metadata of one safetensors file, checked against the file's size.

    Raises:
        CheckpointError: the file is no safetensors file, is truncated, or its header contradicts itself.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            raise CheckpointError(f"{file} is truncated: {size} bytes hold no safetensors header; download it again")
        if start == LFS_POINTER[:8]:
            raise CheckpointError(f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, _MAX_HEADER):
            raise CheckpointError(
                f"{file} is truncated or no safetensors file: its header claims {length} bytes, {size - 8} are there; "
                "download it again"
            )
        try:
            header = json.loads(stream.read(length))
            metadata = header.pop("__metadata__", None) or {}
            tensors = {}
            for name, entry in header.items():
                begin, end = entry["data_offsets"]
                info = TensorInfo(name, entry["dtype"], tuple(entry["shape"]), file, 8 + length + begin)
                if info.dtype not in SIZES:
                    raise CheckpointError(f"{file}: tensor {name} has the unknown dtype {info.dtype}")
                if info.nbytes != end - begin:
                    raise CheckpointError(
                        f"{file}: tensor {name} of shape {list(info.shape)} {info.dtype} needs {info.nbytes} bytes, "
                        f"its header gives it {end - begin}"
                    )
                tensors[name] = info
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{file} has no readable safetensors header; download it again") from error
    end = max((info.offset + info.nbytes for info in tensors.values()), default=8 + length)
    if end != size:
        state = "truncated" if end > size else "longer than its header says"
        raise CheckpointError(f"{file} is {state}: {end} bytes by its header, {size} are there; download it again")
    return tensors, metadata


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> shard, as the index of a sharded checkpoint has it.

    Raises:
        CheckpointError: no index of safetensors, or one that names a file outside the folder.
    """
    index = folder / INDEX_FILE
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict):
        raise CheckpointError(f"{index} has no weight_map; download it again")
    for name, shard in shards.items():
        if not isinstance(shard, str) or not _FILE_NAME.fullmatch(shard):
            raise CheckpointError(f"{index} places {name} in {shard!r}, which is no file name; download it again")
    return shards


class Checkpoint:
    """The safetensors of a folder, one file or shards with an index.

    Attributes:
        tensors: name -> TensorInfo, in file order. metadata: of the first file. folder: the path.
    Raises:
        CheckpointError: no weights, pickles only, a missing shard, an index that contradicts the shards, a name twice.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CheckpointError(f"{self.folder} is not a folder; give the folder that holds config.json")
        index = self.folder / INDEX_FILE
        promised = weight_map(self.folder) if index.exists() else None
        names = sorted(set(promised.values())) if promised else [SINGLE_FILE]
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, str] | None = None
        for name in names:
            file = self.folder / name
            if not file.is_file():
                raise CheckpointError(self._absence(name, promised is not None))
            tensors, metadata = read_header(file)
            twice = sorted(tensors.keys() & self.tensors.keys())
            if twice:
                raise CheckpointError(f"tensor {twice[0]} is in {self.tensors[twice[0]].file.name} and in {name}")
            self.tensors |= tensors
            self.metadata = metadata if self.metadata is None else self.metadata
        if promised is not None and promised.keys() != self.tensors.keys():
            lost = sorted(promised.keys() - self.tensors.keys())
            extra = sorted(self.tensors.keys() - promised.keys())
            first = (
                f"{lost[0]} is in {promised[lost[0]]} by the index, not in fact" if lost else f"{extra[0]} is not in it"
            )
            raise CheckpointError(f"{index} contradicts the shards: {first} ({len(lost)} missing, {len(extra)} extra)")
        self._maps: dict[Path, np.memmap] = {}

    @classmethod
    def of_file(cls, file: Path) -> Checkpoint:
        """The tensors of one safetensors file of any name; `folder` is the file."""
        checkpoint = cls.__new__(cls)
        checkpoint.folder, checkpoint._maps = file, {}
        checkpoint.tensors, checkpoint.metadata = read_header(file)
        return checkpoint

    def _absence(self, name: str, in_index: bool) -> str:
        if in_index:
            return f"{self.folder} lacks the shard {name} that {INDEX_FILE} names; download it again"
        refuse_adapter(self.folder)
        refuse_pickles(self.folder)
        return f"{self.folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}; is the download complete?"

    def array(self, name: str) -> np.ndarray:
        """A tensor as it lies in the file, mapped rather than read.

        Args:
            name: of the tensor, a key of `tensors`.
        Returns:
            Its bytes as unsigned integers of its dtype's size, in its shape.
        """
        info = self.tensors[name]
        if info.nbytes == 0:
            return np.zeros(info.shape, carrier(info.dtype))
        if info.file not in self._maps:
            self._maps[info.file] = np.memmap(info.file, np.uint8, "r")
        raw = self._maps[info.file][info.offset : info.offset + info.nbytes]
        if info.offset % SIZES[info.dtype]:
            raw = raw.copy()  # files of other writers may place a tensor at any byte
        return np.asarray(raw).view(carrier(info.dtype)).reshape(info.shape)

    def give_back(self, name: str) -> None:
        """Let the system have the memory of a tensor's pages; whoever reads them again gets them from the file.

        Args:
            name: of a tensor.
        """
        info = self.tensors[name]
        mapped = self._maps.get(info.file)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            first = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
            length = (info.offset + info.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
            if length > 0:
                mapped._mmap.madvise(mmap.MADV_DONTNEED, first, length)

    def release(self) -> None:
        """Unmap the files; arrays handed out keep theirs alive."""
        self._maps.clear()


def header_bytes(tensors: list[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str]) -> bytes:
    """Size and header of a file that holds (name, dtype, shape) tensors in that order, padded to 8 bytes."""
    header: dict = {"__metadata__": metadata}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def parse_size(size: int | str) -> int:
    """Bytes of a size.

    Args:
        size: a number of bytes, or text as '5GB', '500MB' or '2GiB'.
    Raises:
        CheckpointError: no positive size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(size).strip())
    if not match or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        raise CheckpointError(f"{size!r} is no size; write 5GB, 500MB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def shard_names(count: int, generation: int = 1) -> list[str]:
    """File names of a checkpoint of `count` files.

    Args:
        generation: another number gives other names, for shards beside those of an older checkpoint.
    """
    if count == 1:
        return [SINGLE_FILE]
    prefix = "model" if generation == 1 else f"model-{generation}"
    return [f"{prefix}-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def in_shards(tensors: list[T], size: Callable[[T], int], max_shard_size: int) -> list[list[T]]:
    """Tensors in order, cut into runs of at most `max_shard_size` bytes (a larger tensor is a run of its own)."""
    shards: list[list[T]] = [[]]
    used = 0
    for tensor in tensors:
        if shards[-1] and used + size(tensor) > max_shard_size:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += size(tensor)
    return shards


def index_text(weight_map: dict[str, str], total_size: int) -> str:
    """Content of the index of a sharded checkpoint."""
    return json.dumps({"metadata": {"total_size": total_size}, "weight_map": weight_map}, indent=2) + "\n"
