"""Pages for people: `/` with the model, its load and code to call it, and Swagger UI at `/docs`.

In: an application. Out: the same application with routes of static files, which hold nothing of this server: scripts
read model and load from `/v1/models` and `/metrics`, with the API key that the visitor enters. So the pages need no key
where the server needs one. Swagger UI is a file of the package fastapi_swagger; nothing comes from another host.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response

_FOLDER = Path(__file__).parent / "static"
_SWAGGER = Path(find_spec("fastapi_swagger").origin).parent / "resources"
_PAGES = {"/": "home.html", "/docs": "docs.html"}
_STATIC = {
    **{f"/static/{name}": _FOLDER / name for name in ("home.css", "key.js", "home.js", "docs.js")},
    **{f"/static/{name}": _SWAGGER / name for name in ("swagger-ui.css", "swagger-ui-bundle.js")},
}
FILES = {**{path: _FOLDER / name for path, name in _PAGES.items()}, **_STATIC}  # path -> file
# Swagger UI writes style attributes.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


def add_pages(app: FastAPI) -> None:
    """Add the routes of the pages, which the schema of the API leaves out."""
    for path, file in FILES.items():
        app.add_api_route(path, partial(_send, file), methods=["GET", "HEAD"], include_in_schema=False, name=file.name)


async def _send(file: Path) -> Response:
    return FileResponse(file, headers=_HEADERS)
