"""`make demo`: convert the bundled checkpoint, ask it about bundled pictures, stream the answers, check them.

    python -m demo.scripts.tour

Exit code 1 when an answer is not the expected one. The questions stand in demo/assets/tour.json.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from convert.cli import main as convert

DEMO = Path(__file__).parent.parent
SOURCE, CONVERTED = DEMO / "checkpoints/internvl-tiny", DEMO / "checkpoints/internvl-tiny-paddle"
ASSETS = DEMO / "assets"


def media(files: list[str]) -> list[dict]:
    """What a message holds for pictures or a clip."""
    return [
        {"type": "video_url", "video_url": {"url": str(ASSETS / file), "num_segments": 4}}
        if file.endswith(".gif")
        else {"type": "image_url", "image_url": {"url": str(ASSETS / file)}}
        for file in files
    ]


def ask(model, stop: dict) -> bool:
    """One stop of the tour, which may have several questions about the same pictures; whether all went well."""
    content, messages, well = media(stop["pictures"]), [], True
    shown = ", ".join(f"demo/assets/{file}" for file in stop["pictures"]) or "no picture"
    for question, expected in stop["questions"]:
        messages.append({"role": "user", "content": [*content, {"type": "text", "text": question}]})
        if content or not messages[1:]:
            tiles = sum(picture.tiles for picture in model.count_tokens(messages).pictures)
            print(f"\n\033[2m{shown}" + (f" ({tiles} tiles)" if tiles else "") + "\033[0m")
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


def main() -> int:
    """Run the tour; returns the exit code."""
    from paddle_internvl import startup

    begun = time.monotonic()
    shutil.rmtree(CONVERTED, ignore_errors=True)
    print(f"$ python -m convert hf2pd --src {SOURCE} --dst {CONVERTED}", flush=True)
    if convert(["hf2pd", "--src", str(SOURCE), "--dst", str(CONVERTED)]):
        return 2
    startup.import_paddle()
    from paddlenlp.transformers import AutoModel

    model = AutoModel.from_pretrained(str(CONVERTED))
    stops = json.loads((ASSETS / "tour.json").read_text(encoding="utf-8"))
    well = [ask(model, stop) for stop in stops]
    print(f"\n{sum(well)} of {len(well)} stops as expected, {time.monotonic() - begun:.1f} s")
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
