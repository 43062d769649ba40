"""Hub server on 127.0.0.1 for tests, with the HTTP routes of Hugging Face, ModelScope and AI Studio.

In: repositories, id -> folder. Requests are recorded; `cut` ends a transfer in its middle, `status` refuses.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hubs:
    """State of the server.

    Attributes:
        repositories: id -> folder.
        revisions: branches, tags and commits of all repositories.
        cut: file -> bytes after which its next transfer ends.
        status: HTTP status of every response, if set.
        transfers: (file, Range header) of every request for a file's content.
        requests: number of requests.
        headers: of the last request.
        port: of the server.
    """

    repositories: dict[str, Path]
    revisions: tuple[str, ...] = ("main", "master", COMMIT)
    cut: dict[str, int] = field(default_factory=dict)
    status: int | None = None
    transfers: list[tuple[str, str | None]] = field(default_factory=list)
    requests: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def names(self) -> list[str]:
        """Files whose content was requested."""
        return [name for name, _ in self.transfers]


class _Handler(BaseHTTPRequestHandler):
    hubs: Hubs
    protocol_version = "HTTP/1.0"  # a connection a request: none outlives the server

    def log_message(self, *_words):
        """No log."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hubs = self.hubs
        hubs.requests += 1
        hubs.headers = dict(self.headers)
        if hubs.status is not None:
            return self._json({"error": "refused", "Message": "refused"}, hubs.status)
        url = urlsplit(self.path)
        path, query = unquote(url.path).strip("/"), {key: value[0] for key, value in parse_qs(url.query).items()}
        words = path.split("/")
        if words[:2] == ["api", "models"]:  # Hugging Face: a revision's files
            revision = words[5] if len(words) > 5 else "main"
            return self._huggingface_files("/".join(words[2:4]), revision)
        if words[2:3] == ["resolve"]:
            return self._file("/".join(words[:2]), words[3], "/".join(words[4:]))
        if words[:3] == ["api", "v1", "models"] and words[5:] == ["repo", "files"]:  # ModelScope
            return self._modelscope_files("/".join(words[3:5]), query["Revision"])
        if words[:3] == ["api", "v1", "models"] and words[5:] == ["repo"]:
            return self._file("/".join(words[3:5]), query["Revision"], query["FilePath"])
        if words[:3] == ["api", "v1", "repos"] and len(words) > 6:  # AI Studio, a Gitea
            name, kind, file = "/".join(words[3:5]), words[5], "/".join(words[6:])
            if kind == "media":
                return self._file(name, query.get("ref", "master"), file)
            return self._gitea_file(name, query.get("ref", "master"), file)
        return self._json({"error": "no such route"}, 404)

    def _folder(self, name: str, revision: str) -> Path | None:
        """The repository, or None and a refusal sent."""
        if name not in self.hubs.repositories:
            self._json({"error": "Repository not found", "Message": "no"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif revision not in self.hubs.revisions:
            self._json({"error": "Revision", "Message": "no"}, 404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return self.hubs.repositories[name]
        return None

    def _huggingface_files(self, name: str, revision: str):
        folder = self._folder(name, revision)
        if folder:
            files = [{"rfilename": str(file.relative_to(folder))} for file in _files(folder)]
            self._json({"id": name, "modelId": name, "sha": COMMIT, "siblings": files, "tags": [], "private": False})

    def _modelscope_files(self, name: str, revision: str):
        folder = self._folder(name, revision)
        if folder:
            files = [
                {
                    "Path": str(file.relative_to(folder)),
                    "Type": "blob",
                    "Size": file.stat().st_size,
                    "Sha256": _sha(file),
                }
                for file in _files(folder)
            ]
            self._json({"Code": 200, "Success": True, "Data": {"Files": files}})

    def _gitea_file(self, name: str, revision: str, file: str):
        folder = self._folder(name, revision)
        if folder and not (folder / file).is_file():
            self._json({"message": "GetContentsOrList"}, 404)
        elif folder:
            size, sha = (folder / file).stat().st_size, _sha(folder / file)
            self._json({"sha": sha, "size": size, "last_commit_sha": COMMIT, "git_url": "", "name": file})

    def _file(self, name: str, revision: str, file: str):
        folder = self._folder(name, revision)
        if not folder:
            return
        path = folder / file
        if not path.is_file():
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        byte_range = self.headers.get("Range")
        begin = int(byte_range.removeprefix("bytes=").split("-")[0]) if byte_range else 0
        if self.command == "GET":
            self.hubs.transfers.append((file, byte_range))
        self.send_response(206 if byte_range else 200)
        self.send_header("ETag", f'"{_sha(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - begin))
        if byte_range:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        end = self.hubs.cut.pop(file, len(content))
        self.wfile.write(content[begin:end])
        if end < len(content):
            self.wfile.flush()
            self.connection.close()

    def _json(self, document: dict, status: int = 200, headers: dict | None = None):
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def serving(repositories: dict[str, Path], **options) -> Iterator[Hubs]:
    """The server, for the length of a test. options: attributes of `Hubs`."""
    hubs = Hubs(repositories, **options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hubs": hubs}))
    server.daemon_threads = True
    hubs.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hubs
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
