"""A checkpoint's name -> a folder on this machine: itself, or a hub's snapshot in the hub's usual cache.

In: a path, or a hub id (owner/name). Out: a folder that holds config.json and, if asked for, the weights; or one line
that says what to do. Everything that takes a checkpoint by name goes through `folder_of`.

Which hub: `hub=`, else $PADDLE_INTERNVL_HUB, else Hugging Face, where OpenGVLab publishes first. In China, where
huggingface.co is not reached, set PADDLE_INTERNVL_HUB=modelscope (OpenGVLab's models have the same ids there) or
HF_ENDPOINT=https://hf-mirror.com; no hub is tried in place of another. Only safetensors and text files are fetched: no
code, no pickles. Downloads go on where they broke off. What is cached is used where the hub can't be reached, and
HF_HUB_OFFLINE=1 asks no hub at all.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from convert.safetensors_io import INDEX_FILE
from paddle_internvl import progress
from paddle_internvl.checkpoints.hub_clients import HUBS, Hub, Request, weight_files

VARIABLE = "PADDLE_INTERNVL_HUB"
ARGUMENTS = ("hub", "revision", "cache_dir", "token", "local_files_only", "from_hf_hub", "from_aistudio", "subfolder")
_TEXTS = ("*.json", "*.txt", "*.model")  # configs, tokenizers, merges.txt, SentencePiece models
_WEIGHTS = ("*.safetensors",)
_MIRROR = "https://hf-mirror.com"  # of Hugging Face, for readers in China
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_WORDS = {  # kind of failure -> what is said of it
    "absent": "{name} is neither a path here{near} nor a model on {title}{or_revision}; check the name, set {token} if "
    "it is private, or name another hub: {other}",
    "revision": "{name} has no revision {revision!r} on {title}; its branches and tags are listed at {site}/{name}",
    "denied": "{title} does not let you have {name}: ask for access at {site}/{name} and set {token} to your token",
    "unreachable": "{title} can't be reached at {address} ({reason}), and {name} is neither in its cache nor a path "
    "here{near}; check the network, {mirror}or name another hub: {other}",
    "uncached": "{name} is not whole in the cache of {title}, nor a path here{near}, and HF_HUB_OFFLINE or "
    "local_files_only forbids to ask; allow it once to download",
    "full": "no space is left for {name}; make room or move the cache ({cache}=FOLDER), and call again: what is there "
    "is kept",
    "broken": "the download of {name} from {title} broke off ({reason}); call again: it goes on from there",
    "incomplete": "{name} on {title} has no {missing}; only safetensors in the layouts of OpenGVLab and transformers "
    "can be read",
}


class HubError(OSError):
    """A hub id that can't be had. The message is one line: what is wrong and what to do."""


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
    """The path of a checkpoint, fetched if it is a hub id.

    Args:
        name_or_path: a path that is there is returned as it is; owner/name is a hub id.
        hub: 'huggingface', 'modelscope' or 'aistudio'; None: $PADDLE_INTERNVL_HUB, else 'huggingface'.
        revision: branch, tag or commit. cache_dir, token: instead of the client's own. local_files_only: ask no hub.
        weights: False fetches the small files only. from_hf_hub, from_aistudio: PaddleNLP's way to say `hub`.
        subfolder: accepted where it is empty.
    Returns:
        A path that is there; of a hub id, its folder in the hub's cache.
    Raises:
        HubError: not a path and not to be had from the hub. ValueError: arguments that can't be.
    """
    path = Path(name_or_path).expanduser()
    if subfolder:
        raise ValueError(f"subfolder={subfolder!r}: a checkpoint lies at the top of its folder; name that one")
    if path.exists():
        return path
    name = str(name_or_path)
    if not is_id(name):
        raise HubError(f"{name} does not exist{_near(name)}; give a folder, or a hub id: owner/name")
    chosen = HUBS[choose(hub, from_hf_hub, from_aistudio)]
    offline = local_files_only or _switched_on("HF_HUB_OFFLINE")
    cache = None if cache_dir is None else Path(cache_dir).expanduser()
    return _fetch(chosen, Request(name, _TEXTS + _WEIGHTS * weights, revision, cache, token, offline))


def is_id(name: str) -> bool:
    """Whether a text has the form of a hub id, owner/name."""
    return _ID.fullmatch(name) is not None


