"""The web demo as Gradio's hosts (AI Studio, Spaces, `gradio demo/app.py`) expect it: a module with a `demo`.

    python demo/app.py

The checkpoint is the bundled one, or what PADDLE_INTERNVL_CHECKPOINT names: a folder or a hub id. The model is loaded
when the first page is opened; `paddle-internvl demo` loads it before, and has flags.
"""

from __future__ import annotations

import os
from pathlib import Path

from paddle_internvl import startup
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.launching import launch, prepare

_CHECKPOINT = os.environ.get("PADDLE_INTERNVL_CHECKPOINT") or str(Path(__file__).parent / "checkpoints/internvl-tiny")


def _load(_adapter: str):
    startup.import_paddle()
    from paddle_internvl.serve.server import load_engine
    from paddle_internvl.serve.settings import Settings

    return load_engine(_CHECKPOINT, Settings())


host = EngineHost(_load, Path(_CHECKPOINT).name)
demo = prepare(host)

if __name__ == "__main__":
    launch(
        demo, host, os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), int(os.environ.get("GRADIO_SERVER_PORT", 7860))
    )
