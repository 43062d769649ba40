"""`make demo`: convert the bundled checkpoint, ask it about bundled pictures, stream the answers, check them.

    python -m demo.scripts.tour

Exit code 1 when an answer is not the expected one. The questions stand in demo/assets/tour.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from convert import command_line
from convert.cli import main as convert

DEMO = Path(__file__).parent.parent
SOURCE, CONVERTED = DEMO / "checkpoints/internvl-tiny", DEMO / "checkpoints/internvl-tiny-paddle"
ASSETS = DEMO / "assets"


def media(files: list[str]) -> list[dict]:
    """The content parts of a message for pictures or a clip."""
    return [
        {"type": "video_url", "video_url": {"url": str(ASSETS / file), "num_segments": 4}}
        if file.endswith(".gif")
        else {"type": "image_url", "image_url": {"url": str(ASSETS / file)}}
        for file in files
    ]


def dimmed(text: str) -> str:
    """Text in a faint colour on a terminal, unless $NO_COLOR is set."""
    return f"\033[2m{text}\033[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def ask(model, stop: dict) -> bool:
    """Ask the questions of one stop about its pictures; returns whether all answers are the expected ones."""
    content, messages, well = media(stop["pictures"]), [], True
    shown = ", ".join(f"demo/assets/{file}" for file in stop["pictures"]) or "no picture"
    for question, expected in stop["questions"]:
        messages.append({"role": "user", "content": [*content, {"type": "text", "text": question}]})
        if content or not messages[1:]:
            tiles = sum(picture.tiles for picture in model.count_tokens(messages).pictures)
            print("\n" + dimmed(shown + (f" ({tiles} tile{'s' * (tiles > 1)})" if tiles else "")))
        content = []
        print(f"  > {question}\n    ", end="")
        pieces = []
        for piece in model.chat_stream(messages, {"max_new_tokens": 96}):
            print(piece, end="", flush=True)
            pieces.append(piece)
        right = "".join(pieces) == expected
        print("" if right else f"   [expected: {expected}]")
        messages.append({"role": "assistant", "content": "".join(pieces)})
        well = well and right
    return well


def tour() -> int:
    """Run the tour; returns the exit code."""
    from paddle_internvl import startup

    began = time.monotonic()
    shutil.rmtree(CONVERTED, ignore_errors=True)
    print(f"$ python -m convert hf2pd --src {SOURCE} --dst {CONVERTED}", flush=True)
    if convert(["hf2pd", "--src", str(SOURCE), "--dst", str(CONVERTED)]):
        return command_line.EXIT_USAGE
    startup.import_paddle()
    from paddlenlp.transformers import AutoModel

    model = AutoModel.from_pretrained(str(CONVERTED))
    stops = json.loads((ASSETS / "tour.json").read_text(encoding="utf-8"))
    well = [ask(model, stop) for stop in stops]
    print(f"\n{sum(well)} of {len(well)} stops as expected, {time.monotonic() - began:.1f} s")
    return command_line.EXIT_OK if all(well) else command_line.EXIT_DIFFERENT


if __name__ == "__main__":
    sys.exit(command_line.run(tour, argparse.Namespace(), (ValueError, OSError, ImportError)))
