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


def pixels_of(model, files: list[str]):
    """Tiles of all pictures (or of a clip's frames) and their counts; (None, None) without any."""
    import numpy as np
    import paddle

    from paddle_internvl import load_image, load_video

    if not files:
        return None, None
    if files[0].endswith(".gif"):
        return load_video(ASSETS / files[0], input_size=model.config.tile_side, num_segments=4)
    tiles = [load_image(ASSETS / file, model.config.tile_side, model.config.max_dynamic_patch) for file in files]
    return paddle.to_tensor(np.concatenate([t.numpy() for t in tiles])), [t.shape[0] for t in tiles]


def ask(model, tokenizer, stop: dict) -> bool:
    """One stop of the tour, which may have several questions about the same pictures; whether all went well."""
    pixels, counts = pixels_of(model, stop["pictures"])
    shown = ", ".join(f"demo/assets/{file}" for file in stop["pictures"]) or "no picture"
    print(f"\n\033[2m{shown}" + (f" ({sum(counts)} tiles)" if counts else "") + "\033[0m")
    history: list[tuple[str, str]] = []
    well = True
    for question, expected in stop["questions"]:
        print(f"  > {question.splitlines()[-1]}\n    ", end="")
        pieces = []
        for piece in model.chat_stream(tokenizer, pixels, question, {"max_new_tokens": 96}, history, counts):
            print(piece, end="", flush=True)
            pieces.append(piece)
        right = "".join(pieces) == expected
        print("" if right else f"   [expected: {expected}]")
        history.append((question, "".join(pieces)))
        well = well and right
    return well


def main() -> int:
    """Run the tour; returns the exit code."""
    from paddle_internvl import runtime

    begun = time.monotonic()
    shutil.rmtree(CONVERTED, ignore_errors=True)
    print(f"$ python -m convert hf2pd --src {SOURCE} --dst {CONVERTED}", flush=True)
    if convert(["hf2pd", "--src", str(SOURCE), "--dst", str(CONVERTED)]):
        return 2
    runtime.import_paddle_quietly()
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(str(CONVERTED))
    tokenizer = AutoTokenizer.from_pretrained(str(CONVERTED))
    stops = json.loads((ASSETS / "tour.json").read_text(encoding="utf-8"))
    well = [ask(model, tokenizer, stop) for stop in stops]
    print(f"\n{sum(well)} of {len(well)} stops as expected, {time.monotonic() - begun:.1f} s")
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
