"""Ask a checkpoint about pictures or a clip, once or in conversation.

CKPT may be the URL of a running OpenAI-compatible server: then no model is loaded. Without --question a conversation
begins; /help in it lists its commands. On a terminal it has line editing, history, Markdown and progress (the extra
`chat`); from a pipe every line is a question, and stdout holds the answers alone.

examples:
  paddle-internvl chat CKPT --image a.png --question "What is in the image?"
  paddle-internvl chat CKPT --image a.png --image b.png --question "Which image has more objects?"
  paddle-internvl chat CKPT --video clip.mp4 --question "What happens?" --json
  python -m paddle.distributed.launch --nproc_per_node 2 $(which paddle-internvl) chat CKPT --question "Hi" --tp 2
  paddle-internvl chat CKPT --adapter runs/lora --question "Hi"
  paddle-internvl chat CKPT --thinking --temperature 0.6 --max-new-tokens 4096 --image a.png --question "Why?"
  paddle-internvl chat CKPT --image invoice.png --question "Read the invoice." --schema invoice.schema.json
  paddle-internvl chat CKPT --image a.png --question "Is it a cat?" --choice yes no
  paddle-internvl chat CKPT                     # then: /image F   /video F   /help   /exit
  paddle-internvl chat --url http://127.0.0.1:23333      # a server that runs; needs no Paddle
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl import timing
from paddle_internvl.cli import chat_target
from paddle_internvl.cli.argument_types import integer, number, picture_file
from paddle_internvl.cli.conventions import add_adapter_flag, add_quantization_flag
from paddle_internvl.cli.first_token import FirstToken
from paddle_internvl.cli.thinking import add_thinking_flags, prompt_options

_MAX_NEW_TOKENS = 512
_NEEDS_QUESTION = ("json", "draw", "timing")
_OF_A_CHECKPOINT = (  # flags without a meaning for a server
    "adapter", "device", "dtype", "quantization", "quantize_head", "int8_activations", "timing",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", metavar="CKPT", nargs="?", help="checkpoint folder, converted or raw, hub id, or URL of a server"
    )
    parser.add_argument("--url", help="in place of CKPT: an OpenAI-compatible server that runs, e.g. http://HOST:23333")
    chat_target.add_endpoint_flags(parser)
    add_adapter_flag(parser)
    parser.add_argument("--image", action="append", default=[], metavar="F", help="a picture; may be repeated")
    parser.add_argument("--video", metavar="F", help="a clip: video file, GIF, WebP or folder of pictures")
    parser.add_argument("--frames", type=integer(1), default=8, help="frames taken from the clip (default: 8)")
    parser.add_argument("--question", action="append", default=[], help="ask this and end; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of streaming")
    parser.add_argument("--timing", action="store_true", help="print the parts of the time to the first token")
    parser.add_argument(
        "--draw", metavar="OUT", type=picture_file, help="write the picture with the boxes of the answer drawn in"
    )
    parser.add_argument("--max-num", type=integer(1), help="tile limit of a picture (default: the checkpoint's)")
    parser.add_argument("--max-new-tokens", type=integer(1), help=f"(default: {_MAX_NEW_TOKENS})")
    parser.add_argument("--temperature", type=number(0), default=0.0, help="0 (default) takes the likeliest token")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--top-k", type=integer(0), default=50)
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--seed", type=integer(0))
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--schema", metavar="FILE", help="a JSON Schema that the answer matches (extra structured)")
    formats.add_argument("--choice", nargs="+", metavar="TEXT", help="the texts that the answer is one of")
    parser.add_argument("--system", help="system prompt ('' for none; default: the checkpoint's)")
    add_thinking_flags(parser)
    parser.add_argument("--hide-thoughts", action="store_true", help="print no thoughts (default: on stderr)")
    parser.add_argument("--device", help="cpu, gpu or gpu:1 (default: gpu where there is one)")
    parser.add_argument("--dtype", help="bfloat16, float16 or float32 (CPU: bfloat16 needs AMX or AVX512-BF16)")
    add_quantization_flag(parser)
    parser.add_argument(
        "--tp", type=integer(1), default=1, metavar="N", help="cards that share the model, a process each"
    )


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.cli.chat.session import Session

    url = _url(arguments)
    settings = {
        "max_new_tokens": arguments.max_new_tokens or _MAX_NEW_TOKENS,
        "do_sample": arguments.temperature > 0,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "repetition_penalty": arguments.repetition_penalty,
        "seed": arguments.seed,
        **_answer_format(arguments, local=url is None),
    }
    _check(arguments, settings, url)
    session = Session(settings, arguments.frames, max_num=arguments.max_num, **prompt_options(arguments))
    with timing.measured() if arguments.timing else nullcontext() as measured:
        if measured:
            session.first_token = FirstToken(measured)
        if url:
            session.model = _remote(url, arguments)
        with timing.part("pictures"):
            for file in arguments.image:
                session.add("image", file)
            if arguments.video:
                session.add("video", arguments.video)
        return _converse_remotely(session, arguments) if url else _converse_locally(session, arguments)


def _url(arguments: argparse.Namespace) -> str | None:
    """The server's URL; None for a checkpoint."""
    if arguments.checkpoint is None and arguments.url is None:
        raise ValueError("the following arguments are required: CKPT; see paddle-internvl chat --help")
    return chat_target.url_of(arguments)


