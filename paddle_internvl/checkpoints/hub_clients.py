"""The three hubs and their client libraries: a snapshot of a repository into the client's own cache.

In: an id, patterns of file names, how to ask. Out: the snapshot's folder, or whatever the client raises. It knows
nothing about what a checkpoint must hold; `hub` does. Clients are imported when they are called.

AI Studio is asked through PaddleNLP's client: aistudio-sdk below 0.3, which PaddleNLP needs, has no snapshots, and at
the next call takes a file that broke off for a whole one.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convert.folder import BESIDE_WEIGHTS
from convert.safetensors_io import INDEX_FILE, SINGLE_FILE
from paddle_internvl import startup


@dataclass(frozen=True)
class Request:
    """What is asked of a hub.

    Args:
        name: owner/name. patterns: of the files at the top of the repository. revision: branch, tag or commit; None:
            the main one. cache_dir: instead of the client's own. token: instead of the client's own. offline: take
            what the cache has and ask nobody.
    """

    name: str
    patterns: tuple[str, ...]
    revision: str | None = None
    cache_dir: Path | None = None
    token: str | None = None
    offline: bool = False


@dataclass(frozen=True)
class Hub:
    """A hub: how it is asked, and what a user can set about it.

    Args:
        title: its name. site: its address. endpoint, token, cache: environment variables. fetch: asks it.
        check: raises what a client's `fetch` keeps to itself.
    """

    title: str
    site: str
    endpoint: str
    token: str
    cache: str
    fetch: Callable[[Request], str]
    check: Callable[[Request], object] = lambda request: None

    @property
    def address(self) -> str:
        """Where it is asked: the variable now, not when the client was imported."""
        return os.environ.get(self.endpoint) or self.site


def _huggingface(request: Request) -> str:
    from huggingface_hub import snapshot_download

    return _snapshot(snapshot_download, request, HUBS["huggingface"].address)


def _check_huggingface(request: Request) -> None:
    """Its snapshots come from the cache, whole or not, where the hub refuses or can't be reached."""
    from huggingface_hub import HfApi

    HfApi(HUBS["huggingface"].address, token=request.token).model_info(request.name, revision=request.revision)


def _modelscope(request: Request) -> str:
    from modelscope.hub.snapshot_download import snapshot_download

    # The variable, which the client reads once; without it two sites are tried.
    return _snapshot(snapshot_download, request, os.environ.get("MODELSCOPE_ENDPOINT"))


def _snapshot(download: Callable[..., str], request: Request, endpoint: str | None) -> str:
    """What both clients' `snapshot_download` makes of a request; no folders within the repository."""
    return download(
        request.name,
        revision=request.revision,
        cache_dir=request.cache_dir,
        token=request.token,
        local_files_only=request.offline,
        allow_patterns=list(request.patterns),
        ignore_patterns=["*/*"],
        endpoint=endpoint,
    )


def _aistudio(request: Request) -> str:
    """File by file, by the names that a checkpoint has."""
    from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

    if "paddlenlp" not in sys.modules:
        startup.import_paddle()
    from paddlenlp.utils.download.aistudio_hub_download import aistudio_hub_download

    def fetch(file: str, needed: bool) -> Path | None:
        try:
            path = aistudio_hub_download(
                request.name,
                file,
                revision=request.revision,
                cache_dir=request.cache_dir,
                token=request.token,
                local_files_only=request.offline,
                endpoint=HUBS["aistudio"].address,
                resume_download=file.endswith(".safetensors"),  # only large files are on a server that knows ranges
            )
        except EntryNotFoundError as error:
            unasked = isinstance(error, LocalEntryNotFoundError) and not request.offline
            if needed or unasked:
                raise
            return None
        return Path(path)

    def wanted(files: Sequence[str]) -> list[str]:
        return [file for file in files if any(fnmatch.fnmatch(file, pattern) for pattern in request.patterns)]

    config = fetch("config.json", needed=True)
    index = fetch(INDEX_FILE, needed=False)
    for file in wanted(BESIDE_WEIGHTS):
        fetch(file, needed=False)
    for file in wanted(weight_files(index)):
        fetch(file, needed=index is not None)
    return str(config.parent)


def weight_files(index: Path | None) -> list[str]:
    """Names of the files that hold a checkpoint's weights: those that the index names; without one, the single file."""
    if index is None:
        return [SINGLE_FILE]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


HUBS = {
    "huggingface": Hub(
        "Hugging Face", "https://huggingface.co", "HF_ENDPOINT", "HF_TOKEN", "HF_HOME", _huggingface, _check_huggingface
    ),
    "modelscope": Hub(
        "ModelScope",
        "https://modelscope.cn",
        "MODELSCOPE_ENDPOINT",
        "MODELSCOPE_API_TOKEN",
        "MODELSCOPE_CACHE",
        _modelscope,
    ),
    "aistudio": Hub(
        "AI Studio",
        "http://git.aistudio.baidu.com",
        "AISTUDIO_ENDPOINT",
        "AISTUDIO_ACCESS_TOKEN",
        "AISTUDIO_HUB_CACHE",
        _aistudio,
    ),
}
