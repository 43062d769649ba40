"""API errors in OpenAI's form: one table of HTTP status, type and code.

In: exceptions of the project. Out: `ApiError` with JSON body and headers. No body holds a path, a traceback or the
answer of a fetched address.
"""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from paddle_internvl import runtime
from paddle_internvl.engine.request import ContextOverflowError, EngineClosedError, QueueFullError, RequestFailedError
from paddle_internvl.media.errors import MediaError
from paddle_internvl.serve.accesslog import one_line

_INPUT, _SERVER = "invalid_request_error", "server_error"
# kind -> (HTTP status, type, code)
KINDS = {
    "invalid": (400, _INPUT, None),
    "unsupported": (400, _INPUT, "unsupported_parameter"),
    "overflow": (400, _INPUT, "context_length_exceeded"),
    "key": (401, _INPUT, "invalid_api_key"),
    "host": (403, _INPUT, "host_not_allowed"),
    "route": (404, _INPUT, "not_found"),
    "model": (404, _INPUT, "model_not_found"),
    "method": (405, _INPUT, "method_not_allowed"),
    "slow": (408, _INPUT, "request_timeout"),
    "large": (413, _INPUT, "request_too_large"),
    "type": (415, _INPUT, "unsupported_media_type"),
    "busy": (429, "rate_limit_error", "queue_full"),
    "internal": (500, _SERVER, "internal_error"),
    "memory": (503, _SERVER, "out_of_memory"),
    "closing": (503, _SERVER, "server_closing"),
    "unready": (503, _SERVER, "engine_halted"),
    "full": (507, _SERVER, "storage_full"),
    "late": (503, _SERVER, "queue_timeout"),
}
CLIENT_CLOSED_REQUEST = 499  # status in log and metrics where the client disconnected
_HTTP = {404: ("route", "there is no such route"), 405: ("method", "the route takes no such method")}
_RETRY_SECONDS = {"busy": 1, "late": 5, "memory": 5, "closing": 10, "unready": 10, "full": 60}


class ApiError(Exception):
    """An error response.

    Args:
        kind: a row of `KINDS`.
        message: for people; holds nothing private.
        param: the invalid field of the request.
        status, code: override the row's.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        param: str | None = None,
        status: int | None = None,
        code: str | None = None,
    ):
        super().__init__(message)
        default_status, self.type, default_code = KINDS[kind]
        self.status, self.code = status or default_status, code or default_code
        self.message, self.param = one_line(message), param
        retry = _RETRY_SECONDS.get(kind)
        self.headers = {"Retry-After": str(retry)} if retry else {}

    @property
    def body(self) -> dict:
        """The JSON body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body, self.status, self.headers)


def unexpected(request_id: str) -> ApiError:
    """The error response to an unexpected exception, without its message."""
    return ApiError("internal", f"something went wrong in the server; it is in its log under {request_id}")


def of_work(error: Exception, request_id: str) -> ApiError:
    """The error response to an exception of preparing or generating an answer."""
    if isinstance(error, RequestFailedError):
        return ApiError("memory", str(error)) if error.out_of_memory else unexpected(request_id)
    if isinstance(error, MediaError):
        kind = {KINDS[kind][0]: kind for kind in ("busy", "full")}.get(error.status, "invalid")
        return ApiError(kind, str(error), "messages", error.status, error.code)
    if runtime.is_out_of_memory(error):
        return ApiError("memory", "not enough memory for this request; try again, or send less")
    if isinstance(error, TimeoutError):
        return ApiError("late", "the engine did not go on with the request in time; try again")
    for raised, kind in _RAISED:
        if isinstance(error, raised):
            return ApiError(kind, str(error))
    return unexpected(request_id)


_RAISED = (
    (ContextOverflowError, "overflow"),
    (QueueFullError, "busy"),
    (EngineClosedError, "closing"),
    (ValueError, "invalid"),
)


def of_validation(error: RequestValidationError) -> ApiError:
    """The error response to the first validation error of a body."""
    errors = error.errors()
    # pydantic reports every branch of a union; the deepest location, then a branch of the value's type, fits best.
    branches = [error for error in errors if error["loc"][:2] == errors[0]["loc"][:2]]
    first = max(branches, key=lambda branch: (len(branch["loc"]), not branch["type"].endswith("_type")))
    place = [str(part) for part in first["loc"][1:] if not _is_branch(part)]
    param = first.get("ctx", {}).get("param") or ".".join(place) or None
    if first["type"] == "unsupported_parameter":
        return ApiError("unsupported", first["msg"], param)
    if first["type"] == "json_invalid":
        return ApiError("invalid", "the body is no JSON")
    return ApiError("invalid", f"{param}: {first['msg']}" if param else first["msg"], param)


def _is_branch(part) -> bool:
    """Whether a part of an error's location is pydantic's name of a union branch, not a key of the request."""
    return isinstance(part, str) and ("[" in part or part in ("str", "list", "ImageUrl", "VideoUrl", "NamedTool"))


def of_http(status: int) -> ApiError:
    """The error response to a request that no route takes."""
    return ApiError(*_HTTP.get(status, ("invalid", "the request can't be read")))
