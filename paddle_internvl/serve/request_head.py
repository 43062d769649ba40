"""Checks of a request's head before anything else: the Host header, and the framing of the body.

In: ASGI requests. Out: the requests that pass; others are answered 403 or 400. The server and the web demo share it.

A page of any site can make a browser send requests to 127.0.0.1 under the site's own host name (DNS rebinding). On a
loopback address only names that such a site can't have are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from paddle_internvl.serve.errors import ApiError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d*)?")


class RequestHead:
    """Refuses foreign Host headers, and bodies of two lengths (request smuggling).

    Args:
        hosts: host names that are accepted besides this machine's; None: any host is accepted.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None):
        self.app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(Headers(scope=scope)) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
            return
        error.headers["Connection"] = "close"  # the body is not read
        if record := scope.get("state", {}).get("record"):
            record.error = error.code or error.type
        await error.response()(scope, receive, send)

    def _error(self, headers: Headers) -> ApiError | None:
        if "transfer-encoding" in headers and "content-length" in headers:
            return ApiError("invalid", "the request has both Content-Length and Transfer-Encoding; send one of them")
        host = headers.get("host")  # HTTP/1.0 may lack it; browsers always send it
        if self._hosts is None or host is None or is_local_host(host, self._hosts):
            return None
        return ApiError("host", "requests for this Host are not answered here; allow it with --allowed-hosts")


def is_local_host(host: str, allowed: Collection[str] = ()) -> bool:
    """Whether a Host header names this machine.

    Args:
        host: value of the header, with or without a port.
        allowed: further names, lower case.
    Returns:
        True for loopback addresses, `allowed`, and names without a dot such as localhost, which no site has.
    """
    found = _HOST.fullmatch(host.strip().lower())
    if found is None:
        return False
    name = found[1].strip("[]").rstrip(".")
    try:
        return name in allowed or ip_address(name).is_loopback
    except ValueError:
        return "." not in name
