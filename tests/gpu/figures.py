"""How far half precision is from float32, stage by stage, by the emulation of `rounding`.

`python -m tests.gpu.figures` writes tests/goldens/half_precision.json anew; `test_figures` holds the code to it.
A stage's error is the root mean square of the difference over that of the float32 stage.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import paddle  # noqa: E402

import paddle_internvl  # noqa: E402, F401
from paddle_internvl.modeling import InternVLChatModel  # noqa: E402
from paddle_internvl.ops import dispatch  # noqa: E402
from paddle_internvl.verification.capture import capture  # noqa: E402
from tests.families import GOLDEN  # noqa: E402
from tests.gpu.rounding import Seen, emulated  # noqa: E402
from tests.random_checkpoints import ROOT, TOKENIZER, random_checkpoint, random_pixels, tiny_config  # noqa: E402

RECORD = ROOT / "tests/goldens/half_precision.json"
HALVES = ("bfloat16", "float16")
SEEN = {"attention": "reference", "layers": "modules", "rope": "reference",
        "swiglu": "fused", "gelu": "reference", "linear": "reference"}  # fmt: skip
TILES, BEFORE, BEHIND = 2, 5, 11  # tiles, and tokens of text before and behind them


def run(model: InternVLChatModel, pixel_values: np.ndarray) -> dict[str, np.ndarray]:
    """Stages of a prompt with a picture, as float32. Attention in its plain form, which rounds most, and nothing by the
    library, whose roundings nobody sees."""
    text = np.random.default_rng(0).integers(8, 900, BEFORE + BEHIND)
    picture = np.full(len(pixel_values) * model.num_image_token, model.img_context_token_id)
    ids = np.concatenate([text[:BEFORE], picture, text[BEFORE:]])
    with paddle.no_grad(), dispatch.force(**SEEN), capture(model) as stages:
        model(paddle.to_tensor(pixel_values), paddle.to_tensor(ids[None]))
    return {name: stage.astype("float32").numpy() for name, stage in stages.items()}


def errors(model: InternVLChatModel, pixel_values: np.ndarray, dtype: str) -> tuple[dict[str, float], Seen]:
    """stage -> its error when the model runs in `dtype`, in which it is left; and what the run has met."""
    exact = run(model, pixel_values)
    model.to(dtype=dtype)
    with emulated() as seen:
        rounded = run(model, pixel_values)
    return {name: _relative(rounded[name], stage) for name, stage in exact.items()}, seen


def _relative(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(value - exact)) / np.mean(np.square(exact))))


def of_checkpoint(folder: Path, dtype: str) -> dict:
    """Errors, largest magnitude and count of overflows of a checkpoint on random pixels."""
    model = InternVLChatModel.from_pretrained(str(folder), trainable=True)
    found, seen = errors(model, random_pixels(TILES, model.config.force_image_size), dtype)
    return {"errors": found, "largest": seen.largest, "overflows": sum(seen.overflows.values())}


def record() -> dict:
    """case -> dtype -> figures; the bundled checkpoint is a case too."""
    figures = {}
    with tempfile.TemporaryDirectory() as place:
        folders = {case: random_checkpoint(Path(place) / case, tiny_config(case)) for case in GOLDEN}
        for case, folder in {**folders, "internvl-tiny": TOKENIZER}.items():
            figures[case] = {dtype: of_checkpoint(folder, dtype) for dtype in HALVES}
    return figures


def main() -> None:
    """Write the record."""
    rounded = json.loads(json.dumps(record()), parse_float=lambda text: float(f"{float(text):.3g}"))
    RECORD.write_text(json.dumps(rounded, indent=1) + "\n")
    for case, dtypes in rounded.items():
        for dtype, figures in dtypes.items():
            error, largest = figures["errors"]["logits"], figures["largest"]
            print(f"{case:14} {dtype:9} logits {error:.2e}  largest {largest:8.4g}  overflows {figures['overflows']}")


if __name__ == "__main__":
    sys.exit(main())
