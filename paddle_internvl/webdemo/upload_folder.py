"""Folder of uploads with limits: number of files, bytes, and age, so that uploads can't fill the disk.

In: upload requests of the page, and the folder that Gradio stores them in. Out: the requests that fit, or 507; files
that are too old are removed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import anyio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_log = logging.getLogger("paddle_internvl.webdemo")
_SWEEP_SECONDS = 60.0


@dataclass(frozen=True)
class UploadFolder:
    """The folder of all visitors' uploads.

    Gradio removes old files itself, but not those of an upload that is named like a folder, and stops at the first one.

    Attributes:
        path: the folder.
        max_files: most files.
        max_bytes: most bytes of all files.
        max_upload: most bytes of one request.
        max_age: seconds until a file is removed.
        kept: files that stay, of the page itself.
    """

    path: Path
    max_files: int = 2000
    max_bytes: int = 4 << 30
    max_upload: int = 256 << 20
    max_age: float = 3600.0
    kept: Collection[Path] = ()

    def files(self) -> list[Path]:
        """All files."""
        return [file for file in self.path.rglob("*") if file.is_file()]

    def has_room(self, size: int) -> bool:
        """Whether an upload of `size` bytes may be stored."""
        files = self.files()
        return len(files) < self.max_files and sum(map(_size, files)) + size <= self.max_bytes

    def remove_old(self) -> None:
        """Remove the files that are older than `max_age`."""
        for file in self.files():
            if file not in self.kept and _age(file) > self.max_age:
                file.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Call `remove_old` once a minute, in a thread of its own, until the process ends."""

        def run() -> None:
            while True:
                time.sleep(_SWEEP_SECONDS)
                self.remove_old()

        threading.Thread(target=run, name="remove-old-uploads", daemon=True).start()


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _age(file: Path) -> float:
    return time.time() - file.stat().st_ctime if file.exists() else 0.0


class UploadLimits:
    """ASGI middleware: refuses uploads without a length (411), too large ones (413), and all while the folder is full
    (507).

    Args:
        folder: of the uploads.
    """

    def __init__(self, app: ASGIApp, folder: UploadFolder):
        self.app, self._folder = app, folder
        self._arriving = 0  # bytes of the uploads that are being received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith("/upload"):
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if not length.isdecimal():
            await _refuse(411, "an upload needs a Content-Length")(scope, receive, send)
        elif int(length) > self._folder.max_upload:
            await _refuse(413, f"an upload may have {self._folder.max_upload} bytes")(scope, receive, send)
        elif not await anyio.to_thread.run_sync(self._folder.has_room, self._arriving + int(length)):
            _log.warning("the folder of uploads is full: %s", self._folder.path)
            await _refuse(507, "too many uploads are stored here; try again later")(scope, receive, send)
        else:
            self._arriving += int(length)
            try:
                await self.app(scope, receive, send)
            finally:
                self._arriving -= int(length)


def _refuse(status: int, reason: str) -> PlainTextResponse:
    return PlainTextResponse(reason, status, {"Connection": "close"})