def choose(hub: str | None = None, from_hf_hub: bool = False, from_aistudio: bool = False) -> str:
    """Which hub, by name: see `folder_of`.

    Raises:
        ValueError: a hub that is not known.
    """
    said = "huggingface" if from_hf_hub else "aistudio" if from_aistudio else None
    chosen = hub or said or os.environ.get(VARIABLE) or "huggingface"
    if chosen not in HUBS:
        where = "hub" if hub else VARIABLE
        raise ValueError(f"{where}={chosen!r} is not known; known: {', '.join(HUBS)}")
    return chosen


def _fetch(hub: Hub, request: Request) -> Path:
    try:
        with _still():
            folder = Path(hub.fetch(request))
            missing = _missing(folder, request)
            if missing and not request.offline:
                hub.check(request)
    except Exception as error:  # each client has exceptions of its own
        kind = "uncached" if request.offline else _kind(error)
        cached = _cached(hub, request) if kind == "unreachable" else None
        if cached is None:
            raise HubError(_say(kind, hub, request, reason=_reason(error))) from error
        return cached
    if missing:
        raise HubError(_say("uncached" if request.offline else "incomplete", hub, request, missing=missing))
    return folder


def _cached(hub: Hub, request: Request) -> Path | None:
    """What an earlier call left, if it is whole."""
    offline = replace(request, offline=True)
    try:
        with _still():
            folder = Path(hub.fetch(offline))
    except Exception:  # a client's way to say that there is nothing
        return None
    return None if _missing(folder, offline) else folder


def _missing(folder: Path, request: Request) -> str:
    """The first file that a snapshot should hold and does not; '' if there is none."""
    names = ["config.json"]
    if set(_WEIGHTS) <= set(request.patterns):
        index = folder / INDEX_FILE
        names += weight_files(index if index.is_file() else None)
    return next((name for name in names if not (folder / name).is_file()), "")


def _kind(error: BaseException) -> str:
    """Which of `_WORDS` a client's exception is. Clients wrap exceptions in others, and tell several at once."""
    chain = list(_chain(error))
    kinds = {type(each).__name__ for each in chain}
    codes = {getattr(getattr(each, "response", None), "status_code", None) for each in chain}
    codes |= {getattr(each, "status_code", None) for each in chain}
    if any(getattr(each, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for each in chain):
        return "full"
    if "RevisionNotFoundError" in kinds:
        return "revision"
    if "GatedRepoError" in kinds or 403 in codes:
        return "denied"
    if "RepositoryNotFoundError" in kinds or 404 in codes:
        return "absent"
    if 401 in codes:
        return "denied"
    if kinds & {"ChunkedEncodingError", "FileDownloadError", "IncompleteRead"}:
        return "broken"
    if any(_is_silence(each) for each in chain) or any(code and code >= 500 for code in codes):
        return "unreachable"
    return "broken"


def _is_silence(error: BaseException) -> bool:
    """Whether an exception says that nobody answered."""
    return isinstance(error, (ConnectionError, TimeoutError)) or type(error).__name__ in (
        "ConnectionError", "ConnectTimeout", "ReadTimeout", "NetworkError", "RequestTimeoutError", "ServerError",
    )  # fmt: skip


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__, *getattr(each, "failed_files", {}).values()]


def _reason(error: BaseException) -> str:
    """What the innermost exception is called, and its first words."""
    innermost = list(_chain(error))[-1]
    words = " ".join(str(innermost).split())
    return type(innermost).__name__ + (f": {words[:120]}" if words else "")


def _say(kind: str, hub: Hub, request: Request, **more: str) -> str:
    others = " or ".join(f"{VARIABLE}={name}" for name, other in HUBS.items() if other is not hub)
    words = {
        "name": request.name,
        "revision": request.revision,
        "or_revision": f" that has a revision {request.revision!r}" if request.revision else "",
        "near": _near(request.name),
        "other": others,
        "mirror": f"set HF_ENDPOINT={_MIRROR} " if hub is HUBS["huggingface"] and hub.address != _MIRROR else "",
    }
    return _WORDS[kind].format(**words, **{**vars(hub), "address": hub.address}, **more)


def _near(name: str) -> str:
    """The path that was perhaps meant, in brackets; '' if there is none like it."""
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        return ""
    close = difflib.get_close_matches(path.name, [file.name for file in path.parent.iterdir()], 1)
    return f" (did you mean {path.parent / close[0]}?)" if close else ""


def _switched_on(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


@contextlib.contextmanager
def _still() -> Iterator[None]:
    """Keep the clients from logging what they raise, from warning, and from drawing bars into files."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # their loggers come with the first call, so that none can be named before
    try:
        with warnings.catch_warnings(), contextlib.nullcontext() if progress.shown() else _no_stderr():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _no_stderr():
    return contextlib.redirect_stderr(io.StringIO())
