"""Time to the first token of a conversation's second round, with and without the feature cache.

    python -m tests.benchmarks.second_round [CKPT] [--tiles 6]

The last line is JSON: seconds of the first round, and of the second with and without the feature cache, each the median
of several interleaved rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

from tests.random_checkpoints import ROOT

ROUNDS = 7


def main() -> None:
    from paddlenlp.transformers import AutoModel
    from PIL import Image

    from paddle_internvl.models.feature_cache import DEFAULT_BYTES, FeatureCache

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", default=str(ROOT / "demo/checkpoints/internvl-tiny"))
    parser.add_argument("--tiles", type=int, default=6, help="of the picture, without the thumbnail")
    arguments = parser.parse_args()
    model = AutoModel.from_pretrained(arguments.checkpoint)
    side = model.config.tile_side
    picture = Image.effect_noise((side * arguments.tiles, side), 80).convert("RGB")
    image = {"type": "image", "image": picture, "min_num": arguments.tiles, "max_num": arguments.tiles}
    first = [{"role": "user", "content": [image, {"type": "text", "text": "Describe the image."}]}]
    second = [*first, {"role": "assistant", "content": "A picture."}, {"role": "user", "content": "Read the text."}]

    def seconds(messages, max_bytes: int) -> float:
        model.feature_cache.max_bytes = max_bytes
        begun = time.perf_counter()
        stream = model.chat_stream(messages, {"max_new_tokens": 1})
        list(stream)
        return time.perf_counter() - begun

    times: dict[str, list[float]] = {"first": [], "second without": [], "second with": []}
    for _ in range(ROUNDS + 1):  # the first round of measurements warms up
        model.feature_cache = FeatureCache()
        times["second without"].append(seconds(second, 0))
        times["first"].append(seconds(first, DEFAULT_BYTES))
        times["second with"].append(seconds(second, DEFAULT_BYTES))
    result = {name: round(median(values[1:]), 4) for name, values in times.items()}
    print(json.dumps({**result, "with / without": round(result["second with"] / result["second without"], 3)}))


if __name__ == "__main__":
    main()
