"""The application: routes, what stands before them, and how errors look.

In: an engine's thread and settings. Out: a FastAPI application. It neither opens a port nor starts the engine.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from paddle_internvl import __version__
from paddle_internvl.media.loader import MediaLoader
from paddle_internvl.serve.errors import ApiError, of_http, of_validation
from paddle_internvl.serve.metrics import Metrics
from paddle_internvl.serve.middleware import Admission, Bodies, Gate, Keys, Observed
from paddle_internvl.serve.preparing import Preparer
from paddle_internvl.serve.routes import Routes
from paddle_internvl.serve.settings import Settings


class ErrorDetails(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error body."""

    error: ErrorDetails


# (path, method, name of the method of `Routes`)
_ROUTES = (
    ("/v1/chat/completions", "POST", "chat_completions"),
    ("/v1/completions", "POST", "completions"),
    ("/v1/count_tokens", "POST", "count_tokens"),
    ("/v1/models", "GET", "models"),
    ("/v1/models/{model_id:path}", "GET", "model"),
    ("/health", "GET", "health"),
    ("/ready", "GET", "ready"),
    ("/metrics", "GET", "metrics"),
    ("/version", "GET", "version"),
)
_ERRORS = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503)


def create_app(engine_thread, settings: Settings, loader=None) -> FastAPI:
    """The server's application.

    Args:
        engine_thread: an `EngineThread` whose engine has `model`, `tokenizer` and `limits`.
        settings: served_model_name must be there. loader: of media; None: a `MediaLoader` with the settings' limits.
    Returns:
        The application; its `state.gate` is the `Gate` that says whether it drains.
    """
    if settings.served_model_name is None:
        raise ValueError("served_model_name is not set; give the model the name that requests use")
    engine = engine_thread.engine
    gate = Gate(settings.max_concurrent_requests, settings.max_pending_bytes)
    metrics = Metrics(engine_thread, lambda: gate.in_work)
    loader = MediaLoader(settings.media_limits()) if loader is None else loader
    preparer = Preparer(
        engine.model, engine.tokenizer, loader, engine.limits.session_len, settings.media_threads,
        max_total_tiles=settings.max_total_tiles,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_app: FastAPI):
        yield
        await preparer.aclose()

    # Pages with scripts from elsewhere are left out; the schema is there, behind the key.
    app = FastAPI(
        title="paddle_internvl", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    app.state.gate = gate
    routes = Routes(engine_thread, preparer, settings, settings.served_model_name, gate, metrics)
    errors = {status: {"model": ErrorBody} for status in _ERRORS}
    for path, method, name in _ROUTES:
        app.add_api_route(path, getattr(routes, name), methods=[method], name=name, responses=errors)
    _explain_errors(app)
    # The last one added stands first.
    app.add_middleware(
        Bodies, gate=gate, most=settings.max_body_bytes, values=settings.max_json_values,
        read_seconds=settings.body_timeout, send_seconds=settings.send_timeout,
    )  # fmt: skip
    app.add_middleware(Admission, gate=gate)
    app.add_middleware(Keys, keys=settings.api_keys)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allow_origins, allow_methods=("GET", "POST"), allow_headers=("*",)
        )
    app.add_middleware(Observed, metrics=metrics)
    return app


def _explain_errors(app: FastAPI) -> None:
    """Every error as OpenAI's body. (Those nobody foresaw are `middleware.Observed`'s.)"""

    def told(request: Request, error: ApiError) -> JSONResponse:
        request.state.record.error = error.code or error.type
        return error.response()

    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return told(request, error)

    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return told(request, of_validation(error))

    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        answer = told(request, of_http(error.status_code))
        answer.headers.update(error.headers or {})
        return answer

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
