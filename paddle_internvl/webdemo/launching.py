"""Launch of the page on a port until a signal, with a temporary folder for uploads that is removed at the end.

In: a page, what it stands on (an `EngineHost`, a review queue), an address, a port. Nothing is sent to Gradio's
servers, and no folder is served.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import gradio as gr
import gradio.route_utils
from starlette.middleware import Middleware

from paddle_internvl.curation.review import ReviewQueue
from paddle_internvl.serve.request_head import RequestHead
from paddle_internvl.serve.settings import Settings
from paddle_internvl.webdemo import page
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.upload_folder import UploadFolder, UploadLimits
from paddle_internvl.webdemo.uploads import LIMITS

_ASSETS = Path(__file__).parents[2] / "demo/assets"
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans CJK SC", "sans-serif")


def temporary_folder() -> Path:
    """A folder for the files of a page, removed when the process ends; uploads go to a folder in it."""
    folder = Path(tempfile.mkdtemp(prefix="paddle-internvl-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    uploads = folder / "uploads"
    uploads.mkdir()
    # Gradio has no arguments for them. Its multipart parser leaves uploads that are broken off or have no name where it
    # received them; `tempfile.tempdir` would move the temporary files of the whole process.
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    gradio.route_utils.NamedTemporaryFile = _received_file
    return folder


def prepare(host: EngineHost, concurrency: int = 16, thinking: bool = False) -> gr.Blocks:
    """Build the page of the demo, with a temporary folder for uploads.

    Args:
        host: of the engine that answers.
        concurrency: questions that are answered at once.
        thinking: whether a page that has just been opened asks for thoughts.
    """
    folder = temporary_folder()
    examples = folder / "examples"  # a copy: Gradio hands out files of the temporary folder and the current one only
    if _ASSETS.is_dir():
        shutil.copytree(_ASSETS, examples)
    return page.build(host, examples, concurrency, thinking)


def _received_file(**options) -> IO[bytes]:
    """Temporary file of an upload that is being received."""
    return tempfile.NamedTemporaryFile(dir=os.environ["GRADIO_TEMP_DIR"], **options)


def check_port(server_name: str, server_port: int) -> None:
    """Refuse an address that can't be listened on.

    Args:
        server_name: address or name of this machine.
        server_port: 1 to 65535.
    Raises:
        OSError: the address is taken, not this machine's, or not allowed; names the way out.
    """
    family = socket.AF_INET6 if ":" in server_name else socket.AF_INET
    try:
        socket.create_server((server_name, server_port), family=family).close()
    except OSError as error:
        raise OSError(
            f"{server_name}:{server_port} can't be listened on ({error.strerror}); choose another port with "
            "--server-port, or for demo/app.py with GRADIO_SERVER_PORT"
        ) from None


def launch(
    demo: gr.Blocks,
    backend: EngineHost | ReviewQueue,
    server_name: str,
    server_port: int,
    wait: bool = True,
    allowed_hosts: Sequence[str] = (),
    uploads: bool = True,
) -> str:
    """Serve the page on a port.

    Args:
        demo: the page.
        backend: closed at the end.
        server_name, server_port: see `check_port`.
        wait: until SIGTERM or SIGINT; False: return at once.
        allowed_hosts: Host headers that are accepted besides this machine's; (): any, but none on a loopback address.
        uploads: whether the page takes files.
    Returns:
        The page's URL.
    Raises:
        OSError: see `check_port`.
    """
    check_port(server_name, server_port)
    settings = Settings(server_name=server_name, allowed_hosts=tuple(allowed_hosts))
    # Uploads are removed after an hour; a page that is open longer must upload them again.
    folder = UploadFolder(Path(os.environ["GRADIO_TEMP_DIR"]), **({} if uploads else {"max_upload": 0}))
    folder = replace(folder, kept=frozenset(folder.files()))
    folder.sweep()
    # Gradio uses a deprecated name of Starlette at every event
    warnings.filterwarnings("ignore", "'HTTP_422_UNPROCESSABLE_ENTITY' is deprecated", module="gradio")
    _, url, _ = demo.launch(
        server_name=server_name,
        server_port=server_port,
        share=False,
        allowed_paths=[],
        max_file_size=LIMITS.max_video_bytes,
        state_session_capacity=256,
        show_error=True,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=gr.themes.Soft(font=_FONTS, font_mono=("ui-monospace", "monospace")),
        quiet=True,
        app_kwargs={
            "middleware": [
                Middleware(RequestHead, hosts=settings.accepted_hosts),
                Middleware(UploadLimits, folder=folder),
            ]
        },
        prevent_thread_lock=True,
    )
    if wait:
        print(f"{demo.title} is on {url}", file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            signal.pause()
        finally:
            demo.close(verbose=False)
            backend.close()
    return url
