"""Open the web demo: chat about pictures and clips in a browser.

examples:
  paddle-internvl demo                                 # the bundled checkpoint, http://127.0.0.1:7860
  paddle-internvl demo CKPT --server-port 8080
  paddle-internvl demo CKPT --thinking
  paddle-internvl demo --url http://127.0.0.1:23333     # a page for a server that runs; needs no Paddle
  paddle-internvl demo CKPT --adapters charts=work/charts ocr=work/ocr   # LoRA adapters to choose from
  paddle-internvl demo CKPT --server-name 0.0.0.0      # for other machines; put a reverse proxy in front
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli import chat_target
from paddle_internvl.cli.conventions import add_quantization_flag

_SETTINGS = (
    "server_name", "server_port", "allowed_hosts", "session_len", "max_batch_size", "device", "dtype", "quantization",
    "quantize_head", "int8_activations",
)  # fmt: skip
_OF_A_CHECKPOINT = (  # flags without a meaning for a server
    "adapters", "session_len", "device", "dtype", "quantization", "quantize_head", "int8_activations",
)  # fmt: skip
_BUNDLED = Path(__file__).parents[2] / "demo/checkpoints/internvl-tiny"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CKPT",
        nargs="?",
        help="checkpoint folder, converted or raw, hub id, or URL of a server (default: the bundled checkpoint)",
    )
    parser.add_argument("--url", help="in place of CKPT: an OpenAI-compatible server that runs, e.g. http://HOST:23333")
    chat_target.add_endpoint_flags(parser)
    parser.add_argument("--server-name", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--server-port", type=int, default=7860, metavar="N", help="port to listen on (default: 7860)")
    parser.add_argument(
        "--allowed-hosts",
        nargs="+",
        default=(),
        metavar="X",
        help="Host headers that are accepted besides this machine's (default: any, but none on a loopback address)",
    )
    parser.add_argument(
        "--session-len",
        type=int,
        metavar="N",
        help="token limit of prompt and answer (default: the model's)",
    )
    parser.add_argument(
        "--max-batch-size", type=int, default=16, metavar="N", help="visitors answered together (default: 16)"
    )
    parser.add_argument(
        "--thinking", action="store_true", help="pages ask for thoughts from the start (a setting of the page)"
    )
    parser.add_argument(
        "--adapters",
        nargs="+",
        default=(),
        metavar="NAME=DIR",
        help="LoRA adapters to choose from on the page; a folder alone has its own name",
    )
    parser.add_argument("--device", help="cpu, gpu or gpu:1 (default: gpu where there is one)")
    add_quantization_flag(parser)
    parser.add_argument("--dtype", help="bfloat16, float16 or float32 (CPU: bfloat16 needs AMX or AVX512-BF16)")


def _adapter(item: str) -> tuple[str, str]:
    """Name and folder of NAME=DIR or DIR, checked."""
    from paddle_internvl.checkpoints.folder_checks import adapter_folder

    name, equals, folder = item.partition("=")
    folder = adapter_folder(folder if equals else name)
    return (name if equals else folder.name), str(folder)


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.serve.settings import Settings

    settings = Settings(**{name: getattr(arguments, name) for name in _SETTINGS})
    url = chat_target.url_of(arguments)
    chat_target.refuse_flags(arguments, url, _OF_A_CHECKPOINT)
    if url is None and arguments.checkpoint is None and not _BUNDLED.is_dir():
        raise FileNotFoundError(
            "the bundled checkpoint does not exist (a checkout of the repository has it); name a CKPT"
        )
    if find_spec("gradio") is None:
        raise ImportError("the demo needs Gradio; pip install 'paddle_internvl[demo]'")
    host = _server_host(url, arguments) if url else _engine_host(settings, arguments)
    from paddle_internvl.webdemo.launching import launch, prepare

    page = prepare(host, settings.max_batch_size, arguments.thinking)
    launch(page, host, settings.server_name, settings.server_port, allowed_hosts=settings.allowed_hosts)
    return EXIT_OK


def _server_host(url: str, arguments: argparse.Namespace):
    """The model behind a URL; an error of its server is this command's."""
    from paddle_internvl.webdemo.launching import check_port
    from paddle_internvl.webdemo.server_host import ServerHost

    check_port(arguments.server_name, arguments.server_port)
    return ServerHost(url, arguments.model, arguments.key, arguments.max_batch_size)


def _engine_host(settings, arguments: argparse.Namespace):
    """The engines of a checkpoint and its adapters; the checkpoint's own is loaded."""
    from paddle_internvl.checkpoints.folder_checks import chat_folder

    adapters = dict(map(_adapter, arguments.adapters))
    if len(adapters) < len(arguments.adapters):
        raise ValueError("two adapters have the same name; give --adapters as NAME=DIR with different names")
    checkpoint = str(chat_folder(arguments.checkpoint or _BUNDLED))
    from paddle_internvl import startup

    startup.import_paddle()
    from paddle_internvl.serve.server import load_engine, model_name
    from paddle_internvl.webdemo.engine_host import EngineHost
    from paddle_internvl.webdemo.launching import check_port

    check_port(settings.server_name, settings.server_port)  # before a model is loaded for nothing

    def load(adapter: str):
        return load_engine(checkpoint, replace(settings, adapter=adapters.get(adapter)))

    host = EngineHost(load, model_name(checkpoint), adapters)
    host.engine_of("")  # loaded now, so that its errors are this command's
    return host
