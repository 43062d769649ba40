"""Client libraries of the three hubs: a snapshot of a repository is downloaded into the client's own cache.

In: a hub id, patterns of file names, options. Out: the snapshot's folder, or whatever the client raises. What a
checkpoint must hold is the business of `hub`. Clients are imported when they are called.

AI Studio is downloaded from by PaddleNLP's client: aistudio-sdk has no snapshots below 0.3, and then takes a file whose
transfer broke off for a whole one.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from convert.folder import BESIDE_WEIGHTS, INDEX_FILE, SINGLE_FILE
from paddle_internvl import startup

_CONNECT_TIMEOUT = 10  # seconds

Failures = list[tuple[str, tuple[type[BaseException], ...], Sequence[int]]]


@dataclass(frozen=True)
class Request:
    """What is downloaded from a hub.

    Args:
        name: owner/name.
        patterns: of the files at the top of the repository.
        revision: branch, tag or commit; None: the main branch.
        cache_dir: in place of the client's own.
        token: in place of the client's own.
        offline: take what the cache has, without network.
    """

    name: str
    patterns: tuple[str, ...]
    revision: str | None = None
    cache_dir: Path | None = None
    token: str | None = None
    offline: bool = False


@dataclass(frozen=True)
class Hub:
    """A hub and its client.

    Args:
        title: its name for people.
        site: its address.
        endpoint: environment variable with another address.
        token: environment variable with the access token.
        cache: environment variable with the cache folder.
        loggers: names of the client's top loggers.
        load: imports the client.
        without_bars: a context in which the client draws no progress bars.
        fetch: downloads a request, returns its folder.
        failures: (kind of failure, exception classes, HTTP status codes), the most specific first.
        check: raises what a client's `fetch` keeps to itself.
    """

    title: str
    site: str
    endpoint: str
    token: str
    cache: str
    loggers: tuple[str, ...]
    load: Callable[[], object]
    without_bars: Callable[[], AbstractContextManager]
    fetch: Callable[[Request], str]
    failures: Callable[[], Failures]
    check: Callable[[Request], object] = lambda request: None

    @property
    def address(self) -> str:
        """The address by the variable's present value, not by that of the client's import."""
        return os.environ.get(self.endpoint) or self.site


@contextmanager
def _without_huggingface_bars() -> Iterator[None]:
    from huggingface_hub import utils

    disabled = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            utils.enable_progress_bars()


@contextmanager
def _without_modelscope_bars() -> Iterator[None]:
    """The client has no switch: the class of its bars is replaced."""
    module = import_module("modelscope_hub._download")
    drawn = module.tqdm
    module.tqdm = partial(drawn, disable=True)
    try:
        yield
    finally:
        module.tqdm = drawn


def _huggingface(request: Request) -> str:
    from huggingface_hub import snapshot_download

    return _snapshot(snapshot_download, request, HUBS["huggingface"].address)


def _check_huggingface(request: Request) -> None:
    """Query the model: the client's snapshots come from the cache, whole or not, where the hub refuses or can't be
    reached."""
    from huggingface_hub import HfApi

    HfApi(HUBS["huggingface"].address, token=request.token).model_info(request.name, revision=request.revision)


def _huggingface_failures() -> Failures:
    from huggingface_hub import errors
    from requests import exceptions

    return [
        ("revision", (errors.RevisionNotFoundError,), ()),
        ("denied", (errors.GatedRepoError,), (403,)),
        ("absent", (errors.RepositoryNotFoundError,), (404,)),
        ("denied", (), (401,)),
        ("broken", (exceptions.ChunkedEncodingError,), ()),
        ("unreachable", (exceptions.ConnectionError, exceptions.Timeout, ConnectionError), range(500, 600)),
    ]


def _modelscope(request: Request) -> str:
    import requests
    from modelscope.hub.snapshot_download import snapshot_download

    if not request.offline:  # the client itself takes half a minute to find out that there is no network
        requests.head(HUBS["modelscope"].address, timeout=_CONNECT_TIMEOUT)
    # The variable, which the client reads once; without it two sites are tried.
    return _snapshot(snapshot_download, request, os.environ.get("MODELSCOPE_ENDPOINT"))


def _modelscope_failures() -> Failures:
    from modelscope_hub import errors
    from requests import exceptions

    return [
        ("denied", (errors.PermissionDeniedError,), (403,)),
        ("absent", (errors.NotExistError,), (404,)),
        ("denied", (errors.AuthenticationError,), (401,)),
        ("broken", (errors.StorageError, exceptions.ChunkedEncodingError), ()),
        ("unreachable", (errors.NetworkError, errors.ServerError), range(500, 600)),
        ("unreachable", (exceptions.ConnectionError, exceptions.Timeout), ()),
    ]


def _snapshot(download: Callable[..., str], request: Request, endpoint: str | None) -> str:
    """Call a client's `snapshot_download`, which takes the same arguments on Hugging Face and ModelScope."""
    return download(
        request.name,
        revision=request.revision,
        cache_dir=request.cache_dir,
        token=request.token,
        local_files_only=request.offline,
        allow_patterns=list(request.patterns),
        ignore_patterns=["*/*"],  # no folders within the repository
        endpoint=endpoint,
    )


