"""Download of a checkpoint by its name: a path as it is, or a hub's snapshot in the hub's usual cache.

In: a path, or a hub id (owner/name). Out: a folder that holds config.json and, where requested, the weights; or an
error of one line. Everything that takes a checkpoint by name goes through `folder_of`.

Which hub: `hub=`, else $PADDLE_INTERNVL_HUB, else Hugging Face, where OpenGVLab publishes first. In China, where
huggingface.co is not reached, set PADDLE_INTERNVL_HUB=modelscope (OpenGVLab's models have the same ids there) or
HF_ENDPOINT=https://hf-mirror.com; no hub is tried in place of another. Only safetensors and text files are downloaded:
no code, no pickles. Downloads go on where they broke off. What is cached is used where the hub can't be reached, and
with HF_HUB_OFFLINE=1 there is no download at all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from convert.folder import INDEX_FILE
from paddle_internvl import progress
from paddle_internvl.checkpoints.hub_clients import HUBS, Hub, Request, weight_files
from paddle_internvl.checkpoints.hub_errors import VARIABLE, HubError, failure_kind, hub_error, near_path

ARGUMENTS = ("hub", "revision", "cache_dir", "token", "local_files_only", "from_hf_hub", "from_aistudio", "subfolder")
_TEXTS = ("*.json", "*.txt", "*.model")  # configs, tokenizers, merges.txt, SentencePiece models
_WEIGHTS = ("*.safetensors",)
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def folder_of(
    name_or_path: str | os.PathLike,
    *,
    hub: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    weights: bool = True,
    from_hf_hub: bool = False,
    from_aistudio: bool = False,
    subfolder: str | None = None,
) -> Path:
    """The path of a checkpoint, downloaded if it is a hub id.

    Args:
        name_or_path: an existing path is returned as it is; owner/name is a hub id.
        hub: 'huggingface', 'modelscope' or 'aistudio'; None: $PADDLE_INTERNVL_HUB, else 'huggingface'.
        revision: branch, tag or commit.
        cache_dir: in place of the client's own.
        token: in place of the client's own.
        local_files_only: no download.
        weights: False downloads the small files only.
        from_hf_hub: PaddleNLP's name for hub='huggingface'.
        from_aistudio: PaddleNLP's name for hub='aistudio'.
        subfolder: accepted where it is empty.
    Returns:
        An existing path; of a hub id, its folder in the hub's cache.
    Raises:
        HubError: no path, and the hub does not give it.
        ValueError: arguments that are not supported.
    """
    path = Path(name_or_path).expanduser()
    if subfolder:
        raise ValueError(f"subfolder={subfolder!r}: a checkpoint lies at the top of its folder; name that one")
    if path.exists():
        return path
    name = str(name_or_path)
    if not is_id(name):
        raise HubError(f"{name} does not exist{near_path(name)}; give a folder, or a hub id: owner/name")
    chosen = HUBS[choose(hub, from_hf_hub, from_aistudio)]
    offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    cache = None if cache_dir is None else Path(cache_dir).expanduser()
    return _fetch(chosen, Request(name, _TEXTS + _WEIGHTS * weights, revision, cache, token, offline))


def is_id(name: str) -> bool:
    """Whether a text has the form of a hub id, owner/name."""
    return _ID.fullmatch(name) is not None


def choose(hub: str | None = None, from_hf_hub: bool = False, from_aistudio: bool = False) -> str:
    """The name of the hub: see `folder_of`.

    Raises:
        ValueError: there is no such hub.
    """
    by_flag = "huggingface" if from_hf_hub else "aistudio" if from_aistudio else None
    chosen = hub or by_flag or os.environ.get(VARIABLE) or "huggingface"
    if chosen not in HUBS:
        raise ValueError(f"{'hub' if hub else VARIABLE}={chosen!r} is not supported; supported: {', '.join(HUBS)}")
    return chosen


def _fetch(hub: Hub, request: Request) -> Path:
    try:
        with _quiet(hub):
            folder = Path(hub.fetch(request))
            missing = _missing(folder, request)
            if missing and not request.offline:
                hub.check(request)
    except Exception as error:  # each client has exceptions of its own
        kind = "uncached" if request.offline else failure_kind(error, hub)
        cached = _cached(hub, request) if kind == "unreachable" else None
        if cached is None:
            raise hub_error(kind, hub, request, error) from error
        return cached
    if missing:
        raise hub_error("uncached" if request.offline else "incomplete", hub, request, missing=missing)
    return folder


def _cached(hub: Hub, request: Request) -> Path | None:
    """The snapshot of an earlier call, if it is whole."""
    offline = replace(request, offline=True)
    try:
        with _quiet(hub):
            folder = Path(hub.fetch(offline))
    except Exception:  # a client's way to report an empty cache
        return None
    return None if _missing(folder, offline) else folder


def _missing(folder: Path, request: Request) -> str:
    """The first file that a snapshot should hold and does not; '' if there is none."""
    names = ["config.json"]
    if set(_WEIGHTS) <= set(request.patterns):
        index = folder / INDEX_FILE
        names += weight_files(index if index.is_file() else None)
    return next((name for name in names if not (folder / name).is_file()), "")


@contextlib.contextmanager
def _quiet(hub: Hub) -> Iterator[None]:
    """Silence a client's loggers, whose errors are raised anyway, its warnings, and bars that are no terminal's. Nobody
    else's: other threads go on."""
    names = (*hub.loggers, "urllib3")
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.filterwarnings("ignore", module="|".join(names))
        hub.load()  # a client's import sets its loggers' levels
        if not progress.shown():
            stack.enter_context(hub.without_bars())
        loggers = [logging.getLogger(name) for name in names]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