def _check(arguments: argparse.Namespace, settings: dict, url: str | None) -> None:
    """Refuse wrong values before anything is loaded."""
    if url is None:
        from paddle_internvl.generation.config import generation_config

        generation_config(settings)
    for name in _NEEDS_QUESTION:
        if getattr(arguments, name) and not arguments.question:
            raise ValueError(f"--{name} needs --question")
    if arguments.draw and len(arguments.image) != 1:
        raise ValueError(f"--draw needs one --image, not {len(arguments.image)}")
    chat_target.refuse_flags(arguments, url, _OF_A_CHECKPOINT)
    if url and arguments.tp > 1:
        raise ValueError("--tp has no meaning for a server; leave it out")


def _answer_format(arguments: argparse.Namespace, local: bool) -> dict:
    """The setting of --schema or --choice."""
    if arguments.schema is None and arguments.choice is None:
        return {}
    if local:
        from paddle_internvl.generation.constraints.compiler import require_llguidance

        require_llguidance()
    if arguments.choice is not None:
        return {"guided_choice": arguments.choice}
    return {"guided_json": Path(arguments.schema).read_text(encoding="utf-8")}


def _remote(url: str, arguments: argparse.Namespace):
    from paddle_internvl.cli.chat.remote import RemoteModel

    return RemoteModel(url, arguments.model, arguments.key)


def _converse_remotely(session, arguments: argparse.Namespace) -> int:
    if not arguments.question and _has_editor():
        terminal = _terminal(session, arguments)
        terminal.when_shown(session.model.connect_in_background)
        return terminal.run()
    return _plain(session, arguments)


def _converse_locally(session, arguments: argparse.Namespace) -> int:
    from paddle_internvl.checkpoints.folder_checks import adapter_folder, chat_folder
    from paddle_internvl.cli.chat.local import LocalModel

    adapter = arguments.adapter and adapter_folder(arguments.adapter)
    model = session.model = LocalModel(chat_folder(arguments.checkpoint), adapter, arguments)
    if not arguments.question and arguments.tp == 1 and _has_editor():
        terminal = _terminal(session, arguments)
        model.load_in_background(on_error=terminal.end)
        return terminal.run()
    model.load()
    from paddle_internvl import run_rank

    return run_rank(model.model, lambda _model: _plain(session, arguments)) or EXIT_OK


def _plain(session, arguments: argparse.Namespace) -> int:
    """Answers without an editor: of --question, or of the lines of stdin."""
    from paddle_internvl.cli.chat import once, piped

    if arguments.question:
        return once.ask_all(session, arguments)
    return piped.converse(session, arguments.hide_thoughts)


def _has_editor() -> bool:
    """Whether the conversation is on a terminal, and prompt_toolkit is installed."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    if importlib.util.find_spec("prompt_toolkit") is None:
        print("no line editing: pip install prompt_toolkit (the extra 'chat')", file=sys.stderr)
        return False
    return True


def _terminal(session, arguments: argparse.Namespace):
    from paddle_internvl.cli.chat.terminal import Terminal

    return Terminal(session, arguments.hide_thoughts, getattr(arguments, "log_level", None) == "debug")
