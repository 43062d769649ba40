"""Guards before every route: middleware and error handlers, which a single server and the front of replicas share.

In: a FastAPI application and settings. Out: the same application behind them.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from paddle_internvl.serve import pages
from paddle_internvl.serve.errors import ApiError, of_http, of_validation
from paddle_internvl.serve.metrics import Metrics
from paddle_internvl.serve.middleware import Admission, ApiKeys, Bodies, Gate, RequestLog
from paddle_internvl.serve.request_head import RequestHead
from paddle_internvl.serve.settings import Settings


def add_guards(app: FastAPI, settings: Settings, gate: Gate, metrics: Metrics) -> None:
    """Add middleware and error handlers to an application.

    Args:
        app: changed in place; `app.state.gate` is set.
        settings: limits, keys and origins.
        gate: counts the requests in work.
        metrics: of requests.
    """
    app.state.gate = gate
    # The last one added is the outermost.
    app.add_middleware(Admission, gate=gate)
    app.add_middleware(
        Bodies, gate=gate, max_bytes=settings.max_body_bytes, max_values=settings.max_json_values,
        read_timeout=settings.body_timeout, send_timeout=settings.send_timeout,
    )  # fmt: skip
    public = ("/health",) if settings.disable_pages else ("/health", *pages.FILES)
    app.add_middleware(ApiKeys, keys=settings.api_keys, public=public)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allow_origins, allow_methods=("GET", "POST"), allow_headers=("*",)
        )
    app.add_middleware(RequestHead, hosts=settings.accepted_hosts)
    app.add_middleware(RequestLog, metrics=metrics)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


# Exceptions that no handler takes are `middleware.RequestLog`'s.
async def _on_api_error(request: Request, error: ApiError) -> JSONResponse:
    request.state.record.error = error.code or error.type
    return error.response()


async def _on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    return await _on_api_error(request, of_validation(error))


async def _on_http_error(request: Request, error: HTTPException) -> JSONResponse:
    response = await _on_api_error(request, of_http(error.status_code))
    response.headers.update(error.headers or {})
    return response
