"""Errors of a hub: a client's exception becomes a kind of failure, and a kind one line with the way out.

In: an exception, the hub, the request. Out: `HubError`. Each hub lists its own client's exception classes.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterator
from pathlib import Path

from paddle_internvl.checkpoints.hub_clients import HUBS, Hub, Request

VARIABLE = "PADDLE_INTERNVL_HUB"
_MIRROR = "https://hf-mirror.com"  # of Hugging Face, for readers in China
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

_MESSAGES = {  # by kind of failure
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
    """A hub id that can't be downloaded. The message is one line: the failure and the way out."""


def failure_kind(error: BaseException, hub: Hub) -> str:
    """The kind of failure, a key of `_MESSAGES`, that a client's exception means.

    Args:
        error: clients wrap exceptions in others and collect several; all of them are looked at.
        hub: whose client raised it.
    """
    chain = list(_chain(error))
    if any(isinstance(link, OSError) and link.errno in _NO_SPACE for link in chain):
        return "full"
    statuses = {_status(link) for link in chain}
    for kind, classes, codes in hub.failures():
        if any(isinstance(link, classes) for link in chain) or any(code in statuses for code in codes):
            return kind
    return "broken"


def hub_error(kind: str, hub: Hub, request: Request, error: BaseException | None = None, missing: str = "") -> HubError:
    """The error to raise for a kind of failure.

    Args:
        kind: see `failure_kind`; or 'uncached', 'incomplete'.
        hub: that was called.
        request: that failed.
        error: the client's exception.
        missing: the file that a snapshot lacks.
    """
    is_huggingface = hub is HUBS["huggingface"]
    fields = {
        **{name: getattr(hub, name) for name in ("title", "site", "token", "cache", "address")},
        "name": request.name,
        "revision": request.revision,
        "or_revision": f" that has a revision {request.revision!r}" if request.revision else "",
        "near": near_path(request.name),
        "other": " or ".join(f"{VARIABLE}={name}" for name, other in HUBS.items() if other.title != hub.title),
        "mirror": f"set HF_ENDPOINT={_MIRROR} " if is_huggingface and hub.address != _MIRROR else "",
        "reason": "" if error is None else _reason(error),
        "missing": missing,
    }
    return HubError(_MESSAGES[kind].format(**fields))


def near_path(name: str) -> str:
    """The existing path of nearly that name, in brackets; '' if there is none."""
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        return ""
    close = difflib.get_close_matches(path.name, [file.name for file in path.parent.iterdir()], 1)
    return f" (did you mean {path.parent / close[0]}?)" if close else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, its causes and contexts, and the exceptions that ModelScope's client collects in it."""
    visited: set[int] = set()
    pending = [error]
    while pending:
        link = pending.pop()
        if link is None or id(link) in visited:
            continue
        visited.add(id(link))
        yield link
        pending += [link.__cause__, link.__context__, *getattr(link, "failed_files", {}).values()]


def _status(error: BaseException) -> int | None:
    """The HTTP status of an exception: requests keeps it on the response, ModelScope's client on the exception."""
    return getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status_code", None)


def _reason(error: BaseException) -> str:
    """Class and first words of the innermost exception."""
    innermost = list(_chain(error))[-1]
    words = " ".join(str(innermost).split())
    return type(innermost).__name__ + (f": {words[:120]}" if words else "")
