"""Ask a checkpoint about pictures or a clip, once or in conversation.

examples:
  paddle-internvl chat CKPT --image a.png --question "What is in the image?"
  paddle-internvl chat CKPT --image a.png --image b.png --question "Which image has more objects?"
  paddle-internvl chat CKPT --video clip.mp4 --question "What happens?" --json
  python -m paddle.distributed.launch --nproc_per_node 2 $(which paddle-internvl) chat CKPT --question "Hi" --tp 2
  paddle-internvl chat CKPT                     # then: /image F   /video F   /reset   /quit
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from paddle_internvl import timing
from paddle_internvl.cli.first_token import FirstToken

_HELP = "/image F adds a picture to the next question, /video F a clip, /reset starts anew, /quit ends"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder, converted or raw, or a hub id")
    parser.add_argument("--image", action="append", default=[], metavar="F", help="a picture; may be repeated")
    parser.add_argument("--video", metavar="F", help="a clip: video file, GIF, WebP or folder of pictures")
    parser.add_argument("--frames", type=int, default=8, help="frames taken from the clip (default: 8)")
    parser.add_argument("--question", action="append", default=[], help="ask this and end; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of streaming")
    parser.add_argument("--timing", action="store_true", help="say what the time to the first token was spent on")
    parser.add_argument("--draw", metavar="OUT", help="write the picture with the boxes of the answer drawn in")
    parser.add_argument("--max-num", type=int, help="the most tiles of a picture (default: the checkpoint's)")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) takes the likeliest token")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--system", help="system prompt ('' for none; default: the checkpoint's)")
    parser.add_argument("--device", help="cpu, gpu or gpu:1 (default: gpu where there is one)")
    parser.add_argument("--dtype", help="bfloat16, float16 or float32 (on a CPU always float32)")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="cards that share the model, a process each")


class Session:
    """A conversation in messages, and the media that wait for the next question."""

    model = None  # given before the first question
    first_token: FirstToken | None = None  # of whom the time is wanted

    def __init__(self, settings: dict, frames: int, **how):
        self.settings, self.frames, self.how = settings, frames, how
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.messages: list[dict] = []
        self.waiting: list[dict] = []

    def add_image(self, file: str) -> None:
        """A picture for the next question."""
        from paddle_internvl.media.images import open_image

        self.waiting.append({"type": "image", "image": open_image(file)})

    def add_video(self, file: str) -> None:
        """A clip for the next question."""
        from paddle_internvl.media.opening import open_media

        frames, _ = open_media("video", file, {"num_segments": self.frames})
        self.waiting.append({"type": "video", "video": frames})

    def ask(self, question: str, show=lambda piece: None) -> str:
        """The answer; `show` is given its pieces as they are made."""
        asked = {"role": "user", "content": [*self.waiting, {"type": "text", "text": question}]}
        answer = ""
        for piece in self.model.chat_stream([*self.messages, asked], self.settings, **self.how):
            if self.first_token:
                self.first_token.seen()
            show(piece)
            answer += piece
        self.messages += [asked, {"role": "assistant", "content": answer}]
        self.waiting = []
        return answer


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.checkpoints.hub import folder_of

    settings = {
        "max_new_tokens": arguments.max_new_tokens,
        "do_sample": arguments.temperature > 0,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "repetition_penalty": arguments.repetition_penalty,
        "seed": arguments.seed,
    }
    for name in ("json", "draw", "timing"):
        if getattr(arguments, name) and not arguments.question:
            raise ValueError(f"--{name} needs --question")
    if arguments.draw and len(arguments.image) != 1:
        raise ValueError(f"--draw needs one --image, not {len(arguments.image)}")
    session = Session(settings, arguments.frames, max_num=arguments.max_num, system=arguments.system)
    with timing.measured() if arguments.timing else nullcontext() as measured:
        if measured:
            session.first_token = FirstToken(measured)
        with timing.part("pictures"):  # what is wrong with them is said before the model is loaded
            for file in arguments.image:
                session.add_image(file)
            if arguments.video:
                session.add_video(arguments.video)
        session.model = _load(folder_of(arguments.checkpoint), arguments)
        from paddle_internvl import run_rank

        def converse(_model) -> int:
            return _ask_all(session, arguments) if arguments.question else _converse(session)

        return run_rank(session.model, converse) or 0


def _load(folder: Path, arguments: argparse.Namespace):
    from paddle_internvl import startup

    with timing.part("imports"):
        startup.import_paddle()
        from paddlenlp.transformers import AutoModel

        from paddle_internvl.modeling import InternVLChatModel  # noqa: F401  (which AutoModel would import)

    with timing.part("load"):
        return AutoModel.from_pretrained(
            str(folder), dtype=arguments.dtype, device=arguments.device, tensor_parallel_degree=arguments.tp
        )


def _ask_all(session: Session, arguments: argparse.Namespace) -> int:
    begun = time.monotonic()
    for question in arguments.question:
        answer = session.ask(question, lambda piece: None if arguments.json else print(piece, end="", flush=True))
        if not arguments.json:
            print()
    if arguments.draw:
        _draw(arguments.image[0], answer, arguments.draw)
    if arguments.json:
        *asked, _ = session.messages
        document = {
            "answer": answer,
            "prompt": session.model.render_prompt(asked, **session.how),
            "pictures": [asdict(cost) for cost in session.model.count_tokens(asked, **session.how).pictures],
            "seconds": round(time.monotonic() - begun, 3),
        }
        if session.first_token:
            document["timing"] = session.first_token.document()
        print(json.dumps(document, ensure_ascii=False))
    elif session.first_token:
        print(session.first_token.line(), file=sys.stderr)
    return 0


def _draw(image: str, answer: str, target: str) -> None:
    from paddle_internvl.media.images import open_image
    from paddle_internvl.preprocess.drawing import draw_boxes
    from paddle_internvl.prompt.grounding import parse_boxes

    picture = open_image(image)
    boxes = parse_boxes(answer, picture.size)
    if not boxes:
        raise ValueError(f"the answer holds no box to draw: {answer!r}")
    draw_boxes(picture, boxes).save(target)


def _converse(session: Session) -> int:
    interactive = sys.stdin.isatty()
    if interactive:
        print(_HELP, file=sys.stderr)
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            return 0
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
                session.ask(line.strip(), lambda piece: print(piece, end="", flush=True))
                print()
        except (ValueError, OSError, ImportError) as error:
            print(f"error: {error}", file=sys.stderr)  # the conversation goes on