def _load_aistudio() -> None:
    if "paddlenlp" not in sys.modules:
        startup.import_paddle()
    import_module("paddlenlp.utils.download.aistudio_hub_download")


def _aistudio(request: Request) -> str:
    """Download file by file, by the names that a checkpoint has."""
    from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError
    from paddlenlp.utils.download.aistudio_hub_download import aistudio_hub_download

    def fetch(file: str, required: bool) -> Path | None:
        try:
            path = aistudio_hub_download(
                request.name,
                file,
                revision=request.revision,
                cache_dir=request.cache_dir,
                token=request.token,
                local_files_only=request.offline,
                endpoint=HUBS["aistudio"].address,
                resume_download=file.endswith(".safetensors"),  # small files are on a server without byte ranges
            )
        except EntryNotFoundError as error:
            unreachable = isinstance(error, LocalEntryNotFoundError) and not request.offline
            if required or unreachable:
                raise
            return None
        return Path(path)

    def matching(files: Sequence[str]) -> list[str]:
        return [file for file in files if any(fnmatch.fnmatch(file, pattern) for pattern in request.patterns)]

    config = fetch("config.json", required=True)
    index = fetch(INDEX_FILE, required=False)
    for file in matching(BESIDE_WEIGHTS):
        fetch(file, required=False)
    for file in matching(weight_files(index)):
        fetch(file, required=index is not None)
    return str(config.parent)


def weight_files(index: Path | None) -> list[str]:
    """File names of a checkpoint's weights: the shards that an index names; without an index, the single file."""
    if index is None:
        return [SINGLE_FILE]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


HUBS = {
    "huggingface": Hub(
        title="Hugging Face",
        site="https://huggingface.co",
        endpoint="HF_ENDPOINT",
        token="HF_TOKEN",
        cache="HF_HOME",
        loggers=("huggingface_hub",),
        load=lambda: import_module("huggingface_hub"),
        without_bars=_without_huggingface_bars,
        fetch=_huggingface,
        failures=_huggingface_failures,
        check=_check_huggingface,
    ),
    "modelscope": Hub(
        title="ModelScope",
        site="https://modelscope.cn",
        endpoint="MODELSCOPE_ENDPOINT",
        token="MODELSCOPE_API_TOKEN",
        cache="MODELSCOPE_CACHE",
        loggers=("modelscope", "modelscope_hub"),
        load=lambda: import_module("modelscope.hub.snapshot_download"),
        without_bars=_without_modelscope_bars,
        fetch=_modelscope,
        failures=_modelscope_failures,
    ),
    "aistudio": Hub(
        title="AI Studio",
        site="http://git.aistudio.baidu.com",
        endpoint="AISTUDIO_ENDPOINT",
        token="AISTUDIO_ACCESS_TOKEN",
        cache="AISTUDIO_HUB_CACHE",
        loggers=("paddlenlp", "PaddleNLP"),
        load=_load_aistudio,
        without_bars=_without_huggingface_bars,  # whose bars PaddleNLP's client draws
        fetch=_aistudio,
        failures=_huggingface_failures,  # whose exception classes PaddleNLP's client raises
    ),
}
