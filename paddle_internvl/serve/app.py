"""The FastAPI application of one server: routes over an engine, behind the guards.

In: an `EngineThread` and settings. Out: the application. It neither opens a port nor starts the engine.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

from paddle_internvl import __version__
from paddle_internvl.media.loader import MediaLoader
from paddle_internvl.serve.guards import add_guards
from paddle_internvl.serve.metrics import Metrics
from paddle_internvl.serve.middleware import Gate
from paddle_internvl.serve.pages import add_pages
from paddle_internvl.serve.preparing import Preparer
from paddle_internvl.serve.routes import Routes
from paddle_internvl.serve.settings import Settings


class ErrorDetails(BaseModel):
    """Fields of OpenAI's error body."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error body."""

    error: ErrorDetails


# (path, HTTP method, method of `Routes`)
ROUTES = (
    ("/v1/chat/completions", "POST", "chat_completions"),
    ("/v1/completions", "POST", "completions"),
    ("/v1/responses", "POST", "responses"),
    ("/v1/count_tokens", "POST", "count_tokens"),
    ("/generate", "POST", "generate"),
    ("/tokenize", "POST", "tokenize"),
    ("/detokenize", "POST", "detokenize"),
    ("/v1/models", "GET", "models"),
    ("/v1/models/{model_id:path}", "GET", "model"),
    ("/health", "GET", "health"),
    ("/ready", "GET", "ready"),
    ("/metrics", "GET", "metrics"),
    ("/version", "GET", "version"),
)
_ERRORS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 507)


def create_app(engine_thread, settings: Settings, loader: MediaLoader | None = None) -> FastAPI:
    """The server's application.

    Args:
        engine_thread: an `EngineThread` whose engine has `model`, `tokenizer` and `limits`.
        settings: served_model_name is required.
        loader: of media; None: one with the settings' limits.
    Returns:
        The application; its `state.gate` is the `Gate` of its requests.
    Raises:
        ValueError: served_model_name is not set.
    """
    if settings.served_model_name is None:
        raise ValueError("served_model_name is not set; give the model the name that requests use")
    engine = engine_thread.engine
    gate = Gate(settings.max_concurrent_requests, settings.max_pending_bytes)
    metrics = Metrics(lambda: gate.in_work, engine_thread)
    preparer = Preparer(
        engine.model, engine.tokenizer, loader or MediaLoader(settings.media_limits()), engine.config.session_len,
        settings.media_threads, max_total_tiles=settings.max_total_tiles,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_app: FastAPI):
        yield
        await preparer.aclose()

    # FastAPI's own documentation pages have scripts of other hosts.
    app = FastAPI(
        title="paddle_internvl", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    routes = Routes(engine_thread, preparer, settings, settings.served_model_name, gate, metrics)
    errors = {status: {"model": ErrorBody} for status in _ERRORS}
    for path, method, name in ROUTES:
        app.add_api_route(path, getattr(routes, name), methods=[method], name=name, responses=errors)
    if not settings.disable_pages:
        add_pages(app)
    add_guards(app, settings, gate, metrics)
    return app
