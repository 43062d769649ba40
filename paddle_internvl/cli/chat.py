"""Ask a checkpoint about pictures or a clip, once or in conversation.

examples:
  paddle-internvl chat CKPT --image a.png --question "What is in the image?"
  paddle-internvl chat CKPT --image a.png --image b.png --question "Which image has more objects?"
  paddle-internvl chat CKPT --video clip.mp4 --question "What happens?" --json
  python -m paddle.distributed.launch --nproc_per_node 2 $(which paddle-internvl) chat CKPT --question "Hi" --tp 2
  paddle-internvl chat CKPT --adapter runs/lora --question "Hi"
  paddle-internvl chat CKPT --thinking --temperature 0.6 --max-new-tokens 4096 --image a.png --question "Why?"
  paddle-internvl chat CKPT --image invoice.png --question "Read the invoice." --schema invoice.schema.json
  paddle-internvl chat CKPT --image a.png --question "Is it a cat?" --choice yes no
  paddle-internvl chat CKPT                     # then: /image F   /video F   /reset   /quit
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl import timing
from paddle_internvl.cli.argument_types import integer, number, picture_file
from paddle_internvl.cli.conventions import add_adapter_flag
from paddle_internvl.cli.first_token import FirstToken
from paddle_internvl.cli.thinking import AnswerPrinter, add_thinking_flags, prompt_options

if TYPE_CHECKING:
    from paddle_internvl.engine.response import Response

_HELP = "/image F adds a picture to the next question, /video F a clip, /reset starts anew, /quit ends"
_MAX_NEW_TOKENS = 512
_STILL = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")  # endings of pictures that are no clips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder, converted or raw, or a hub id")
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
    parser.add_argument("--dtype", help="bfloat16, float16 or float32 (on a CPU always float32)")
    parser.add_argument(
        "--tp", type=integer(1), default=1, metavar="N", help="cards that share the model, a process each"
    )


class Session:
    """A conversation in messages, and the media of the next question.

    Args:
        generation_config: settings of every answer.
        frames: frames taken from a clip.
        prompt_options: tile limit, system message and thinking, see `chat.messages.parse`.
    Attributes:
        model: set before the first question.
        first_token: notified of every piece of an answer; None: nobody is.
        messages: of the conversation so far.
        media: of the next question.
    """

    def __init__(self, generation_config: dict, frames: int, **prompt_options):
        self.generation_config, self.frames, self.prompt_options = generation_config, frames, prompt_options
        self.model = None
        self.first_token: FirstToken | None = None
        self.reset()

    def reset(self) -> None:
        """Begin a new conversation."""
        self.messages: list[dict] = []
        self.media: list[dict] = []

    def add_image(self, file: str) -> None:
        """Add a picture to the next question."""
        from paddle_internvl.media.images import open_image

        if Path(file).is_dir():
            raise ValueError(f"{file} is a folder, not a picture; name a file in it, or take the folder as a clip")
        self.media.append({"type": "image", "image": open_image(file)})

    def add_video(self, file: str) -> None:
        """Add a clip to the next question."""
        from paddle_internvl.media.opening import open_media

        if Path(file).suffix.lower() in _STILL:
            raise ValueError(f"{file} is a picture, not a clip; add it as an image")
        frames, _ = open_media("video", file, {"num_segments": self.frames})
        self.media.append({"type": "video", "video": frames})

    def ask(self, question: str, show=lambda piece: None) -> Response:
        """The answer; `show` is called with its pieces, a `Response` each, as they are made."""
        from paddle_internvl.chat.messages import stream_responses

        message = {"role": "user", "content": [*self.media, {"type": "text", "text": question}]}
        messages, config = [*self.messages, message], self.generation_config
        text = reasoning = ""
        for piece in stream_responses(self.model, self.model.tokenizer, [messages], config, **self.prompt_options):
            if self.first_token:
                self.first_token.record()
            show(piece)
            text += piece.text
            reasoning += piece.reasoning or ""
        answer = replace(piece, text=text, reasoning=reasoning or None)
        self.messages += [message, answer.message]
        self.media = []
        return answer


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.checkpoints.folder_checks import adapter_folder, chat_folder
    from paddle_internvl.generation.config import generation_config

    settings = {
        "max_new_tokens": arguments.max_new_tokens or _MAX_NEW_TOKENS,
        "do_sample": arguments.temperature > 0,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "repetition_penalty": arguments.repetition_penalty,
        "seed": arguments.seed,
        **_answer_format(arguments),
    }
    generation_config(settings)  # refuses wrong values before anything is loaded, as do the checks below
    for name in ("json", "draw", "timing"):
        if getattr(arguments, name) and not arguments.question:
            raise ValueError(f"--{name} needs --question")
    if arguments.draw and len(arguments.image) != 1:
        raise ValueError(f"--draw needs one --image, not {len(arguments.image)}")
    session = Session(settings, arguments.frames, max_num=arguments.max_num, **prompt_options(arguments))
    with timing.measured() if arguments.timing else nullcontext() as measured:
        if measured:
            session.first_token = FirstToken(measured)
        with timing.part("pictures"):
            for file in arguments.image:
                session.add_image(file)
            if arguments.video:
                session.add_video(arguments.video)
        adapter = arguments.adapter and adapter_folder(arguments.adapter)
        session.model = _load(chat_folder(arguments.checkpoint), adapter, arguments)
        from paddle_internvl import run_rank

        def converse(_model) -> int:
            return _ask_all(session, arguments) if arguments.question else _converse(session, arguments.hide_thoughts)

        return run_rank(session.model, converse) or EXIT_OK


def _answer_format(arguments: argparse.Namespace) -> dict:
    """The setting of --schema or --choice."""
    from paddle_internvl.generation.constraints.compiler import require_llguidance

    if arguments.schema is None and arguments.choice is None:
        return {}
    require_llguidance()
    if arguments.choice is not None:
        return {"guided_choice": arguments.choice}
    return {"guided_json": Path(arguments.schema).read_text(encoding="utf-8")}


def _load(folder: Path, adapter: Path | None, arguments: argparse.Namespace):
    from paddle_internvl import startup

    with timing.part("imports"):
        startup.import_paddle()
        from paddlenlp.transformers import AutoModel

        from paddle_internvl.modeling import InternVLChatModel  # noqa: F401  (which AutoModel would import)

    with timing.part("load"):
        model = AutoModel.from_pretrained(
            str(folder), dtype=arguments.dtype, device=arguments.device, tensor_parallel_degree=arguments.tp,
            adapter=adapter,
        )  # fmt: skip
    context_length = model.language_model.config.context_length
    if arguments.max_new_tokens and arguments.max_new_tokens > context_length:
        raise ValueError(f"--max-new-tokens {arguments.max_new_tokens} is above the context of {context_length} tokens")
    return model


def _ask_all(session: Session, arguments: argparse.Namespace) -> int:
    start, code = time.monotonic(), EXIT_OK
    constrained = arguments.schema or arguments.choice
    for question in arguments.question:
        printer = AnswerPrinter(arguments.hide_thoughts)
        answer = session.ask(question, (lambda piece: None) if arguments.json else printer)
        if not arguments.json:
            printer.end()
        if constrained and answer.finish_reason != "stop":
            print("warning: the answer is cut at its limit and does not match; raise --max-new-tokens", file=sys.stderr)
            code = EXIT_DIFFERENT
    if arguments.draw:
        _draw(arguments.image[0], answer.text, arguments.draw)
    if arguments.json:
        *messages, _ = session.messages
        document = {
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            **({} if answer.reasoning is None else {"reasoning_content": answer.reasoning}),
            "prompt": session.model.render_prompt(messages, **session.prompt_options),
            "pictures": [
                asdict(cost) for cost in session.model.count_tokens(messages, **session.prompt_options).pictures
            ],
            "seconds": round(time.monotonic() - start, 3),
        }
        if session.first_token:
            document["timing"] = session.first_token.document()
        print(json.dumps(document, ensure_ascii=False))
    elif session.first_token:
        print(session.first_token.line(), file=sys.stderr)
    return code


def _draw(image: str, answer: str, target: Path) -> None:
    from paddle_internvl.media.images import open_image
    from paddle_internvl.preprocess.drawing import draw_boxes
    from paddle_internvl.prompt.grounding import parse_boxes

    picture = open_image(image)
    boxes = parse_boxes(answer, picture.size)
    if not boxes:
        raise ValueError(f"the answer holds no box to draw: {answer!r}")
    draw_boxes(picture, boxes).save(target)


def _converse(session: Session, hide_thoughts: bool) -> int:
    interactive = sys.stdin.isatty()
    if interactive:
        print(_HELP, file=sys.stderr)
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            return EXIT_OK
        command, _, rest = line.strip().partition(" ")
        if not command:
            continue
        try:
            if command == "/reset":
                session.reset()
            elif command == "/image":
                session.add_image(str(Path(rest.strip()).expanduser()))
            elif command == "/video":
                session.add_video(str(Path(rest.strip()).expanduser()))
            elif command.startswith("/"):
                print(f"{command} is no command; {_HELP}", file=sys.stderr)
            else:
                printer = AnswerPrinter(hide_thoughts)
                session.ask(line.strip(), printer)
                printer.end()
        except (ValueError, OSError, ImportError) as error:
            print(f"error: {error}", file=sys.stderr)  # the conversation goes on
