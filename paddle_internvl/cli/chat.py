"""Ask a checkpoint about pictures or a clip, once or in conversation.

examples:
  paddle-internvl chat CKPT --image a.png --question "What is in the image?"
  paddle-internvl chat CKPT --image a.png --image b.png --question "Which image has more objects?"
  paddle-internvl chat CKPT --video clip.mp4 --question "What happens?" --json
  paddle-internvl chat CKPT                     # then: /image F   /video F   /reset   /quit
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

_HELP = "/image F adds a picture to the next question, /video F a clip, /reset starts anew, /quit ends"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder, converted or raw, or a hub id")
    parser.add_argument("--image", action="append", default=[], metavar="F", help="a picture; may be repeated")
    parser.add_argument("--video", metavar="F", help="a clip: video file, GIF, WebP or folder of pictures")
    parser.add_argument("--frames", type=int, default=8, help="frames taken from the clip (default: 8)")
    parser.add_argument("--question", action="append", default=[], help="ask this and end; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of streaming")
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


class Session:
    """A conversation: history, the pictures in it, and those that wait for the next question."""

    def __init__(self, model, tokenizer, settings: dict, max_num: int | None, frames: int):
        self.model, self.tokenizer, self.settings, self.frames = model, tokenizer, settings, frames
        self.max_num = max_num or model.config.max_dynamic_patch
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.history: list[tuple[str, str]] = []
        self.tiles: list = []  # numpy [T, 3, S, S] per picture, the whole conversation's
        self.waiting = ""  # `<image>` marks that the next question begins with
        self.pictures = 0

    def add_image(self, file: str) -> None:
        """A picture for the next question."""
        from paddle_internvl.preprocess.image import image_tiles
        from paddle_internvl.prompt.media import picture_prefix

        config = self.model.config
        self._add_images([image_tiles(
            file, config.tile_side, config.min_dynamic_patch, self.max_num, config.use_thumbnail
        )], picture_prefix(1, self.pictures))  # fmt: skip

    def add_images(self, files: list[str]) -> None:
        """Several pictures for the next question, numbered."""
        from paddle_internvl.prompt.media import picture_prefix

        for file in files:
            self.add_image(file)
        if len(files) > 1:
            self.waiting = picture_prefix(len(files))

    def add_video(self, file: str) -> None:
        """A clip for the next question."""
        from paddle_internvl.preprocess.video import load_video
        from paddle_internvl.prompt.media import frame_prefix

        pixels, counts = load_video(file, input_size=self.model.config.tile_side, num_segments=self.frames)
        pixels, start = pixels.numpy(), 0
        frames = []
        for count in counts:
            frames.append(pixels[start : start + count])
            start += count
        self._add_images(frames, frame_prefix(len(frames)))

    def _add_images(self, tiles: list, marks: str) -> None:
        self.tiles += tiles
        self.pictures += len(tiles)
        self.waiting += marks

    def ask(self, question: str, show=lambda piece: None) -> str:
        """The answer; `show` is given its pieces as they are made."""
        import numpy as np
        import paddle

        question, self.waiting = self.waiting + question, ""
        pixels = paddle.to_tensor(np.concatenate(self.tiles)) if self.tiles else None
        counts = [len(tiles) for tiles in self.tiles]
        answer = ""
        for piece in self.model.chat_stream(self.tokenizer, pixels, question, self.settings, self.history, counts):
            show(piece)
            answer += piece
        self.history.append((question, answer))
        return answer


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl import runtime

    runtime.import_paddle_quietly()
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(arguments.checkpoint, dtype=arguments.dtype, device=arguments.device)
    tokenizer = AutoTokenizer.from_pretrained(arguments.checkpoint)
    if arguments.system is not None:
        model.system_message = arguments.system
    settings = {
        "max_new_tokens": arguments.max_new_tokens,
        "do_sample": arguments.temperature > 0,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "repetition_penalty": arguments.repetition_penalty,
        "seed": arguments.seed,
    }
    session = Session(model, tokenizer, settings, arguments.max_num, arguments.frames)
    session.add_images(arguments.image)
    if arguments.video:
        session.add_video(arguments.video)
    if arguments.question:
        return _ask_all(session, arguments)
    if arguments.json:
        raise ValueError("--json needs --question")
    return _converse(session)


def _ask_all(session: Session, arguments: argparse.Namespace) -> int:
    begun = time.monotonic()
    for question in arguments.question:
        answer = session.ask(question, lambda piece: None if arguments.json else print(piece, end="", flush=True))
        if not arguments.json:
            print()
    if arguments.json:
        n = session.model.num_image_token
        document = {
            "answer": answer,
            "history": session.history,
            "pictures": [{"tiles": len(tiles), "tokens": len(tiles) * n} for tiles in session.tiles],
            "seconds": round(time.monotonic() - begun, 3),
        }
        print(json.dumps(document, ensure_ascii=False))
    return 0


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
