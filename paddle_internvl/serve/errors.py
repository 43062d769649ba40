"""Errors as OpenAI's clients read them: one table from what went wrong to HTTP status, type and code.

In: our exceptions. Out: `ApiError`, its JSON body and headers. No body holds a path, a traceback or what a fetched
address answered.
"""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from paddle_internvl.engine.request import ContextOverflowError, EngineClosedError, QueueFullError, RequestFailedError
from paddle_internvl.media.errors import MediaError
from paddle_internvl.serve.accesslog import one_line

_INPUT, _SERVER = "invalid_request_error", "server_error"
# what went wrong -> (status, type, code)
KINDS = {
    "invalid": (400, _INPUT, None),
    "unsupported": (400, _INPUT, "unsupported_parameter"),
    "overflow": (400, _INPUT, "context_length_exceeded"),
    "key": (401, _INPUT, "invalid_api_key"),
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
    "late": (503, _SERVER, "queue_timeout"),
}
GONE = 499  # the client left; nobody gets this answer, the log and the metrics do
_HTTP = {404: ("route", "there is no such route"), 405: ("method", "the route takes no such method")}
_RETRY_SECONDS = {"busy": 1, "late": 5, "memory": 5, "closing": 10, "unready": 10}


class ApiError(Exception):
    """What a client is told.

    Args:
        kind: a row of `KINDS`. message: for people, safe to show. param: the request's field that is at fault.
        status, code: instead of the row's.
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
        own_status, self.type, own_code = KINDS[kind]
        self.status, self.code = status or own_status, code or own_code
        self.message, self.param = one_line(message), param
        retry = _RETRY_SECONDS.get(kind)
        self.headers = {"Retry-After": str(retry)} if retry else {}

    @property
    def body(self) -> dict:
        """The JSON body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The answer that says so."""
        return JSONResponse(self.body, self.status, self.headers)


def unexpected(request_id: str) -> ApiError:
    """What is told about an error that nobody foresaw."""
    return ApiError("internal", f"something went wrong in the server; it is in its log under {request_id}")


def of_work(error: Exception, request_id: str) -> ApiError:
    """What a client is told about an error on the way to an answer."""
    if isinstance(error, RequestFailedError):
        return ApiError("memory", str(error)) if error.out_of_memory else unexpected(request_id)
    if isinstance(error, MediaError):
        return ApiError("invalid", str(error), "messages", error.status, error.code)
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
    """What a client is told about the first thing that is wrong with a body."""
    errors = error.errors()
    # Of a union's branches the one that went deepest is the one that was meant.
    first = max((each for each in errors if each["loc"][:2] == errors[0]["loc"][:2]), key=lambda each: len(each["loc"]))
    place = [str(part) for part in first["loc"][1:] if not _is_branch(part)]
    param = first.get("ctx", {}).get("param") or ".".join(place) or None
    if first["type"] == "unsupported_parameter":
        return ApiError("unsupported", first["msg"], param)
    if first["type"] == "json_invalid":
        return ApiError("invalid", "the body is no JSON")
    return ApiError("invalid", f"{param}: {first['msg']}" if param else first["msg"], param)


def _is_branch(part) -> bool:
    """Whether a part of an error's place is pydantic's name of a union's branch, which no request holds."""
    return isinstance(part, str) and ("[" in part or part in ("str", "list", "ImageUrl", "VideoUrl"))


def of_http(status: int) -> ApiError:
    """What a client is told where no route takes its request."""
    return ApiError(*_HTTP.get(status, ("invalid", "the request can't be read")))
