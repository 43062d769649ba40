"""`chat_of`: the chat of a checkpoint in this process or of an OpenAI-compatible endpoint, by its name."""

from __future__ import annotations

import os

from paddle_internvl.evaluation.completion import Chat

_ENVIRONMENT = "env"


def is_endpoint(target: str) -> bool:
    """Whether a target is the URL of an endpoint, or 'env'."""
    return target == _ENVIRONMENT or "://" in target


def chat_of(target: str, model: str | None = None, key: str | None = None, **backend) -> Chat:
    """A `ChatEndpoint` or a `ChatCheckpoint`.

    Args:
        target: URL, checkpoint folder or hub id, or 'env' for $OPENAI_API_BASE.
        model: of an endpoint; None: see `ChatEndpoint`.
        key: of an endpoint; None: see `ChatEndpoint`.
        backend: fields of a checkpoint's `EngineConfig`.
    """
    if is_endpoint(target):
        from paddle_internvl.evaluation.chat_endpoint import ChatEndpoint

        return ChatEndpoint(None if target == _ENVIRONMENT else target, model, key)
    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import chat_folder

    folder = chat_folder(target)
    startup.import_paddle()
    from paddle_internvl.chat.pipeline import EngineConfig, pipeline
    from paddle_internvl.evaluation.chat_checkpoint import ChatCheckpoint

    return ChatCheckpoint(pipeline(str(folder), EngineConfig(**backend)), os.path.basename(os.path.abspath(folder)))
